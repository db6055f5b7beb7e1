"""Writing in a bucket, against the stand-in: conditions, lost answers, and what is wrong is found by a probe."""

import pytest
from stand_ins.cloud_faults import Delay, Down, LoseAnswer, Refuse

import mixer_jax.bucket
from mixer_jax.bucket import Bucket
from mixer_jax.errors import EnvironmentFault, UserError

URL = "gs://bucket/run"


def test_the_generation_of_an_object_is_that_of_its_last_write_and_its_content_is_not_read(cloud):
    bucket = Bucket(URL)
    assert bucket.generation("x") is None
    first = bucket.write_if_unchanged("x", b"")
    assert bucket.generation("x") == first
    cloud.requests.clear()
    bucket.write("x", b"2")
    assert bucket.generation("x") not in (None, first)
    assert not [request for request in cloud.requests if request.query.get("alt") == "media"]


def test_a_write_whose_answer_is_lost_is_not_a_lost_race(cloud):
    bucket = Bucket(URL)
    with cloud.failing(LoseAnswer(actions=("write",), times=3)):
        first = bucket.write_if_unchanged("x", b"1")
    assert bucket.read_written("x") == (b"1", first)
    with cloud.failing(LoseAnswer(actions=("write",), times=1)):
        assert bucket.write_if_unchanged("x", b"2") is None
    assert bucket.read("x") == b"1"


def test_a_probe_leaves_nothing_and_reads_no_long_list(cloud):
    cloud.objects["bucket", "run/there"] = b""
    Bucket(URL).probe()
    assert list(cloud.objects) == [("bucket", "run/there")]
    assert [len(request.query.get("startOffset", "")) > 0 for request in cloud.requests if request.action == "list"] == [True]


@pytest.mark.parametrize(
    ("url", "fault", "message"),
    [
        ("gs://nobody/run", Refuse(times=0), r"gs://nobody/run/\.probe-\w+ cannot be written: there is no such bucket"),
        (URL, Refuse(actions=("write",), statuses=(403,)), r"may not be written with the credentials of this machine .*gcloud"),
        (URL, Refuse(actions=("read",), statuses=(403,)), "may not be read with the credentials"),
        (URL, Refuse(actions=("list",), statuses=(403,)), "cannot be listed and read: give this account the role"),
        (URL, Refuse(actions=("delete",), statuses=(401,)), "may not be deleted with the credentials"),
        (URL, Refuse(), r"cannot be written \(.*503 on demand"),
        (URL, Down(), r"cannot be written \(.*Try again later"),
        (URL, Delay(seconds=60), r"cannot be written: no answer within [.0-9]+ s\. Try again later"),
    ],
)
def test_a_probe_says_what_is_wrong(cloud, url: str, fault, message: str):
    with cloud.failing(fault), pytest.raises(EnvironmentFault, match=message):
        Bucket(url).probe(seconds=1)


def test_a_write_of_many_bytes_has_more_time(cloud, monkeypatch):
    monkeypatch.setattr(mixer_jax.bucket, "SECONDS", 0.1)
    monkeypatch.setattr(mixer_jax.bucket, "SLOWEST_BYTES_PER_SECOND", 10)
    bucket = Bucket(URL)
    with cloud.failing(Delay(seconds=0.5)):
        with pytest.raises(EnvironmentFault, match=r"cannot be written: no answer within 0\.2 s"):
            bucket.write("small", b"1")
        bucket.write("large", bytes(100))


def test_a_name_that_no_bucket_can_have_is_refused():
    with pytest.raises(UserError, match="names no bucket"):
        Bucket("gs://B/run")
