"""Lists the image files of a folder, of tars or of a zip. LISTERS has a function for each KIND of `--from KIND:PATH`.

Listing reads all names and headers once. Afterwards, many threads can read images at once by their offsets.
"""

import itertools
from collections.abc import Callable
from glob import glob
from pathlib import Path

from mixer_jax.data.sources.class_tree import SUFFIXES, is_hidden, is_image
from mixer_jax.errors import UserError
from mixer_jax.preparation import archives
from mixer_jax.preparation.files import Files, FolderFiles, TarFiles, ZipFiles, require_file


def list_files(kind: str, path: Path, under: str) -> tuple[Files, list[str] | None]:
    """Return the images and, for webdataset:, the texts of their .cls files in the order of the images, otherwise None.

    Raises UserError if there is no image, or if two images have the same name.
    """
    files, texts = _list_webdataset(str(path), under) if kind == "webdataset" else (LISTERS[kind](path, under), None)
    names = sorted(files.names)
    if not names:
        others = sum(files.tree.left_out.values())
        raise UserError(f"{kind}:{path} holds no image ({', '.join(SUFFIXES)}) among its {others} files.")
    repeated = next((name for name, following in itertools.pairwise(names) if name == following), None)
    if repeated:
        raise UserError(f"{kind}:{path} holds {repeated!r} twice: which one is meant? Pack it anew.")
    return files, texts


def _list_folder(path: Path, under: str) -> FolderFiles:
    return FolderFiles(path / under)


def _list_tar(path: Path, under: str) -> TarFiles:
    files = TarFiles(under)
    files.add_images(path, archives.tar_members(require_file(path)))
    return files


def _list_tars(path: Path, under: str) -> TarFiles:
    files = TarFiles(under)
    if not path.is_dir():
        files.add_images(path, archives.nested_tar_members(require_file(path)))
        return files
    for file in sorted(path.iterdir()):
        if file.suffix != ".tar" or is_hidden(file.name):
            files.tree.left_out["hidden" if is_hidden(file.name) else file.suffix or "without a suffix"] += 1
            continue
        files.tree.add(f"{file.stem}/")  # A tar without an image is a class too.
        files.add_images(file, archives.tar_members(file), prefix=f"{file.stem}/")
    return files


def _list_webdataset(pattern: str, under: str) -> tuple[TarFiles, list[str]]:
    """Return the images of the tars that match `pattern`, and the texts of their .cls files.

    The members of a sample have the same path up to the first dot of the file's name.
    """
    tars = sorted(glob(pattern))
    if not tars:
        raise UserError(f"No file matches {pattern}. Quote the pattern: --from 'webdataset:DIR/*.tar'")
    images, classes, texts = TarFiles(), TarFiles(), []
    for number, tar in enumerate(tars):
        samples = _samples(tar, images)
        chosen = [parts for parts in samples if "image" in parts and parts["image"].name.startswith(under)]
        images.tree.left_out["samples without an image" + (f" in {under}" if under else "")] += len(samples) - len(chosen)
        for parts in chosen:
            if "cls" not in parts or parts["cls"].size > archives.MAX_HEADER_BYTES:
                raise UserError(f"{tar}: {parts['image'].name} has no .cls file beside it with its class, or a huge one.")
        first = len(classes.names)
        images.add_all(Path(tar), (parts["image"] for parts in chosen), prefix=f"{number:05d}/")
        classes.add_all(Path(tar), (parts["cls"] for parts in chosen))
        for cls, content in classes.read(range(first, len(classes.names))):
            try:
                texts.append(content.decode("utf-8-sig"))
            except UnicodeDecodeError as error:
                raise UserError(f"{tar}: {classes.names[cls]} is not text in UTF-8 ({error}). Pack it anew.") from error
    return images, texts


def _samples(tar: str, images: TarFiles) -> list[dict[str, archives.Member]]:
    """Return {part: member} for each sample of a tar. A part is "image", or what follows the first dot of the file's name."""
    samples: dict[str, dict[str, archives.Member]] = {}
    for member in archives.tar_members(Path(tar)):
        if member.name.endswith("/"):
            continue
        if is_hidden(member.name):
            images.tree.left_out["hidden"] += 1
            continue
        folder, _, base = member.name.rpartition("/")
        key, _, extension = base.partition(".")
        parts = samples.setdefault(f"{folder}/{key}", {})
        part = "image" if is_image(base) else extension.lower()
        if part in parts:
            raise UserError(f"{tar} holds {member.name!r} twice, or two images of one name: which one is meant? Pack it anew.")
        parts[part] = member
    return list(samples.values())


LISTERS: dict[str, Callable] = {
    "folder": _list_folder,
    "tars": _list_tars,
    "tar": _list_tar,
    "zip": ZipFiles,
    "webdataset": _list_webdataset,
}
