"""What cannot be prepared is refused in words, and unreadable images are all named at once."""

import os
from pathlib import Path

import pytest
from preparation import miniature
from preparation.miniature import CLASSES
from preparation.preparing import TRAIN, VALIDATION, by_class, development_kit, make, tree

from mixer_jax.config import dataset
from mixer_jax.data.images.decode import UnreadableImageError
from mixer_jax.data.sources.manifest import Manifest
from mixer_jax.data.sources.registry import open_source
from mixer_jax.errors import UserError


def huge_png() -> bytes:
    content = bytearray(miniature.png(0))
    content[16:24] = (30_000).to_bytes(4, "big") * 2
    return bytes(content)


UNREADABLE = {
    f"{CLASSES[0]}/cut.JPEG": (miniature.jpeg(0, 64, 64)[:200], "damaged JPEG"),
    f"{CLASSES[1]}/text.JPEG": (b"<html>not found</html>", "none of JPEG, PNG, WebP, BMP, TIFF"),
    f"{CLASSES[1]}/empty.JPEG": (b"", "empty"),
    f"{CLASSES[2]}/gif.png": (b"GIF89a" + bytes(100), "none of JPEG, PNG, WebP, BMP, TIFF"),
    f"{CLASSES[2]}/huge.png": (huge_png(), "30000 x 30000 pixels"),
}


def test_unreadable_images_are_all_named_at_once_or_left_out_and_listed(tmp_path, capsys):
    source = f"folder:{miniature.make_tree(tmp_path / 'tree', TRAIN | {name: data for name, (data, _) in UNREADABLE.items()})}"
    with pytest.raises(UserError, match="5 images cannot be read:") as error:
        make(source, tmp_path / "to", records_per_shard=3)
    for name, (_, why) in UNREADABLE.items():
        assert any(name in line and why in line for line in str(error.value).splitlines())
    assert "--skip-unreadable" in str(error.value)
    assert make(source, tmp_path / "to", records_per_shard=3, skip_unreadable=True) == by_class(TRAIN)
    manifest = Manifest(tmp_path / "to/train")
    assert manifest.content["left_out"] == 5
    assert {name for shard in manifest.shards for name, _ in shard.left_out} == set(UNREADABLE)
    assert "5 unreadable images left out" in manifest.summary()


def test_a_class_whose_images_are_all_unreadable_is_refused(tmp_path):
    source = f"folder:{miniature.make_tree(tmp_path / 'tree', TRAIN | {'n99/x.jpg': b'bad'})}"
    with pytest.raises(UserError, match="1 of 4 classes have no image, the first is 'n99'"):
        make(source, tmp_path / "to", skip_unreadable=True)


def file_of(root: Path, text: str) -> str:
    (root / "file.txt").write_text(text)
    return str(root / "file.txt")


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("tree", {"split": "a/b"}, "--split 'a/b'"),
        ("tree", {"quality": 50}, "give --max-side too"),
        ("tree", {"records_per_shard": 0}, "--records-per-shard 0"),
        ("nothing:x", {}, "must be folder:..., tars:..., tar:..., zip:..., webdataset:..., cifar:..., tfds:..."),
        ("folder:nowhere", {}, "no folder nowhere"),
        ("tar:nowhere.tar", {}, "no file nowhere.tar"),
        ("zip:nowhere.zip", {}, "no file nowhere.zip"),
        ("webdataset:nowhere/*", {}, "No file matches"),
        ("tree", {"under": CLASSES[0]}, "CLASS/IMAGE is read, and there are 5 like n01440764_0.JPEG. Give --labels FILE"),
        ("tree", {"classes": "nowhere.txt"}, "no file nowhere.txt"),
        ("tree", {"classes_text": "a\nb\na"}, "each once: mend 'a'"),
        ("tree", {"classes_text": "n01440764"}, "'n02084071' is not in --classes"),
        ("tree", {"classes_text": "\n".join([*CLASSES, "n9"])}, "1 of 4 classes have no image, the first is 'n9'"),
        ("tree", {"labels_text": "1\n2\n"}, "give also --synsets meta.mat"),
        ("tree", {"labels_text": "a.jpg 1\n,\n"}, "has no line for n01440764/n01440764_0.JPEG"),
        ("tree", {"labels_text": "a.jpg 1\na.jpg 2"}, "more than one line for a.jpg"),
        (
            "tree",
            {"labels_text": "".join(f"{name} {i}\n" for i, name in enumerate([*TRAIN, "b.jpg"]))},
            "no image is named b.jpg",
        ),
        ("tree", {"labels_text": "".join(f"{name} 3\n" for name in TRAIN)}, "3 of 4 classes have no image, the first is '0'"),
    ],
)
def test_what_cannot_be_prepared_is_refused_in_words(tmp_path, source, options, message):
    source = tree(tmp_path) if source == "tree" else source
    options = {
        key.removesuffix("_text"): file_of(tmp_path, value) if key.endswith("_text") else value for key, value in options.items()
    }
    with pytest.raises(UserError, match=message):
        make(source, tmp_path / "to", **options)
    assert not (tmp_path / "to").exists()


def test_a_label_out_of_range_is_named(tmp_path):
    labels = file_of(tmp_path, "".join(f"{name} {3 if name == 'n02084071/n02084071_2.JPEG' else 0}\n" for name in TRAIN))
    (tmp_path / "classes.txt").write_text("a\nb\nc")
    with pytest.raises(UserError, match=r"has the label '3': it must be one of the 3 classes \(a, b, c, .*a number below"):
        make(tree(tmp_path), tmp_path / "to", labels=labels, classes=str(tmp_path / "classes.txt"))


@pytest.mark.parametrize("kind", ["labels", "webdataset"])
def test_among_classes_named_by_numbers_a_number_is_a_name(tmp_path, kind):
    (tmp_path / "classes.txt").write_text("1\n2\n3")
    options = {"classes": str(tmp_path / "classes.txt")}
    source = f"webdataset:{miniature.make_tar(tmp_path / 'x.tar', {'0.jpg': b'x', '0.cls': b'0'})}"
    if kind == "labels":
        source = tree(tmp_path)
        options["labels"] = file_of(tmp_path, "".join(f"{name} {number % 4}\n" for number, name in enumerate(TRAIN)))
    with pytest.raises(UserError, match=r"has the label '0': it must be one of the 3 classes \(1, 2, 3, \.\.\.\), or a number"):
        make(source, tmp_path / "to", **options)


def test_a_huge_number_of_a_class_makes_no_huge_list(tmp_path):
    labels = file_of(tmp_path, "".join(f"{name} {10**8}\n" for name in TRAIN))
    with pytest.raises(UserError, match="has the label 100000000: without --classes numbers must be below"):
        make(tree(tmp_path), tmp_path / "to", labels=labels)


def test_a_damaged_development_kit_is_refused(tmp_path):
    tar = miniature.make_tar(tmp_path / "val.tar", VALIDATION)
    kit = Path(development_kit(tmp_path)["labels"])
    content = bytearray(kit.read_bytes())
    content[len(content) // 2] ^= 255
    for damaged in (content, content[:100], b"no gzip"):
        kit.write_bytes(damaged)
        with pytest.raises(UserError, match=r"devkit_t12\.tar\.gz is damaged"):
            make(f"tar:{tar}", tmp_path / "to", "validation", labels=str(kit))


def test_a_development_kit_that_unpacks_without_end_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr("mixer_jax.preparation.archives.MAX_SMALL_BYTES", 1000)
    tar = miniature.make_tar(tmp_path / "val.tar", VALIDATION)
    with pytest.raises(UserError, match="unpacks to more than 1000 bytes"):
        make(f"tar:{tar}", tmp_path / "to", "validation", **development_kit(tmp_path))


def test_ground_truth_of_another_set_is_refused(tmp_path):
    tar = miniature.make_tar(tmp_path / "val.tar", dict(list(VALIDATION.items())[:-1]))
    with pytest.raises(UserError, match="6 labels for 5 images"):
        make(f"tar:{tar}", tmp_path / "to", "validation", **development_kit(tmp_path))


def test_an_image_that_is_twice_in_an_archive_is_refused(tmp_path):
    one = miniature.tar_bytes({"n1/a.jpg": miniature.jpeg(0)})
    (tmp_path / "x.tar").write_bytes(doubled(one))
    with pytest.raises(UserError, match=r"holds 'n1/a\.jpg' twice"):
        make(f"tar:{tmp_path / 'x.tar'}", tmp_path / "to")


def doubled(tar: bytes) -> bytes:
    """The same member once more, as `tar -r` appends it."""
    size = int(tar[124:135], 8)
    member = tar[: 512 + -(-size // 512) * 512]
    return member + member + bytes(1024)


def test_an_image_file_that_is_too_large_is_an_unreadable_one(tmp_path, monkeypatch):
    source = tree(tmp_path)
    sizes = sorted(file.stat().st_size for file in Path(source.removeprefix("folder:")).rglob("*") if file.is_file())
    monkeypatch.setattr("mixer_jax.preparation.inputs.MAX_IMAGE_BYTES", sizes[-2])
    with pytest.raises(UserError, match=rf"1 images cannot be read:\n.*: too large: {sizes[-1]} bytes"):
        make(source, tmp_path / "to")
    assert len(make(source, tmp_path / "to", skip_unreadable=True)) == len(sizes) - 1


@pytest.mark.parametrize("what", ["a pipe", "a device", "a flood"])
def test_a_file_that_never_ends_is_no_image(tmp_path, what):
    source = tree(tmp_path)
    root = Path(source.removeprefix("folder:"))
    image = next(path for path in sorted(root.rglob("*")) if path.is_file())
    image.unlink()
    if what == "a pipe":
        os.mkfifo(image)
    elif what == "a device":
        image.symlink_to("/dev/zero")
    else:
        image.touch()
        os.truncate(image, 2**40)
    with pytest.raises(UserError, match=r"no ordinary file|too large: 1099511627776 bytes"):
        make(source, tmp_path / "to")
    opened = open_source(dataset(source, ""))
    with pytest.raises(UnreadableImageError, match=r"no ordinary file|at most"):
        opened[0]


def test_no_name_of_a_file_moves_the_cursor(tmp_path, capfd):
    source = tree(tmp_path)
    (Path(source.removeprefix("folder:")) / CLASSES[0] / "x.\x1b[2J").touch()
    make(source, tmp_path / "to")
    open_source(dataset(source, ""))
    said = capfd.readouterr()
    assert "left out: 1 .?[2j" in said.err and "\x1b" not in said.err + said.out
