"""Weight files: .npz and .safetensors to arrays and back, without running code and without trusting a header.

A weight file is somebody else's. Nothing in it is ever unpickled, and what it says of itself (names, dtypes, shapes, offsets,
sizes before compression) is checked against its bytes before memory is taken for it, so that a bad file costs no more than a
sound one of its length. A refusal is one line: the file, the reason and what to do.

  .npz          a zip of NAME.npy, as np.savez writes and the released weights are. Our metadata is JSON in the zip's comment,
                which other readers pass over.
  .safetensors  a JSON header and raw bytes. Of the two, the one that can hold bfloat16.

Reading goes by the content, not by the suffix. Not here: what the arrays mean.
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
from fsspec.callbacks import TqdmCallback
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from mixer_jax.checkpoints import npz
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
    """({name: array}, metadata) of an .npz or .safetensors file: bit for bit what it holds, in native byte order.

    Metadata is {} where there is none, and is without the "format" that safetensors files carry for PyTorch's loaders.
    Raises UserError when the file is missing, damaged, of another kind, or not to be trusted. One sound file is refused too: a
    compressed .npz of nearly nothing but zeros, which cannot be told from a decompression bomb.
    """
    with refusing(path), _opened(path) as (_, read, metadata):
        return read(), metadata


def read_signatures(path: str) -> tuple[Signatures, dict[str, str]]:
    """Return ({name: (dtype, shape)}, metadata) without reading the arrays.

    Refuses what `read_arrays` refuses, except changed bytes.
    """
    with refusing(path), _opened(path) as (signatures, _, metadata):
        return signatures, metadata


def write_arrays(path: str, arrays: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    """Writes a new file, whole or not at all, in the format of its suffix. The same content gives the same bytes.

    Raises UserError for another suffix, a missing folder, a file that exists, and for what the format cannot hold.
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
            raise _kind_of(error)(f"cannot be written ({_brief(error)})") from error


@contextmanager
def local_copy(path: str) -> Iterator[str]:
    """A local path to read: SCHEME://... is downloaded for as long as the context lasts, any other path is yielded as it is.

    Raises UserError when there is no such file, or no library for the scheme.
    """
    if "://" not in path:
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        local = os.path.join(folder, path.rstrip("/").split("/")[-1])
        with naming(path):
            _download(path, local)
        yield local


def _download(url: str, local: str) -> None:
    bar = {"unit": "B", "unit_scale": True, "desc": os.path.basename(local), "disable": not sys.stderr.isatty()}
    try:
        filesystem, remote = fsspec.core.url_to_fs(url)
        filesystem.get_file(remote, local, callback=TqdmCallback(tqdm_kwargs=bar))
    except FileNotFoundError:
        raise
    except ImportError as error:
        package = getattr(error.__cause__, "name", None) or error.name
        raise Refused(f"needs a library that is not installed: `pip install {package}`") from error
    except Exception as error:  # each file system has its own for refused access and lost connections
        raise _kind_of(error)(f"cannot be downloaded ({_brief(error)})") from error
    if not os.path.isfile(local):
        raise Refused("is a folder, not a file")


@contextmanager
def naming(path: str) -> Iterator[None]:
    """Turn a refusal into an error of one line, which nothing that the file has put into it can break."""
    try:
        yield
    except (Refused, FileNotFoundError) as error:
        reason = str(error) if isinstance(error, Refused) else "does not exist"
        kind = EnvironmentFault if isinstance(error, Unavailable) else UserError
        raise kind(printable(f"{path} {reason}.", kept="")) from error


@contextmanager
def refusing(path: str) -> Iterator[None]:
    with naming(path):
        try:
            yield
        except (Refused, FileNotFoundError, UserError):
            raise
        except (PermissionError, IsADirectoryError, MemoryError) as error:
            raise Refused(f"cannot be read ({_brief(error)})") from error
        except Exception as error:  # zipfile, zlib and safetensors raise a dozen kinds for what is damaged or cut short
            raise Refused(f"is damaged or cut short ({_brief(error)}). {AGAIN}") from error


def _kind_of(error: Exception) -> type[Refused]:
    """Return the kind of refusal for an error of the disk or the network."""
    number = re.search(r"\(os error (\d+)\)", str(error))  # safetensors has no other form
    cause = OSError(int(number[1]), "") if number else error
    return Unavailable if isinstance(cause, OSError) and not is_mistake(cause) else Refused


def _brief(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"[:300]


def _opened(path: str) -> AbstractContextManager[Opened]:
    """The context of an open file, by its first bytes. One of neither format is refused as what it seems to be."""
    with open_regular(path) as file:
        head = file.read(4096)
    if head[:4] in (b"PK\3\4", b"PK\5\6"):
        return npz.open_npz(path)
    if head[8:9] == b"{":  # before the rest: a header's length may begin like a page or a pickle (640 is 80 02)
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
    """The library checks dtypes, shapes and offsets: tensors must not overlap, and must fill the file.

    It reads by pread: of a mapped file each byte would be in memory twice, and one that shrinks meanwhile kills the process.
    """
    _check_safetensors_header(path)
    with safe_open(path, framework="np", backend="pread") as file:
        signatures = {}
        for name in file.keys():  # noqa: SIM118  not a dict
            dtype, shape = file.get_slice(name).get_dtype(), tuple(file.get_slice(name).get_shape())
            if dtype not in SAFETENSORS_DTYPES:
                raise Refused(f"holds '{name[:100]}' of dtype {dtype}; known are {', '.join(SAFETENSORS_DTYPES)}")
            check_shape(name, shape)
            signatures[name] = (SAFETENSORS_DTYPES[dtype], shape)
        metadata = {key: value for key, value in sorted((file.metadata() or {}).items()) if key != "format"}
        yield signatures, lambda: {name: file.get_tensor(name) for name in signatures}, metadata


def _check_safetensors_header(path: str) -> None:
    """What the library lets pass: headers of up to 100 MB, which cost several times that, and two tensors of one name."""
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
    try:
        return read_signatures(path) == ({name: (x.dtype.name, x.shape) for name, x in arrays.items()}, metadata)
    except UserError:
        return False


def _storable(name: str, array: np.ndarray, suffix: str) -> np.ndarray:
    """Little-endian, rows first."""
    array = np.asarray(array)
    if array.dtype.name not in DTYPES[suffix]:
        hint = "Write a .safetensors file" if array.dtype.name == "bfloat16" else f"It can hold {', '.join(DTYPES[suffix])}"
        raise Refused(f"cannot hold '{name}' of dtype {array.dtype.name}. {hint}")
    return np.asarray(array, array.dtype.newbyteorder("<"), order="C")


def _write_safetensors(path: str, arrays: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    """The library shuffles the metadata and makes a file that its owner alone may read; both are put right."""
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
