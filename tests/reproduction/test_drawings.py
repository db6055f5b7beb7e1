"""Figures 5 to 7 from a file of weights: planted pairs, frequencies and colors are in the page, and other models are refused."""

import base64
import re
from collections.abc import Sequence
from pathlib import Path

import cv2
import jax
import numpy as np
import pytest
from flax import traverse_util

from mixer_jax.checkpoints.digest import params_sha256
from mixer_jax.checkpoints.files import read_arrays, write_arrays
from mixer_jax.config import default_config
from mixer_jax.endings import DONE, TO_MEND
from mixer_jax.models.registry import make_model, param_shapes
from mixer_jax.pages.parts import Pairs, Picture, Section, Text
from mixer_jax.reproduction.drawings import PAIRS_OF_FIGURE_5, drawing_sections

SIDE, UNITS = 4, 6  # patches along a side of the image, and hidden units


def wave(cycles: int) -> np.ndarray:
    return np.cos(2 * np.pi * cycles * np.arange(SIDE) / SIDE)[:, None] * np.ones(SIDE)


PLANTED = [wave(2), wave(1), -wave(2), -3 * wave(0), wave(0), -wave(1)]  # the units of block 1


def make_weights(file: Path, family: str, variant: str, **fields: int) -> str:
    """Write random weights of a small model for images of 8 pixels with 3 classes. A Mixer has the planted units in block 1."""
    model = default_config().model
    model.update({"family": family, "variant": variant} | fields)
    shapes = param_shapes(make_model(model, 3), jax.ShapeDtypeStruct((1, 8, 8, 3), np.float32))
    rng = np.random.default_rng(0)
    flat = traverse_util.flatten_dict(shapes, sep="/")
    arrays = {name: rng.normal(size=leaf.shape).astype(np.float32) for name, leaf in flat.items()}
    if family == "mixer":
        arrays["MixerBlock_1/token_mixing/Dense_0/kernel"] = np.stack(PLANTED).reshape(UNITS, -1).T.astype(np.float32)
        stem = np.zeros((2, 2, 3, 8), np.float32)
        stem[..., 5] = [[[1, 0, -1], [0.5, 0, 0]], [[0, 0, 0], [0, 0, -0.5]]]
        arrays["stem/kernel"] = stem
    write_arrays(str(file), arrays, {})
    return str(file)


@pytest.fixture(scope="module")
def mixer(tmp_path_factory) -> str:
    sizes = {"num_blocks": 3, "hidden_dim": 8, "tokens_mlp_dim": UNITS, "channels_mlp_dim": 8}
    return make_weights(tmp_path_factory.mktemp("mixer") / "mixer.npz", "mixer", "S/2", **sizes)


def pairs_of(section: Section) -> list[Sequence[Sequence[Picture]]]:
    return [part.groups for part in section.parts if isinstance(part, Pairs)]


def decoded(picture: Picture) -> np.ndarray:
    data = base64.b64decode(picture.uri.removeprefix("data:image/png;base64,"))
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)


def test_planted_pairs_stand_side_by_side_from_low_to_high_frequency(mixer):
    _, section = drawing_sections("figure6", [mixer], [1])
    (groups,) = pairs_of(section)
    numbers = [[int(re.match(r"unit (\d+),", picture.text)[1]) for picture in group] for group in groups]
    assert [set(pair) for pair in numbers] == [{3, 4}, {1, 5}, {0, 2}]
    said = [re.findall(r"([\d.]+) cycles per patch, cosine similarity (-?[\d.]+)", group[0].text)[0] for group in groups]
    assert said == [("0.00", "-1.00"), ("0.25", "-1.00"), ("0.50", "-1.00")]


def test_pictures_have_the_planted_signs_pixel_by_pixel(mixer):
    _, section = drawing_sections("figure6", [mixer], [1])
    for group in pairs_of(section)[0]:
        for picture in group:
            planted = PLANTED[int(re.match(r"unit (\d+),", picture.text)[1])]
            image = decoded(picture).astype(int)
            assert image.shape == (SIDE, SIDE, 3) and picture.is_sharp and picture.width == 32
            red_minus_blue = image[..., 0] - image[..., 2]
            np.testing.assert_array_equal(np.sign(red_minus_blue), np.sign(np.round(planted, 6)))
            assert len(np.unique(image[planted > 0.5].reshape(-1, 3), axis=0)) <= 1


def test_figure_5_shows_three_mlps_and_figure_6_two_and_both_name_the_model_and_its_digest(mixer):
    for figure, count in (("figure5", 3), ("figure6", 2)):
        _, section = drawing_sections(figure, [mixer])
        assert [len(groups) for groups in pairs_of(section)] == [3] * count
        texts = " ".join(part.text for part in section.parts if isinstance(part, Text))
        assert params_sha256(read_arrays(mixer)[0]) in texts and "6 of its 6 hidden units" in texts


def test_figure_5_has_the_most_opposite_pairs(tmp_path, monkeypatch, mixer):
    monkeypatch.setattr("mixer_jax.reproduction.drawings.PAIRS_OF_FIGURE_5", 1)
    arrays = read_arrays(mixer)[0]
    kernel = arrays["MixerBlock_1/token_mixing/Dense_0/kernel"]
    kernel[:, 3:] += np.linspace(0, 1, 16, dtype=np.float32)[:, None] * [1, 0, 1]  # Units 3 and 5 become less opposite.
    write_arrays(str(tmp_path / "other.npz"), arrays, {})
    _, section = drawing_sections("figure5", [str(tmp_path / "other.npz")], [1])
    ((group,),) = pairs_of(section)
    assert {picture.text.partition(",")[0] for picture in group} == {"unit 0", "unit 2"} and PAIRS_OF_FIGURE_5 == 32


def test_filters_of_the_stem_are_gray_at_zero_and_have_one_scale_for_all_colors(mixer):
    _, section = drawing_sections("figure7", [mixer])
    (groups,) = pairs_of(section)
    assert len(groups) == 8
    (planted,) = [group[0] for group in groups if group[0].text.startswith("filter 5,")]
    np.testing.assert_array_equal(decoded(planted), [[[255, 128, 0], [191, 128, 128]], [[128, 128, 128], [128, 128, 64]]])
    assert groups[-1][0] is planted, "the others are zeros, whose frequency is 0"


def test_several_weights_have_a_section_each(mixer):
    assert [section.title for section in drawing_sections("figure6", [mixer, mixer], [0])[1:]] == [mixer, mixer]


def test_the_command_writes_a_page_and_prints_its_path(call, mixer, tmp_path):
    out = tmp_path / "units.html"
    code, printed, err = call("figure5", f"--weights={mixer}", "--layers=0,1", f"--out={out}")
    assert (code, printed, err) == (DONE, f"{out}\n", "")
    page = out.read_text()
    assert page.count("<img") == 2 * UNITS and "first token-mixing MLP" in page and "Token-mixing MLP 1" in page
    code, _, err = call("figure5", f"--weights={mixer}", f"--out={mixer}")
    assert code == TO_MEND and "exists" in err


def test_a_model_without_token_mixing_is_refused(call, tmp_path):
    vit = make_weights(tmp_path / "vit.npz", "vit", "B/4", num_blocks=1, hidden_dim=8, num_heads=2, channels_mlp_dim=8)
    for figure in ("figure5", "figure6", "figure7"):
        code, out, err = call(figure, f"--weights={vit}", f"--out={tmp_path / 'page.html'}")
        assert (code, out) == (TO_MEND, "") and "no token-mixing MLP" in err and vit in err
    assert not (tmp_path / "page.html").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["figure6", "--layers=0,3"], "3 token-mixing MLPs, 0 to 2, and none with the number 3"),
        (["figure7", "--layers=0"], "leave --layers out"),
        (["supplement"], "supplement is not drawn from weights: --weights is for figure5, figure6, figure7."),
        (["figure5", "--json"], "--json and --commands write no page"),
    ],
)
def test_what_cannot_be_drawn_is_refused_with_the_reason(call, mixer, tmp_path, monkeypatch, arguments, said):
    code, out, err = call(*arguments, f"--weights={mixer}", *([] if "--json" in arguments else [f"--out={tmp_path / 'a.html'}"]))
    assert (code, out) == (TO_MEND, "") and said in err and err.count("\n") == 1


def test_layers_without_weights_and_layers_that_are_no_numbers_are_refused(call):
    code, _, err = call("figure5", "--layers=0")
    assert code == TO_MEND and "name them with --weights" in err
    with pytest.raises(SystemExit) as end:
        call("figure5", "--weights=a", "--layers=first")
    assert end.value.code == TO_MEND


def test_the_cells_say_how_to_draw_them(call):
    _, out, _ = call("figure6")
    assert "reproduce figure6 --weights=released:imagenet1k/Mixer-B_16" in out
    assert "reproduce figure6 --weights=runs/paper/jft300m-B16/pretraining" in out and "not built" not in out
    _, out, _ = call("figure7", "--workdir=tests")
    assert "reproduce figure7 --weights=tests/jft300m-B32/pretraining" in out
