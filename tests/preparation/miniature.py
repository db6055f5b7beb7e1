"""Small data sets in the layouts that people have them in, for the tests of preparation. No test stands here."""

import io
import os
import tarfile
import zipfile
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

CLASSES = ("n01440764", "n02084071", "n07697537")


def pixels(seed: int, height: int = 12, width: int = 16) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def jpeg(seed: int, height: int = 12, width: int = 16) -> bytes:
    return cv2.imencode(".jpg", pixels(seed, height, width))[1].tobytes()


def png(seed: int, height: int = 12, width: int = 16) -> bytes:
    return cv2.imencode(".png", pixels(seed, height, width))[1].tobytes()


def cmyk(seed: int, height: int = 12, width: int = 16) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels(seed, height, width)).convert("CMYK").save(file, "JPEG")
    return file.getvalue()


def train_images(per_class: int = 5) -> dict[str, bytes]:
    """CLASS/CLASS_NUMBER.JPEG -> bytes, with ImageNet's oddities: a CMYK JPEG and a PNG named .JPEG."""
    names = [f"{name}/{name}_{number}.JPEG" for name in CLASSES for number in range(per_class)]
    images = {name: jpeg(seed) for seed, name in enumerate(names)}
    return images | {names[1]: cmyk(1), names[-1]: png(2)}


def make_tree(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def tar_bytes(files: dict[str, bytes], form: int = tarfile.GNU_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def make_tar(file: Path, files: dict[str, bytes], form: int = tarfile.GNU_FORMAT) -> Path:
    file.write_bytes(tar_bytes(files, form))
    return file


def make_tar_of_tars(file: Path, images: dict[str, bytes]) -> Path:
    """As ILSVRC2012_img_train.tar is: a tar for each class, with the images on top."""
    tars = {}
    for name, content in images.items():
        folder, base = name.split("/")
        tars.setdefault(f"{folder}.tar", {})[base] = content
    return make_tar(file, {name: tar_bytes(files) for name, files in tars.items()})


def make_zip(file: Path, files: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return file


def make_development_kit(file: Path, ids: list[str], truth: list[int]) -> Path:
    """ILSVRC2012_devkit_t12.tar.gz with `ids` as the WordNet ids of ILSVRC2012_IDs 1, 2, ..."""
    import gzip

    from scipy.io import savemat

    rows = np.zeros((len(ids), 1), [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O")])
    for number, name in enumerate(ids):
        rows[number, 0] = (number + 1, name, f"thing {number}")
    mat = io.BytesIO()
    savemat(mat, {"synsets": rows})
    folder = "ILSVRC2012_devkit_t12/data"
    text = "".join(f"{number}\n" for number in truth).encode()
    content = tar_bytes({f"{folder}/meta.mat": mat.getvalue(), f"{folder}/ILSVRC2012_validation_ground_truth.txt": text})
    file.write_bytes(gzip.compress(content))
    return file


def folder_bytes(root: Path) -> dict[str, bytes]:
    """Everything that lies in a folder, by path."""
    return {
        os.path.relpath(os.path.join(folder, file), root): Path(folder, file).read_bytes()
        for folder, _, files in os.walk(root)
        for file in files
    }
