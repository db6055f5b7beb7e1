"""The bundle is the exact state of the repository, and its bytes say nothing else."""

import io
import os
import subprocess
import tarfile
import time
from pathlib import Path

import pytest

from mixer_jax.errors import UserError
from mixer_jax.launch.bundle import make_bundle


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    (folder / "sub").mkdir(parents=True)
    (folder / "train.py").write_text("print(1)\n")
    (folder / "sub/run.sh").write_text("#!/bin/sh\n")
    (folder / "sub/run.sh").chmod(0o755)
    (folder / "link").symlink_to("train.py")
    (folder / "\u00fc.bin").write_bytes(bytes(range(256)))
    (folder / ".gitignore").write_text("ignored\n")
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "first")
    return folder


def files_of(content: bytes) -> dict[str, bytes | str]:
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        return {m.name: tar.extractfile(m).read() if m.isfile() else m.linkname for m in tar if not m.isdir()}


def test_a_bundle_has_the_tracked_files_as_they_are_on_disk_with_modes_and_links(repository: Path):
    (repository / "train.py").write_text("print(2)\n")
    (repository / "ignored").write_text("x")
    (repository / "staged.py").write_text("x = 1\n")
    git(repository, "add", "staged.py")
    (repository / "staged.py").write_text("x = 2\n")
    status = git(repository, "status", "--porcelain")
    bundle = make_bundle(repository)
    assert git(repository, "status", "--porcelain") == status
    assert files_of(bundle.content) == {
        ".gitignore": b"ignored\n", "train.py": b"print(2)\n", "sub/run.sh": b"#!/bin/sh\n", "link": "train.py",
        "\u00fc.bin": bytes(range(256)), "staged.py": b"x = 2\n",
    }  # fmt: skip
    with tarfile.open(fileobj=io.BytesIO(bundle.content)) as tar:
        assert (tar.getmember("sub/run.sh").mode, tar.getmember("train.py").mode) == (0o755, 0o644)
    assert bundle.commit == git(repository, "rev-parse", "HEAD") + "+"


def test_a_file_that_was_deleted_is_not_sent(repository: Path):
    (repository / "train.py").unlink()
    assert "train.py" not in files_of(make_bundle(repository).content)


def test_the_same_state_has_the_same_bytes_whenever_and_wherever_and_another_state_has_others(repository: Path, tmp_path: Path):
    first = make_bundle(repository)
    os.utime(repository / "train.py", (0, time.time() - 1e6))
    git(repository, "commit", "-q", "--amend", "--allow-empty", "-m", "another time", "--date=2001-01-01T00:00:00")
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", str(repository), str(clone))
    assert make_bundle(repository).content == make_bundle(clone).content == first.content
    assert not first.commit.endswith("+") and len(first.digest) == 64
    (clone / "train.py").write_text("print(3)\n")
    assert make_bundle(clone).digest != first.digest


def test_an_untracked_file_is_named_and_refused_unless_it_is_to_be_sent(repository: Path):
    (repository / "new.py").write_text("x = 1\n")
    with pytest.raises(UserError, match=r"does not track new\.py.*--untracked"):
        make_bundle(repository)
    assert files_of(make_bundle(repository, with_untracked=True).content)["new.py"] == b"x = 1\n"


def test_a_folder_without_git_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match="Git tracks"):
        make_bundle(tmp_path)
