"""A dataset that TFDS prepared is copied from a bucket, and is then the one that was uploaded."""

from pathlib import Path

import pytest
from data import tfds_miniature
from data.sources.shades import contents
from stand_ins.cloud_faults import CutOff, Delay, Down, Refuse

import mixer_jax.bucket
from mixer_jax.bucket import Bucket
from mixer_jax.config import dataset
from mixer_jax.data.sources import local_copy
from mixer_jax.data.sources.registry import open_source, split_names
from mixer_jax.data.sources.tfds_copy import copy_dataset
from mixer_jax.errors import EnvironmentFault, UserError

URL = "gs://bucket/tfds"
TRAIN = "tfds/tiny/1.0.0/tiny-train.array_record-00000-of-00001"


@pytest.fixture(autouse=True)
def many_ranges(monkeypatch):
    """Read a file in many ranges."""
    monkeypatch.setattr(mixer_jax.bucket, "RANGE_BYTES", 10_000)


@pytest.fixture
def uploaded(cloud, tfds_dir):
    for file in filter(Path.is_file, tfds_dir.rglob("*")):
        cloud.objects["bucket", f"tfds/{file.relative_to(tfds_dir)}"] = file.read_bytes()
    return cloud


def opened(split: str = "train", name: str = "tiny", **options):
    return open_source(dataset(f"tfds:{name}", split, data_dir=options.pop("data_dir", URL), **options))


def reads(cloud) -> set[str]:
    """The names of the objects whose content was read."""
    return {request.name for request in cloud.requests if request.action == "read" and request.query.get("alt") == "media"}


def copies(cache: Path) -> list[Path]:
    return sorted((cache / "mixer_jax/data").iterdir())


@pytest.mark.parametrize("split", ["train", "train[:4]", "train[8:]+test", "all"])
def test_it_has_the_records_keys_and_identity_of_the_files_on_a_disk(uploaded, tfds_dir, split):
    remote, local = opened(split, f"tiny{':1.0.0' if '[' in split else ''}"), opened(split, data_dir=str(tfds_dir))
    assert contents(remote) == contents(local) and len(remote) > 0
    assert (remote.identity(), remote.key(1), remote.class_names) == (local.identity(), local.key(1), ("ant", "bee"))


@pytest.mark.parametrize("length", [0, 1])
def test_a_file_whose_end_is_that_of_a_range_is_whole(uploaded, monkeypatch, length):
    content = bytes(uploaded.objects["bucket", TRAIN])
    monkeypatch.setattr(mixer_jax.bucket, "RANGE_BYTES", (len(content) - length) // 2)
    folder = copy_dataset("tiny", "train", URL, "")
    assert Path(folder, TRAIN.removeprefix("tfds/")).read_bytes() == content


def test_only_the_files_of_the_split_are_copied_and_all_splits_into_one_folder(uploaded, tfds_dir, cache):
    opened("train[:3]")
    assert len(copies(cache)) == 1 and not list(copies(cache)[0].rglob("*test.array_record*"))
    uploaded.requests.clear()
    opened("test")
    assert TRAIN not in reads(uploaded) and len(copies(cache)) == 1
    files = {file.name: file.read_bytes() for file in copies(cache)[0].joinpath("tiny/1.0.0").iterdir()}
    assert files == {file.name: file.read_bytes() for file in (tfds_dir / "tiny/1.0.0").iterdir()}
    assert {file.name for file in copies(cache)[0].iterdir()} == {"tiny", local_copy.LOCK}


def test_the_next_start_reads_the_descriptions_alone(uploaded):
    opened()
    uploaded.requests.clear()
    opened()
    assert reads(uploaded) and all(name.endswith((".json", ".txt")) for name in reads(uploaded))


def test_what_a_kill_left_is_kept_and_the_rest_is_copied(uploaded, cache, tfds_dir):
    opened("train+test")
    (folder,) = copies(cache)
    Path(folder, TRAIN.removeprefix("tfds/")).unlink()
    (folder / f".{Path(TRAIN).name}.0123456789abcdef.tmp").write_bytes(b"half of it")
    uploaded.requests.clear()
    assert contents(opened("train+test")) == contents(opened("train+test", data_dir=str(tfds_dir)))
    assert {name for name in reads(uploaded) if "array_record" in name} == {TRAIN}
    assert [file.name for file in folder.glob(".*")] == [local_copy.LOCK]


def test_a_file_that_is_written_anew_makes_another_copy(uploaded, cache):
    opened()
    uploaded.objects["bucket", TRAIN] = bytes(uploaded.objects["bucket", TRAIN])
    opened()
    assert len(copies(cache)) == 2


def test_a_file_that_is_written_anew_while_it_is_copied_is_refused(uploaded, cache, monkeypatch):
    read = Bucket.read_ranges

    def read_and_write(bucket, name):
        yield from read(bucket, name)
        uploaded.objects["bucket", TRAIN] = b"anew"

    monkeypatch.setattr(Bucket, "read_ranges", read_and_write)
    with pytest.raises(EnvironmentFault, match=r"was written anew while it was copied\. Start again"):
        opened()
    assert not list(copies(cache)[0].rglob("*train.array_record*"))


FAULTS = {
    "a fifth of the answers is an error": Refuse(share=0.2, statuses=(429, 503)),
    "a connection that is cut": CutOff(name="array_record", times=2),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_fault_that_passes_is_survived_and_the_copy_is_the_same(uploaded, tfds_dir, fault):
    with uploaded.failing(fault):
        source = opened()
    assert fault.strikes and contents(source) == contents(opened(data_dir=str(tfds_dir)))


def test_a_bucket_that_goes_down_in_the_middle_is_one_message_and_the_copy_goes_on_later(uploaded, tfds_dir):
    fault = Down(name="train.array_record")
    with (
        uploaded.failing(fault),
        pytest.raises(EnvironmentFault, match=r"train\.array_record.* cannot be read .*Try again"),
    ):
        opened()
    assert contents(opened()) == contents(opened(data_dir=str(tfds_dir)))


def test_a_bucket_that_is_silent_or_closed_is_one_message(uploaded, monkeypatch):
    with uploaded.failing(Refuse(statuses=(403,))), pytest.raises(UserError, match="may not be read with the credentials"):
        opened()
    monkeypatch.setattr(mixer_jax.bucket, "SECONDS", 0.1)
    with uploaded.failing(Delay(3600)), pytest.raises(EnvironmentFault, match=r"cannot be read: no answer within 0\.1 s"):
        opened()


@pytest.mark.parametrize(
    ("name", "split", "message"),
    [
        ("not_there", "train", "knows no dataset 'not_there'"),
        ("mnist", "train", rf"mnist is not prepared in {URL}/mnist/3.0.1\. Set data\.data_dir .*--data_dir={URL}"),
        ("tiny", "validation", r"nothing in a split 'validation': it has train \(10 examples\), test \(3 examples\)"),
        ("tiny:2.0.0", "train", r"2\.0\.0"),
        ("../tiny", "train", "must be tfds:NAME"),
    ],
)
def test_what_is_not_there_is_refused_in_words(uploaded, name, split, message):
    with pytest.raises(UserError, match=message):
        opened(split, name)


def test_no_code_but_that_of_tfds_runs(uploaded, tmp_path, monkeypatch):
    uploaded.objects["bucket", "tfds/tiny/1.0.0/features.json"] = b'{"pythonClassName": "evil.Feature"}'
    (tmp_path / "evil.py").write_text("raise SystemExit('evil code ran')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=rf"{URL}/tiny/1.0.0/features.json names the class 'evil\.Feature', whose code"):
        opened()


def test_files_of_another_format_are_refused_before_they_are_copied(uploaded):
    content = uploaded.objects["bucket", TRAIN]
    del uploaded.objects["bucket", TRAIN]
    uploaded.objects["bucket", TRAIN.replace("array_record", "tfrecord")] = content
    with pytest.raises(UserError, match=rf"{URL}/tiny/1.0.0 has no ArrayRecord files of train.*convert_format"):
        opened()


def test_an_option_names_the_folder_and_one_without_room_is_refused_with_the_numbers(uploaded, tmp_path, cache, monkeypatch):
    opened(local_copy=str(tmp_path / "a/b"))
    assert list((tmp_path / "a/b").iterdir()) and not (cache / "mixer_jax/data").exists()
    monkeypatch.setattr(local_copy, "FREE_ON_DISK", 2**60)
    with pytest.raises(UserError, match=rf"A copy of {URL}/tiny needs 0\.0 GiB on this machine, and there is room for 0\.0 GiB"):
        opened(local_copy=str(tmp_path / "c"))


def test_the_splits_are_named_without_a_copy(uploaded, cache):
    assert split_names(dataset("tfds:tiny", data_dir=URL)) == ("train", "test")
    assert not (cache / "mixer_jax/data").exists()


def test_a_task_of_vtab_is_read_from_a_bucket(cloud, tmp_path):
    folder = tfds_miniature.make(tmp_path / "made", "oxford_iiit_pet", {"train": 3680, "test": 3669})
    for file in filter(Path.is_file, folder.rglob("*")):
        cloud.objects["bucket", f"tfds/{file.relative_to(folder)}"] = file.read_bytes()
    remote, local = (open_source(dataset("vtab:pets", "train800", data_dir=place)) for place in (URL, str(folder)))
    assert len(remote) == 800 and [remote[i] for i in range(12)] == [local[i] for i in range(12)]
