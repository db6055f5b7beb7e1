"""An exported file answers as the model does, for any batch size, and needs nothing of this package. Wrong files are not kept."""

import json
import sys
import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from mixer_jax.errors import UserError
from mixer_jax.evaluation.predict import make_predict
from mixer_jax.export import program
from mixer_jax.export.program import FORMATS, LOADERS, PLATFORMS, check_program, export_program
from mixer_jax.models import mixer, resnet, vit
from mixer_jax.models.registry import param_shapes

IMAGE_SIZE = 16
MODELS = {
    "mixer": mixer.Mixer(num_classes=5, patch_size=4, size=mixer.Size(2, 16, 32, 8), remat=True),
    "vit": vit.VisionTransformer(num_classes=5, patch_size=4, size=vit.Size(1, 16, 32, 2), dtype=jnp.bfloat16),
    "resnet": resnet.ResNet(num_classes=5, size=resnet.Size((1,), base_width=32)),
}
METADATA = {"model": "S/4", "source": "runs/a", "digest": "0123", "resize": "small, 18 pixels"}


@pytest.fixture(params=FORMATS)
def format(request) -> str:
    if request.param == "onnx":
        pytest.importorskip("onnxruntime", reason="requirements-export.txt is not installed")
    return request.param


def random_params(model: nn.Module) -> dict:
    """Return random parameters, also for the head, which normally starts at zero."""
    images = jax.ShapeDtypeStruct((1, IMAGE_SIZE, IMAGE_SIZE, 3), jnp.float32)
    shapes = param_shapes(model, images)
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: 0.2 * rng.standard_normal(x.shape, np.float32), shapes)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Return a function of (family, format) that returns (file, parameters, difference). Each file is written once."""
    done = {}

    def exported(family: str, format: str) -> tuple[str, dict, float]:
        if (family, format) not in done:
            out, params = str(tmp_path_factory.mktemp("exported") / "file"), random_params(MODELS[family])
            done[family, format] = out, params, export_program(MODELS[family], params, IMAGE_SIZE, out, format, METADATA)
        return done[family, format]

    return exported


@pytest.mark.parametrize("family", MODELS)
def test_every_family_can_be_exported_and_is_compared_as_its_users_will_load_it(family, format, exported):
    out, _, difference = exported(family, format)
    assert difference < 1e-5
    assert [file.name for file in Path(out).parent.iterdir()] == ["file"]


def test_an_exported_file_has_the_logits_of_the_model_for_any_batch(format, exported):
    out, params, _ = exported("mixer", format)
    images = np.random.default_rng(1).integers(0, 256, (3, IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
    expected, _ = jax.jit(make_predict(MODELS["mixer"]))(params, images)
    logits = check_program(out, format, images)  # It loads the file in another process, and asks for batches of 1 and 3.
    assert (logits.shape, logits.dtype) == ((3, 5), np.float32)
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("family", "dtype"), [("mixer", "float32"), ("vit", "bfloat16")])
def test_an_exported_file_says_what_it_is(family, dtype, format, exported):
    _, metadata = LOADERS[format](exported(family, format)[0])
    dtype = dtype if format == "stablehlo" else "float32"
    assert metadata.items() >= (METADATA | {"format": format, "image_size": "16", "dtype": dtype}).items()
    assert "[batch, 16, 16, 3]" in metadata["input"] and "[batch, 5]" in metadata["output"]
    assert f"jax {jax.__version__}" in metadata["versions"]


def test_a_stablehlo_file_is_a_zip_of_a_program_for_every_platform_its_metadata_and_the_arrays_by_path(exported):
    out, params, _ = exported("mixer", "stablehlo")
    with zipfile.ZipFile(out) as archive:
        program = jax.export.deserialize(bytearray(archive.read("program")))
        assert json.loads(archive.read("metadata.json"))["source"] == "runs/a"
        assert len(archive.namelist()) == 2 + len(jax.tree.leaves(params))
    assert program.platforms == PLATFORMS == ("cpu", "tpu", "cuda")
    with np.load(out) as archive:
        np.testing.assert_array_equal(archive["params/stem/kernel"], params["stem"]["kernel"])


def test_an_onnx_graph_passes_the_checker(exported):
    onnx = pytest.importorskip("onnx", reason="requirements-export.txt is not installed")
    onnx.checker.check_model(exported("mixer", "onnx")[0], full_check=True)


def load_with_our_code(path):
    import mixer_jax.config  # noqa: F401


def test_a_loader_that_needs_this_package_fails(monkeypatch):
    monkeypatch.setitem(LOADERS, "stablehlo", load_with_our_code)
    with pytest.raises(RuntimeError, match=r"ModuleNotFoundError: .*mixer_jax"):
        check_program("file", "stablehlo", np.zeros((1, 1, 1, 3), np.uint8))


def test_a_file_that_would_answer_wrongly_is_not_written(monkeypatch, tmp_path):
    def write_wrongly(model, params, *others):
        program.write_stablehlo(model, jax.tree.map(lambda x: 1.01 * x, params), *others)

    monkeypatch.setitem(FORMATS, "stablehlo", write_wrongly)
    model = MODELS["mixer"]
    with pytest.raises(UserError, match=r"Nothing was written: as stablehlo the model's logits.* off by"):
        export_program(model, random_params(model), IMAGE_SIZE, str(tmp_path / "file"), "stablehlo", METADATA)
    assert not list(tmp_path.iterdir())


def test_parameters_that_onnx_cannot_hold_are_refused_with_the_format_that_can(monkeypatch, tmp_path):
    monkeypatch.setattr(program, "ONNX_BYTES", 1000)
    model = MODELS["mixer"]
    with pytest.raises(UserError, match=r"holds 2 GiB.*use --format=stablehlo"):
        program.write_onnx(model, random_params(model), IMAGE_SIZE, tmp_path / "file", METADATA)


def refusal(out: Path, format: str) -> str:
    with pytest.raises(UserError) as error:
        export_program(MODELS["mixer"], {}, IMAGE_SIZE, str(out), format, METADATA)
    return str(error.value)


def test_an_existing_file_is_left_as_it_is(tmp_path):
    out = tmp_path / "file"
    out.write_text("mine")
    assert f"{out} exists: choose another name" in refusal(out, "stablehlo")
    assert out.read_text() == "mine"


def test_a_folder_that_is_not_there_is_named(tmp_path):
    assert f"no folder {tmp_path / 'none'}" in refusal(tmp_path / "none" / "file", "stablehlo")


def test_an_unknown_format_is_answered_with_the_known_ones(tmp_path):
    assert "no format 'tflite': it must be one of stablehlo, onnx" in refusal(tmp_path / "file", "tflite")


@pytest.mark.parametrize(("format", "package"), [("stablehlo", "flatbuffers"), ("onnx", "jax2onnx"), ("onnx", "onnxruntime")])
def test_a_missing_package_is_named_with_the_command_that_installs_it(format, package, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, package, None)
    message = refusal(tmp_path / "file", format)
    assert package in message and "pip install -r requirements-export.txt" in message
