"""The requests whose lists of steps are recorded, and what they are launched with."""

from mixer_jax.launch.bundle import Bundle
from mixer_jax.launch.commands import Moment
from mixer_jax.launch.request import Request

CONFIG = "--config=configs/pretrain_imagenet21k.py:L/16"
CLOUD = {"root": "gs://bucket/mixer", "zone": "europe-west4-a", "project": "p"}
BUNDLE = Bundle("0123456789abcdef0123456789abcdef01234567+", b"code")
MOMENT = Moment(1764589000, 48.0, "/home/me/.local/state/mixer_jax/launches/l16")
WORDS = (CONFIG, "--config.data.source=tfds:imagenet21k", "--config.data.data_dir=gs://bucket/a folder")

REQUESTS = {
    "v3-512": Request("tpu", "l16", max_hours=48, words=WORDS, type="v3-512", **CLOUD),
    "v4-64": Request("tpu", "l16", max_hours=48, words=WORDS, type="v4-64", capacity="spot", queued=True, **CLOUD),
    "v5litepod-256": Request(
        "tpu", "l16", max_hours=48, words=WORDS, type="v5litepod-256", capacity="reserved", queued=True,
        env={"LIBTPU_INIT_ARGS": "--xla_tpu_a=1 --xla_tpu_b=2"}, flags=("--network=mine",), **CLOUD,
    ),
    "v6e-64x2": Request("tpu", "l16", max_hours=48, words=WORDS, type="v6e-64", slices=2, queued=True, **CLOUD),
    "v5litepod-16-flex-start": Request(
        "tpu", "l16", max_hours=48, words=WORDS, type="v5litepod-16", capacity="flex-start", queued=True, **CLOUD,
    ),
    "gke": Request(
        "gke", "l16", "gs://bucket/mixer", 48, WORDS, slices=2, image="europe-docker.pkg.dev/p/images/l16:1",
        accelerator="tpu-v6e-slice", topology="8x8", env={"A": "1"},
    ),
    "slurm": Request(
        "slurm", "l16", "/shared/mixer", 48, WORDS, nodes=2, gpus=8, env={"A": "a b"}, python="/shared/venv/bin/python",
        flags=("--partition=gpu",),
    ),
    "slurm-array": Request(
        "slurm", "seeds", "/shared/mixer", 5, (CONFIG, "--config.seed=%a"), gpus=8, runs=5, python="/shared/venv/bin/python",
    ),
}  # fmt: skip
