"""`mixer_jax.load` gives for every kind of weights and of images the answers of the evaluators, or says in one line why not."""

import dataclasses
import io
import subprocess
import sys
from pathlib import Path

import cv2
import jax
import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

import mixer_jax
from mixer_jax.__main__ import make_parser
from mixer_jax.api import Model, Prediction, load
from mixer_jax.app import run_tool
from mixer_jax.checkpoints.weights import load_weights, save_weights, tree_of
from mixer_jax.config import default_config
from mixer_jax.data.images.augment import eval_transform
from mixer_jax.data.images.decode import decode
from mixer_jax.data.sources.unlabeled import UnlabeledFiles
from mixer_jax.data.stream.loader import eval_batches
from mixer_jax.endings import DONE
from mixer_jax.errors import UserError
from mixer_jax.evaluation import classifier
from mixer_jax.evaluation.classifier import load_classifier
from mixer_jax.models.registry import make_model

MAX_PIXELS = default_config().loader.max_pixels


@pytest.fixture(scope="module")
def model(tiny_run: Path) -> Model:
    return load(tiny_run)


@pytest.fixture(scope="module")
def exported(tiny_run: Path, tmp_path_factory) -> Path:
    """The run as a StableHLO file, with its classes named."""
    folder = tmp_path_factory.mktemp("exported")
    weights = dataclasses.replace(load_weights(str(tiny_run)), class_names=("n01440764", *"bcdefghij"))
    save_weights(weights, str(folder / "named.npz"))
    argv = ["export", str(folder / "named.npz"), "--format", "stablehlo"]
    assert run_tool(make_parser(argv), argv) == DONE
    return folder / "named.stablehlo"


@pytest.fixture(scope="module")
def plain_model(tiny_run: Path):
    """The run's model as a function from pixels in [-1, 1] to logits and features."""
    weights = load_weights(str(tiny_run))
    apply = jax.jit(make_model(weights.model.config(), 10).apply)
    return lambda images: apply({"params": tree_of(weights.arrays)}, images)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).integers(0, 256, shape, np.uint8)


def as_png(image: Image.Image, **options) -> bytes:
    image.save(file := io.BytesIO(), "PNG", **options)
    return file.getvalue()


def rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return as_png(Image.fromarray(noise(9, 30, 3)), exif=exif)


FILES = {  # PNG files: every form of pixels that PIL and our decoder must agree on
    "colors": as_png(Image.fromarray(noise(20, 31, 3))),
    "small": as_png(Image.fromarray(noise(3, 2, 3))),
    "gray": as_png(Image.fromarray(noise(20, 9))),
    "gray with opacity": as_png(Image.merge("LA", [Image.fromarray(noise(20, 9)), Image.fromarray(noise(9, 20).T.copy())])),
    "opacity": as_png(Image.fromarray(noise(9, 20, 4))),
    "palette": as_png(Image.fromarray(noise(16, 16, 3)).quantize(16)),
    "transparent palette": as_png(Image.fromarray(noise(16, 16, 3)).quantize(16), transparency=bytes(range(16))),
    "black and white": as_png(Image.fromarray(noise(16, 16)).convert("1")),
    "rotated by EXIF": rotated(),
}


@pytest.mark.parametrize("name", FILES)
def test_every_form_of_an_image_becomes_the_pixels_and_logits_of_the_evaluators(
    name: str, model: Model, plain_model, tmp_path: Path
):
    file = tmp_path / "image.png"
    file.write_bytes(FILES[name])
    pixels = decode(FILES[name], MAX_PIXELS)
    forms = [file, str(file), FILES[name], Image.open(file), Image.open(file).convert("RGBA"), pixels, jax.numpy.array(pixels)]
    if name.startswith(("gray", "black")):
        forms += [pixels[..., 0], pixels[..., :1]]
    seen = eval_transform("small", 8, 8)(pixels, np.random.default_rng(0))
    assert all(np.array_equal(model.preprocess(form), seen[None]) for form in forms)

    loader = default_config().loader
    loader.processes = False
    options = {"batch_size": 8, "batch_indices": np.arange(8)}
    (batch,) = eval_batches(UnlabeledFiles([str(file)]), load_classifier(model.path).network.transform, loader, **options)
    expected, features = plain_model(batch["image"] / np.float32(127.5) - 1)
    logits = model.logits(forms)
    assert np.array_equal(logits, np.tile(logits[:1], (len(forms), 1)))
    np.testing.assert_allclose(logits[0], expected[0], rtol=1e-5, atol=1e-6)
    found = model.features(file, ["stem", "pre_logits"])
    for feature, values in found.items():
        np.testing.assert_allclose(values, features[feature][:1], rtol=1e-5, atol=1e-6)


def test_predictions_are_those_of_the_command(tiny_run: Path, model: Model, tmp_path: Path):
    files = [str(tmp_path / f"{i}.png") for i in range(11)]
    for i, file in enumerate(files):
        cv2.imwrite(file, noise(8 + i, 9, 3))
    for ours, theirs in zip(model.predict(files, top=3), load_classifier(str(tiny_run)).predict_files(files, 3), strict=True):
        assert (ours.class_numbers, ours.probabilities) == (theirs.classes, theirs.probabilities)
        assert ours.class_names == tuple(model.class_names[number] for number in ours.class_numbers)


def test_one_image_has_one_prediction_and_several_have_a_list_of_any_length(model: Model, monkeypatch):
    monkeypatch.setattr(mixer_jax.api, "IMAGES_PER_DEVICE", 1)
    monkeypatch.setattr(classifier, "IMAGES_PER_DEVICE", 2)
    images = noise(37, 8, 8, 3)
    assert isinstance(model.predict(images[0]), Prediction)
    several, features = model.predict(images, top=2), model.features(images)["pre_logits"]
    assert len(several) == 37 and all(len(prediction.class_names) == 2 for prediction in several)
    for same in (lambda: list(images), lambda: (image for image in images)):
        for ours, theirs in zip(model.predict(same(), top=2), several, strict=True):
            assert ours.class_numbers == theirs.class_numbers and ours.probabilities == pytest.approx(theirs.probabilities)
        np.testing.assert_allclose(model.features(same())["pre_logits"], features, rtol=1e-4, atol=1e-5)
    assert len(model.predict(images[0], top=100).class_names) == 10
    assert model.predict([]) == [] and model.logits([]).shape == (0, 10) and model.preprocess([]).shape == (0, 8, 8, 3)
    assert {name: x.shape for name, x in model.features([], ["stem"]).items()} == {"stem": (0, 16, 16)}


def test_a_generator_is_read_batch_by_batch(model: Model, monkeypatch):
    monkeypatch.setattr(mixer_jax.api, "IMAGES_PER_DEVICE", 1)
    read = []

    def images():
        for i in range(30):
            read.append(i)
            yield noise(8, 8, 3) if i < 12 else b"no image"

    with pytest.raises(UserError, match=r"^Image 12 is none of JPEG, "):
        model.predict(images())
    assert len(read) == 16, "two batches for eight devices"


def test_calls_with_other_numbers_of_images_share_their_programs(model: Model):
    model.predict(noise(8, 8, 8, 3))
    compiled = model._network._predict._cache_size()
    for count in (1, 2, 5, 8):
        model.predict(noise(count, 8, 8, 3))
    assert model._network._predict._cache_size() == compiled


BAD = {
    "a file that is not there": (lambda folder: folder / "no.png", r"no\.png is not read \(No such file"),
    "a folder": (lambda folder: folder, r"is a folder; give a list of its files, such as sorted\("),
    "a truncated file": (lambda _: FILES["colors"][:200], "Image 1 is a damaged PNG"),
    "nothing": (lambda _: b"", "Image 1 is empty"),
    "a truncated PIL image": (lambda _: Image.open(io.BytesIO(FILES["colors"][:200])), "Image 1 is a PIL image that cannot be"),
    "a PIL image of floats": (lambda _: Image.fromarray(np.zeros((4, 4), np.float32)), "a PIL image of the mode F; convert it"),
    "floats": (lambda _: np.zeros((4, 4, 3)), r"Image 1 is an array of float64; .*np\.round\(255"),
    "integers": (lambda _: np.zeros((4, 4, 3), int), "Image 1 is an array of int64; pixels are uint8"),
    "channels first": (lambda _: noise(3, 8, 8), r"Image 1 is an array of the shape \[3, 8, 8\]"),
    "a batch in a list": (lambda _: noise(2, 8, 8, 3), r"Image 1 is an array of the shape \[2, 8, 8, 3\]"),
    "no pixels": (lambda _: noise(0, 8, 3), "Image 1 is too thin"),
    "a thin image": (lambda _: noise(1, 2000, 3), "Image 1 is too thin"),
    "a number": (lambda _: 3, "Image 1 is of the type int"),
}


@pytest.mark.parametrize("case", BAD)
def test_an_image_that_cannot_be_read_is_named(case: str, model: Model, tmp_path: Path):
    make, message = BAD[case]
    images = [noise(8, 8, 3), make(tmp_path), noise(8, 8, 3)]
    for call in (model.predict, model.logits, model.features, model.preprocess):
        with pytest.raises(UserError, match=message):
            call(images)


MISTAKES = {
    "no images": (lambda model: model.predict(None), "Images cannot be of the type NoneType"),
    "no classes": (lambda model: model.predict(noise(8, 8, 3), top=0), "a prediction has at least one class"),
    "features": (lambda model: model.features([], ["stem", "block"]), "no features 'block': there are stem, MixerBlock_0"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_named(case: str, model: Model):
    call, message = MISTAKES[case]
    with pytest.raises(UserError, match=message):
        call(model)


def test_a_run_its_steps_and_files_of_weights_are_loaded_alike(tiny_run: Path, model: Model, tmp_path: Path):
    save_weights(load_weights(str(tiny_run)), str(tmp_path / "w.safetensors"))
    image = noise(8, 8, 3)
    for path in (tiny_run / "checkpoints/4", tmp_path / "w.safetensors"):
        other = load(path)
        assert np.array_equal(other.logits(image), model.logits(image)) and other.class_names == model.class_names
        assert (other.config.model.variant, other.config.image_size, other.config.num_classes) == ("S/2", 8, 10)
    assert model.config.batch_size == 16 and "batch_size" not in other.config
    kernel = model.params["MixerBlock_0"]["token_mixing"]["Dense_0"]["kernel"]
    assert kernel.shape == (16, 8) and list(model.feature_shapes) == ["stem", "MixerBlock_0", "MixerBlock_1", "pre_logits"]
    assert {name: x.shape for name, x in model.features(image, "MixerBlock_1").items()} == {"MixerBlock_1": (1, 16, 16)}
    assert repr(model) == f"<{load_weights(str(tiny_run)).model}, from {tiny_run}; 1 in .notes>"
    assert "does not name its 10 classes" in model.notes[0]


def test_a_model_without_a_head_has_features_and_no_classes(tiny_run: Path, tmp_path: Path, model: Model):
    weights = load_weights(str(tiny_run))
    body = {name: x for name, x in weights.arrays.items() if not name.startswith("head/")}
    save_weights(dataclasses.replace(weights, arrays=body, class_names=()), str(tmp_path / "body.npz"))
    headless, image = load(tmp_path / "body.npz"), noise(8, 8, 3)
    assert np.array_equal(headless.features(image)["pre_logits"], model.features(image)["pre_logits"])
    assert headless.class_names == () and headless.config.num_classes is None and "no head" in repr(headless)
    for call in (headless.predict, headless.logits):
        with pytest.raises(UserError, match="has no head"):
            call(image)


def test_an_exported_file_predicts_as_its_model_and_has_nothing_but_predictions(exported: Path, model: Model):
    program, images = load(str(exported)), noise(5, 30, 20, 3)
    np.testing.assert_allclose(program.logits(images), model.logits(images), rtol=1e-4, atol=1e-5)
    for ours, theirs in zip(program.predict(images), model.predict(images), strict=True):
        assert ours.class_names == tuple(program.class_names[number] for number in theirs.class_numbers)
    assert program.class_names[0] == "n01440764" and "n01440764 tench" in repr(program.predict(images[0], top=10))
    assert program.preprocessing == model.preprocessing and program.notes == []
    assert np.array_equal(program.preprocess(images), model.preprocess(images))
    assert (program.config.model.variant, program.config.num_classes) == ("S/2", 10)
    for what in (lambda: program.params, lambda: program.feature_shapes, lambda: program.features(images)):
        with pytest.raises(UserError, match="is an exported program, which has no"):
            what()


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_a_damaged_exported_file_is_refused(exported: Path, tmp_path: Path, damage: str):
    content = bytearray(exported.read_bytes())
    content[200] ^= 1
    (tmp_path / "p").write_bytes(content if damage == "flipped" else content[:5000])
    with pytest.raises(UserError, match="cannot be loaded as an exported program"):
        load(tmp_path / "p")


def test_what_cannot_be_loaded_is_named(tmp_path: Path):
    (tmp_path / "a.npz").write_bytes(b"no weights")
    (tmp_path / "empty").mkdir()
    for path, message in {"a.npz": "neither an .npz nor", "nothing": "There is no", "empty": "neither a run's folder"}.items():
        with pytest.raises(UserError, match=message):
            load(tmp_path / path)
    with pytest.raises(UserError, match="There are no released weights"):
        load("released:mine")


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_a_program_that_is_named_as_weights_are_is_not_run(exported: Path, tmp_path: Path, monkeypatch, suffix: str):
    monkeypatch.setattr("mixer_jax.export.exported.load_stablehlo", None)  # it is not called
    file = tmp_path / f"weights{suffix}"
    file.write_bytes(exported.read_bytes())
    with pytest.raises(UserError, match=r"weights.* holds a program, and not weights\. If you trust"):
        load(file)


def test_nothing_of_a_library_appears_on_the_way(tiny_run: Path, exported: Path):
    program = f"""
import sys, mixer_jax
assert "jax" not in sys.modules and "load" in dir(mixer_jax)
import numpy
image = numpy.zeros((9, 9, 3), numpy.uint8)
model = mixer_jax.load({str(tiny_run)!r})
model.predict(image), model.features(image), model.params
mixer_jax.load({str(exported)!r}).predict(image)
"""
    command = [sys.executable, "-W", "error", "-c", program]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
