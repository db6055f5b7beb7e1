"""A file on a server is read as any other, and what does not come whole is refused or may be tried again."""

from pathlib import Path

import pytest
from checkpoints.file_server import FileServer, file_server

from mixer_jax.checkpoints import web
from mixer_jax.checkpoints.files import local_copy
from mixer_jax.errors import EnvironmentFault, UserError


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with file_server() as server:
        yield server


def test_a_file_on_a_server_is_there_while_it_is_needed(server: FileServer, capfd):
    content = bytes(range(256)) * 10_000
    server.put("/a/w.npz", content)
    server.put("/moved.npz", b"", 302, Location="/a/w.npz")
    for path in ("/a/w.npz", "/moved.npz"):
        with local_copy(server.url + path) as local:
            assert Path(local).read_bytes() == content and Path(local).name == path.rpartition("/")[2]
        assert not Path(local).exists()
    assert capfd.readouterr() == ("", "")


REPLIES = {
    "nothing": (404, {}, UserError, "does not exist"),
    "gone": (410, {}, UserError, "does not exist"),
    "forbidden": (403, {}, UserError, "cannot be downloaded .*403"),
    "busy": (503, {}, EnvironmentFault, "cannot be downloaded .*503"),
    "cut short": (200, {"Content-Length": "9"}, EnvironmentFault, ".*the connection ended after 4 of 9 bytes"),
}


@pytest.mark.parametrize("case", REPLIES)
def test_what_does_not_come_whole_is_refused_or_may_be_tried_again(server: FileServer, case):
    status, headers, kind, message = REPLIES[case]
    server.put("/w.npz", b"some", status, **headers)
    with pytest.raises(kind, match=rf"^{server.url}/w\.npz {message}"), local_copy(f"{server.url}/w.npz"):
        pass


def test_no_server_may_be_tried_again(server: FileServer):
    closed = server.url.rpartition(":")[0] + ":9"
    with pytest.raises(EnvironmentFault, match=r"w\.npz cannot be downloaded"), local_copy(f"{closed}/w.npz"):
        pass


def test_https_must_not_end_in_a_connection_that_anybody_could_change(server: FileServer, monkeypatch, tmp_path):
    server.put("/w.npz", b"some")
    open_url = web.urllib.request.urlopen
    monkeypatch.setattr(web.urllib.request, "urlopen", lambda *_, **__: open_url(f"{server.url}/w.npz"))  # as if redirected
    with pytest.raises(UserError, match=r"leads to http://127.*which is not HTTPS"), local_copy("https://host/w.npz"):
        pass
