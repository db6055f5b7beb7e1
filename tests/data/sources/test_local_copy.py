"""A split in a bucket is copied to this machine before it is read, and is then the split that was uploaded."""

import json
import shutil
import threading
from pathlib import Path

import pytest
from data.sources.prepared import NUM_IMAGES, PER_SHARD, SHARD, make_split, opened, reads
from preparation import miniature
from stand_ins.cloud_faults import CutOff, Delay, Down, Refuse, WrongRange

import mixer_jax.bucket
from mixer_jax.config import dataset
from mixer_jax.data.sources import bucket_split, local_copy
from mixer_jax.data.sources.local_copy import LOCK, copy_split
from mixer_jax.data.sources.manifest import MANIFEST
from mixer_jax.data.sources.own_data import follow_training_data
from mixer_jax.data.sources.record_index import INDEX
from mixer_jax.data.sources.registry import open_source, split_names
from mixer_jax.errors import EnvironmentFault, UserError
from mixer_jax.lease import Lease

URL = "gs://bucket/data"


@pytest.fixture(autouse=True)
def many_ranges(monkeypatch):
    """Read a shard in many ranges."""
    monkeypatch.setattr(local_copy, "RANGE_BYTES", 3000)
    monkeypatch.setattr(local_copy, "SECONDS_BETWEEN_TRIES", 0.05)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A split "train" of 30 images of two classes, in 8 shards. Read only."""
    root = tmp_path_factory.mktemp("two_classes")
    images = {f"{'ab'[number % 2]}/{number}.jpg": miniature.jpeg(number) for number in range(NUM_IMAGES)}
    return make_split(root, images, PER_SHARD)


def copied(cache: Path) -> Path:
    (folder,) = (cache / "mixer_jax/data").iterdir()
    return folder


def same_records(source, other) -> bool:
    return [source[i] for i in range(len(source))] == [other[i] for i in range(len(other))]


def test_it_has_the_records_keys_and_identity_of_the_split_on_disk(uploaded, made, cache, capsys):
    remote, local = opened(URL), opened(made)
    assert same_records(remote, local) and remote.identity() == local.identity() and remote.key(3) == local.key(3)
    assert remote.class_names == local.class_names and remote.labels(29) == local.labels(29)
    assert f"of {URL}/train to {copied(cache)} in" in capsys.readouterr().err
    files = {file.name for file in copied(cache).iterdir()} - {LOCK}
    assert files == {file.name for file in (made / "train").iterdir()} - {INDEX}


@pytest.mark.parametrize("split", ["train[:7]", "train[50%:]", "train/"])
def test_a_slice_is_part_of_the_same_copy(uploaded, made, split):
    assert same_records(opened(URL, split), opened(made, split.rstrip("/")))
    before = reads(uploaded)
    opened(URL)
    assert reads(uploaded) == before


def test_the_next_start_reads_the_manifest_alone_and_hashes_nothing(uploaded, monkeypatch):
    opened(URL)
    uploaded.requests.clear()
    monkeypatch.setattr("mixer_jax.data.sources.manifest.sha256", None)  # It cannot be called.
    assert len(opened(URL)) == NUM_IMAGES
    assert {request.name for request in uploaded.requests} == {f"data/train/{MANIFEST}"}


def test_what_a_kill_left_is_kept_if_it_is_whole(uploaded, made, cache):
    opened(URL)
    folder = copied(cache)
    shutil.rmtree(cache / "mixer_jax/verified")  # A killed process has written no receipts.
    (folder / MANIFEST).unlink()
    (folder / SHARD).unlink()
    (folder / f".{SHARD}.0123456789abcdef.tmp").write_bytes(b"half of it")
    altered = folder / SHARD.replace("3", "4", 1)
    altered.write_bytes(altered.read_bytes()[:-1] + b"!")
    uploaded.requests.clear()
    assert same_records(opened(URL), opened(made))
    names = {request.name.rpartition("/")[2] for request in uploaded.requests}
    assert names == {MANIFEST, SHARD, altered.name}
    assert [file.name for file in folder.glob(".*")] == [LOCK]


def test_other_data_under_the_same_url_get_another_folder(uploaded, made, cache):
    opened(URL)
    content = json.loads((made / "train" / MANIFEST).read_text())
    uploaded.objects["bucket", f"data/train/{MANIFEST}"] = json.dumps(content | {"reencoded": 1}).encode()
    opened(URL)
    assert len(list((cache / "mixer_jax/data").iterdir())) == 2


FAULTS = {
    "a fifth of the answers is an error": Refuse(share=0.2, statuses=(429, 503)),
    "a connection that is cut": CutOff(name=SHARD, times=2),
    "bytes that change on their way": WrongRange(how="flipped", name=SHARD, times=1),
    "bytes of another place": WrongRange(how="shifted", name=SHARD, times=1),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_fault_that_passes_is_survived_and_the_copy_is_the_same(uploaded, made, fault):
    with uploaded.failing(fault):
        source = opened(URL)
    assert fault.strikes and same_records(source, opened(made))


def test_a_bucket_that_goes_down_in_the_middle_is_one_message_and_the_copy_goes_on_later(uploaded, made, cache):
    with uploaded.failing(Down(name=SHARD)), pytest.raises(EnvironmentFault, match=f"{SHARD} cannot be read .*Try again later"):
        opened(URL)
    shards = {file.name for file in copied(cache).glob("*.array_record")}
    assert SHARD not in shards and not (copied(cache) / MANIFEST).exists()
    uploaded.requests.clear()
    assert same_records(opened(URL), opened(made))
    assert not {request.name.rpartition("/")[2] for request in uploaded.requests} & shards


@pytest.mark.parametrize(
    ("how", "message"), [("short", "Upload it again"), ("whole", r"byte range \[0, \d+\) was ignored by server")]
)
def test_a_range_of_another_length_is_an_error(uploaded, how, message):
    with uploaded.failing(WrongRange(how=how, name=SHARD)), pytest.raises((UserError, EnvironmentFault), match=message):
        opened(URL)


def test_a_bucket_that_is_silent_is_one_message(uploaded, monkeypatch):
    monkeypatch.setattr(mixer_jax.bucket, "SECONDS", 0.1)
    with (
        uploaded.failing(Delay(3600)),
        pytest.raises(EnvironmentFault, match=r"manifest.json cannot be read: no answer within 0.1 s"),
    ):
        opened(URL)


def alter(cloud) -> None:
    cloud.objects.flip_bit("bucket", f"data/train/{SHARD}", 100)


def shorten(cloud) -> None:
    cloud.objects["bucket", f"data/train/{SHARD}"] = cloud.objects["bucket", f"data/train/{SHARD}"][:-100]


def remove(cloud) -> None:
    del cloud.objects["bucket", f"data/train/{SHARD}"]


def test_a_manifest_beyond_the_bound_is_refused_before_it_is_read(uploaded, monkeypatch):
    monkeypatch.setattr(bucket_split, "MAX_JSON_BYTES", 100)
    uploaded.requests.clear()
    with pytest.raises(UserError, match=rf"{URL}/train/manifest\.json has more than 100 bytes"):
        opened(URL)
    assert [request.headers["range"] for request in uploaded.requests] == ["bytes=100-100"]


def damage(cloud) -> None:
    cloud.objects["bucket", f"data/train/{MANIFEST}"] = b"{"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (alter, f"{SHARD} is not the shard that manifest.json there describes.*Upload"),
        (shorten, f"{SHARD} is shorter than it should be.*Upload"),
        (remove, f"{SHARD} is missing, and manifest.json there lists it. Upload"),
        (damage, f"{URL}/train/manifest.json is damaged"),
    ],
)
def test_an_object_that_is_not_what_was_uploaded_is_named(uploaded, change, message):
    change(uploaded)
    with pytest.raises(UserError, match=message):
        opened(URL)


@pytest.mark.parametrize(
    ("url", "split", "message"),
    [
        (URL, "test", "test has no manifest.json, or there is no such bucket. There are the splits train."),
        ("gs://nothing/data", "train", "or there is no such bucket. There is no prepared split: upload"),
        ("gs://bucket", "", "gs://bucket has no manifest.json, or there is no such bucket. There is no prepared split: upload"),
        ("gs://", "train", "gs:///train names no bucket: write gs://BUCKET/PATH"),
        ("gs://UPPER/data", "train", "names no bucket: write gs://BUCKET/PATH.*Invalid GCS bucket name"),
        ("s3://bucket/data", "train", "s3://bucket/data: of all buckets, only those of Google Cloud Storage can be used here"),
    ],
)
def test_a_url_that_is_no_split_is_refused_in_words(uploaded, url, split, message):
    with pytest.raises(UserError, match=f"^config.data: .*{message}"):
        opened(url, split)


def test_a_missing_right_is_said_for_records_and_for_lists(uploaded):
    with uploaded.failing(Refuse(statuses=(403,))):
        for read in (lambda: opened(URL), lambda: split_names(dataset(f"records:{URL}"))):
            with pytest.raises(UserError, match=r"may not be read with the credentials of this machine .*gcloud auth"):
                read()


def test_an_option_names_the_folder_and_one_without_room_is_refused_with_the_numbers(uploaded, tmp_path, cache, monkeypatch):
    open_source(dataset(f"records:{URL}", local_copy=str(tmp_path / "a/b")))
    assert list((tmp_path / "a/b").iterdir()) and not (cache / "mixer_jax/data").exists()
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"config.data.local_copy=.*file cannot be made: File exists"):
        open_source(dataset(f"records:{URL}", local_copy=str(tmp_path / "file")))
    monkeypatch.setattr(local_copy, "FREE_ON_DISK", 2**60)
    with pytest.raises(
        UserError, match=r"needs 0\.0 GiB on this machine, and there is room for 0\.0 GiB in .*/c\. .*=none reads"
    ):
        open_source(dataset(f"records:{URL}", local_copy=str(tmp_path / "c")))


def test_memory_is_taken_where_the_disk_has_no_room_and_a_copy_that_is_there_is_used(uploaded, tmp_path, cache, monkeypatch):
    monkeypatch.setattr(local_copy, "SHARED_MEMORY", tmp_path)
    monkeypatch.setattr(local_copy, "FREE_IN_MEMORY", 0)
    monkeypatch.setattr(local_copy, "FREE_ON_DISK", 2**60)
    first = copy_split(f"{URL}/train", "")
    assert first.parent.parent == tmp_path and first.parent.stat().st_mode & 0o077 == 0
    monkeypatch.setattr(local_copy, "FREE_ON_DISK", 0)
    assert copy_split(f"{URL}/train", "") == first


def test_two_processes_of_a_machine_make_one_copy(uploaded, cache, capsys):
    opened(URL)
    lease = Lease(copied(cache) / LOCK)
    found = []
    waiting = threading.Thread(target=lambda: found.append(opened(URL)))
    waiting.start()
    waiting.join(timeout=0.3)
    assert waiting.is_alive() and "Waiting for another process, which copies into" in capsys.readouterr().err
    lease.close()
    waiting.join(timeout=30)
    assert len(found[0]) == NUM_IMAGES


def test_a_disk_that_is_full_is_one_message(uploaded, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(EnvironmentFault, match=r"cannot be written: No space left on device \(.* GiB are free\)"):
        opened(URL)


def test_images_in_a_bucket_are_read_as_records_alone():
    with pytest.raises(UserError, match=r"folder:gs://bucket/photos: image files are read from a folder of this machine"):
        open_source(dataset("folder:gs://bucket/photos"))


def test_a_typed_source_in_a_bucket_sets_the_splits_of_the_evaluators(uploaded, made, tiny_config):
    for file in (made / "train").iterdir():
        uploaded.objects["bucket", f"data/test/{file.name}"] = file.read_bytes()
    in_file = tiny_config.copy_and_resolve_references()
    tiny_config.data.source = f"records:{URL}"
    line = follow_training_data(tiny_config, in_file, ["data.source"])
    assert f"evals.test.data.source=records:{URL}" in line and tiny_config.evals.test.data.split == "test"
