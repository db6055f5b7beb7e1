"""The code of a launch: the exact state of the repository as one tar file, which is named after its SHA-256.

The state is that of all tracked files as they are on disk, whether committed or not. The same state gives the same bytes on every
machine and at any time.
"""

import hashlib
import io
import os
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import NamedTuple

from mixer_jax.errors import UserError

MAX_NAMED = 10  # Untracked files in a message.


class Bundle(NamedTuple):
    """The code of a launch.

    Attributes:
      commit: the commit that is checked out, followed by + if tracked files have changed since.
      content: the tar file.
    """

    commit: str
    content: bytes

    @property
    def digest(self) -> str:
        """The SHA-256 of the tar file."""
        return hashlib.sha256(self.content).hexdigest()

    @property
    def file_name(self) -> str:
        """The name of the tar file."""
        return f"{self.digest}.tar"


def make_bundle(repository: Path, with_untracked: bool = False) -> Bundle:
    """Return the state of a repository.

    Raises UserError outside a Git repository, and if there are untracked files that Git does not ignore, unless `with_untracked`.
    The bundle then has them too.
    """
    untracked = _git(repository, "ls-files", "--others", "--exclude-standard").splitlines()
    if untracked and not with_untracked:
        more = f" and {len(untracked) - MAX_NAMED} more" if len(untracked) > MAX_NAMED else ""
        raise UserError(
            f"Git does not track {', '.join(untracked[:MAX_NAMED])}{more}, so the hosts would not have them. Add them to Git, "
            "ignore them (.gitignore), or send them with --untracked."
        )
    tree = _write_tree(repository, "--all" if with_untracked else "--update")
    changed = tree != _git(repository, "rev-parse", "HEAD^{tree}")
    return Bundle(_git(repository, "rev-parse", "HEAD") + "+" * changed, _archive(repository, tree))


def _write_tree(repository: Path, what: str) -> str:
    """Return the Git tree of the files on disk, made with a copy of the index, so that nothing that is staged changes."""
    index = repository / _git(repository, "rev-parse", "--git-path", "index")
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "index"
        copy.write_bytes(index.read_bytes())
        _git(repository, "add", what, index=copy)
        return _git(repository, "write-tree", index=copy)


def _archive(repository: Path, tree: str) -> bytes:
    """Return a tar file of a Git tree, without times, owners and the commit, all of which Git would write."""
    archive, result = io.BytesIO(_run(repository, ["archive", "--format=tar", tree])), io.BytesIO()
    with tarfile.open(fileobj=archive) as source, tarfile.open(fileobj=result, mode="w", format=tarfile.PAX_FORMAT) as target:
        for member in source:
            plain = tarfile.TarInfo(member.name)
            plain.type, plain.size, plain.linkname = member.type, member.size, member.linkname
            plain.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            target.addfile(plain, source.extractfile(member) if member.isfile() else None)
    return result.getvalue()


def _git(repository: Path, *arguments: str, index: Path | None = None) -> str:
    """Return the output of a Git command. Raises UserError if it fails."""
    return _run(repository, list(arguments), index).decode().strip()


def _run(repository: Path, arguments: list[str], index: Path | None = None) -> bytes:
    environment = os.environ | ({"GIT_INDEX_FILE": str(index)} if index else {})
    try:
        command = ["git", "-C", str(repository), "-c", "core.quotePath=false", *arguments]
        return subprocess.run(command, capture_output=True, check=True, env=environment).stdout
    except FileNotFoundError:
        raise UserError("A launch sends the code that Git tracks, and there is no program git.") from None
    except subprocess.CalledProcessError as error:
        reason = error.stderr.decode(errors="replace").strip()
        raise UserError(
            f"A launch sends the code that Git tracks, and git {arguments[0]} failed in {repository}: {reason}"
        ) from None
