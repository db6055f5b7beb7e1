"""A preparation that is started again goes on, makes damaged shards anew, or says why it cannot."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from preparation import miniature
from preparation.miniature import CLASSES
from preparation.preparing import TRAIN, make, tar_of_tars, tree

from mixer_jax.__main__ import main
from mixer_jax.config import dataset
from mixer_jax.data.sources import manifest
from mixer_jax.data.sources.manifest import Manifest
from mixer_jax.data.sources.registry import open_source
from mixer_jax.endings import DONE, TO_MEND
from mixer_jax.errors import EnvironmentFault, UserError
from mixer_jax.lease import Lease
from mixer_jax.preparation import finishing
from mixer_jax.preparation.prepare import prepare
from mixer_jax.preparation.spec import PreparationSpec

KILLED = """
import os, sys
from pathlib import Path
sys.path[:0] = ["", "tests"]
from preparation.dying import child, die_at
from mixer_jax.data.sources import shards
from mixer_jax.preparation.spec import PreparationSpec
from mixer_jax.preparation.prepare import prepare

source, to, references, moments = sys.argv[1], Path(sys.argv[2]), tuple(sys.argv[3].split()), sys.argv[4:]

for number, moment in enumerate(moments):
    folder = to / str(number)
    def run(killed):
        if killed:
            kind, when, number_of_call = moment.split(":")
            die_at(shards if kind == "pack" else os, kind, when, int(number_of_call))
        prepare(PreparationSpec(source, "train", records_per_shard=5, drop_near_duplicates_of=references), folder, 3)
    status = [child(lambda: run(True))]
    done = {file.name: file.stat().st_mtime_ns for file in folder.glob("train/*.array_record")}
    rows = {file.stem for file in folder.glob("train/.preparing/shard-*.json")}
    status.append(child(lambda: run(False)))
    kept = sum(file.stat().st_mtime_ns == done.get(file.name) for file in folder.glob("train/*.array_record"))
    print(moment, *status, len(rows), kept)
"""
MOMENTS = [f"replace:{when}:{number}" for when in ("before", "after") for number in range(1, 9)]
MOMENTS += [
    "fsync:before:1",
    "fsync:after:2",
    "fsync:before:3",
    "fsync:after:4",
    "unlink:before:1",
    "unlink:after:2",
    "pack:after:2",
    "pack:before:9",
]


def some_of_them(root: Path) -> str:
    return f"folder:{miniature.make_tree(root / 'test', {name: data for name, data in TRAIN.items() if '_3' in name})}"


@pytest.mark.parametrize(
    ("references", "moments"),
    [
        (None, MOMENTS),
        (some_of_them, ["pack:after:4", "replace:after:3", "replace:before:8", "replace:after:8", "replace:before:9"]),
    ],
    ids=["", "with duplicates"],
)
def test_a_killed_preparation_goes_on_and_ends_bitwise_the_same(tmp_path, references, moments):
    source, references = tar_of_tars(tmp_path), [references(tmp_path)] if references else []
    make(source, tmp_path / "whole", records_per_shard=5, drop_near_duplicates_of=tuple(references))
    command = [sys.executable, "-c", KILLED, source, str(tmp_path / "killed"), " ".join(references), *moments]
    out = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    whole = miniature.folder_bytes(tmp_path / "whole")
    lines = [line.split() for line in out.splitlines()]
    assert [line[0] for line in lines] == moments
    assert Manifest(tmp_path / "whole/train").content["duplicates"]["exact"] == 3 * len(references)
    for number, (moment, killed, resumed, rows, kept) in enumerate(lines):
        assert (killed, resumed) == ("9", "0"), moment
        assert miniature.folder_bytes(tmp_path / "killed" / str(number)) == whole, moment
        assert int(kept) >= int(rows), f"{moment}: {rows} shards had their row, {kept} were kept"


@pytest.mark.parametrize("damage", ["missing", "altered", "truncated"])
def test_the_same_command_mends_a_finished_split_and_leaves_the_whole_shards(tmp_path, damage):
    source = tree(tmp_path)
    make(source, tmp_path / "to", records_per_shard=3)
    before = miniature.folder_bytes(tmp_path / "to")
    times = {file: file.stat().st_mtime_ns for file in (tmp_path / "to/train").glob("*.array_record")}
    victim = sorted(times)[2]
    if damage == "missing":
        victim.unlink()
    else:
        content = bytearray(victim.read_bytes())
        content[300] ^= 1
        victim.write_bytes(content if damage == "altered" else content[:-1])
    with pytest.raises(UserError, match=victim.name):
        open_source(dataset(f"records:{tmp_path / 'to'}"))
    make(source, tmp_path / "to", records_per_shard=3)
    assert miniature.folder_bytes(tmp_path / "to") == before
    assert {file for file in times if file.stat().st_mtime_ns != times[file]} == {victim}


def test_a_folder_with_another_split_is_refused_and_left_as_it_is(tmp_path):
    source = tree(tmp_path)
    make(source, tmp_path / "to")
    before = miniature.folder_bytes(tmp_path / "to")
    (tmp_path / "tree" / CLASSES[0] / "new.jpg").write_bytes(miniature.jpeg(99))
    with pytest.raises(UserError, match=r"holds another split .*inputs_sha256.*Choose another --to"):
        make(source, tmp_path / "to")
    assert miniature.folder_bytes(tmp_path / "to") == before


def test_an_unfinished_split_is_refused_with_its_command(tmp_path):
    source = f"folder:{miniature.make_tree(tmp_path / 'tree', TRAIN | {'n99/x.jpg': b'bad'})}"
    with pytest.raises(UserError, match="1 images cannot be read"):
        make(source, tmp_path / "to")
    with pytest.raises(UserError, match=r"not prepared to its end.*python -m mixer_jax prepare --from folder:.*--to "):
        open_source(dataset(f"records:{tmp_path / 'to'}"))


def test_a_link_that_leads_back_is_refused(tmp_path):
    source = tree(tmp_path)
    (tmp_path / "tree" / CLASSES[0] / "again").symlink_to(tmp_path / "tree")
    with pytest.raises(UserError, match="reached twice, through a link"):
        make(source, tmp_path / "to")


def test_a_full_disk_is_said_in_words_and_the_same_command_goes_on(tmp_path, monkeypatch):
    source = tree(tmp_path)
    make(source, tmp_path / "whole", records_per_shard=4)
    real, calls = os.replace, []

    def replace(*arguments):
        calls.append(arguments)
        if len(calls) == 5:
            raise OSError(28, "No space left on device")
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace)
        with pytest.raises(OSError, match=r"No space left on device"):
            make(source, tmp_path / "to", records_per_shard=4)
    make(source, tmp_path / "to", records_per_shard=4)
    assert miniature.folder_bytes(tmp_path / "to") == miniature.folder_bytes(tmp_path / "whole")


def test_a_name_with_spaces_is_quoted_in_the_command(tmp_path):
    assert (
        PreparationSpec("folder:my photos", "train", skip_unreadable=True)
        .command()
        .endswith("prepare --from 'folder:my photos' --split train --skip-unreadable")
    )


@pytest.mark.parametrize("flag", ["--skip-bad", "--skip-unreadable"])
@pytest.mark.parametrize("done", ["some", "all"])
def test_a_preparation_that_an_older_version_began_goes_on_by_the_old_flag_and_the_new(tmp_path, monkeypatch, capsys, flag, done):
    """Version 094b98b wrote --skip-bad into plan.json and manifest.json, and everything else as now."""
    images, to = TRAIN | {f"{CLASSES[0]}/x.jpg": b"no image"}, tmp_path / "to"
    source = f"folder:{miniature.make_tree(tmp_path / 'tree', images)}"
    make(source, to, records_per_shard=4, skip_unreadable=True)
    whole, split = miniature.folder_bytes(to), to / "train"
    manifest = json.loads((split / "manifest.json").read_text())
    made = manifest["made"] | {"command": manifest["made"]["command"].replace("--skip-unreadable", "--skip-bad")}
    if done == "some":
        (split / "manifest.json").unlink()
        (split / ".preparing").mkdir()
        (split / ".preparing/plan.json").write_text(json.dumps(made))
        for number, shard in enumerate(manifest["shards"][:2]):
            (split / f".preparing/shard-{number:06d}.json").write_text(json.dumps(shard))
        with pytest.raises(UserError, match=f"goes on: python -m mixer_jax prepare .* --skip-bad --to {to}"):
            open_source(dataset(f"records:{to}"))
    else:
        (split / "manifest.json").write_text(json.dumps(manifest | {"made": made}))
    victims = sorted(split.glob("*.array_record"))
    victims[-1].unlink()
    times = [file.stat().st_mtime_ns for file in victims[:2]]
    command = ["mixer_jax", *made["command"].replace("--skip-bad", flag).split()[3:], "--to", str(to)]
    monkeypatch.setattr(sys, "argv", command)
    assert main() == DONE
    assert ("--skip-bad is now --skip-unreadable." in capsys.readouterr().err) == (flag == "--skip-bad")
    assert miniature.folder_bytes(to) == whole and [file.stat().st_mtime_ns for file in victims[:2]] == times


def test_two_preparations_of_one_folder_do_not_meet(tmp_path):
    (tmp_path / "to/train/.preparing").mkdir(parents=True)
    lease = Lease(tmp_path / "to/train/.preparing/lock")
    with pytest.raises(EnvironmentFault, match=r"is being prepared by process \d+ on .*Wait for it"):
        make(tree(tmp_path), tmp_path / "to")
    lease.close()


def test_the_command_prepares_verifies_and_mends(tmp_path, monkeypatch, capsys):
    def call(*words: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["mixer_jax", "prepare", *words])
        code = main()
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    command = ["--from", tree(tmp_path), "--to", str(tmp_path / "to"), "--records-per-shard=4"]
    code, out = call(*command)
    assert code == DONE and "15 images of 3 classes in 4 shards" in out
    code, out = call("--verify", str(tmp_path / "to"))
    assert code == DONE and "to/train: 4 shards are whole" in out
    made = json.loads((tmp_path / "to/train/manifest.json").read_text())["made"]["command"]
    os.unlink(tmp_path / "to/train/train-00001-of-00004.array_record")
    code, out = call("--verify", str(tmp_path / "to"))
    assert code == TO_MEND and "train-00001-of-00004.array_record is missing" in out and f"{made} --to {tmp_path / 'to'}" in out
    assert call(*made.split()[4:], "--to", str(tmp_path / "to"))[0] == DONE
    assert call("--verify", str(tmp_path / "to/train"))[0] == DONE
    assert call("--from", tree(tmp_path)) == (
        TO_MEND,
        "error: --to DIR is missing: the folder to make, whose sub-folder SPLIT holds the shards.\n",
    )


def test_a_shard_that_changes_after_it_was_hashed_has_no_receipt(tmp_path, monkeypatch):
    def change(target, shards):
        file = target / shards[0].name
        content = bytearray(file.read_bytes())
        content[content.index(b"\xff\xd8") + 300] ^= 1
        file.write_bytes(content)

    real = finishing.make_manifest

    def make_manifest(target, plan, shards):
        change(target, shards)
        return real(target, plan, shards)

    monkeypatch.setattr(finishing, "make_manifest", make_manifest)
    monkeypatch.setattr(manifest, "END_BYTES", 16)  # The change lies outside these bytes.
    prepare(PreparationSpec(tree(tmp_path), "train"), tmp_path / "to", threads=2)
    with pytest.raises(UserError, match=r"is altered, or another shard under its name"):
        Manifest(tmp_path / "to" / "train").check("full")
