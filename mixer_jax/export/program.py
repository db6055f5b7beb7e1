"""Exports a trained model as one file that runs without this package: `python -m mixer_jax export`.

A file holds the parameters and a function from uint8 images [batch, image_size, image_size, 3] to float32 logits [batch, K], for
any batch size. The function normalizes the pixels itself. Before the file gets its name, it is checked: a fresh process, in which
this package cannot be imported, loads it as users do (`load_stablehlo`, which docs/weights.md shows, or `load_onnx`), and must
answer as the model does here.

    stablehlo   a zip, which numpy reads: `program` (jax.export, for CPU, TPU and CUDA), `metadata.json`, `params/PATH.npy`
    onnx        an ONNX graph in float32, made by jax2onnx (requirements-export.txt); its metadata_props hold the metadata

A StableHLO program takes its parameters as arguments. When they were constants in the program, exporting H/14 (1.7 GB) on two
cores took 26 s and 10.5 GB of memory instead of 5 s and 1.9 GB, and its first answer took 45 s and 8.6 GB instead of 3 s and
2.7 GB. Above 2 GB, jax.export fails with constants.

Files of weights without a program are written by checkpoints/weights.py.
"""

import contextlib
import importlib.metadata
import importlib.util
import inspect
import io
import json
import logging
import os
import subprocess
import sys
import tempfile
import warnings
import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from mixer_jax.errors import UserError
from mixer_jax.evaluation.predict import make_predict
from mixer_jax.models.kernels import for_platform
from mixer_jax.parallel import path_name
from mixer_jax.storage import write_whole

PLATFORMS = ("cpu", "tpu", "cuda")
NEEDS = {"stablehlo": ("flatbuffers",), "onnx": ("jax2onnx", "onnxruntime")}  # Packages that write and load.
TOLERANCE = 1e-3  # Relative to the largest logit. float32 rounding causes 1e-6, and a layer that jax2onnx misread has caused 1.
ONNX_BYTES = 2**31 - 2**24  # The limit for parameters: protobuf's 2 GiB, less room for the graph.


def export_program(model: nn.Module, params: dict, image_size: int, out: str, format: str, metadata: dict[str, str]) -> float:
    """Write the file `out`, check it, and return the largest difference between its logits and the model's, on the CPU.

    Args:
        model: The model.
        params: Its parameters.
        image_size: The side of the images in pixels.
        out: The file to write. It must not exist, and its folder must.
        format: "stablehlo" or "onnx".
        metadata: Text by name (model, source, digest, resize, ...), which is stored beside what this function adds.

    Raises UserError for an unknown format, a missing package, an impossible `out`, parameters that the format cannot hold, and
    a file that would answer wrongly.
    """
    _check_request(out, format)
    params = jax.device_get(params)
    if format == "onnx":
        model = model.clone(dtype=jnp.float32)  # ONNX Runtime lacks bfloat16 convolution and einsum on CPUs.
    with write_whole(Path(out)) as temporary:
        FORMATS[format](model, params, image_size, temporary, metadata | _program_metadata(model, params, image_size, format))
        return _difference(model, params, image_size, temporary, format)


def check_program(out: str, format: str, images: np.ndarray) -> np.ndarray:
    """Return the logits [batch, K] that the file `out` computes for uint8 images, in a fresh process without this package.

    The process computes on the CPU, because a TPU belongs to one process, which may be this one. It uses two batch sizes: the
    first image's logits come from a batch of that image alone, the others' from the batch of all images.

    Raises RuntimeError if the file cannot be loaded.
    """
    load = LOADERS[format]
    code = f"""import sys
sys.modules.update(mixer_jax=None, flax=None)  # From here on, importing them is an error.
{inspect.getsource(load)}
import numpy
predict, metadata = {load.__name__}(sys.argv[1])
images = numpy.load("images.npy")
numpy.save("logits.npy", numpy.concatenate([predict(images[:1]), predict(images)[1:]]))
"""
    command = [sys.executable, "-P", "-c", code, os.path.abspath(out)]
    with tempfile.TemporaryDirectory() as folder:
        np.save(f"{folder}/images.npy", images)
        run = subprocess.run(command, cwd=folder, env=os.environ | {"JAX_PLATFORMS": "cpu"}, capture_output=True, text=True)
        if run.returncode:
            raise RuntimeError(f"{out} cannot be loaded:\n{run.stderr}")
        return np.load(f"{folder}/logits.npy")


def load_stablehlo(path):
    """Return (predict, metadata) of an exported file. Needs jax and flatbuffers."""
    import json

    import jax
    import numpy as np

    with np.load(path) as file:
        metadata = json.loads(file["metadata.json"])
        params = jax.device_put({name: file[name] for name in file.files if name.startswith("params/")})
        program = jax.jit(jax.export.deserialize(bytearray(file["program"])).call)
    return lambda images: program(params, images), metadata


def load_onnx(path):
    """Return (predict, metadata) of an exported file. Needs onnxruntime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map
    return lambda images: session.run(["logits"], {"images": images})[0], metadata


def write_stablehlo(model: nn.Module, params: dict, image_size: int, file: Path, metadata: dict[str, str]) -> None:
    """Write a zip of the program, its metadata and its parameters. The arguments are those of export_program."""
    leaves, tree = jax.tree_util.tree_flatten_with_path(params)
    arrays = {f"params/{path_name(path)}": leaf for path, leaf in leaves}

    def program(named: dict[str, jax.Array], images: jax.Array) -> jax.Array:
        return make_predict(model)(tree.unflatten([named[name] for name in arrays]), images)[0]

    shapes = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in arrays.items()}
    exported = jax.export.export(jax.jit(program), platforms=PLATFORMS)(shapes, _any_images(image_size))
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("program", exported.serialize())
        archive.writestr("metadata.json", json.dumps(metadata, indent=1))
        for name, x in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, x, allow_pickle=False)


def write_onnx(model: nn.Module, params: dict, image_size: int, file: Path, metadata: dict[str, str]) -> None:
    """Write an ONNX graph with its parameters and metadata. The arguments are those of export_program.

    Raises UserError if the parameters exceed ONNX_BYTES.
    """
    size = sum(x.nbytes for x in jax.tree.leaves(params))
    if size > ONNX_BYTES:
        raise UserError(f"An ONNX file holds 2 GiB, the parameters are {size / 2**30:.1f} GiB: use --format=stablehlo.")
    predict, arrays = make_predict(model), jax.tree.map(jnp.asarray, params)
    with _quiet(), jax.numpy_rank_promotion("allow"), for_platform("portable"):  # ONNX has no platforms.
        import jax2onnx

        graph = jax2onnx.to_onnx(
            lambda x: predict(arrays, x)[0], [_any_images(image_size)], input_names=["images"], output_names=["logits"]
        )
    for key, value in metadata.items():
        graph.metadata_props.add(key=key, value=value)
    file.write_bytes(graph.SerializeToString())


FORMATS = {"stablehlo": write_stablehlo, "onnx": write_onnx}
LOADERS = {"stablehlo": load_stablehlo, "onnx": load_onnx}


def _check_request(out: str, format: str) -> None:
    """Raise UserError if `out` cannot be written in this format."""
    if format not in FORMATS:
        raise UserError(f"There is no format {format!r}: it must be one of {', '.join(FORMATS)}.")
    missing = [name for name in NEEDS[format] if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"--format={format} needs {', '.join(missing)}: python -m pip install -r requirements-export.txt")
    if os.path.lexists(out):
        raise UserError(f"{out} exists: choose another name, or remove it.")
    if not Path(out).parent.is_dir():
        raise UserError(f"There is no folder {Path(out).parent} for {Path(out).name}: make it, or choose another.")


def _program_metadata(model: nn.Module, params: dict, image_size: int, format: str) -> dict[str, str]:
    """Return what the file says about its input, output, dtype and the versions that made it."""
    logits, _ = jax.eval_shape(make_predict(model), params, _any_images(image_size))
    return {
        "format": format,
        "image_size": str(image_size),
        "input": f"uint8 [batch, {image_size}, {image_size}, 3], RGB, 0 to 255; scaled to [-1, 1] inside",
        "output": f"float32 [batch, {logits.shape[1]}]",
        "dtype": jnp.dtype(model.dtype).name,
        "versions": ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("jax", "flax", *NEEDS[format])),
    }


def _difference(model: nn.Module, params: dict, image_size: int, file: Path, format: str) -> float:
    """Return the largest difference between the file's logits and the model's. Raises UserError if it exceeds TOLERANCE."""
    images = np.random.default_rng(0).integers(0, 256, (3, image_size, image_size, 3), np.uint8)
    predict = jax.jit(make_predict(model))
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        expected = np.concatenate([predict(params, images[:1])[0], predict(params, images)[0][1:]])
    difference = float(np.abs(check_program(str(file), format, images) - expected).max())
    if not difference <= TOLERANCE * np.abs(expected).max():
        raise UserError(
            f"Nothing was written: as {format} the model's logits, of up to {np.abs(expected).max():.3g}, would be off by "
            f"{difference:.3g}. This is a fault of the conversion; please report it, with the model's config."
        )
    return difference


def _any_images(image_size: int) -> jax.ShapeDtypeStruct:
    """Return the shape and dtype of uint8 images in a batch of any size."""
    return jax.ShapeDtypeStruct((*jax.export.symbolic_shape("batch"), image_size, image_size, 3), jnp.uint8)


@contextlib.contextmanager
def _quiet():
    """Silence jax2onnx: it prints what it tries, and logs a traceback for each of its handlers that this jax is too new for."""
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore"), contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(logging.NOTSET)
