"""The image files of a folder, of tars or of a zip, by the KIND of `--from KIND:PATH` (inputs.py).

Listing costs a pass over names and headers; images are then read by their offset, as many threads as there are at once.
"""

from collections.abc import Callable
from glob import glob
from pathlib import Path

from mixer_jax.data.sources.folder import FolderSource
from mixer_jax.errors import UserError
from mixer_jax.preparation import archives
from mixer_jax.preparation.files import Files, FolderFiles, TarFiles, ZipFiles, is_image, require_file


def list_files(kind: str, path: Path, under: str) -> tuple[Files, list[list[str]] | None]:
    """Return the images, each name once, and the words of their classes where they stand beside them."""
    files, words = _list_webdataset(str(path), under) if kind == "webdataset" else (LISTERS[kind](path, under), None)
    if not files.names:
        raise UserError(f"{kind}:{path} holds no image ({', '.join(FolderSource.SUFFIXES)}) among its {files.ignored} files.")
    if len(set(files.names)) < len(files.names):
        twice = next(name for name, again in zip(sorted(files.names), sorted(files.names)[1:], strict=False) if name == again)
        raise UserError(f"{kind}:{path} holds {twice!r} twice: which one is meant? Pack it anew.")
    return files, words


def _list_folder(path: Path, under: str) -> FolderFiles:
    return FolderFiles(path / under)


def _list_tar(path: Path, under: str) -> TarFiles:
    files = TarFiles()
    files.add_images(path, archives.tar_members(require_file(path)), under)
    return files


def _list_tars(path: Path, under: str) -> TarFiles:
    files = TarFiles()
    if not path.is_dir():
        files.add_images(path, archives.nested_tar_members(require_file(path)), under)
        return files
    for tar in sorted(path.glob("*.tar")):
        files.add_images(tar, archives.tar_members(tar), under, prefix=f"{tar.stem}/")
    return files


def _list_webdataset(pattern: str, under: str) -> tuple[TarFiles, list[list[str]]]:
    """Return images and the words of their .cls files. A sample's members share the name up to the first dot of its last part."""
    tars = sorted(glob(pattern))
    if not tars:
        raise UserError(f"No file matches {pattern}. Quote the pattern: --from 'webdataset:DIR/*.tar'")
    images, classes, words = TarFiles(), TarFiles(), []
    for number, tar in enumerate(tars):
        samples: dict[str, dict[str, archives.Member]] = {}
        for member in archives.tar_members(Path(tar)):
            folder, _, base = member.name.rpartition("/")
            key, _, extension = base.partition(".")
            parts = samples.setdefault(f"{folder}/{key}", {})
            part = "image" if is_image(base) else extension.lower()
            if part in parts:
                raise UserError(
                    f"{tar} holds {member.name!r} twice, or two images of one name: which one is meant? Pack it anew."
                )
            parts[part] = member
        chosen = [parts for parts in samples.values() if "image" in parts and parts["image"].name.startswith(under)]
        images.ignored += len(samples) - len(chosen)
        for parts in chosen:
            if "cls" not in parts or parts["cls"].size > archives.MAX_HEADER_BYTES:
                raise UserError(f"{tar}: {parts['image'].name} has no .cls file beside it with its class, or a huge one.")
        first = len(classes.names)
        images.add(Path(tar), (parts["image"] for parts in chosen), prefix=f"{number:05d}/")
        classes.add(Path(tar), (parts["cls"] for parts in chosen))
        for _, text in classes.read(range(first, len(classes.names))):
            words.append(text.decode(errors="replace").replace(",", " ").split())
    return images, words


LISTERS: dict[str, Callable] = {
    "folder": _list_folder,
    "tars": _list_tars,
    "tar": _list_tar,
    "zip": ZipFiles,
    "webdataset": _list_webdataset,
}
