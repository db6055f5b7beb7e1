"""Compares big_vision's input pipeline with ours, on the same images in one run: `python -m benchmarks.beside_big_vision CLONE`.

big_vision runs in a process of another Python, which has TensorFlow (peers/big_vision.py). The options and figures are those of
`python -m mixer_jax bench input`.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ml_collections import ConfigDict

from benchmarks.peers.process import ROOT, start_peer
from mixer_jax import app
from mixer_jax.bench.cli import add_input_options
from mixer_jax.bench.input import benchmark_input, format_benchmark
from mixer_jax.bench.photographs import open_images
from mixer_jax.bench.pipelines import Measure
from mixer_jax.data.images.decode import JPEG
from mixer_jax.data.sources.source import Source
from mixer_jax.errors import UserError
from mixer_jax.text_table import print_figures

PYTHON = ROOT / ".venv-peers/bin/python"  # `make peers` installs it.
CLONE_IT = "git clone https://github.com/google-research/big_vision"


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.beside_big_vision", description=__doc__)
    parser.add_argument("clone", metavar="CLONE", type=Path, help="a clone of big_vision's repository")
    add_input_options(parser)
    parser.add_argument(
        "--python", default=str(PYTHON), metavar="FILE", help="Python that runs big_vision; `make peers` installs one"
    )
    parser.set_defaults(tool=compare)
    return parser


def compare(arguments: argparse.Namespace) -> None:
    """Print the figures of `python -m mixer_jax bench input`, with big_vision as one more pipeline."""
    config = app.read_config(arguments.config, arguments.overrides)
    with tempfile.TemporaryDirectory() as folder:
        source = open_images(config, arguments.source, arguments.images, Path(folder), repeated=True)
        with big_vision(arguments.clone, arguments.python, source, arguments.images, config.image_size) as measure:
            figures = benchmark_input(
                config, source, arguments.images, arguments.device, arguments.devices, {"big_vision": measure}
            )
    print_figures(figures, arguments.json, format_benchmark)


@contextmanager
def big_vision(clone: Path, python: str, source: Source, num_images: int, image_size: int) -> Iterator[Measure]:
    """Start big_vision's pipeline, and yield the function that measures it.

    Args:
        clone: A clone of big_vision's repository.
        python: The Python that runs it.
        source: The images. The pipeline reads the first `num_images` of them.
        num_images: How many images it reads.
        image_size: The side in pixels that it crops them to.

    Raises UserError if `clone` is no clone, `python` cannot run it, or an image is not a JPEG.
    """
    if not (clone / "big_vision/pp/builder.py").is_file():
        raise UserError(f"{clone} is no clone of big_vision. Make one with `{CLONE_IT}`, and give its folder.")
    with tempfile.TemporaryDirectory() as folder:
        write_images(source, num_images, Path(folder))
        hidden = {"CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3"}
        with start_peer(python, "big_vision", "peers", [folder], PYTHONPATH=str(clone.absolute()), **hidden) as peer:
            yield lambda augment, threads, seconds: peer.ask((preprocessing(augment, image_size), threads, seconds))


def preprocessing(augment: ConfigDict, image_size: int) -> str:
    """Return config.augment as a preprocessing string of big_vision. Raises UserError for any crop but "inception"."""
    if augment.crop != "inception":
        raise UserError(f"big_vision is compared on the inception crop, and config.augment.crop is {augment.crop}.")
    area, aspect = 100 * augment.crop_min_area, (augment.crop_min_aspect, augment.crop_max_aspect)
    steps = [f"decode_jpeg_and_inception_crop({image_size}, {area}, 100, {aspect[0]}, {aspect[1]})"]
    if augment.flip:
        steps.append("flip_lr")
    if augment.randaugment_layers:
        steps.append(f"randaug({augment.randaugment_layers}, {augment.randaugment_magnitude})")
    return "|".join(steps)


def write_images(source: Source, num_images: int, folder: Path) -> None:
    """Write the JPEGs of the first `num_images` records as files. Raises UserError for a record that is not a JPEG."""
    for index in range(min(num_images, len(source))):
        image = source[index].image
        if not isinstance(image, bytes) or not image.startswith(JPEG):
            raise UserError(f"big_vision is compared on JPEGs, and {source.locate(index)} is none. Try --source=photographs.")
        (folder / f"{index:06}.jpg").write_bytes(image)


if __name__ == "__main__":
    sys.exit(app.run_tool(make_parser()))
