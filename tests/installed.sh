#!/usr/bin/env bash
# `pip install .` in an empty environment: it brings what a user needs and no more, and the commands run from any folder.
# `make test-installed` calls this. The first argument is the Python to make the environment with.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export JAX_PLATFORMS=cpu
mkdir "$work/source" "$work/empty"

fail() {
    echo "FAILED: $*" >&2
    exit 1
}

# What a user has before: a run, and photographs in folders by class.
.venv/bin/python train.py --config=tests/tiny_config.py --workdir="$work/run" --config.total.steps=4 --config.schedule.warmup.steps=1
.venv/bin/python -c "
import pathlib, sys
from mixer_jax.bench.photographs import write_photographs
write_photographs(pathlib.Path(sys.argv[1]), 8)" "$work/photographs"

# The installation, from a copy without what lies in this folder and is ignored, in the versions of the lock.
git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents -t "$work/source"
sed -n 's/^\([A-Za-z0-9._-]*==[^ ]*\).*/\1/p' requirements.txt > "$work/versions.txt"
"${1:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check -c "$work/versions.txt" "$work/source"
for package in pytest ruff mypy uv beartype; do
    "$work/venv/bin/python" -m pip show --quiet "$package" 2> /dev/null && fail "the installation brought $package"
done

cd "$work/empty"
mixer_jax() {
    echo "$ python -m mixer_jax $*" >&2
    "$work/venv/bin/python" -m mixer_jax "$@"
}
[[ $("$work/venv/bin/python" -c "import mixer_jax; print(mixer_jax.__file__)") == "$work/venv/"* ]] || fail "the clone was imported"

digest=$(mixer_jax digest "$work/run")
grep -q "$digest" "$work/run/results.json" || fail "digest says $digest, results.json another"
mixer_jax convert --from="$work/run" --to=weights.npz
mixer_jax convert --from=weights.npz --to=weights.safetensors --format=timm
[[ $(mixer_jax digest weights.safetensors) == "$digest" ]] || fail "weights.safetensors has another digest"
mixer_jax weights verify weights.npz
mixer_jax export weights.npz --format=stablehlo --out=program
"$work/venv/bin/python" -c "
import sys, mixer_jax
for path in ('weights.npz', 'program'):
    print(mixer_jax.load(path).predict(sys.argv[1:])[0])
" "$work"/photographs/*/*.jpg
mixer_jax prepare --from="folder:$work/photographs" --to=shards --records-per-shard=4
mixer_jax prepare --verify=shards
code=0
said=$("$work/venv/bin/python" -m mixer_jax report "$work/run" --out=page.html 2>&1) || code=$?
[[ $code == 2 && $said == "error: "*"pip install 'mixer_jax[report]'" && $(wc -l <<< "$said") == 1 ]] || fail "report ended with $code: $said"
sed -n 's/^\([A-Za-z0-9._-]*==[^ ]*\).*/\1/p' "$work/source/requirements-dev.txt" > "$work/versions.txt"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check -c "$work/versions.txt" "$work/source[report]"
mixer_jax report "$work/run" --out=page.html
head -c 15 page.html | grep -qi "<!doctype html>" || fail "page.html is no page"
for command in demo "plan --search" "bench step"; do
    code=0
    said=$("$work/venv/bin/python" -m mixer_jax $command 2>&1) || code=$?
    [[ $code == 2 && $said == "error: "*"needs a clone"* && $(wc -l <<< "$said") == 1 ]] || fail "$command ended with $code: $said"
    echo "$said"
done
echo "The installation is whole."
