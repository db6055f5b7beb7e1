"""Read weights from repositories of the Hugging Face Hub: hf://OWNER/NAME[@REVISION][/FILE].

The files are downloaded into the Hub's own cache (HF_HOME, HF_HUB_CACHE), so that a second start downloads nothing and needs no
network. The Hub's file system for fsspec is not used, because it has no such cache. The library huggingface_hub reads the server
and the token from the environment (HF_ENDPOINT, HF_TOKEN) and from the user's login.

A branch or a tag may move. So `locate` replaces it by its commit before anything is read: all files of a set are of one commit,
and a run records which one.
"""

import glob
import logging
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from mixer_jax.checkpoints.folder import choose_file
from mixer_jax.checkpoints.refusal import PYTORCH, Refused, Unavailable
from mixer_jax.errors import as_message, is_mistake

SCHEME = "hf://"
LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
TRY_LATER = (408, 425, 429)  # These answers of a server, and those from 500 on, may be others at the next attempt.
# timm's names of the Mixers that the authors trained on ImageNet-1k from scratch (docs/weights.md).
MISNAMED = re.compile(r"timm/mixer_\w+\.goog_in21k_ft_in1k")


def locate(url: str) -> str:
    """Return the URL of the file of weights that `url` stands for, with the commit instead of a branch or a tag.

    For a repository, or a folder in it, `choose_file` chooses the file. What the URL stands for is printed. Raises Refused for
    what is not there or may not be read, and Unavailable if the Hub cannot be reached.
    """
    with _explaining():
        import huggingface_hub as hf
        from huggingface_hub.errors import CachedRepoTreeNotFoundError

        uri = _parse(url)
        is_offline = hf.constants.is_offline_mode()
        commit = hf.HfApi().resolve_revision(uri.id, revision=uri.revision, local_files_only=is_offline).resolved
        try:
            names = [file.path for file in hf.get_cached_repo_tree(uri.id, revision=commit)]
        except CachedRepoTreeNotFoundError:
            names = hf.HfApi().list_repo_files(uri.id, revision=commit)
    located = f"{SCHEME}{uri.id}@{commit}/{_choose(uri.path_in_repo, names)}"
    if located != url:
        print(as_message(f"{url} is {located}."), file=sys.stderr)
    if MISNAMED.fullmatch(uri.id):
        print(f"{url}: despite its name, it was trained on ImageNet-1k alone and never saw ImageNet-21k.", file=sys.stderr)
    return located


def download(url: str) -> str:
    """Return the path, in the Hub's cache, of the file at a URL that `locate` returned. Raises the errors of `locate`."""
    with _explaining():
        import huggingface_hub as hf
        from huggingface_hub.utils import disable_progress_bars

        uri = _parse(url)
        with nullcontext() if sys.stderr.isatty() else disable_progress_bars():
            # Unlike hf_hub_download, this also stores the list of the repository's files, which `locate` needs without a network.
            folder = hf.snapshot_download(uri.id, revision=uri.revision, allow_patterns=glob.escape(uri.path_in_repo))
    file = os.path.join(folder, uri.path_in_repo)
    if not os.path.isfile(file):
        raise Refused("is not in that repository")
    return file


def _parse(url: str) -> Any:
    """Return the HfUri of a URL. Raises Refused if it names no repository of a model."""
    from huggingface_hub.errors import HfUriError
    from huggingface_hub.utils import parse_hf_uri

    try:
        uri = parse_hf_uri(url.rstrip("/"))
    except HfUriError as error:
        raise Refused(f"is no path on the Hub ({error.msg}) Write hf://OWNER/NAME[@REVISION][/FILE]") from error
    if uri.type != "model":
        raise Refused(f"is a {uri.type}: weights are read from repositories of models")
    return uri


def _choose(path: str, names: list[str]) -> str:
    """Return the file that a path in a repository names, or the file of weights in the folder that it names."""
    if path in names:
        return path
    inside = [name for name in names if name.rpartition("/")[0] == path]
    if chosen := choose_file(inside):
        return chosen
    if pickles := [name for name in inside if name.endswith(PICKLES)]:
        raise Refused(f"has its weights in {pickles[0]} alone, which {PYTORCH}")
    try:
        chosen = choose_file(names)
    except Refused as error:
        raise Refused(f"names no weights. The repository {error}") from error
    raise Refused(f"names no weights. The repository has {chosen}" if chosen else "has no .safetensors and no .npz file")


class _OneLine(logging.Handler):
    """Prints the first line of each message on standard error, except advice of servers, such as to get a token."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a message."""
        if record.name != "huggingface_hub.utils._http":
            print(as_message(record.getMessage().partition("\n")[0]), file=sys.stderr)


@contextmanager
def _one_line_messages() -> Iterator[None]:
    """Print each message of huggingface_hub as one line, such as that the Hub cannot be reached and its cache is used instead."""
    import huggingface_hub.hf_api  # noqa: F401  This gives the logger the library's own handler, which is then replaced.

    logger = logging.getLogger("huggingface_hub")
    before = logger.handlers, logger.propagate
    logger.handlers, logger.propagate = [_OneLine()], False
    try:
        yield
    finally:
        logger.handlers, logger.propagate = before


@contextmanager
def _explaining() -> Iterator[None]:
    """Turn the errors of huggingface_hub into Refused or Unavailable."""
    try:
        with _one_line_messages():
            yield
    except ImportError as error:
        raise Refused("needs a library that is not installed: `pip install 'mixer_jax[hub]'`") from error
    except Refused:
        raise
    except Exception as error:  # The library's errors have no common type.
        raise _explained(error) from error


def _explained(error: Exception) -> Refused:
    """Return the Refused or Unavailable that says what an error of huggingface_hub means for a user."""
    from huggingface_hub import constants, errors

    brief = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"[:300]
    if isinstance(error, errors.GatedRepoError):
        return Refused(f"is gated: ask for access on its page, then {LOG_IN}")
    if isinstance(error, errors.RepositoryNotFoundError):
        return Refused(f"is not there, or is private. Check the name, or {LOG_IN}")
    if isinstance(error, errors.RevisionNotFoundError):
        return Refused("is not there: the repository has no such revision")
    if isinstance(error, errors.HfHubHTTPError):
        status = error.response.status_code
        if status == 401:
            return Refused(f"cannot be read with this token: {LOG_IN}")
        return (Unavailable if status >= 500 or status in TRY_LATER else Refused)(f"cannot be downloaded ({brief})")
    if isinstance(error, errors.HFValidationError):
        return Refused(f"is no path on the Hub ({brief})")
    if constants.is_offline_mode():
        return Refused("is not in the Hub's cache, and HF_HUB_OFFLINE is set. Unset it, or download the repository before")
    if isinstance(error, OSError) and is_mistake(error) and not isinstance(error, errors.EntryNotFoundError):
        return Refused(f"cannot be downloaded ({brief})")
    return Unavailable(f"cannot be downloaded ({brief})")
