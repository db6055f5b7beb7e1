"""Weights in repositories of the Hugging Face Hub, with a server on this machine in the place of the Hub."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checkpoints.hub_endpoint import FIRST, SECOND, Hub, serving
from checkpoints.models import SMALL, random_weights
from checkpoints.test_sharded import INDEX, make_sharded
from huggingface_hub import constants

from mixer_jax.checkpoints.transfer import init_from
from mixer_jax.checkpoints.weights import load_weights, save_weights, tree_of
from mixer_jax.errors import EnvironmentFault, UserError

REPOSITORY = "someone/mixer"
URL = f"hf://{REPOSITORY}"
PICKLE = {"pytorch_model.bin": b"\x80\x02", "config.json": b"{}"}
EXPECTED = random_weights(SMALL["mixer"]).arrays


@pytest.fixture(scope="module")
def server() -> Iterator[Hub]:
    with serving() as hub:
        yield hub


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, bytes]:
    """The same small Mixer as a .npz, a .safetensors, and several files with an index."""
    folder = tmp_path_factory.mktemp("files")
    for name in ("model.npz", "model.safetensors"):
        save_weights(random_weights(SMALL["mixer"]), str(folder / name))
    make_sharded(folder)
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.fixture
def hub(server: Hub, files: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """The server with one repository, which has a single file of weights. The Hub's cache on this machine is empty."""
    # The library reads the variables HF_ENDPOINT, HF_HUB_CACHE and HF_HUB_OFFLINE when it is imported.
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "a-token")
    server.repositories = {REPOSITORY: {FIRST: {"model.safetensors": files["model.safetensors"]} | PICKLE}}
    server.branches, server.faults = {"main": FIRST}, {}
    server.requests.clear()
    return server


def has_expected(path: str) -> bool:
    arrays = load_weights(path).arrays
    return arrays.keys() == EXPECTED.keys() and all(np.array_equal(arrays[name], EXPECTED[name]) for name in arrays)


SETS = {  # the files beside each other: the one that is read
    "the usual name": (["model.safetensors", "model.npz"], "model.safetensors"),
    "the only file": (["model.npz"], "model.npz"),
    "several files": ([INDEX, *(f"model-{number:05d}-of-00003.safetensors" for number in (1, 2, 3))], INDEX),
}


@pytest.mark.parametrize("where", ["", "b16/"])
@pytest.mark.parametrize("case", SETS)
def test_a_repository_or_its_folder_stands_for_its_weights_and_what_was_read_is_said(hub, files, capsys, case, where):
    names, chosen = SETS[case]
    hub.repositories[REPOSITORY][FIRST] = {f"{where}{name}": files[name] for name in names} | PICKLE
    path = f"{URL}/{where}".rstrip("/")
    located = f"{URL}@{FIRST}/{where}{chosen}"
    assert has_expected(path)
    said = capsys.readouterr().err.splitlines()
    assert said[0] == f"{path} is {located}."
    assert said[1:] == ([f"{located}: read {len(EXPECTED)} arrays from 3 files."] if chosen == INDEX else [])
    assert load_weights(path).path == located and load_weights(located).path == located
    assert not any("pytorch_model.bin" in request for request in hub.requests)


def test_a_second_start_downloads_nothing_and_needs_no_network(hub, capfd, monkeypatch):
    assert has_expected(URL)
    assert [request for request in hub.requests if request.startswith("GET someone")] == [
        f"GET {REPOSITORY}/resolve/{FIRST}/model.safetensors"
    ]
    hub.requests.clear()
    assert has_expected(URL)
    assert hub.requests == [f"GET api/models/{REPOSITORY}"]  # which commit `main` is
    hub.requests.clear()
    assert has_expected(f"{URL}@{FIRST}/model.safetensors")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    capfd.readouterr()
    assert has_expected(URL)
    assert not hub.requests
    assert capfd.readouterr().err == f"{URL} is {URL}@{FIRST}/model.safetensors.\n"


def test_where_the_hub_cannot_be_reached_what_it_gave_before_is_read_and_that_is_said(hub, capfd, monkeypatch):
    assert has_expected(URL)
    capfd.readouterr()
    hub.faults = {"": (503, "")}
    assert has_expected(URL)
    reason, located = capfd.readouterr().err.splitlines()
    assert reason.startswith("Could not reach the Hub (") and located == f"{URL} is {URL}@{FIRST}/model.safetensors."


def test_a_revision_is_read_as_it_was_and_recorded(hub, files):
    hub.repositories[REPOSITORY][SECOND] = {"model.npz": files["model.npz"]}
    hub.branches |= {"main": SECOND, "v1": FIRST}
    params = jax.tree.map(jnp.asarray, tree_of(EXPECTED))
    for revision, commit in {"": SECOND, "@v1": FIRST, f"@{FIRST}": FIRST}.items():
        _, _, origin = init_from(f"{URL}{revision}", params, "restore")
        assert origin["path"].startswith(f"{URL}@{commit}/model.")
    hub.branches["main"] = FIRST
    assert load_weights(URL).path == f"{URL}@{FIRST}/model.safetensors"


def test_a_set_of_weights_is_chosen_in_a_file_on_the_hub(hub):
    with pytest.raises(UserError, match=rf"{URL}@{FIRST}/model.safetensors#ema: It holds no parameters under 'ema'"):
        load_weights(f"{URL}#ema")


@pytest.mark.parametrize("name", [
    "b16_224.goog_in21k_ft_in1k", "l16_224.goog_in21k_ft_in1k", "b16_224.goog_in21k", "b16_224.miil_in21k_ft_in1k",
])  # fmt: skip
def test_mixers_that_timm_names_after_data_that_they_never_saw_are_announced(hub, capsys, name):
    hub.repositories[f"timm/mixer_{name}"] = hub.repositories[REPOSITORY]
    load_weights(f"hf://timm/mixer_{name}")
    expected = f"hf://timm/mixer_{name}: despite its name, it was trained on ImageNet-1k alone and never saw ImageNet-21k.\n"
    assert (expected in capsys.readouterr().err) == name.endswith("goog_in21k_ft_in1k")


CONTENTS = {  # the files of a repository, what is asked for, and the answer
    "a pickle": ([], "", r"in pytorch_model.bin alone, which is a PyTorch pickle.*Convert it to safetensors"),
    "two sets": (["a.npz", "b.safetensors"], "", r"holds several sets of weights: a.npz, b.safetensors. Name one of them"),
    "an index and one file": ([INDEX, "model.safetensors"], "", rf"several sets of weights: model.safetensors, {INDEX}. Name"),
    "many": ([f"{i}.npz" for i in range(9)], "", r"0.npz, 1.npz, 2.npz, 3.npz, 4.npz and more. Name one"),
    "another file": (["b.npz"], "/a.npz", r"/a.npz names no weights. The repository has b.npz"),
    "another file of two": (
        ["b.npz", "c.npz"],
        "/a.npz",
        r"names no weights. The repository holds several .*b.npz, c.npz",
    ),
}


@pytest.mark.parametrize("case", CONTENTS)
def test_what_cannot_be_chosen_is_said_in_one_line_and_nothing_is_downloaded(hub, case):
    names, path, message = CONTENTS[case]
    hub.repositories[REPOSITORY][FIRST] = dict.fromkeys(names, b"") | PICKLE
    with pytest.raises(UserError, match=f"^{URL}.*{message}") as refusal:
        load_weights(f"{URL}{path}")
    assert "\n" not in str(refusal.value) and not any("resolve" in request for request in hub.requests)


def test_a_repository_without_weights_says_so(hub):
    hub.repositories[REPOSITORY][FIRST] = {"README.md": b""}
    with pytest.raises(UserError, match=rf"^{URL} has no .safetensors and no .npz file\.$"):
        load_weights(URL)


LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"
FAULTS = {  # what is asked for, the faults, the kind of error, and its text
    "no such repository": ("hf://someone/private", {}, UserError, f"is not there, or is private. Check the name, or {LOG_IN}"),
    "no such revision": (f"{URL}@v9", {}, UserError, "is not there: the repository has no such revision"),
    "gated": (URL, {"GET api/models/.*": (403, "GatedRepo")}, UserError, f"is gated: ask for access on its page, then {LOG_IN}"),
    "gated files": (URL, {"resolve": (403, "GatedRepo")}, UserError, f"is gated: ask for access on its page, then {LOG_IN}"),
    "a bad token": (URL, {"GET api/models/": (401, "")}, UserError, f"cannot be read with this token: {LOG_IN}"),
    "forbidden": (URL, {"GET api/models/": (403, "")}, UserError, "cannot be downloaded (HfHubHTTPError"),
    "overloaded": (URL, {"tree": (429, "")}, EnvironmentFault, "cannot be downloaded ("),
    "down": (URL, {"GET api/models/": (503, "")}, EnvironmentFault, "cannot be downloaded ("),
    "a cut download": (URL, {"GET .*resolve": "cut"}, EnvironmentFault, "cannot be downloaded ("),
    "no owner": ("hf://mixer", {}, UserError, "is no path on the Hub ("),
    "a bad name": ("hf://some one/mixer", {}, UserError, "is no path on the Hub ("),
    "a data set": ("hf://datasets/someone/mixer", {}, UserError, "is a dataset: weights are read from repositories of models"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_each_fault_is_told_in_one_line_and_is_a_users_or_one_that_may_pass(hub, case, monkeypatch):
    url, hub.faults, kind, message = FAULTS[case]
    monkeypatch.setattr("time.sleep", lambda _: None)  # between the library's attempts
    with pytest.raises(kind, match=f"^{re.escape(url)}[^ ]* {re.escape(message)}") as error:
        load_weights(url)
    assert "\n" not in str(error.value)


def test_a_cut_download_leaves_nothing_that_is_taken_for_the_file(hub, monkeypatch):
    hub.faults = {"GET .*resolve": "cut"}
    monkeypatch.setattr("time.sleep", lambda _: None)
    with pytest.raises(EnvironmentFault):
        load_weights(URL)
    hub.faults = {}
    assert has_expected(URL)


def test_without_a_network_what_was_never_downloaded_is_refused_and_says_why(hub, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _: None)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=rf"^{URL} is not in the Hub's cache, and HF_HUB_OFFLINE is set. Unset it, or download"):
        load_weights(URL)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # Nobody listens there.
    with pytest.raises(EnvironmentFault, match=rf"^{URL} cannot be downloaded \(Re"):
        load_weights(URL)


def test_without_the_library_its_installation_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=rf"^{URL} needs a library that is not installed: `pip install 'mixer_jax\[hub\]'`\.$"):
        load_weights(URL)


def test_a_damaged_file_of_the_hub_is_named_with_its_commit(hub):
    hub.repositories[REPOSITORY][FIRST] = {"model.npz": b"<html>"}
    with pytest.raises(UserError, match=r"is an HTML or XML page"):
        load_weights(URL)
