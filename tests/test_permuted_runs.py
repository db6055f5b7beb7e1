"""A run on permuted images (config.model.permutation): its weights are never used without their permutation."""

import argparse
import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checkpoints.models import SMALL
from tiny_config import get_config, loader_config

import evaluate
import train
from mixer_jax.api import Model, load
from mixer_jax.checkpoints.permuted import with_permutation
from mixer_jax.checkpoints.transfer import init_from
from mixer_jax.checkpoints.weights import convert, load_weights, tree_of
from mixer_jax.config import dataset, default_config
from mixer_jax.data.images.augment import eval_transform, train_transform
from mixer_jax.data.sources.registry import open_source
from mixer_jax.data.stream.loader import train_batches
from mixer_jax.data.stream.unreadable import UnreadableImages
from mixer_jax.endings import DONE
from mixer_jax.errors import UserError
from mixer_jax.evaluation.evaluators import open_examples
from mixer_jax.evaluation.fewshot import choose_shots, ridge_predict
from mixer_jax.export.cli import export
from mixer_jax.export.program import LOADERS
from mixer_jax.models.layers import patchify
from mixer_jax.models.permutation import permute
from mixer_jax.models.registry import host_transform, make_model
from mixer_jax.options import PERMUTATIONS
from mixer_jax.pages.parts import Text
from mixer_jax.pages.pictures import image_uri
from mixer_jax.parallel import make_mesh, to_host
from mixer_jax.report.runs import read_run
from mixer_jax.report.samples import training_images
from mixer_jax.report.sections import units_section
from mixer_jax.reproduction.drawings import drawing_sections
from mixer_jax.validation import validate

PERMUTATION = "all_pixels"


def permuted_config(permutation: str = PERMUTATION):
    config = get_config()
    config.total.steps = 4
    config.model.permutation = permutation
    config.evals.fewshot.resize = "small"  # As for the other evaluator, whose preprocessing is that of the loaded run.
    return config


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """Return the folder of a finished run. No test may change it."""
    workdir = tmp_path_factory.mktemp("permuted")
    assert train.train(permuted_config(), str(workdir)) == DONE
    return workdir


@pytest.fixture(scope="module")
def model(run: Path) -> Model:
    return load(run)


def digits(split: str) -> tuple[list[np.ndarray], np.ndarray]:
    source = open_source(dataset("digits", split))
    return [source[i].image for i in range(len(source))], np.array([source.labels(i)[0] for i in range(len(source))])


def evals(workdir: Path) -> dict:
    return json.loads((workdir / "results.json").read_text())["evals"]


@pytest.mark.parametrize("permutation", PERMUTATIONS)
def test_training_and_every_evaluator_get_the_pixels_in_the_same_order(permutation):
    config, ours = permuted_config(permutation), host_transform(permuted_config(permutation).model)
    train_images, test_images = digits("train")[0][:16], digits("test")[0][:16]

    def in_order(image: np.ndarray) -> np.ndarray:
        return patchify(permute(image, permutation, 2), 2)

    augmented = [train_transform(config.augment, 8, host)(train_images[0], np.random.default_rng(3)) for host in (ours, in_order)]
    np.testing.assert_array_equal(*augmented)
    resized = eval_transform("small", 8, 8)
    for name, part in open_examples(config, tuple("0123456789"), "the model", ours).items():
        for field, examples in part.items():
            batch = to_host(next(examples.batches(make_mesh(1)))["image"])
            images = train_images if field == "train" else test_images
            expected = np.stack([in_order(resized(image, np.random.default_rng(0))) for image in images])
            np.testing.assert_array_equal(batch, expected, err_msg=f"{name}.{field}")


def test_the_loaded_run_has_the_figures_of_training_and_evaluating_it_again_gives_them_too(run, model, tmp_path):
    images, labels = digits("test")
    answers = np.array([prediction.class_numbers[0] for prediction in model.predict(images, top=1)])
    assert np.mean(answers == labels) == pytest.approx(evals(run)["test"]["top1"], abs=1e-6)
    assert model.config.model.permutation == PERMUTATION and f"permutation={PERMUTATION}" in repr(model)

    (train_images, train_labels), options = digits("train"), permuted_config().evals.fewshot
    features = {name: model.features(x)["pre_logits"] for name, x in (("train", train_images), ("test", images))}
    for number, seed in enumerate(options.seeds):
        rows = choose_shots(train_labels, 5, seed)
        predicted = ridge_predict(features["train"][rows], train_labels[rows], features["test"], options.l2)
        assert evals(run)["fewshot"]["top1_5shot_seeds"][number] == pytest.approx(
            np.mean(predicted == labels), abs=2 / len(labels)
        )

    assert evaluate.evaluate(permuted_config(), str(run), str(tmp_path)) == DONE
    assert evals(tmp_path) == evals(run)


def test_the_run_sees_its_permutation_and_images_in_another_order_get_other_answers(run, model):
    images = np.stack([model.preprocess(image)[0] for image in digits("test")[0][:8]])
    weights = load_weights(str(run))
    answers = jax.jit(make_model(get_config().model, 10).apply)
    pixels = permute(images, PERMUTATION, 2) / np.float32(127.5) - 1
    expected = np.asarray(answers({"params": tree_of(weights.arrays)}, pixels)[0])
    np.testing.assert_allclose(model.logits(list(images)), expected, rtol=1e-5, atol=1e-5)
    unpermuted = answers({"params": tree_of(weights.arrays)}, images / np.float32(127.5) - 1)[0]
    assert np.abs(expected - unpermuted).max() > 1e-3


def test_a_copy_in_another_folder_is_permuted_too_and_no_file_of_weights_is_written(run, model, tmp_path):
    images = digits("test")[0][:8]
    convert(str(run), str(tmp_path / "copy"))
    convert(str(tmp_path / "copy"), str(tmp_path / "second"))
    for copy in ("copy", "second"):
        np.testing.assert_array_equal(load(tmp_path / copy).logits(images), model.logits(images))
        assert load(tmp_path / copy).config.model.permutation == PERMUTATION
    for name, format in (("w.npz", None), ("w.safetensors", None), ("w.npz", "internal"), ("w.safetensors", "released")):
        with pytest.raises(UserError, match=rf"{name} was not written.*permutation={PERMUTATION}.*--format=stablehlo"):
            convert(str(tmp_path / "copy"), str(tmp_path / name), format)
        assert not (tmp_path / name).exists()


def test_the_checkpoint_alone_says_how_its_images_are_permuted(run, tmp_path):
    shutil.copytree(run / "checkpoints", tmp_path / "alone/checkpoints")
    assert load(tmp_path / "alone").config.model.permutation == PERMUTATION


@pytest.mark.parametrize("format", ["stablehlo", "onnx"])
def test_an_exported_program_permutes_its_images_itself(run, model, tmp_path, format):
    if format == "onnx":
        pytest.importorskip("onnxruntime", reason="requirements-export.txt is not installed")
    file = tmp_path / f"program.{format}"
    export(argparse.Namespace(weights=str(run), format=format, out=str(file)))
    images = np.stack([model.preprocess(image)[0] for image in digits("test")[0][:8]])
    predict, metadata = LOADERS[format](str(file))
    np.testing.assert_allclose(predict(images), model.logits(list(images)), rtol=1e-4, atol=1e-5)
    assert json.loads(metadata["config"])["model.permutation"] == PERMUTATION


def test_pictures_show_the_permuted_images_and_say_that_units_are_of_them(run):
    report = read_run(run)
    pictures = training_images(report, 3)
    plain = train_transform(report.config.augment, 8)
    unreadable = UnreadableImages()
    (batch,) = train_batches(
        open_source(report.config.data), plain, loader_config(), seed=0, batch_size=16, batch_indices=np.arange(3),
        steps=range(1), unreadable=unreadable,
    )  # fmt: skip
    assert [picture.uri for picture in pictures] == [image_uri(permute(image, PERMUTATION, 2)) for image in batch["image"]]
    for section in (units_section(report), drawing_sections("figure7", [str(run)])[1]):
        texts = [part.text for part in section.parts if isinstance(part, Text)]
        assert any(f"sees permuted images ({PERMUTATION}): places are those after" in text for text in texts)


def test_another_permutation_than_that_of_the_weights_is_refused(run, tmp_path):
    with pytest.raises(UserError, match=r"'none', and .* was trained with 'all_pixels'.*--config.model.permutation=all_pixels"):
        evaluate.evaluate(get_config(), str(run), str(tmp_path / "out"))
    params = jax.tree.map(jnp.asarray, tree_of(load_weights(str(run)).arrays))
    for permutation in ("none", "patches_and_pixels"):
        with pytest.raises(UserError, match=f"config.model.permutation is '{permutation}', and .* was trained with 'all_pixels'"):
            init_from(str(run), params, "new", permutation=permutation, image_size=8)
    merged, *_ = init_from(str(run), params, "new", permutation=PERMUTATION, image_size=8)
    np.testing.assert_array_equal(merged["stem"]["kernel"], params["stem"]["kernel"])
    with pytest.raises(UserError, match=r"trained on permuted images of 8 px: another size has another.*--config.image_size=8"):
        init_from(str(run), params, "new", permutation=PERMUTATION, image_size=16)


def test_a_permuted_run_cannot_start_from_weights_of_images_that_are_not_permuted(tiny_run, tmp_path):
    config = permuted_config()
    config.init_from = str(tiny_run)
    with pytest.raises(UserError, match=r"config.model.permutation is 'all_pixels', and .* was trained with 'none'"):
        train.train(config, str(tmp_path / "run"))


def test_a_run_goes_on_with_its_permutation_only(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    with pytest.raises(UserError, match=r"model\.permutation"):
        train.train(permuted_config("patches_and_pixels"), str(tmp_path / "run"))


def test_weights_of_a_permuted_resnet_are_for_images_of_one_size():
    model = with_permutation(SMALL["resnet"], {"permutation": "patches_and_pixels", "image_size": "32"}, "w")
    assert (model.image_size, model.takes_any_size, SMALL["resnet"].takes_any_size) == (32, False, True)
    assert str(model).endswith("for 32 px") and str(SMALL["resnet"]).endswith("for any image size")
    assert make_model(model.config(), 7).permutation == "patches_and_pixels"


@pytest.mark.parametrize(
    "stated", [{"permutation": "all"}, {"permutation": "all_pixels"}, {"permutation": "all_pixels", "image_size": "16"}]
)
def test_weights_that_state_an_impossible_permutation_are_refused(stated):
    with pytest.raises(UserError, match="it is damaged, or of a new version"):
        with_permutation(SMALL["mixer"], stated, "w")


def test_a_resnets_images_must_be_of_whole_patches(tiny_config):
    tiny_config.model = default_config().model
    tiny_config.model.update(family="resnet", variant="R50x1", permutation="patches_and_pixels")
    with pytest.raises(UserError, match=r"config.image_size is 8: it must be a multiple of 16 with model.family=resnet"):
        validate(tiny_config)
    tiny_config.model.permutation = "all_pixels"
    validate(tiny_config)
