"""A split that is prepared in a bucket is bit for bit that of a disk, whatever is killed, lost, repeated or damaged."""

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from preparation import miniature
from preparation.preparing import TRAIN, spec_of, tree
from preparation.test_parts import copies, several_labels
from stand_ins.cloud_faults import Down, LoseAnswer, Refuse
from test_documentation import PAGES

import mixer_jax.bucket
from mixer_jax.__main__ import main
from mixer_jax.endings import DONE, TO_MEND, TRY_AGAIN
from mixer_jax.errors import EnvironmentFault, UserError
from mixer_jax.preparation import upload
from mixer_jax.preparation.in_bucket import join_in_bucket, prepare_in_bucket
from mixer_jax.preparation.parts import Part
from mixer_jax.preparation.prepare import prepare
from mixer_jax.preparation.spec import PreparationSpec

URL = "gs://bucket/data"
SHARD = "train-00002-of-00004.array_record"


@pytest.fixture(autouse=True)
def temporary_files(monkeypatch, tmp_path):
    """Find out what stays in the folder for temporary files."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    yield
    assert not list((tmp_path / "temporary").iterdir())


def objects(cloud) -> dict[str, bytes]:
    """The objects of the data set, by their path in it."""
    return {name.removeprefix("data/"): bytes(content) for (_, name), content in cloud.objects.items()}


def on_disk(spec: PreparationSpec, root: Path) -> dict[str, bytes]:
    prepare(spec, root / "one", 2)
    return miniature.folder_bytes(root / "one")


def make_parts(spec: PreparationSpec, count: int) -> str:
    for number in range(count, 0, -1):
        prepare_in_bucket(spec, URL, 2, Part(number, count))
    return join_in_bucket(URL, spec.split, count)


def writes(cloud) -> list[str]:
    """The names of the shards that were written, in order."""
    names = [request.name.rpartition("/")[2] for request in cloud.requests if request.action == "write"]
    return [name for name in names if name.endswith(".array_record")]


def copies_within(root: Path) -> dict:
    miniature.make_tree(root / "tree", {name.replace("_0", "_9"): data for name, data in TRAIN.items() if "_0" in name})
    return {"drop_near_duplicates_within": True}


OPTIONS = {
    "": lambda _: {}, "copies dropped": copies, "copies within": copies_within, "several labels": several_labels,
}  # fmt: skip


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_the_objects_are_bitwise_the_files_of_a_disk(tmp_path, cloud, options):
    spec = spec_of(tmp_path, **options(tmp_path))
    summary = prepare_in_bucket(spec, URL, 2)
    assert not (tmp_path / "cache/mixer_jax/verified").exists(), "the temporary folder needs no receipts"
    expected = on_disk(spec, tmp_path)
    assert objects(cloud) == expected
    assert summary.startswith(f"{URL}/train: ") and "temporary" not in summary
    assert ("(see gs://bucket/data/train/duplicates.tsv)" in summary) == spec.drops_near_duplicates


@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_the_parts_joined_are_bitwise_the_files_of_a_disk_and_no_image_is_read_for_it(tmp_path, cloud, count):
    spec = spec_of(tmp_path, **copies(tmp_path))
    expected = on_disk(spec, tmp_path)
    page = expected.pop("train/duplicates.html")
    for number in range(count, 0, -1):
        said = prepare_in_bucket(spec, URL, 2, Part(number, count))
        assert f"part {number}/{count} " in said and said.startswith(f"{URL}/train: ")
    (tmp_path / "tree").rename(tmp_path / "away")
    said = join_in_bucket(URL, "train", count)
    assert objects(cloud) == expected
    assert "12 images of 3 classes in 4 shards" in said and f"{URL}/train/duplicates.html needs the images" in said
    (tmp_path / "away").rename(tmp_path / "tree")
    before = writes(cloud)
    prepare_in_bucket(spec, URL, 2)
    assert objects(cloud) == expected | {"train/duplicates.html": page} and writes(cloud) == before


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_fifth_of_the_answers_may_be_errors_or_lost(tmp_path, cloud, count):
    spec = spec_of(tmp_path)
    refused, lost = Refuse(share=0.2, statuses=(429, 503)), LoseAnswer(share=0.2, seed=1)
    with cloud.failing(refused), cloud.failing(lost):
        make_parts(spec, count)
    assert refused.strikes and lost.strikes
    assert objects(cloud) == on_disk(spec, tmp_path)


def test_parts_that_begin_at_the_same_time_do_not_meet(tmp_path, cloud):
    spec = spec_of(tmp_path)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: prepare_in_bucket(spec, URL, 1, Part(number, 4)), range(1, 5)))
    assert sorted(writes(cloud)) == [f"train-{number:05d}-of-00004.array_record" for number in range(4)]
    join_in_bucket(URL, "train", 4)
    assert objects(cloud) == on_disk(spec, tmp_path)


KILLED = """
import sys
from pathlib import Path
sys.path[:0] = ["", "tests"]
from preparation.dying import child, die_at
from mixer_jax.bucket import Bucket
from mixer_jax.preparation.in_bucket import join_in_bucket, prepare_in_bucket
from mixer_jax.preparation.parts import Part
from mixer_jax.preparation.spec import PreparationSpec

spec = PreparationSpec(sys.argv[1], "train", records_per_shard=4)
works = {
    "whole": lambda url: prepare_in_bucket(spec, url, 1),
    "part": lambda url: (prepare_in_bucket(spec, url, 1, Part(2, 2)), prepare_in_bucket(spec, url, 1, Part(1, 2))),
    "join": lambda url: join_in_bucket(url, "train", 2),
}
for moment in sys.argv[2:]:
    job, name, when, number = moment.split(":")
    url = f"gs://bucket/{moment}"
    def die():
        die_at(Bucket, name, when, int(number))
        works[job](url)
    ended = [child(lambda: works["part"](url))] if job == "join" else []
    ended += [child(die), child(lambda: works[job](url))]
    ended += [child(lambda: works["join"](url))] if job == "part" else []
    print(moment, *ended)
"""
MOMENTS = {  # the moment of the kill: the number of shards that are written a second time
    "whole:write_if_unchanged:after:1": 0, "whole:write:before:1": 0, "whole:write:after:1": 1, "whole:write:after:3": 0,
    "whole:write:before:14": 0, "whole:write:after:14": 0, "whole:delete:after:2": 0, "part:write:after:4": 1,
    "part:write:after:6": 0, "join:write:before:1": 0, "join:write:after:2": 0, "join:delete:before:1": 0,
}  # fmt: skip


@pytest.mark.slow
def test_what_is_killed_goes_on_and_uploads_no_shard_again_that_has_its_row(tmp_path, cloud):
    expected = on_disk(spec_of(tmp_path), tmp_path)
    (tmp_path / "of the killed").mkdir()
    command = [sys.executable, "-c", KILLED, f"folder:{tmp_path}/tree", *MOMENTS]
    environment = os.environ | {"TMPDIR": str(tmp_path / "of the killed")}
    out = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout
    assert [line.split()[0] for line in out.splitlines()] == list(MOMENTS)
    for line in out.splitlines():
        moment, *ended = line.split()
        assert sorted(ended) == sorted(["9", *["0"] * (len(ended) - 1)]), line
        names = {name: data for (_, name), data in cloud.objects.items() if name.startswith(f"{moment}/")}
        assert {name.removeprefix(f"{moment}/"): data for name, data in names.items()} == expected, moment
        written = [
            request.name for request in cloud.requests if request.action == "write" and request.name.startswith(f"{moment}/")
        ]
        assert sum(name.endswith(".array_record") for name in written) == 4 + MOMENTS[moment], moment


@pytest.mark.parametrize("threads", [1, 4])
def test_an_upload_that_fails_is_one_message_and_the_same_command_goes_on(tmp_path, cloud, monkeypatch, threads):
    spec = spec_of(tmp_path)
    with monkeypatch.context() as patch:
        patch.setitem(mixer_jax.bucket.RETRIES, "max_retries", 2)
        with cloud.failing(Down(name=SHARD)), pytest.raises(EnvironmentFault, match=rf"{SHARD} cannot be written .*Try again"):
            prepare_in_bucket(spec, URL, threads)
    assert "train/manifest.json" not in objects(cloud)
    before = set(writes(cloud)) - {SHARD}
    cloud.requests.clear()
    prepare_in_bucket(spec, URL, 1)
    assert before and set(writes(cloud)).isdisjoint(before)
    assert objects(cloud) == on_disk(spec, tmp_path)


def test_the_bucket_is_probed_before_the_source_is_looked_at(tmp_path, cloud):
    spec = PreparationSpec(f"folder:{tmp_path}/nothing", "train")
    refused = Refuse(actions=("write",), statuses=(403,))
    with cloud.failing(refused), pytest.raises(EnvironmentFault, match="may not be written with the credentials"):
        prepare_in_bucket(spec, URL, 2)
    with pytest.raises(EnvironmentFault, match="there is no such bucket"):
        prepare_in_bucket(spec, "gs://nobody/data", 2)


@pytest.mark.parametrize("made", ["whole", "part"])
def test_other_options_or_images_are_refused_with_what_differs_and_nothing_changes(tmp_path, cloud, made):
    prepare_in_bucket(spec_of(tmp_path), URL, 2, Part(1, 2) if made == "part" else None)
    before = objects(cloud)
    with pytest.raises(UserError) as error:
        prepare_in_bucket(spec_of(tmp_path, seed=1), URL, 2)
    message = str(error.value)
    assert message.startswith(f"{URL}/train holds another split (other seed), made by: python -m mixer_jax prepare")
    assert f"--to {URL}. " in message and message.endswith(f"remove it: gcloud storage rm -r {URL}/train")
    assert objects(cloud) == before


def test_of_two_preparations_that_begin_at_the_same_time_with_other_options_the_second_is_refused(tmp_path, cloud, monkeypatch):
    first, second = spec_of(tmp_path), spec_of(tmp_path, seed=1)
    fetch = upload.Upload.fetch

    def fetch_and_wait(one):
        monkeypatch.setattr(upload.Upload, "fetch", fetch)
        fetch(one)
        prepare_in_bucket(first, URL, 2, Part(1, 2))

    monkeypatch.setattr(upload.Upload, "fetch", fetch_and_wait)
    with pytest.raises(UserError, match=r"holds another split \(other seed\)"):
        prepare_in_bucket(second, URL, 2)
    assert len(writes(cloud)) == 2, "those of the first part of the first"
    prepare_in_bucket(first, URL, 2)
    assert objects(cloud) == on_disk(first, tmp_path)


DAMAGES = {
    "missing": lambda _: None,
    "shorter": lambda content: content[:-1],
    "longer": lambda content: content + b"!",
    "altered at its end": lambda content: content[:-9] + b"?" + content[-8:],
    "empty": lambda _: b"",
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("is_finished", [False, True])
def test_a_damaged_shard_is_made_and_uploaded_again_and_no_other(tmp_path, cloud, damage, is_finished):
    spec, key = spec_of(tmp_path), ("bucket", f"data/train/{SHARD}")
    for number in (1, 2):
        prepare_in_bucket(spec, URL, 2, Part(number, 2))
    if is_finished:
        join_in_bucket(URL, "train", 2)
    content = DAMAGES[damage](bytes(cloud.objects[key]))
    del cloud.objects[key]
    if content is not None:
        cloud.objects[key] = content
    if not is_finished:
        with pytest.raises(UserError, match=rf"1 of its 4 shards are missing or damaged\. Run the parts 1/2.*--to {URL} --part"):
            join_in_bucket(URL, "train", 2)
    cloud.requests.clear()
    prepare_in_bucket(spec, URL, 2)
    assert writes(cloud) == [SHARD]
    assert objects(cloud) == on_disk(spec, tmp_path)


def test_a_shard_of_another_split_is_refused_before_there_is_a_manifest(tmp_path, cloud):
    cloud.objects["bucket", "data/train/train-00000-of-00009.array_record"] = b"?"
    with pytest.raises(
        UserError, match=r"is not in manifest.json \(1 such\). Remove it: gcloud storage rm -r gs://.*00009.array"
    ):
        prepare_in_bucket(spec_of(tmp_path), URL, 2)
    assert "train/manifest.json" not in objects(cloud)


def test_a_part_that_still_runs_when_the_split_is_joined_leaves_no_rows(tmp_path, cloud, monkeypatch):
    spec = spec_of(tmp_path)
    prepare_in_bucket(spec, URL, 2, Part(1, 1))
    finish = upload.Upload.finish

    def join_before(one):
        monkeypatch.setattr(upload.Upload, "finish", finish)
        join_in_bucket(URL, "train", 1)
        cloud.objects["bucket", "data/train/.preparing/shard-000001.json"] = b"{}"
        finish(one)

    monkeypatch.setattr(upload.Upload, "finish", join_before)
    prepare_in_bucket(spec, URL, 2, Part(1, 2))
    assert objects(cloud) == on_disk(spec, tmp_path)
    assert join_in_bucket(URL, "train", 1) == f"{URL}/train is finished: its parts were joined before."
    assert prepare_in_bucket(spec, URL, 2, Part(1, 2)) == f"{URL}/train is finished, with all of its parts."


def test_a_damaged_plan_is_refused_and_a_join_without_parts_too(tmp_path, cloud):
    with pytest.raises(UserError, match=rf"no parts to join\. Make them first: .* --to {URL} --split train --part 1/2$"):
        join_in_bucket(URL, "train", 2)
    prepare_in_bucket(spec_of(tmp_path), URL, 2, Part(1, 2))
    cloud.objects["bucket", "data/train/.preparing/plan.json"] = b"{"
    with pytest.raises(
        UserError, match=rf"plan\.json is missing or damaged.*: gcloud storage rm -r {URL}/train/.preparing/plan.json"
    ):
        join_in_bucket(URL, "train", 2)


def test_a_long_list_of_labels_is_found_at_the_end_of_a_shard(tmp_path, cloud, monkeypatch):
    """The end that is read first has then only some of the labels."""
    monkeypatch.setattr(upload, "INDEX_BYTES", 0)
    monkeypatch.setattr(upload, "END_BYTES", 2**10)
    monkeypatch.setattr("mixer_jax.data.sources.manifest.END_BYTES", 2**10)
    spec = spec_of(tmp_path)
    expected = on_disk(spec, tmp_path)
    make_parts(spec, 2)
    assert objects(cloud) == expected


def test_of_an_uploaded_shard_the_folder_keeps_a_hole(tmp_path, cloud):
    images = {f"{'ab'[number % 2]}/{number}.jpg": miniature.jpeg(number, 400, 400) for number in range(12)}
    spec = PreparationSpec(f"folder:{miniature.make_tree(tmp_path / 'large', images)}", "train", records_per_shard=12)
    kept = []
    move = upload.Upload.move

    def moved(one, number, shard):
        move(one, number, shard)
        kept.append(((one.target / shard.name).stat(), shard))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(upload.Upload, "move", moved)
        prepare_in_bucket(spec, URL, 1)
    [(status, shard)] = kept
    assert status.st_size == shard.bytes > 10**6 and status.st_blocks * 512 < 3 * 2**17
    assert objects(cloud) == on_disk(spec, tmp_path)


def test_the_command_makes_parts_and_joins_them_in_a_bucket(tmp_path, cloud, monkeypatch, capsys):
    def call(*words: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["mixer_jax", "prepare", *words])
        code = main()
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    make = ["--from", tree(tmp_path), "--to", f"{URL}/", "--records-per-shard=4", "--threads=1"]
    for number in (1, 2):
        code, out = call(*make, f"--part={number}/2")
        assert code == DONE and f"{URL}/train: part {number}/2 is finished, 2 of 4 shards, 2 made now." in out
    code, out = call("--to", URL, "--join=2")
    assert code == DONE and f"{URL}/train: 15 images of 3 classes in 4 shards" in out
    assert objects(cloud) == on_disk(spec_of(tmp_path), tmp_path)
    assert call(*make)[0] == DONE
    code, out = call("--from", tree(tmp_path), "--to=s3://bucket/data")
    assert code == TO_MEND and "of all buckets, only those of Google Cloud Storage can be" in out
    with cloud.failing(Refuse(statuses=(403,))):
        assert call(*make)[0] == TRY_AGAIN


def test_the_pods_of_the_docs_and_the_join_behind_them_make_the_split(tmp_path, cloud, monkeypatch):
    (text,) = re.findall(r"```yaml\n(apiVersion: batch/v1\nkind: Job.*?)```", PAGES["data"], re.DOTALL)
    job = yaml.safe_load(text)["spec"]
    assert (job["completionMode"], job["completions"]) == ("Indexed", 64)
    (container,) = job["template"]["spec"]["containers"]
    (script,) = container["args"]
    miniature.make_tree(tmp_path / "images/imagenet21k", TRAIN)
    for index in (1, 0, 63):
        shown = ["sh", "-c", f"echo {script}"]
        environment = {"JOB_COMPLETION_INDEX": str(index)}
        words = subprocess.run(shown, env=environment, capture_output=True, text=True, check=True).stdout.split()
        words = [word.replace("folder:/images", f"folder:{tmp_path}/images") for word in words]
        monkeypatch.setattr(sys, "argv", words[2:])
        assert main() == DONE
    monkeypatch.setattr(sys, "argv", ["mixer_jax", "prepare", "--to", URL, "--split", "train", "--join", "64"])
    assert main() == DONE
    assert objects(cloud) == on_disk(PreparationSpec(f"folder:{tmp_path}/images/imagenet21k", "train"), tmp_path)
