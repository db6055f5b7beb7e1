"""Tests of the list of the four released Mixers, and of what verifying a file finds."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from checkpoints.file_server import FileServer, file_server
from checkpoints.models import SMALL, random_weights

from mixer_jax.checkpoints import released
from mixer_jax.checkpoints.files import write_arrays
from mixer_jax.checkpoints.released import RELEASED, Released, list_released
from mixer_jax.checkpoints.verification import verify
from mixer_jax.checkpoints.weights import expected_signatures, load_weights, save_weights
from mixer_jax.errors import EnvironmentFault, UserError
from mixer_jax.export.cli import default_file
from mixer_jax.models.identify import ModelSpec


def test_the_list_names_four_files_with_their_place_and_the_trap_in_other_names_for_them():
    said = list_released()
    for row in RELEASED:
        assert f"https://storage.googleapis.com/mixer_models/{row.name}.npz" in said and f"{row.mebibytes:.2f}" in said
    assert len(RELEASED) == 4 and "goog_in21k_ft_in1k" in said and "from scratch" in said


@pytest.mark.parametrize("row", RELEASED, ids=lambda row: row.name)
def test_the_size_of_each_file_is_that_of_its_model(row):
    """An .npz file stores 4 bytes per number, and about 300 bytes of names and headers per array."""
    signatures = expected_signatures(ModelSpec("mixer", {"variant": row.variant}, row.num_classes, 224))
    numbers = sum(4 * np.prod(shape, dtype=np.int64) for _, shape in signatures.values())
    assert 0 < row.mebibytes * 2**20 - numbers < 500 * len(signatures)


def test_a_sound_file_is_described_and_a_wrong_digest_refused(tmp_path: Path):
    file = tmp_path / "a.npz"
    save_weights(random_weights(SMALL["mixer"]), str(file))
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    said = verify(str(file), digest.upper())
    assert str(SMALL["mixer"]) in said and digest in said and "as its metadata says" in said
    assert '"channels": "RGB", "value_range": [-1, 1]' in said and "none of the four" in said
    with pytest.raises(UserError, match="has SHA-256"):
        verify(str(file), "0" * 64)


def test_a_file_of_a_released_model_is_named_with_its_trap(tmp_path: Path):
    model = ModelSpec("mixer", {"variant": "B/16"}, 1000, 224)
    write_arrays(
        str(tmp_path / "b.npz"), {n: np.zeros(shape, np.float32) for n, (_, shape) in expected_signatures(model).items()}, {}
    )
    said = verify(str(tmp_path / "b.npz"))
    assert "imagenet1k/Mixer-B_16, ImageNet-1k, from scratch: a file of 228.47 MiB; this one has 228.4" in said
    assert "goog_in21k_ft_in1k" in said


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_value_that_is_not_finite_is_found(tmp_path: Path, value):
    arrays = random_weights(SMALL["resnet"]).arrays
    arrays["block3/unit02/b/group_norm/gamma"][1] = value
    write_arrays(str(tmp_path / "a.safetensors"), {f"resnet/{name}": x for name, x in arrays.items()}, {})
    with pytest.raises(UserError, match=r"block3/unit02/b/group_norm/gamma holds 1 of 128 values that are not finite"):
        verify(str(tmp_path / "a.safetensors"))


NAME = "released:imagenet99k/Mixer-T_2"


@pytest.fixture
def server(monkeypatch, tmp_path: Path):
    """A server that has a small model under a name of the list, and an empty cache."""
    save_weights(random_weights(SMALL["mixer"]), str(tmp_path / "a.npz"))
    content = (tmp_path / "a.npz").read_bytes()
    row = Released(NAME.removeprefix("released:"), "T/2", 7, round(len(content) / 2**20, 2), "noise")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with file_server() as server:
        monkeypatch.setattr(released, "FOLDER_URL", server.url)
        monkeypatch.setattr(released, "RELEASED", (row,))
        server.put(f"/{row.name}.npz", content)
        yield server


def test_released_weights_are_downloaded_once_and_their_digest_is_printed(server: FileServer, tmp_path: Path, capsys):
    weights = load_weights(NAME)
    digest = hashlib.sha256((tmp_path / "a.npz").read_bytes()).hexdigest()
    assert weights.path == NAME and weights.model == SMALL["mixer"]
    assert digest in capsys.readouterr().err and len(server.asked) == 1
    assert str(SMALL["mixer"]) in verify(NAME, digest)
    assert len(server.asked) == 1 and capsys.readouterr() == ("", "")
    assert default_file(NAME, "onnx") == "Mixer-T_2.onnx"


def test_a_download_that_is_not_whole_is_never_kept(server: FileServer, tmp_path: Path):
    (path,), content = server.replies, (tmp_path / "a.npz").read_bytes()
    damaged = bytearray(content)
    damaged[len(content) // 2] ^= 1
    cases = {
        b"": "came with 0.0 MiB",
        content * 2: "came with",
        bytes(damaged): "came damaged",
    }
    for body, message in cases.items():
        server.put(path, body)
        with pytest.raises(EnvironmentFault, match=rf"^{NAME} {message}"):
            load_weights(NAME)
        assert not list((tmp_path / "cache/mixer_jax/released").iterdir())
    del server.replies[path]
    with pytest.raises(UserError, match="is no longer at"):
        load_weights(NAME)
    server.put(path, content)
    assert load_weights(NAME).class_names


def test_a_cached_file_of_another_size_is_downloaded_again(server: FileServer, tmp_path: Path):
    load_weights(NAME)
    (kept,) = (tmp_path / "cache/mixer_jax/released").iterdir()
    kept.write_bytes(b"cut short")
    assert load_weights(NAME).class_names and len(server.asked) == 2


def test_a_name_that_is_not_in_the_list_and_a_cache_of_others_are_refused(server: FileServer, tmp_path: Path):
    with pytest.raises(UserError, match=r"There are no released weights 'imagenet/B_16': there are imagenet99k/Mixer-T_2"):
        load_weights("released:imagenet/B_16")
    folder = tmp_path / "cache/mixer_jax/released"
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    with pytest.raises(UserError, match="Others may write in"):
        load_weights(NAME)
    assert not server.asked
