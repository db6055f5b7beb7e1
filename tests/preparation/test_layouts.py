"""The same rules find the images and their classes in all kinds of sources. Every layout is tried in every kind."""

import itertools
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from preparation import miniature

from mixer_jax.data.sources import class_tree
from mixer_jax.data.sources.folder import FolderSource
from mixer_jax.errors import UserError
from mixer_jax.preparation.finishing import check_classes
from mixer_jax.preparation.inputs import open_inputs
from mixer_jax.preparation.spec import PreparationSpec

Found = tuple[tuple[str, ...], list[tuple[str, str]]]  # class names, (name without folders, class) of each image


@pytest.fixture(autouse=True)
def nothing_reported(monkeypatch):
    monkeypatch.setattr(class_tree, "_reported", set())


def tree_of(root: Path, files: list[str]) -> Path:
    """Make files, and a folder for each name that ends with a slash."""
    for name in files:
        (root / name).mkdir(parents=True, exist_ok=True) if name.endswith("/") else None
    return miniature.make_tree(root, {name: b"x" for name in files if not name.endswith("/")})


def prepared(source: str, split: str) -> Found:
    spec = PreparationSpec(source, split)
    inputs = open_inputs(spec)
    check_classes(inputs.class_names, inputs.images_of_class(), False, "")
    labels = {number: labels for number, _, labels in inputs.read(range(len(inputs)))}
    return inputs.class_names, [(Path(inputs.name(i)).name, inputs.class_names[labels[i][0]]) for i in range(len(inputs))]


def folder_source(root: Path, files: list[str], split: str) -> Found:
    tree_of(root, files)
    source = FolderSource(str(root), split if (root / split).is_dir() and not list((root / split).glob("*.*")) else "")
    return source.class_names, [
        (Path(source.locate(i)).name, source.class_names[source.labels(i)[0]]) for i in range(len(source))
    ]


def folder(root: Path, files: list[str], split: str) -> Found:
    return prepared(f"folder:{tree_of(root, files)}", split)


def tar(root: Path, files: list[str], split: str) -> Found:
    return prepared(f"tar:{miniature.make_tar(root / 'x.tar', dict.fromkeys(files, b'x'))}", split)


def zip_of(root: Path, files: list[str], split: str) -> Found:
    return prepared(f"zip:{miniature.make_zip(root / 'x.zip', dict.fromkeys(files, b'x'))}", split)


def tars(files: list[str]) -> dict[str, bytes]:
    """Make a tar of each folder at the top, beside the files at the top."""
    members: dict[str, dict[str, bytes]] = {}
    for name in files:
        top, _, rest = name.partition("/")
        members.setdefault(top, {}).update({rest: b"x"} if rest else {})
    beside = [name for name in files if "/" not in name]
    return {f"{top}.tar": miniature.tar_bytes(inside) for top, inside in members.items() if top not in beside} | dict.fromkeys(
        beside, b"x"
    )


def folder_of_tars(root: Path, files: list[str], split: str) -> Found:
    return prepared(f"tars:{miniature.make_tree(root, tars(files))}", split)


def tar_of_tars(root: Path, files: list[str], split: str) -> Found:
    return prepared(f"tars:{miniature.make_tar(root / 'x.tar', tars([name for name in files if '/' in name]))}", split)


SOURCES: list[Callable[[Path, list[str], str], Found]] = [folder_source, folder, tar, zip_of, folder_of_tars, tar_of_tars]

SUFFIXED = ["1.jpg", "2.JPG", "3.jpeg", "4.png", "5.webp", "6.WebP", "7.bmp", "8.tif", "9.TIFF"]
# (files, the class names and images that are found for split "train")
READ = {
    "CLASS/IMAGE": (["dog/2.png", "cat/1.jpg"], ("cat", "dog"), [("1.jpg", "cat"), ("2.png", "dog")]),
    "every suffix in any case": (
        [*(f"cat/{name}" for name in SUFFIXED), "cat/x.gif", "cat/y.heic", "cat/z"],
        ("cat",),
        [(name, "cat") for name in SUFFIXED],
    ),
    "hidden names": (
        ["cat/1.jpg", "cat/._1.jpg", "cat/.thumbnails/2.jpg", ".ipynb_checkpoints/3.jpg", "__MACOSX/cat/._1.jpg", ".DS_Store"],
        ("cat",),
        [("1.jpg", "cat")],
    ),
    "numbers": (
        [f"{number}/{number}.jpg" for number in range(12)],
        tuple(map(str, range(12))),
        [(f"{number}.jpg", str(number)) for number in range(12)],
    ),
    "a folder of all": (["all/", "all/cat/1.jpg", "all/dog/2.jpg"], ("cat", "dog"), [("1.jpg", "cat"), ("2.jpg", "dog")]),
    "SPLIT/CLASS/IMAGE": (
        ["train/cat/1.jpg", "train/dog/2.jpg", "test/cat/3.jpg", "test/elk/4.jpg"],
        ("cat", "dog"),
        [("1.jpg", "cat"), ("2.jpg", "dog")],
    ),
    "a class of the split's name": (["train/1.jpg", "car/2.jpg"], ("car", "train"), [("1.jpg", "train"), ("2.jpg", "car")]),
    "that within the split": (
        ["train/train/1.jpg", "train/car/2.jpg", "test/car/3.jpg"],
        ("car", "train"),
        [("1.jpg", "train"), ("2.jpg", "car")],
    ),
    "a text and a page beside the classes": (["cat/1.jpg", "README.md", "index.html"], ("cat",), [("1.jpg", "cat")]),
}
# (files, a part of the error message)
REFUSED = {
    "images deeper": (["cat/1.jpg", "cat/old/2.jpg"], r"1 like cat/1.jpg, 1 like cat/old/2.jpg"),
    "images beside the classes": (["1.jpg", "cat/2.jpg"], r"1 like 1.jpg, 1 like cat/2.jpg"),
    "one name in two folders": (["a/bat/1.jpg", "b/bat/2.jpg"], r"2 like a/bat/1.jpg"),
    "other splits": (["val/cat/1.jpg", "test/cat/2.jpg"], r"folders of splits \(test, val\)"),
    "one other split": (["test/cat/1.jpg", "test/dog/2.jpg"], r"folders of splits \(test\)"),
    "an empty folder": (["cat/1.jpg", "dog/"], "dog.*no image|no image.*dog"),
    "an empty folder below one of all": (["all/cat/1.jpg", "all/dog/"], "all/dog holds no image|no image.*dog"),
    "a class of other files": (["cat/1.jpg", "dog/2.gif"], "dog.*no image|no image.*dog"),
}


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("layout", READ)
def test_a_clear_layout_means_the_same_in_every_source(tmp_path, layout, source):
    files, names, images = READ[layout]
    found = source(tmp_path / "x", files, "train") if source in (folder_source, folder) else source(tmp_path, files, "train")
    assert (found[0], sorted(found[1])) == (names, sorted(images))


# A tar is a class, and files beside the tars are not images.
CLEAR = ("images beside the classes", "one name in two folders")
CLEAR_IN_TARS = list(itertools.product(CLEAR, SOURCES[4:]))


@pytest.mark.parametrize(
    ("layout", "source"), [pair for pair in itertools.product(REFUSED, SOURCES) if pair not in CLEAR_IN_TARS]
)
def test_an_ambiguous_layout_is_refused_in_every_source_with_what_was_found(tmp_path, layout, source):
    files, message = REFUSED[layout]
    with pytest.raises(UserError, match=message) as error:
        source(tmp_path / "x" if source in (folder_source, folder) else tmp_path, files, "train")
    advice = ("data.source", "into one folder", "fill it", "--under", "--labels", "--allow-empty-classes")
    assert any(words in str(error.value) for words in advice)


def test_the_folders_that_a_refusal_names_are_read(tmp_path):
    files = ["a/bat/1.jpg", "a/cat/2.jpg", "b/bat/3.jpg"]
    root = tree_of(tmp_path / "tree", files)
    with pytest.raises(UserError, match=r"Give --under a or --under b or --labels FILE\."):
        open_inputs(PreparationSpec(f"folder:{root}", "train"))
    assert open_inputs(PreparationSpec(f"folder:{root}", "train", under="a")).class_names == ("bat", "cat")
    archive = miniature.make_zip(tmp_path / "x.zip", {f"top/{name}": b"x" for name in files})
    with pytest.raises(UserError, match="Give --under top/a or --under top/b or"):
        open_inputs(PreparationSpec(f"zip:{archive}", "train"))
    assert open_inputs(PreparationSpec(f"zip:{archive}", "train", under="top/b")).class_names == ("bat",)
    with pytest.raises(UserError, match=f"Set data.source to folder:{root}/a or folder:{root}/b and data.split to ''"):
        FolderSource(str(root), "")
    assert FolderSource(f"{root}/a", "").class_names == ("bat", "cat")


def test_images_of_a_tar_of_a_class_may_lie_in_a_folder(tmp_path):
    packed = {"cat.tar": miniature.tar_bytes({"cat/1.jpg": b"x"}), "dog.tar": miniature.tar_bytes({"images/2.jpg": b"x"})}
    miniature.make_tree(tmp_path, packed)
    assert prepared(f"tars:{tmp_path}", "train") == (("cat", "dog"), [("1.jpg", "cat"), ("2.jpg", "dog")])


@pytest.mark.parametrize("kind", ["tar", "tars"])
def test_a_tar_of_a_folder_has_its_classes_with_and_without_entries_for_folders(tmp_path, kind):
    """Return a tar as `tar cf x.tar -C DIR .` packs it."""
    tree_of(tmp_path / "tree", ["cat/1.jpg", "dog/2.jpg"])
    (tmp_path / "out").mkdir()
    packed = [tmp_path / "tree"] if kind == "tar" else [tmp_path / "tree/cat", tmp_path / "tree/dog"]
    for folder_of_images in packed:
        with tarfile.open(tmp_path / "out" / f"{folder_of_images.name}.tar", "w") as archive:
            archive.add(folder_of_images, ".")
    source = f"tar:{tmp_path / 'out/tree.tar'}" if kind == "tar" else f"tars:{tmp_path / 'out'}"
    assert prepared(source, "train") == (("cat", "dog"), [("1.jpg", "cat"), ("2.jpg", "dog")])


def test_a_folder_without_the_split_is_refused_with_the_folders_that_it_has(tmp_path):
    tree_of(tmp_path, ["test/cat/1.jpg", "train/cat/2.jpg", ".git/x"])
    with pytest.raises(UserError, match=r"no folder .*/val\. .*DIR/SPLIT/CLASS/IMAGE.* has the folders test, train\."):
        FolderSource(str(tmp_path), "val")


@pytest.mark.parametrize("source", [folder_source, folder])
@pytest.mark.parametrize("name", ["cat/a\n.jpg", "cat/\udcff.jpg", "c\u200bat/1.jpg"])
def test_an_image_whose_name_is_no_plain_text_is_refused_and_another_file_left_out(tmp_path, source, name):
    assert source(tmp_path / "x", ["cat/1.jpg", "Icon\r", "cat/\udcff.txt"], "train")[1] == [("1.jpg", "cat")]
    with pytest.raises(UserError, match="rename it, names must be plain text"):
        source(tmp_path / "x", [name], "train")


@pytest.mark.parametrize("source", [folder_source, folder])
def test_folders_that_are_reached_twice_through_a_link_are_refused(tmp_path, source):
    tree_of(tmp_path, ["cat/1.jpg"])
    (tmp_path / "dog").symlink_to(tmp_path / "cat")
    with pytest.raises(UserError, match="dog is reached twice, through a link: remove the link"):
        source(tmp_path, [], "train")


@pytest.mark.parametrize("source", [folder_source, folder])
def test_what_is_left_out_is_counted_by_kind_in_one_line_once_a_process(tmp_path, source, capsys):
    files = ["cat/1.jpg", "cat/a.txt", "cat/b.TXT", "cat/c.txt", "cat/._1.jpg", ".git/", "README", "cat/x.gif"]
    for _ in range(2):
        source(tmp_path, files, "train")
    out, err = capsys.readouterr()
    place = tmp_path if source is folder_source else f"folder:{tmp_path}"
    assert (out, err) == ("", f"{place}: left out: 3 .txt, 2 hidden, 1 .gif, 1 without a suffix\n")


def test_images_of_other_splits_are_counted_too(tmp_path, capsys):
    folder(tmp_path, READ["SPLIT/CLASS/IMAGE"][0], "train")
    assert capsys.readouterr().err == f"folder:{tmp_path}: left out: 2 of other splits\n"
