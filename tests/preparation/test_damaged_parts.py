"""What lies in .preparing/ when parts are joined may be damaged, of another plan, or somebody else's."""

import json
import os
from pathlib import Path

import pytest
from preparation import miniature
from preparation.preparing import contents, spec_of

from mixer_jax.errors import UserError
from mixer_jax.preparation.join import join
from mixer_jax.preparation.parts import Part
from mixer_jax.preparation.prepare import prepare, prepare_part
from mixer_jax.preparation.spec import PreparationSpec


def change(file: Path, **changes) -> None:
    """Change entries of a file of JSON. A row then has no seal, like those of older versions, so that its entries are checked."""
    content = json.loads(file.read_text()) | changes
    content.pop("seal", None)
    file.write_text(json.dumps(content))


ROW = "shard-000001.json"
DAMAGES = {
    "no JSON": lambda file: file.write_text('{"a"'),
    "a list": lambda file: file.write_text("[]"),
    "an empty file": lambda file: file.write_text(""),
    "nested too deep": lambda file: file.write_bytes(b'{"a":' + b"[" * 10**5),
    "no entries": lambda file: file.write_text("{}"),
    "a pipe": lambda file: (file.unlink(), os.mkfifo(file)),
    "a device": lambda file: (file.unlink(), file.symlink_to("/dev/zero")),
}
DAMAGED_ROWS = DAMAGES | {
    "no file": lambda file: file.unlink(),
    "the row of another shard": lambda file: file.write_bytes((file.parent / "shard-000003.json").read_bytes()),
    "another name": lambda file: change(file, name="../../x"),
    "another size": lambda file: change(file, bytes=1),
    "a size that is no number": lambda file: change(file, bytes="many"),
    "a negative count": lambda file: change(file, records=-1),
    "another digest of the ends": lambda file: change(file, ends_sha256="0"),
    "a digest that is no text": lambda file: change(file, sha256=None),
    "copies of two entries": lambda file: change(file, duplicates=[["a", "b"]]),
    "unreadable images without a reason": lambda file: change(file, left_out=[["a", None]]),
    "an entry more": lambda file: change(file, more=1),
    "a count that the seal does not fit": lambda file: file.write_text(file.read_text().replace('encoded": 0', 'encoded": 1')),
}


@pytest.fixture(scope="module")
def parts_made(tmp_path_factory):
    """A spec, and the folder of its two parts, which are not joined."""
    root = tmp_path_factory.mktemp("parts")
    spec = spec_of(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(root / "cache"))
        for number in (1, 2):
            prepare_part(spec, root / "to", 2, Part(number, 2))
        prepare(spec, root / "one", 2)
    return spec, root


def copied(parts_made: tuple, to: Path) -> tuple[PreparationSpec, Path, dict[str, bytes]]:
    spec, root = parts_made
    miniature.make_tree(to, miniature.folder_bytes(root / "to"))
    return spec, to / "train", contents(root / "one")


@pytest.mark.parametrize("damage", DAMAGED_ROWS)
def test_a_shard_whose_row_is_damaged_must_be_made_again_and_is(tmp_path, parts_made, damage):
    spec, target, one = copied(parts_made, tmp_path / "to")
    DAMAGED_ROWS[damage](target / ".preparing" / ROW)
    with pytest.raises(UserError, match=r"1 of its 4 shards are missing or damaged\. Run the parts 2/2, each by its command: "):
        join(target, 2)
    assert "2 of 4 shards, 1 made now" in prepare_part(spec, tmp_path / "to", 2, Part(2, 2))
    join(target, 2)
    assert contents(tmp_path / "to") == one


@pytest.mark.parametrize("damage", ["missing", "truncated", "swapped", "altered at its end"])
def test_a_damaged_shard_is_made_again_by_its_part(tmp_path, parts_made, damage):
    spec, target, one = copied(parts_made, tmp_path / "to")
    victim, other = target / "train-00002-of-00004.array_record", target / "train-00000-of-00004.array_record"
    content = victim.read_bytes()
    if damage == "missing":
        victim.unlink()
    else:
        changed = {"truncated": content[:-1], "swapped": other.read_bytes()}
        victim.write_bytes(changed.get(damage, content[:-9] + b"?" + content[-8:]))
    with pytest.raises(UserError, match=r"1 of its 4 shards are missing or damaged\. Run the parts 1/2, each"):
        join(target, 2)
    prepare_part(spec, tmp_path / "to", 2, Part(1, 2))
    join(target, 2)
    assert contents(tmp_path / "to") == one


@pytest.mark.parametrize(
    "damage",
    [
        *DAMAGES,
        {"class_names": "ab"},
        {"class_names": []},
        {"class_names": [1, 2, 3]},
        {"allow_empty_classes": "no"},
        {"images": 10**30},
        {"images": "many"},
        {"records_per_shard": 0},
    ],
)
def test_a_damaged_plan_is_refused_in_words_and_written_anew_by_a_part(tmp_path, parts_made, damage):
    spec, target, one = copied(parts_made, tmp_path / "to")
    file = target / ".preparing/plan.json"
    change(file, **damage) if isinstance(damage, dict) else DAMAGES[damage](file)
    with pytest.raises(UserError, match=rf"plan\.json is missing or damaged.*rm -f {file}$"):
        join(target, 2)
    file.unlink()
    with pytest.raises(UserError, match=r"plan\.json is missing or damaged"):
        join(target, 2)
    assert "0 made now" in prepare_part(spec, tmp_path / "to", 2, Part(2, 2))
    join(target, 2)
    assert contents(tmp_path / "to") == one


def test_other_numbers_or_names_in_a_plan_join_nothing(tmp_path, parts_made):
    for changes in ({"images": 2**62}, {"images": 7}, {"seed": 1}, {"class_names": ["a", "b", "c"]}):
        _, target, _ = copied(parts_made, tmp_path / "to")
        change(target / ".preparing/plan.json", **changes)
        with pytest.raises(UserError, match=r"shards are missing or damaged\. Run the parts 1/2, 2/2, each"):
            join(target, 2)


def test_no_text_of_a_plan_is_shown_as_a_command_unchecked(tmp_path, parts_made):
    _, target, _ = copied(parts_made, tmp_path / "to")
    (target / ".preparing" / ROW).unlink()
    for command, shown in (("rm -rf ~", "--from KIND:PATH"), ("python -m mixer_jax prepare --seed `x`; x", "--seed '`x`;' x")):
        change(target / ".preparing/plan.json", command=command)
        with pytest.raises(UserError, match="shards are missing") as error:
            join(target, 2)
        assert str(error.value).endswith(f"python -m mixer_jax prepare {shown} --to {target.parent} --part 2/2")


def test_what_an_older_version_began_is_ended_by_the_whole_command(tmp_path, parts_made):
    """Before there were parts, plan.json had no classes, and a row did not name its plan."""
    spec, target, one = copied(parts_made, tmp_path / "to")
    later = {"seal", "class_names", "allow_empty_classes"}
    for file in (target / ".preparing").glob("*.json"):
        content = json.loads(file.read_text())
        file.write_text(json.dumps({key: content[key] for key in content.keys() - later}))
    with pytest.raises(UserError, match=r"begun by an earlier version of mixer_jax, which made no parts\. Go on: python "):
        join(target, 2)
    prepare(spec, tmp_path / "to", 2)
    assert contents(tmp_path / "to") == one


def test_a_link_in_place_of_the_unfinished_files_is_refused(tmp_path, parts_made):
    spec, target, _ = copied(parts_made, tmp_path / "to")
    (target / ".preparing").rename(tmp_path / "elsewhere")
    (target / ".preparing").symlink_to(tmp_path / "elsewhere")
    for work in (lambda: join(target, 2), lambda: prepare_part(spec, tmp_path / "to", 2, Part(1, 2))):
        with pytest.raises(UserError, match="is a link to"):
            work()
