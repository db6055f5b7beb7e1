"""Several machines make a split together: its folder is that of one machine, whatever is killed, repeated or damaged."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import ROOT
from preparation import miniature
from preparation.miniature import CLASSES
from preparation.preparing import TRAIN, contents, spec_of, tree
from test_documentation import PAGES

from mixer_jax.__main__ import main
from mixer_jax.data.sources.manifest import Manifest
from mixer_jax.endings import DONE, TO_MEND
from mixer_jax.errors import EnvironmentFault, UserError
from mixer_jax.lease import Lease
from mixer_jax.preparation.join import join
from mixer_jax.preparation.parts import Part, parse_part, unfinished_parts
from mixer_jax.preparation.prepare import prepare, prepare_part
from mixer_jax.preparation.spec import PreparationSpec
from mixer_jax.preparation.unfinished import hold


def copies(root: Path) -> dict:
    """References that are some of the images, so that copies are dropped."""
    some = {name: data for name, data in TRAIN.items() if "_3" in name}
    return {"drop_near_duplicates_of": (f"folder:{miniature.make_tree(root / 'test', some)}",)}


def several_labels(root: Path) -> dict:
    rows = [f"{name} {CLASSES[0]} {CLASSES[1 + number % 2]}\n" for number, name in enumerate(TRAIN)]
    (root / "labels.txt").write_text("".join(rows))
    return {"labels": str(root / "labels.txt")}


def make_parts(spec: PreparationSpec, to: Path, count: int) -> str:
    for number in range(count, 0, -1):
        prepare_part(spec, to, 2, Part(number, count))
    return join(to / spec.split, count)


@pytest.mark.parametrize("count", [1, 2, 3, 6])
@pytest.mark.parametrize("options", [lambda _: {}, copies, several_labels], ids=["", "copies dropped", "several labels"])
def test_the_folder_of_parts_is_bitwise_that_of_one_machine(tmp_path, count, options):
    spec = spec_of(tmp_path, **options(tmp_path))
    summary = prepare(spec, tmp_path / "one", 2).summary().replace("/one/", "/parts/")
    said = make_parts(spec, tmp_path / "parts", count)
    one = contents(tmp_path / "one")
    page = one.pop("train/duplicates.html", None)
    assert contents(tmp_path / "parts") == one
    assert said.startswith(summary)
    assert (page is not None) == spec.drops_near_duplicates == ("duplicates.html needs the images of the source" in said)
    if page:
        times = {file: file.stat().st_mtime_ns for file in (tmp_path / "parts/train").glob("*.array_record")}
        prepare(spec, tmp_path / "parts", 2)
        assert contents(tmp_path / "parts") == contents(tmp_path / "one")
        assert all(file.stat().st_mtime_ns == time for file, time in times.items())


def test_parts_that_begin_at_the_same_time_do_not_meet(tmp_path):
    spec = spec_of(tmp_path)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: prepare_part(spec, tmp_path / "to", 1, Part(number, 4)), range(1, 5)))
    join(tmp_path / "to/train", 4)
    prepare(spec, tmp_path / "one", 2)
    assert contents(tmp_path / "to") == contents(tmp_path / "one")


def test_parts_name_each_shard_once():
    for num_shards in range(1, 9):
        for count in range(1, 12):
            parts = [Part(number, count) for number in range(1, count + 1)]
            assert sorted(shard for part in parts for shard in part.shards(num_shards)) == list(range(num_shards))
            assert unfinished_parts([], num_shards, count) == [part for part in parts if part.shards(num_shards)]
            for part in parts:
                others = set(range(num_shards)) - set(part.shards(num_shards)[:1])
                assert unfinished_parts(others, num_shards, count) == ([part] if part.shards(num_shards) else [])


KILLED = """
import os, shutil, sys
from pathlib import Path
sys.path[:0] = ["", "tests"]
from preparation.dying import child, die_at
from mixer_jax.preparation.join import join
from mixer_jax.preparation.parts import Part
from mixer_jax.preparation.prepare import prepare_part
from mixer_jax.preparation.spec import PreparationSpec

spec, to, done = PreparationSpec(sys.argv[1], "train", records_per_shard=4), Path(sys.argv[2]), Path(sys.argv[2], "done")
make = [lambda folder: prepare_part(spec, folder, 1, Part(1, 2)), lambda folder: prepare_part(spec, folder, 1, Part(2, 2))]
end = lambda folder: join(folder / "train", 2)
assert [child(lambda: work(done)) for work in make] == [0, 0]
for moment in sys.argv[3:]:
    job, name, when, number = moment.split(":")
    folder, work = to / moment, end if job == "join" else make[1]
    def die():
        die_at(os, name, when, int(number))
        work(folder)
    if job == "join":
        shutil.copytree(done, folder)
    print(moment, child(die), child(lambda: work(folder)), job == "join" or child(lambda: (make[0](folder), end(folder))))
"""
MOMENTS = [
    "part:replace:before:1", "part:replace:after:2", "part:replace:before:3", "join:replace:before:1", "join:replace:after:1",
    "join:unlink:before:1", "join:unlink:after:3", "join:unlink:before:8", "join:unlink:after:8",
]  # fmt: skip


def test_killed_parts_and_joins_are_repeated_and_end_bitwise_the_same(tmp_path):
    spec = spec_of(tmp_path)
    prepare(spec, tmp_path / "one", 2)
    command = [sys.executable, "-c", KILLED, spec.source, str(tmp_path / "killed"), *MOMENTS]
    out = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert [line.split()[:3] for line in out.splitlines()] == [[moment, "9", "0"] for moment in MOMENTS]
    for moment in MOMENTS:
        assert contents(tmp_path / "killed" / moment) == contents(tmp_path / "one"), moment


def test_a_join_names_the_parts_that_must_still_run_and_the_command(tmp_path):
    spec, target = spec_of(tmp_path), tmp_path / "to/train"
    with pytest.raises(UserError, match=r"no parts to join\. Make them first: python .* --split train --part 1/3$"):
        join(target, 3)
    assert not target.exists()
    prepare_part(spec, tmp_path / "to", 2, Part(2, 3))
    with pytest.raises(UserError, match=r"3 of its 4 shards are missing or damaged\. Run the parts 1/3, 3/3, each") as error:
        join(target, 3)
    assert str(error.value).endswith(f"{spec.command()} --to {tmp_path / 'to'} --part 1/3")
    prepare_part(spec, tmp_path / "to", 2, Part(1, 3))
    prepare_part(spec, tmp_path / "to", 2, Part(3, 3))
    assert "15 images of 3 classes in 4 shards" in join(target, 3)
    assert join(target, 3) == f"{target} is finished: its parts were joined before."
    assert prepare_part(spec, tmp_path / "to", 2, Part(1, 3)) == f"{target} is finished, with all of its parts."


@pytest.mark.parametrize("finished", [False, True])
def test_a_part_with_other_options_is_refused_with_what_differs(tmp_path, finished):
    spec, to = spec_of(tmp_path), tmp_path / "to"
    if finished:
        prepare(spec, to, 2)
    else:
        prepare_part(spec, to, 2, Part(1, 2))
    before = contents(to)
    with pytest.raises(UserError, match=r"holds another split \(other seed\), made by: python .*Choose another --to"):
        prepare_part(spec_of(tmp_path, seed=1), to, 2, Part(2, 2))
    assert contents(to) == before


def test_shards_of_another_plan_are_never_joined(tmp_path):
    """Two machines that begin at the same time see no plan of each other. The later one replaces it."""
    other, spec, to = spec_of(tmp_path, seed=1), spec_of(tmp_path), tmp_path / "to"
    prepare_part(other, to, 2, Part(1, 2))
    (to / "train/.preparing/plan.json").unlink()
    prepare_part(spec, to, 2, Part(2, 2))
    with pytest.raises(UserError, match=r"2 of its 4 shards are missing or damaged\. Run the parts 1/2, each"):
        join(to / "train", 2)
    prepare_part(spec, to, 2, Part(1, 2))
    join(to / "train", 2)
    prepare(spec, tmp_path / "one", 2)
    assert contents(to) == contents(tmp_path / "one")


def test_the_whole_command_goes_on_with_parts_and_leaves_their_shards(tmp_path):
    spec, to = spec_of(tmp_path), tmp_path / "to"
    prepare_part(spec, to, 2, Part(2, 2))
    times = {file: file.stat().st_mtime_ns for file in (to / "train").glob("*.array_record")}
    assert len(times) == 2
    prepare(spec, to, 2)
    prepare(spec, tmp_path / "one", 2)
    assert contents(to) == contents(tmp_path / "one")
    assert all(file.stat().st_mtime_ns == time for file, time in times.items())


def test_who_must_wait_for_whom(tmp_path):
    spec, to = spec_of(tmp_path), tmp_path / "to"
    target, owner = to / "train", rf"by process {os.getpid()} on .*\. Wait for it, or stop it"
    with hold(target, Part(1, 2)):
        with pytest.raises(EnvironmentFault, match=rf"Part 1/2 of {target} is being made {owner}"):
            prepare_part(spec, to, 2, Part(1, 2))
        for alone in (lambda: prepare(spec, to, 2), lambda: join(target, 2)):
            with pytest.raises(EnvironmentFault, match=rf"{target} or a part of it is being prepared by another process\. Wait"):
                alone()
        prepare_part(spec, to, 2, Part(2, 2))
    with hold(target), pytest.raises(EnvironmentFault, match=rf"prepared as a whole, or its parts joined, {owner}"):
        prepare_part(spec, to, 2, Part(1, 2))
    prepare_part(spec, to, 2, Part(1, 2))
    join(target, 2)
    with hold(target):
        assert "joined before" in join(target, 2)
        assert (target / ".preparing/lock").exists(), "it is another's, who repairs the split"


def test_a_join_beside_another_leaves_nothing_over(tmp_path, monkeypatch):
    """The other join begins and ends after we saw that the split is not finished."""
    spec = spec_of(tmp_path)
    works = {
        "join": lambda to: join(to / "train", 1),
        "prepare": lambda to: prepare_part(spec, to, 2, Part(1, 1)),
    }
    for module, work in works.items():
        to = tmp_path / module
        prepare_part(spec, to, 2, Part(1, 1))
        with monkeypatch.context() as patch:

            def hold_later(*arguments, to=to, patch=patch):
                patch.undo()
                join(to / "train", 1)
                return hold(*arguments)

            patch.setattr(f"mixer_jax.preparation.{module}.hold", hold_later)
            assert f"{to}/train is finished" in work(to)
        assert not (to / "train/.preparing").exists()


def test_a_folder_that_its_owner_removes_while_another_wants_it_is_not_held(tmp_path, monkeypatch):
    """The owner ends between our opening of the lock and our locking, or before the opening."""
    real = Lease.__init__

    def removed_before(lease, path, shared=False):
        shutil.rmtree(path.parent)
        real(lease, path, shared)

    def removed_after(lease, path, shared=False):
        real(lease, path, shared)
        shutil.rmtree(path.parent)

    for removed in (removed_before, removed_after):
        with monkeypatch.context() as patch:
            patch.setattr(Lease, "__init__", removed)
            with pytest.raises(EnvironmentFault, match="by a process that has just ended"), hold(tmp_path / "train"):
                pass
    with hold(tmp_path / "train"):
        assert (tmp_path / "train/.preparing/lock").exists()


def test_unreadable_images_are_named_by_their_part_and_left_out_by_all(tmp_path):
    images = TRAIN | {f"{CLASSES[0]}/x.jpg": b"no image", f"{CLASSES[1]}/y.jpg": b"no image"}
    source, to = f"folder:{miniature.make_tree(tmp_path / 'tree', images)}", tmp_path / "to"
    spec = PreparationSpec(source, "train", records_per_shard=1)
    named = 0
    for number in (1, 2):
        with pytest.raises(UserError, match=rf"leave them out: in every part: .* --skip-unreadable --part {number}/2$") as error:
            prepare_part(spec, to, 2, Part(number, 2))
        named += str(error.value).count("none of JPEG")
    assert named == 2
    spec = PreparationSpec(source, "train", records_per_shard=1, skip_unreadable=True)
    make_parts(spec, to, 2)
    prepare(spec, tmp_path / "one", 2)
    assert contents(to) == contents(tmp_path / "one")


def test_a_class_that_is_left_without_images_is_refused_by_the_join_until_it_is_allowed(tmp_path):
    source, to = f"folder:{miniature.make_tree(tmp_path / 'tree', TRAIN | {'n99/x.jpg': b'bad'})}", tmp_path / "to"
    options = {"skip_unreadable": True, "records_per_shard": 4}
    with pytest.raises(UserError, match=r"1 of 4 classes have no image, the first is 'n99'.*--allow-empty-classes"):
        make_parts(PreparationSpec(source, "train", **options), to, 2)
    assert "of 4 classes" in make_parts(PreparationSpec(source, "train", **options, allow_empty_classes=True), to, 2)


def test_the_index_of_a_pod_in_the_docs_names_each_part():
    (text,) = re.findall(r"--part (.*JOB_COMPLETION_INDEX.*)", PAGES["data"])
    for index in (0, 63):
        command = ["sh", "-c", f'echo "{text}"']
        out = subprocess.run(command, env={"JOB_COMPLETION_INDEX": str(index)}, capture_output=True, text=True, check=True).stdout
        assert parse_part(out.strip()) == Part(index + 1, 64)


@pytest.fixture
def call(monkeypatch, capsys):
    def call(*words: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["mixer_jax", "prepare", *words])
        code = main()
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return call


def test_the_command_makes_parts_and_joins_them(tmp_path, call):
    to = str(tmp_path / "to")
    command = ["--from", tree(tmp_path), "--to", to, "--records-per-shard=4", "--threads=1"]
    code, out = call(*command, "--part", "1/2")
    assert code == DONE and "to/train: part 1/2 is finished, 2 of 4 shards, 2 made now." in out
    code, out = call("--to", to, "--join", "2")
    assert code == TO_MEND and "Run the parts 2/2" in out
    missing = shlex.split(out.partition("python -m mixer_jax prepare ")[2])
    assert call(*missing)[0] == DONE
    code, out = call(*command, "--part", "5/5")
    assert code == DONE and "to/train: part 5/5 has nothing to make, as the split has 4 shards." in out
    code, out = call("--to", to, "--split", "train", "--join", "2")
    assert code == DONE and "15 images of 3 classes in 4 shards" in out
    assert call("--verify", to)[0] == DONE


@pytest.mark.parametrize("text", ["0/3", "4/3", "/64", "3", "3/", "-1/3", "1/0", "a/b", "1/3/5", "\u0661/3", "1.5/2", ""])
def test_a_part_that_cannot_be_is_refused(text):
    with pytest.raises(UserError, match="it must be I/N, such as 3/64, with I from 1 to N"):
        parse_part(text)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--to=to", "--join=0"], "--join 0: it must be the number of parts"),
        (["--join=2"], "--to DIR is missing"),
        (["--to=to", "--join=2", "--part=1/2"], "--part has no effect without --from"),
        (["--verify=to", "--part=1/2"], "--part has no effect without --from"),
        (["--to=to", "--join=2", "--threads=2", "--seed=1"], "leave out --seed, --threads"),
        (["--to=to", "--join=2", "--split=a/b"], "--split 'a/b'"),
        (["--from=folder:x", "--to=to", "--part=0/2"], "parts are counted from 1"),
        (
            ["--from=folder:x", "--to=to", "--part=1/2", "--drop-near-duplicates-within"],
            "leave out --part, and make this split on",
        ),
    ],
)
def test_options_that_have_no_effect_together_are_refused(call, words, message):
    code, out = call(*words)
    assert code == TO_MEND and message in out


def test_an_unfinished_split_without_copies_within_is_not_joined(tmp_path):
    spec = spec_of(tmp_path, drop_near_duplicates_within=True)
    prepare(spec, tmp_path / "to", 2)
    target = tmp_path / "to/train"
    made = json.loads((target / "manifest.json").read_text())["made"]
    names = list(Manifest(target).class_names)
    (target / "manifest.json").unlink()
    plan = json.dumps(made | {"class_names": names, "allow_empty_classes": False})
    miniature.make_tree(target / ".preparing", {"plan.json": plan.encode()})
    with pytest.raises(UserError, match=r"4 of its 4 shards .* It is not made in parts: .* --drop-near-duplicates-within --to "):
        join(target, 2)
