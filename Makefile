# Every target first makes .venv from requirements-dev.txt if it is missing or older than that file.

PYTHON ?= python3
BIN := .venv/bin
INSTALL := python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test test-all test-interop test-installed lint docs format lock bench chaos peers plan plan-check clean

demo: .venv/pins           ## pre-train, fine-tune and evaluate on data that ships with the repository, and write a page about it
	GLIBC_TUNABLES=glibc.malloc.hugetlb=1 $(BIN)/python -m mixer_jax demo --workdir=runs/demo  # large pages: fewer page faults

test: lint                 ## every test, on the CPU, without network
	$(BIN)/python -m pytest --numprocesses=logical --maxprocesses=8 --dist=worksteal

test-all: .venv/pins        ## the slow tests that `make test` leaves out, and only those
	$(BIN)/python -m pytest --numprocesses=logical --maxprocesses=8 --dist=worksteal -m slow

test-interop: .venv-interop/pins  ## compare weights, converted both ways, with timm and transformers themselves
	.venv-interop/bin/python -m pytest tests/interop

test-installed: .venv/pins ## check that `pip install .` in an empty environment installs what a user needs, and that commands run in any folder
	tests/installed.sh $(PYTHON)

docs: .venv/pins           ## build the site, docs/_build/html/index.html; a broken link is an error
	$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet docs docs/_build/html

lint: .venv/pins
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/pins
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The versions in the lock files stay if pyproject.toml allows them. For newer ones: make lock UPGRADE=--upgrade
LOCK = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--custom-compile-command "make lock" $(UPGRADE)

lock: .venv/pins           ## write the exact versions of all packages, with hashes, from the ranges in pyproject.toml
	$(LOCK) pyproject.toml -o requirements.txt
	for extra in dev tpu gcs export; do \
		$(LOCK) pyproject.toml --extra $$extra -c requirements.txt -o requirements-$$extra.txt || exit; \
	done
	grep -o 'libtpu==[0-9.]*' pyproject.toml | $(LOCK) - -o requirements-plan.txt

bench: .venv/pins          ## measure the training step on this machine, beside the reference model
	$(BIN)/python -m mixer_jax bench step

chaos: .venv/pins          ## kill, stop, cut off and starve real runs, for more than an hour on two cores, and print what they survive
	$(BIN)/python -m benchmarks.chaos

peers: .venv-peers/pins    ## install a Python that runs big_vision's input pipeline, for `python -m benchmarks.beside_big_vision`

plan: .venv/pins .venv-plan/pins ## install the TPU compiler for `python -m mixer_jax plan`; no TPU is needed

plan-check: plan           ## check that the pre-training configs still compile and fit on their pods, and are no slower than recorded
	$(BIN)/python -m pytest tests/pods
	$(BIN)/python -m benchmarks.planning check

clean:
	rm -rf .venv .venv-interop .venv-peers .venv-plan runs

.venv/pins: requirements-dev.txt
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "Python 3.11 or newer is needed: make PYTHON=python3.12 ..."'
	$(PYTHON) -m venv --clear .venv
	.venv/bin/$(INSTALL) --require-hashes -r requirements-dev.txt
	touch $@

# torch is installed with the packages that it needs. The others are installed without, because requirements-interop.txt lists them.
.venv-interop/pins: requirements-dev.txt requirements-interop.txt
	$(PYTHON) -m venv --clear .venv-interop
	.venv-interop/bin/$(INSTALL) --require-hashes -r requirements-dev.txt
	.venv-interop/bin/$(INSTALL) $$(grep ^torch requirements-interop.txt)
	.venv-interop/bin/$(INSTALL) --no-deps -r requirements-interop.txt
	touch $@

# libtpu is installed into a folder of its own, because beside JAX it would make every run look for TPUs.
.venv-plan/pins: requirements-plan.txt .venv/pins
	rm -rf .venv-plan
	.venv/bin/$(INSTALL) --require-hashes --no-deps --target .venv-plan -r requirements-plan.txt
	touch $@

# big_vision's RandAugment calls TensorFlow Addons. Its last release needs TensorFlow 2.15, which has no build for a newer Python.
.venv-peers/pins: requirements-peers.txt
	$(PYTHON) -c 'import sys; assert sys.version_info[:2] == (3, 11), "This one needs Python 3.11: make peers PYTHON=python3.11"'
	$(PYTHON) -m venv --clear .venv-peers
	.venv-peers/bin/$(INSTALL) -r requirements-peers.txt
	touch $@
