"""A split in a bucket that is read by ranges, without a copy, gives the records and the stream of the same split on a disk."""

import json
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from data.sources.prepared import make_split, opened, reads
from data.sources.streaming import URL, by_ranges, stream
from preparation import miniature
from stand_ins.cloud_faults import CutOff, Delay, Down, Refuse, WrongRange

import mixer_jax.bucket
from mixer_jax.bench.input import requests_per_image
from mixer_jax.bucket import Bucket
from mixer_jax.config import dataset, mixture
from mixer_jax.data.sources import range_reader
from mixer_jax.data.sources.manifest import MANIFEST
from mixer_jax.data.sources.record_index import ENTRY, INDEX, INDEX_SHA256
from mixer_jax.data.sources.registry import open_source
from mixer_jax.data.stream.loader import EXAMPLES_PER_TASK
from mixer_jax.errors import EnvironmentFault, UserError

NUM_IMAGES, PER_SHARD = 23, 8
SHARD = "train-00001-of-00003.array_record"


@pytest.fixture(autouse=True)
def many_ranges(monkeypatch):
    """Read the index in several ranges."""
    monkeypatch.setattr(range_reader, "INDEX_RANGE_BYTES", 100)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A split "train" of images of 0.7 to 80 KB of two classes, in 3 shards, whose records lie across blocks. Read only."""
    root = tmp_path_factory.mktemp("ranges")
    images = {f"{'ab'[i % 2]}/{i}.jpg": miniature.jpeg(i, 12 + 8 * i, 16 + 8 * i) for i in range(NUM_IMAGES)}
    return make_split(root, images, PER_SHARD)


def records(source) -> list:
    return [source[i] for i in range(len(source))]


def test_it_has_the_records_labels_keys_and_identity_of_the_split_on_disk(uploaded, made):
    remote, local = by_ranges(), opened(made)
    assert records(remote) == records(local) and remote.identity() == local.identity()
    assert remote.class_names == local.class_names and remote.max_labels == local.max_labels
    for read in ("labels", "key"):
        assert [getattr(remote, read)(i) for i in range(NUM_IMAGES)] == [getattr(local, read)(i) for i in range(NUM_IMAGES)]
    assert remote.locate(9).startswith(f"{URL}/train/train-0000") and remote.locate(9).endswith(local.locate(9).split("/")[-1])
    with pytest.raises(IndexError):
        remote[NUM_IMAGES]


def test_some_records_lie_across_blocks(made):
    entries = np.frombuffer((made / "train" / INDEX).read_bytes(), ENTRY)
    assert sum(offset // 2**16 != (offset + size) // 2**16 for offset, size, _ in entries.tolist()) > 3


def test_a_record_is_one_request_and_the_labels_of_a_shard_are_another(uploaded):
    source = by_ranges("train[:20]")
    uploaded.requests.clear()
    records(source)
    assert reads(uploaded) == len(uploaded.requests) == 20
    assert [source.labels(i) for i in range(20)] and reads(uploaded) == 23


def test_nothing_is_copied(uploaded, cache):
    records(by_ranges())
    assert not (cache / "mixer_jax/data").exists()


@pytest.mark.parametrize("loader", [{"workers": 1}, {"workers": 3}, {"workers": 2, "prefetch": 0}], ids=str)
@pytest.mark.parametrize("batch_size", [5, 8])
def test_the_stream_is_that_of_the_split_on_disk_with_any_number_of_threads(uploaded, made, batch_size, loader):
    assert stream(by_ranges(), batch_size, **loader) == stream(opened(made), batch_size)


PROGRAM = """
import sys
sys.path[:0] = ["", "tests"]
from data.sources.streaming import by_ranges, stream
if __name__ == "__main__":
    print(*stream(by_ranges(), processes=True, workers=2))
"""


@pytest.mark.slow
def test_the_stream_is_that_of_the_split_on_disk_with_processes(uploaded, made, tmp_path):
    # The server of the workers has the environment of its start, so this is a process of its own.
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [sys.executable, str(tmp_path / "program.py")]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    shown = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout
    assert shown.split() == stream(opened(made))
    assert {request.headers.get("range") for request in uploaded.requests if SHARD in request.name} != {None}


def test_parts_of_mixtures_and_subsets_are_the_same_and_prefetched(uploaded, made):
    def opened_in_config(source: str, **options):
        part = dataset(f"records:{source}", examples_per_class=7, weight=1, **options)
        return open_source(mixture(few=part, glyphs=dataset("glyphs", num_examples=50, weight=1)))

    remote, local = opened_in_config(URL, local_copy="none"), opened_in_config(str(made))
    assert stream(remote) == stream(local)
    uploaded.requests.clear()
    remote.prefetch([0, 3, 20, 13])  # Record 20 is a glyph.
    wait_for(lambda: reads(uploaded) == 3)


def wait_for(condition) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_all_records_of_a_task_are_under_way_at_once_and_each_is_read_once(uploaded):
    source = by_ranges()
    uploaded.requests.clear()
    with uploaded.failing(Delay(3600)):
        source.prefetch([5, 3, 5, *range(10, 20)])
        wait_for(lambda: reads(uploaded) == 12)
    alone = by_ranges()
    assert [source[i] for i in (5, 3, *range(10, 20))] == [alone[i] for i in (5, 3, *range(10, 20))]
    assert sum(".array_record" in request.name for request in uploaded.requests) == 24


def test_a_process_has_as_many_requests_under_way_as_a_task_has_images(uploaded):
    bucket = Bucket(f"{URL}/train")
    with uploaded.failing(Delay(3600)):
        waits = [bucket.start_read(SHARD, start, start + 1) for start in range(EXAMPLES_PER_TASK)]
        wait_for(lambda: reads(uploaded) == EXAMPLES_PER_TASK)
    assert b"".join(wait() for wait in waits) == bucket.read(SHARD, 0, EXAMPLES_PER_TASK)


def test_the_bytes_that_are_read_ahead_are_bounded_and_the_others_follow(uploaded, monkeypatch):
    source = by_ranges()
    monkeypatch.setattr(range_reader, "AHEAD_BYTES", 1)
    uploaded.requests.clear()
    source.prefetch(range(NUM_IMAGES))
    wait_for(lambda: reads(uploaded) == 1)
    for i in range(NUM_IMAGES - 1):
        source[i]
        wait_for(lambda i=i: reads(uploaded) == i + 2)


FAULTS = {
    "a fifth of the answers is an error": Refuse(share=0.2, statuses=(429, 503)),
    "connections that are cut": CutOff(name=SHARD, times=3),
    "bytes that change on their way": WrongRange(how="flipped", name=SHARD, times=2),
    "bytes of another place": WrongRange(how="shifted", name=SHARD, times=2),
    "bytes of the index that change on their way": WrongRange(how="flipped", name=INDEX, times=1),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_fault_that_passes_is_survived_and_the_stream_is_the_same(uploaded, made, fault):
    with uploaded.failing(fault):
        assert stream(by_ranges(), workers=3) == stream(opened(made))
    assert fault.strikes


@pytest.mark.parametrize(
    ("fault", "kind", "message"),
    [
        (Down(name=SHARD), EnvironmentFault, f"{SHARD} cannot be read .*Try again later"),
        (CutOff(name=SHARD), EnvironmentFault, f"{SHARD} cannot be read .*Try again later"),
        (Refuse(statuses=(403,), name=SHARD), UserError, "may not be read with the credentials of this machine"),
        (WrongRange(how="flipped", name=SHARD), UserError, rf"{SHARD} record \d is not what {INDEX} there says: its CRC-32"),
        (WrongRange(how="shifted", name=SHARD), UserError, rf"{SHARD} record \d is not what {INDEX} there says: its CRC-32"),
        (WrongRange(how="short", name=SHARD), (UserError, EnvironmentFault), f"{SHARD} .*Upload it again"),
        (WrongRange(how="whole", name=SHARD), EnvironmentFault, "byte range .* was ignored by server"),
    ],
    ids=lambda value: getattr(value, "how", type(value).__name__),
)
def test_a_fault_that_stays_is_one_message_and_never_other_bytes(uploaded, fault, kind, message):
    source = by_ranges()
    with uploaded.failing(fault), pytest.raises(kind, match=message):
        stream(source)


def test_a_bucket_that_is_silent_is_one_message(uploaded, monkeypatch):
    source = by_ranges()
    monkeypatch.setattr(mixer_jax.bucket, "SECONDS", 0.1)
    with uploaded.failing(Delay(3600)), pytest.raises(EnvironmentFault, match=r"cannot be read: no answer within 0\.1 s"):
        stream(source)


def alter(cloud) -> None:
    objects = cloud.objects
    objects["bucket", f"data/train/{SHARD}"] = bytes(len(objects["bucket", f"data/train/{SHARD}"]))


def shorten(cloud) -> None:
    cloud.objects["bucket", f"data/train/{SHARD}"] = cloud.objects["bucket", f"data/train/{SHARD}"][:1000]


def remove(cloud) -> None:
    del cloud.objects["bucket", f"data/train/{SHARD}"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (alter, rf"{SHARD} record \d is not what {INDEX} there says"),
        (shorten, f"{SHARD} is shorter than it should be.*Upload"),
        (remove, f"{SHARD} is missing, and manifest.json there lists it. Upload"),
    ],
)
def test_a_shard_that_is_not_what_was_uploaded_is_named(uploaded, change, message):
    source = by_ranges()
    change(uploaded)
    with pytest.raises(UserError, match=message):
        stream(source)


def change_index(cloud, content: bytes) -> None:
    cloud.objects["bucket", f"data/train/{INDEX}"] = content


def index(cloud) -> bytes:
    return cloud.objects["bucket", f"data/train/{INDEX}"]


def forget_index(cloud) -> None:
    content = json.loads(cloud.objects["bucket", f"data/train/{MANIFEST}"])
    del content[INDEX_SHA256]
    cloud.objects["bucket", f"data/train/{MANIFEST}"] = json.dumps(content).encode()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda cloud: cloud.objects.flip_bit("bucket", f"data/train/{INDEX}", 40), f"{INDEX} is not the index of manifest.json"),
        (lambda cloud: change_index(cloud, index(cloud)[16:] + index(cloud)[:16]), f"{INDEX} is not the index of manifest.json"),
        (lambda cloud: change_index(cloud, index(cloud)[:-1]), f"{INDEX} is shorter than it should be.*Upload it again"),
        (
            lambda cloud: cloud.objects.pop(("bucket", f"data/train/{INDEX}")),
            f"{INDEX} is missing, and manifest.json there lists",
        ),
        (
            forget_index,
            r"has no index, .* The same command adds index\.bin and keeps the shards: .* --to DIR\. Then upload",
        ),
    ],
    ids=["damaged", "of another split", "shorter", "missing", "of an earlier version"],
)
def test_an_index_that_is_not_that_of_the_manifest_is_refused_at_the_start(uploaded, change, message):
    change(uploaded)
    with pytest.raises(UserError, match=f"^config.data: {URL}/.*{message}"):
        by_ranges()


def test_workers_share_the_index_of_the_run(uploaded, monkeypatch):
    source = by_ranges()
    pickled = pickle.dumps(source)
    assert len(pickled) < 2000
    uploaded.requests.clear()
    assert records(pickle.loads(pickled)) == records(source)
    assert reads(uploaded, INDEX) == 0


def test_a_split_that_does_not_exist_is_refused_with_those_that_do(uploaded):
    with pytest.raises(UserError, match=r"data/test has no manifest\.json, .* There are the splits train\."):
        by_ranges("test")


def test_the_requests_for_an_image_are_those_that_the_bucket_has_had(uploaded, made, cloud):
    remote = by_ranges()
    before = len(cloud.requests)
    requests = requests_per_image(remote, 200)
    assert requests == (len(cloud.requests) - before) / 200 and 0.5 < requests <= 1
    assert requests_per_image(opened(made), 200) == 0
