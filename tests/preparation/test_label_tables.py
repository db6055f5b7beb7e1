"""Files of labels in all spellings, each understood as it is meant and said in one line, or refused with what to do."""

from pathlib import Path

import pytest
from preparation import miniature

from mixer_jax.errors import UserError
from mixer_jax.preparation.inputs import open_inputs
from mixer_jax.preparation.labeling import read_classes
from mixer_jax.preparation.spec import PreparationSpec

IMAGES = ["a.jpg", "b.png", "sub/c d.jpg"]
SINGLE = {"a.jpg": ("golden retriever",), "b.png": ("cat",), "sub/c d.jpg": ("cat",)}
BY_NUMBER = {"a.jpg": ("2",), "b.png": ("0",), "sub/c d.jpg": ("1",)}
SETS = {"a.jpg": ("cat", "dog"), "b.png": ("cat",), "sub/c d.jpg": ("dog",)}
WORDS = [name for name in IMAGES if " " not in name]


def labels_of(source: str, **options) -> dict[str, tuple[str, ...]]:
    inputs = open_inputs(PreparationSpec(source, "train", **options))
    read = inputs.read(range(len(inputs)))
    return {inputs.name(number): tuple(inputs.class_names[label] for label in labels) for number, _, labels in read}


def labeled(root: Path, name: str, text: str | bytes, images: list[str] = IMAGES, **options) -> dict[str, tuple[str, ...]]:
    miniature.make_tree(root / "images", dict.fromkeys(images, b"x"))
    (root / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return labels_of(f"folder:{root / 'images'}", labels=str(root / name), **options)


# name of the file, its text, what it means, the line that says so
READ = {
    "CSV": (
        "x.csv", "a.jpg,golden retriever\nb.png,cat\nc d.jpg,cat\n", SINGLE,
        "separated by commas, no header, images in column 1, classes in column 2; 2 classes, single",
    ),
    "CSV with spaces, an empty line and Windows' ends of lines": (
        "x.csv", "a.jpg, golden retriever \r\n\r\nb.png ,cat\r\n sub/c d.jpg,cat\r\n", SINGLE, "commas, no header",
    ),
    "CSV with quotes": ("x.csv", '"a.jpg","golden retriever"\n"b.png",cat\n"sub/c d.jpg","cat"\n', SINGLE, "2 classes, single"),
    "CSV with a comma in a name": (
        "x.csv", 'a.jpg,"crane, bird"\nb.png,"crane ""tower"""\nc d.jpg,"crane, bird"',
        {"a.jpg": ("crane, bird",), "b.png": ('crane "tower"',), "sub/c d.jpg": ("crane, bird",)}, "2 classes, single",
    ),
    "CSV with a header and a byte order mark": (
        "x.csv", "\ufeffimage,label\na.jpg,golden retriever\nb.png,cat\nsub/c d.jpg,cat\n", SINGLE,
        "separated by commas, header 'image', 'label', images in column 1, classes in column 2; 2 classes, single",
    ),
    "CSV with the class first": (
        "x.csv", "class,file\ngolden retriever,a.jpg\ncat,b.png\ncat,c d.jpg\n", SINGLE,
        "images in column 2, classes in column 1",
    ),
    "CSV with more columns and a header": (
        "x.csv", ",path,width,Label\n0,a.jpg,10,golden retriever\n1,b.png,10,cat\n2,sub/c d.jpg,9,cat\n", SINGLE,
        "header '', 'path', 'width', 'Label', images in column 2, classes in column 4",
    ),
    "CSV with semicolons": ("x.csv", "a.jpg;golden retriever\nb.png;cat\nc d.jpg;cat\n", SINGLE, "separated by semicolons"),
    "CSV with names without suffixes": (
        "x.csv", "id,breed\na,golden retriever\nb,cat\nc d,cat\n", SINGLE, "header 'id', 'breed', images in column 1",
    ),
    "CSV of sets with a header": (
        "x.csv", "image,labels\na.jpg,dog,cat\nb.png,cat\nc d.jpg,dog\n", SETS, "header 'image', 'labels', images in column 1",
    ),
    "CSV of numbers": ("x.csv", "a.jpg,2\nb.png,0\nc d.jpg,1\n", BY_NUMBER, "3 classes, single"),
    "CSV of numbers with leading zeros": ("x.csv", "a.jpg,002\nb.png,000\nc d.jpg,01\n", BY_NUMBER, "3 classes, single"),
    "CSV of sets": ("x.csv", "a.jpg,dog,cat\nb.png,cat,\nc d.jpg,dog,\n", SETS, "2 classes, multi: sets of up to 2"),
    "CSV of sets of any length": ("x.csv", "a.jpg,dog,cat\nb.png,cat\nc d.jpg,dog\n", SETS, "classes after it; 2 classes, multi"),
    "CSV of numbers in a cell": (
        "x.csv", 'a.jpg,0 2\nb.png,"1, 2"\nc d.jpg,\n', {"a.jpg": ("0", "2"), "b.png": ("1", "2"), "sub/c d.jpg": ()},
        "3 classes, multi: sets of up to 2, 1 images without a class",
    ),
    "TSV": ("x.tsv", "a.jpg\tgolden retriever\nb.png\tcat\nsub/c d.jpg\tcat\n", SINGLE, "separated by tabs, no header"),
    "TSV with a header, as text": (
        "x.txt", "file\tclass\na.jpg\tgolden retriever\nb.png\tcat\nc d.jpg\tcat\n", SINGLE, "tabs, header 'file', 'class'",
    ),
    "CSV as text": ("x.txt", "a.jpg,golden retriever\nb.png,cat\nc d.jpg,cat\n", SINGLE, "separated by commas, no header"),
    "CSV with tabs": ("x.csv", "a.jpg\tgolden retriever\nb.png\tcat\nc d.jpg\tcat\n", SINGLE, "separated by tabs"),
}  # fmt: skip
OF_WORDS = {  # of images whose names have no spaces
    "white space": (
        "x.txt", "# names\na.jpg cat\nb.png   dog\n", {"a.jpg": ("cat",), "b.png": ("dog",)}, "white space, no header",
    ),
    "white space, sets": (
        "x", "a.jpg cat dog\nb.png dog\n", {"a.jpg": ("cat", "dog"), "b.png": ("dog",)}, "classes after it; 2 classes, multi",
    ),
    "white space, numbers with commas": (
        "x.txt", "a.jpg 0, 2\nb.png 1\n", {"a.jpg": ("0", "2"), "b.png": ("1",)}, "white space, no header, images in column 1",
    ),
    "white space with a header": (
        "x.txt", "image label\na.jpg cat\nb.png dog\n", {"a.jpg": ("cat",), "b.png": ("dog",)}, "header 'image', 'label'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("spelling", [*READ, *OF_WORDS])
def test_a_table_of_labels_is_understood_as_it_is_meant_and_that_is_said_in_one_line(tmp_path, spelling, capsys):
    name, text, expected, line = (READ | OF_WORDS)[spelling]
    assert labeled(tmp_path, name, text, IMAGES if spelling in READ else WORDS) == expected
    said = capsys.readouterr().err
    assert said.startswith(f"{tmp_path / name}: separated by ") and said.count("\n") == 1 and line in said


REFUSED = {
    "columns that could all be classes": (
        "x.csv",
        "image,width,height\na.jpg,1,2\nb.png,3,4\n",
        "'image', 'width', 'height': which",
    ),
    "more columns than its header": ("x.csv", "n,image,class\n0,a.jpg,cat,dog\n1,b.png,dog\n", "4 columns, and 3 of them in"),
    "two columns of classes": ("x.csv", "image,class,breed\na.jpg,cat,x\nb.png,dog,y\n", "which of them are classes"),
    "no header and an index": ("x.csv", "0,a.jpg,cat\n1,b.png,dog\n", "3 columns, images in column 2 and no header"),
    "numbers beside names": ("x.csv", "a.jpg,cat,3\nb.png,dog,4\n", "columns of numbers beside columns of names"),
    "scores": ("x.csv", "a.jpg,cat,0.97\nb.png,dog,0.4\n", "columns of numbers beside columns of names"),
    "a comma among words": ("x.txt", "a.jpg cat, black\nb.png dog\n", 'is the comma part of a name.*a.jpg,"cat, black"'),
    "a quote that does not end": ("x.csv", 'a.jpg,"cat\nb.png,dog\n', "cannot be read as a table"),
    "no classes": ("x.csv", "a.jpg\nb.png\n", "none of their classes: write a line NAME,CLASS"),
    "nothing": ("x.csv", "", "it is empty"),
    "other images": ("x.csv", "c.jpg,cat\nd.jpg,dog\n", "has no line for a.jpg"),
    "an image too many": ("x.csv", "a.jpg,cat\nb.png,dog\nc.jpg,dog\n", "no image is named c.jpg"),
    "a first image without suffix that is not there": ("x.csv", "c,cat\na,cat\nb,dog\n", "no image is named c"),
    "an image twice": ("x.csv", "a.jpg,cat\nb.png,dog\na.jpg,dog\n", "more than one line for a.jpg"),
    "another encoding": ("x.csv", "a.jpg,chÿ\n".encode("latin-1"), "is not text in UTF-8"),
    "UTF-16": ("x.csv", "a.jpg,cat\n".encode("utf-16"), "is not text in UTF-8"),
}


@pytest.mark.parametrize("spelling", REFUSED)
def test_a_table_that_could_mean_several_things_is_refused_with_what_to_do(tmp_path, spelling):
    name, text, message = REFUSED[spelling]
    with pytest.raises(UserError, match=message):
        labeled(tmp_path, name, text, WORDS)


def test_a_number_is_a_class_and_not_an_image_whose_name_begins_with_it(tmp_path):
    text = "class,image\n1,0.jpg\n2,1.jpg\n0,2.jpg\n"
    assert labeled(tmp_path, "x.csv", text, ["0.jpg", "1.jpg", "2.jpg"]) == {"0.jpg": ("1",), "1.jpg": ("2",), "2.jpg": ("0",)}


def test_a_class_that_is_given_may_look_like_several(tmp_path):
    (tmp_path / "classes.txt").write_text("7 11\ncrane, bird\n")
    text = 'a.jpg,7 11\nb.png,"crane, bird"\nc d.jpg,1\n'
    found = labeled(tmp_path, "x.csv", text, classes=str(tmp_path / "classes.txt"))
    assert found == {"a.jpg": ("7 11",), "b.png": ("crane, bird",), "sub/c d.jpg": ("crane, bird",)}


@pytest.mark.parametrize("name", ["classes.txt", "classes.json"])
def test_classes_keep_their_spaces_and_lose_a_byte_order_mark(tmp_path, name):
    text = "\ufeffgolden retriever\r\ncat\r\n" if name.endswith("txt") else '\ufeff{"class_names": ["golden retriever", "cat"]}'
    (tmp_path / name).write_text(text)
    assert read_classes(str(tmp_path / name)) == ("golden retriever", "cat")


CLS = {  # the texts of the .cls files of two images
    "numbers": ((b"2", b"0\n"), (("2",), ("0",)), "3 classes, single"),
    "sets of numbers": ((b"7, 2 7", b"1\n3"), (("2", "7"), ("1", "3")), "8 classes, multi: sets of up to 2"),
    "a name with spaces": ((b"golden retriever\n", b"cat"), (("golden retriever",), ("cat",)), "2 classes, single"),
    "a byte order mark": (("\ufeffcat".encode(), b"dog"), (("cat",), ("dog",)), "2 classes, single"),
    "names with commas": ((b"golden retriever, cat", b"cat"), (("cat", "golden retriever"), ("cat",)), "multi: sets of up to 2"),
    "names on lines": ((b"golden retriever\r\ncat\n", b"cat"), (("cat", "golden retriever"), ("cat",)), "multi: sets of up to 2"),
    "nothing": ((b"", b"cat"), ((), ("cat",)), "1 classes, multi: sets of up to 1, 1 images without a class"),
}


@pytest.mark.parametrize("spelling", CLS)
def test_a_cls_file_is_a_number_numbers_or_names(tmp_path, spelling, capsys):
    (first, second), expected, line = CLS[spelling]
    members = {"0.jpg": b"x", "0.cls": first, "1.jpg": b"x", "1.cls": second, "._1.jpg": b"", "._1.cls": b""}
    miniature.make_tar(tmp_path / "x.tar", members)
    found = labels_of(f"webdataset:{tmp_path}/x.tar")
    assert found == dict(zip(("00000/0.jpg", "00000/1.jpg"), expected, strict=True))
    said = capsys.readouterr().err
    assert f"webdataset:{tmp_path}/x.tar: .cls files; " in said and line in said and "left out: 2 hidden" in said


def test_a_cls_file_in_another_encoding_is_refused(tmp_path):
    miniature.make_tar(tmp_path / "x.tar", {"0.jpg": b"x", "0.cls": "chÿ".encode("latin-1")})
    with pytest.raises(UserError, match=r"0\.cls is not text in UTF-8"):
        labels_of(f"webdataset:{tmp_path}/x.tar")
