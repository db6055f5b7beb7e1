"""Read and write files of weights (.npz and .safetensors) without running code from a file and without trusting its header.

A file of weights may come from anybody. Nothing in it is ever unpickled. Its header (names, dtypes, shapes, offsets, uncompressed
sizes) is checked against its bytes before memory is allocated, so a bad file takes no more memory than a good file of the same
length. An error message is one line with the file, the reason and what to do.

  .npz          a zip archive of NAME.npy, as np.savez writes it. The released weights have this format. Our metadata is JSON in
                the zip comment, which other readers ignore.
  .safetensors  a JSON header and raw bytes. Only this format can hold bfloat16.

The content of a file decides how it is read, not its suffix.
"""

import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import fsspec
import numpy as np
from fsspec.callbacks import Callback, TqdmCallback
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from mixer_jax.bucket import SCHEME, Bucket
from mixer_jax.checkpoints import hub, npz, web
from mixer_jax.checkpoints.refusal import (
    AGAIN,
    LIST_LIMIT,
    PYTORCH,
    Opened,
    Refused,
    Signatures,
    Unavailable,
    check_shape,
    check_unique,
)
from mixer_jax.errors import EnvironmentFault, UserError, is_mistake, printable
from mixer_jax.storage import open_regular, write_whole

SAFETENSORS_DTYPES = {
    "BOOL": "bool", "I8": "int8", "I16": "int16", "I32": "int32", "I64": "int64",
    "U8": "uint8", "U16": "uint16", "U32": "uint32", "U64": "uint64",
    "F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64", "C64": "complex64",
}  # fmt: skip
DTYPES = {".npz": npz.DTYPES, ".safetensors": tuple(SAFETENSORS_DTYPES.values())}


def read_arrays(path: str) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return ({name: array}, metadata) of an .npz or .safetensors file: the exact values, in native byte order.

    The metadata is {} if there is none. It does not include the entry "format", which safetensors files have for PyTorch. Raises
    UserError if the file is missing, damaged, malicious or of another kind. A compressed .npz that holds almost only zeros is
    refused too, because it cannot be distinguished from a decompression bomb.
    """
    with refusing(path), _opened(path) as (_, read, metadata):
        return read(), metadata


def read_signatures(path: str) -> tuple[Signatures, dict[str, str]]:
    """Return ({name: (dtype, shape)}, metadata) of a file without reading its arrays.

    Raises the errors of `read_arrays`, except for those that only reading the arrays can detect, such as changed bytes.
    """
    with refusing(path), _opened(path) as (signatures, _, metadata):
        return signatures, metadata


def write_arrays(path: str, arrays: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    """Write a new file in the format of its suffix. The file appears complete or not at all.

    The same arrays and metadata give the same bytes. Raises UserError if the suffix is unknown, the folder is missing, the file
    exists, or the format cannot hold an array or the metadata. Raises EnvironmentFault if, for example, the disk is full.
    """
    suffix = Path(path).suffix
    with naming(path):
        if suffix not in DTYPES:
            raise Refused("must end in .npz or .safetensors, which says what format to write")
        if not Path(path).parent.is_dir():
            raise Refused(f"cannot be written: there is no folder {Path(path).parent}. Create it first")
        if os.path.lexists(path):
            raise Refused("exists already. Delete it or choose another name")
        arrays = {name: _storable(name, array, suffix) for name, array in sorted(arrays.items())}
        try:
            with write_whole(Path(path)) as temporary:
                (npz.write_npz if suffix == ".npz" else _write_safetensors)(str(temporary), arrays, metadata)
                if not _holds(str(temporary), arrays, metadata):
                    raise Refused(f"was not written: {suffix} cannot hold one of the names or texts")
        except (OSError, SafetensorError) as error:
            raise _refusal_type(error)(f"cannot be written ({_brief(error)})") from error


@contextmanager
def local_copy(path: str) -> Iterator[str]:
    """Yield a local path of a file.

    A file of hf:// is downloaded into the Hub's cache. One of another SCHEME:// is downloaded and deleted after the context. Any
    other path is yielded as it is. Raises UserError if there is no such file or no library for the scheme, and EnvironmentFault
    if the connection fails.
    """
    if "://" not in path:
        yield path
        return
    if path.startswith(hub.SCHEME):
        with naming(path):
            local = hub.download(path)
        yield local
        return
    with tempfile.TemporaryDirectory() as folder:
        local = os.path.join(folder, path.rstrip("/").split("/")[-1])
        with naming(path):
            download(path, local)
        yield local


def download(url: str, local: str) -> None:
    """Download a file to a local path, with a progress bar on a terminal.

    Raises Refused, FileNotFoundError or, for gs://, the errors of `Bucket.read`.
    """
    bar = {"unit": "B", "unit_scale": True, "desc": os.path.basename(local), "disable": not sys.stderr.isatty()}
    progress = TqdmCallback(tqdm_kwargs=bar)
    if url.startswith(SCHEME):
        _download_object(url, local, progress)
        return
    try:
        if url.startswith(web.SCHEMES):
            web.download(url, local, progress)
        else:
            filesystem, remote = fsspec.core.url_to_fs(url)
            filesystem.get_file(remote, local, callback=progress)
    except FileNotFoundError:
        raise
    except ImportError as error:
        package = getattr(error.__cause__, "name", None) or error.name
        raise Refused(f"needs a library that is not installed: `pip install {package}`") from error
    except Exception as error:  # Each file system has its own error types for denied access and lost connections.
        raise _refusal_type(error)(f"cannot be downloaded ({_brief(error)})") from error
    if not os.path.isfile(local):
        raise Refused("is a folder, not a file")


def _download_object(url: str, local: str, progress: Callback) -> None:
    """Download an object of Google Cloud Storage. Raises FileNotFoundError if there is none, and the errors of `Bucket.read`."""
    folder, _, name = url.rpartition("/")
    bucket = Bucket(folder)
    if bucket.generation(name) is None:
        raise FileNotFoundError(url)
    with open(local, "wb") as file:
        for content in bucket.read_ranges(name):
            progress.relative_update(file.write(content))


@contextmanager
def naming(path: str) -> Iterator[None]:
    """Turn Refused and FileNotFoundError into a UserError or an EnvironmentFault that names the file.

    The message is one printable line, whatever text from the file it contains.
    """
    try:
        yield
    except (Refused, FileNotFoundError) as error:
        reason = str(error) if isinstance(error, Refused) else "does not exist"
        kind = EnvironmentFault if isinstance(error, Unavailable) else UserError
        raise kind(printable(f"{path} {reason}.", kept="")) from error


@contextmanager
def refusing(path: str) -> Iterator[None]:
    """Turn any error while reading a file into a UserError or an EnvironmentFault that names the file."""
    with naming(path):
        try:
            yield
        except (Refused, FileNotFoundError, UserError):
            raise
        except (PermissionError, IsADirectoryError, MemoryError) as error:
            raise Refused(f"cannot be read ({_brief(error)})") from error
        except Exception as error:  # zipfile, zlib and safetensors raise a dozen types of errors for damaged files.
            raise Refused(f"is damaged or cut short ({_brief(error)}). {AGAIN}") from error


def _refusal_type(error: Exception) -> type[Refused]:
    """Return Unavailable for an error of the disk or the network that may not occur again, and Refused for any other error."""
    number = re.search(r"\(os error (\d+)\)", str(error))  # safetensors reports the error's number only in this text.
    cause = OSError(int(number[1]), "") if number else error
    return Unavailable if isinstance(cause, OSError) and not is_mistake(cause) else Refused


def _brief(error: Exception) -> str:
    """Return an error's type and the first line of its message, in at most 300 characters."""
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"[:300]


def _opened(path: str) -> AbstractContextManager[Opened]:
    """Return the context of an open file, whose format its first bytes decide.

    Raises Refused for a file in neither format, and says what the file seems to be instead.
    """
    with open_regular(path) as file:
        head = file.read(4096)
    if head[:4] in (b"PK\3\4", b"PK\5\6"):
        return npz.open_npz(path)
    if head[8:9] == b"{":  # Checked first: a header's length may begin like a page or a pickle (640 is 80 02).
        return _open_safetensors(path)
    if not head:
        raise Refused(f"is empty. {AGAIN}")
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith(b"<"):
        raise Refused(f"is an HTML or XML page, not weights: the download failed. {AGAIN}, and see what the page says")
    if text.startswith(b"version https://git-lfs"):
        raise Refused("is a Git LFS pointer, not the weights that it stands for. Fetch those with `git lfs pull`")
    if re.match(rb"\x80[\2-\5]", head):
        raise Refused(PYTORCH)
    raise Refused(f"is neither an .npz nor a .safetensors file, or was cut short. {AGAIN}")


@contextmanager
def _open_safetensors(path: str) -> Iterator[Opened]:
    """Open a .safetensors file, check it, and yield ({name: (dtype, shape)}, a function that reads the arrays, metadata).

    The safetensors library checks dtypes, shapes and offsets: tensors must not overlap and must fill the file. It is told to read
    with pread instead of mapping the file, because the bytes of a mapped file would be in memory twice, and the process would be
    killed if the file shrank while it is read.
    """
    _check_safetensors_header(path)
    with safe_open(path, framework="np", backend="pread") as file:
        signatures = {}
        for name in file.keys():  # noqa: SIM118  This is not a dict.
            dtype, shape = file.get_slice(name).get_dtype(), tuple(file.get_slice(name).get_shape())
            if dtype not in SAFETENSORS_DTYPES:
                raise Refused(f"holds '{name[:100]}' of dtype {dtype}; known are {', '.join(SAFETENSORS_DTYPES)}")
            check_shape(name, shape)
            signatures[name] = (SAFETENSORS_DTYPES[dtype], shape)
        metadata = {key: value for key, value in sorted((file.metadata() or {}).items()) if key != "format"}
        yield signatures, lambda: {name: file.get_tensor(name) for name in signatures}, metadata


def _check_safetensors_header(path: str) -> None:
    """Raise Refused for a header that is too long, or that names two tensors alike.

    The safetensors library accepts both. It reads headers of up to 100 MB, which take several times as much memory.
    """
    with open_regular(path) as file:
        length = int.from_bytes(file.read(8), "little")
        if length > LIST_LIMIT:
            raise Refused(f"declares a header of {length} bytes, which no weights need. {AGAIN}")
        header = file.read(length)
    if len(header) < length:
        raise Refused(f"was cut short: it has {len(header)} bytes of a header of {length}. {AGAIN}")

    def unique(pairs: list[tuple]) -> dict:
        check_unique([name for name, _ in pairs])
        return dict(pairs)

    json.loads(header, object_pairs_hook=unique)


def _holds(path: str, arrays: dict[str, np.ndarray], metadata: dict[str, str]) -> bool:
    """Return whether a file has arrays of these names, dtypes and shapes, and this metadata."""
    try:
        return read_signatures(path) == ({name: (x.dtype.name, x.shape) for name, x in arrays.items()}, metadata)
    except UserError:
        return False


def _storable(name: str, array: np.ndarray, suffix: str) -> np.ndarray:
    """Return an array in little-endian byte order and C order. Raises Refused if the format cannot hold its dtype."""
    array = np.asarray(array)
    if array.dtype.name not in DTYPES[suffix]:
        hint = "Write a .safetensors file" if array.dtype.name == "bfloat16" else f"It can hold {', '.join(DTYPES[suffix])}"
        raise Refused(f"cannot hold '{name}' of dtype {array.dtype.name}. {hint}")
    return np.asarray(array, array.dtype.newbyteorder("<"), order="C")


def _write_safetensors(path: str, arrays: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    """Write a .safetensors file with sorted metadata and the usual access rights.

    The safetensors library writes the metadata in random order, and a file that only its owner may read. This corrects both.
    """
    Path(path).touch()
    mode = os.stat(path).st_mode
    save_file(arrays, path, metadata | {"format": "pt"})
    os.chmod(path, mode)
    with open(path, "rb+") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        file.seek(8)
        file.write(json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode().ljust(length))
