"""big_vision's input pipeline beside ours, on the same images in the same run: a process of its own (big_vision.py).

Not here: our pipeline and whose turn it is (pipelines.py).
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ml_collections import ConfigDict

from benchmarks.peers.process import ROOT, peer
from mixer_jax.bench.pipelines import Measure
from mixer_jax.data.images.decode import JPEG
from mixer_jax.data.sources.source import Source
from mixer_jax.errors import UserError

PYTHON = ROOT / ".venv-peers/bin/python"  # of `make peers`
CLONE_IT = "git clone https://github.com/google-research/big_vision"


@contextmanager
def big_vision(clone: Path, python: str, source: Source, num_images: int, image_size: int) -> Iterator[Measure]:
    """The pipeline of a clone over the first `num_images` of `source`, run by a Python that has TensorFlow.

    Raises UserError where there is no clone, or it does not run.
    """
    if not (clone / "big_vision/pp/builder.py").is_file():
        raise UserError(f"--beside={clone}: that is no clone of big_vision. Make one with `{CLONE_IT}`, and give its folder.")
    with tempfile.TemporaryDirectory() as folder:
        write_images(source, num_images, Path(folder))
        hidden = {"CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3"}
        with peer(python, "big_vision", "peers", [folder], PYTHONPATH=str(clone.absolute()), **hidden) as peer_process:

            def measure(augment: ConfigDict, threads: int, seconds: float) -> dict[str, float]:
                return peer_process.ask({"pipeline": preprocessing(augment, image_size), "threads": threads, "seconds": seconds})

            yield measure


def preprocessing(augment: ConfigDict, image_size: int) -> str:
    """What big_vision's configs call `config.augment`. Raises UserError for another crop than theirs."""
    if augment.crop != "inception":
        raise UserError(f"--beside compares the inception crop, and config.augment.crop is {augment.crop}.")
    area, aspect = 100 * augment.crop_min_area, (augment.crop_min_aspect, augment.crop_max_aspect)
    steps = [f"decode_jpeg_and_inception_crop({image_size}, {area}, 100, {aspect[0]}, {aspect[1]})"]
    if augment.flip:
        steps.append("flip_lr")
    if augment.randaugment_layers:
        steps.append(f"randaug({augment.randaugment_layers}, {augment.randaugment_magnitude})")
    return "|".join(steps)


def write_images(source: Source, num_images: int, folder: Path) -> None:
    """The JPEGs of the first records, as files. Raises UserError for a record that is none."""
    for index in range(min(num_images, len(source))):
        image = source[index].image
        if not isinstance(image, bytes) or not image.startswith(JPEG):
            raise UserError(f"--beside compares on JPEGs, and {source.locate(index)} is none. Try --source=photographs.")
        (folder / f"{index:06}.jpg").write_bytes(image)
