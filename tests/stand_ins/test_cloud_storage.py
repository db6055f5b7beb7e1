"""The stand-in of Cloud Storage keeps, conditions, lists and copies objects as Cloud Storage does."""

import json
import os
from concurrent.futures import ThreadPoolExecutor

import pytest
import tensorstore
from stand_ins.cloud_clients import DEADLINE, LOST, NEVER_WRITTEN, UPLOADS, item, open_bucket, send, upload_media
from stand_ins.cloud_objects import Objects
from stand_ins.cloud_storage import CloudStorage

NAME = "run/a folder/ä%2F+b"  # It must be encoded in a path.
CONTENTS = {"nothing": b"", "text": b"0123456789", "lines": b"\r\n--edge\r\n{}\r\n\r", "binary": bytes(range(256))}


@pytest.mark.parametrize("data", CONTENTS.values(), ids=CONTENTS)
@pytest.mark.parametrize("upload", UPLOADS)
def test_what_is_uploaded_is_what_is_read(cloud, upload, data):
    assert upload(cloud, NAME, data)[0] == 200
    assert dict(cloud.objects) == {("bucket", NAME): data}
    read = open_bucket().read(NAME.removeprefix("run/")).result(DEADLINE)
    assert (read.state, read.value) == ("value", data)
    description = json.loads(send(cloud, "GET", item(NAME))[2])
    assert (description["name"], description["size"]) == (NAME, str(len(data)))
    assert read.stamp.generation[1:] == int(description["generation"]).to_bytes(8, "little")


@pytest.mark.parametrize("upload", UPLOADS)
def test_every_upload_keeps_to_its_preconditions(cloud, upload):
    first = json.loads(upload(cloud, "a", b"1", "&ifGenerationMatch=0")[2])["generation"]
    assert upload(cloud, "a", b"2", "&ifGenerationMatch=0")[0] == 412
    assert upload(cloud, "a", b"3", f"&ifGenerationMatch={first}")[0] == 200
    assert upload(cloud, "a", b"4", f"&ifGenerationMatch={first}")[0] == 412
    assert dict(cloud.objects) == {("bucket", "a"): b"3"}


# Generation 1001 is there, with metageneration 1. The statuses are those of a read, a write and a deletion.
PRECONDITIONS = {
    "ifGenerationMatch=1001": (200, 200, 204),
    "ifGenerationMatch=7": (412, 412, 412),
    "ifGenerationMatch=0": (412, 412, 412),
    "ifGenerationNotMatch=1001": (304, 412, 412),
    "ifGenerationNotMatch=0": (200, 200, 204),
    "ifMetagenerationMatch=1": (200, 200, 204),
    "ifMetagenerationMatch=2": (412, 412, 412),
}
OF_AN_ABSENT_OBJECT = {
    "ifGenerationMatch=0": (404, 200, 404),
    "ifGenerationMatch=7": (412, 412, 412),
    "ifGenerationNotMatch=0": (404, 412, 404),
    "ifMetagenerationMatch=1": (404, 412, 404),
}
CASES = [("there", *case) for case in PRECONDITIONS.items()] + [("absent", *case) for case in OF_AN_ABSENT_OBJECT.items()]


@pytest.mark.parametrize("name, query, statuses", CASES)
def test_preconditions_are_answered_as_by_cloud_storage(cloud, name, query, statuses):
    for method, status in zip(("GET", "POST", "DELETE"), statuses, strict=True):
        cloud.reset()
        cloud.objects["bucket", "there"] = b"old"
        if method == "POST":
            answer = upload_media(cloud, name, b"new", f"&{query}")
        else:
            answer = send(cloud, method, item(name, f"?alt=media&{query}"))
        assert answer[0] == status
        changes = {"POST": {name: b"new"}, "DELETE": {name: None}}.get(method, {}) if status in (200, 204) else {}
        assert cloud.objects.get(("bucket", "there")) == changes.get("there", b"old")
        assert cloud.objects.get(("bucket", "absent")) == changes.get("absent")


def test_of_sixteen_conditional_writes_one_wins(cloud):
    store = open_bucket()
    with ThreadPoolExecutor(16) as threads:
        writes = list(threads.map(lambda i: store.write("lease", b"%d" % i, if_equal=NEVER_WRITTEN).result(DEADLINE), range(16)))
    winners = [i for i, stamp in enumerate(writes) if stamp.generation != LOST]
    assert len(winners) == 1 and cloud.objects["bucket", "run/lease"] == b"%d" % winners[0]
    renewed = store.write("lease", b"next", if_equal=writes[winners[0]].generation).result(DEADLINE)
    assert renewed.generation != LOST
    assert store.write("lease", b"late", if_equal=writes[winners[0]].generation).result(DEADLINE).generation == LOST


@pytest.mark.parametrize("part", [slice(2, 5), slice(0, 10), slice(7, None), slice(-3, None)], ids=str)
def test_a_range_of_an_object_is_read(cloud, part):
    cloud.objects["bucket", "run/a"] = b"0123456789"
    read = open_bucket().read("a", byte_range=part).result(DEADLINE)
    assert read.value == b"0123456789"[part]
    assert "range" in cloud.requests[-1].headers


def test_a_range_beyond_the_end_is_refused(cloud):
    cloud.objects["bucket", "a"] = b"0123456789"
    assert send(cloud, "GET", item("a", "?alt=media"), headers={"Range": "bytes=10-11"})[0] == 416


def test_a_list_of_more_than_a_page_is_complete(cloud):
    names = [f"{i:04}" for i in range(2500)]
    for name in names:
        cloud.objects["bucket", f"run/{name}"] = b""
    cloud.objects["bucket", "another"] = b""
    assert [key.decode() for key in open_bucket().list().result(DEADLINE)] == names
    assert len(cloud.requests) == 3
    bounds = tensorstore.KvStore.KeyRange("0100", "0103")
    assert open_bucket().list(bounds).result(DEADLINE) == [b"0100", b"0101", b"0102"]


@pytest.mark.parametrize("limit", [1, 2, 3, 1000])
def test_a_list_with_a_delimiter_has_folders_once_whatever_the_size_of_its_pages(cloud, limit):
    for name in ("a-", "a/1", "a/2", "a/b/3", "a0", "b/1", "c"):
        cloud.objects["bucket", name] = b""
    for prefix, found in {"": ["a-", "a/", "a0", "b/", "c"], "a/": ["a/1", "a/2", "a/b/"], "no": []}.items():
        names, token = [], ""
        while token is not None:
            query = f"?delimiter=/&prefix={prefix}&maxResults={limit}&pageToken={token}"
            page = json.loads(send(cloud, "GET", f"/storage/v1/b/bucket/o{query}")[2])
            names += sorted([entry["name"] for entry in page["items"]] + page["prefixes"])
            token = page.get("nextPageToken")
        assert names == found


def test_a_range_of_names_is_deleted(cloud):
    for name in ("a", "b", "c", "d"):
        cloud.objects["bucket", f"run/{name}"] = b""
    open_bucket().delete_range(tensorstore.KvStore.KeyRange("b", "d")).result(DEADLINE)
    assert cloud.objects.names() == ["run/a", "run/d"]


@pytest.mark.parametrize("verb", ["copyTo", "rewriteTo"])
def test_an_object_is_copied_under_preconditions(cloud, verb):
    cloud.objects["bucket", "from/a"] = b"data"
    target = item("from/a") + f"/{verb}/b/bucket/o/to%2Fb?ifGenerationMatch=0"
    status, _, body = send(cloud, "POST", target)
    copied = json.loads(body) if verb == "copyTo" else json.loads(body)["resource"]
    assert status == 200 and copied["name"] == "to/b" and cloud.objects["bucket", "to/b"] == b"data"
    assert send(cloud, "POST", target)[0] == 412


def test_a_move_within_a_bucket_leaves_nothing_behind(cloud):
    cloud.objects["bucket", "from/a"] = b"data"
    assert send(cloud, "POST", item("from/a") + "/moveTo/o/to%2Fb")[0] == 200
    assert dict(cloud.objects) == {("bucket", "to/b"): b"data"}
    assert send(cloud, "POST", item("from/a") + "/moveTo/o/to%2Fb")[0] == 404


def test_changed_metadata_are_a_new_metageneration_of_the_same_generation(cloud):
    before = json.loads(upload_media(cloud, "a", b"data")[2])
    after = json.loads(send(cloud, "PATCH", item("a"), json.dumps({"metadata": {"owner": "me"}}))[2])
    assert (after["generation"], after["metageneration"], after["metadata"]) == (before["generation"], "2", {"owner": "me"})


def test_a_bucket_that_does_not_exist_is_not_found_by_any_request(cloud):
    for method, target in {
        "GET": "/storage/v1/b/other",
        "HEAD": "/storage/v1/b/other/o",
        "POST": "/upload/storage/v1/b/other/o?uploadType=media&name=a",
        "DELETE": item("a", bucket="other"),
    }.items():
        assert send(cloud, method, target)[0] == 404
    assert send(cloud, "GET", "/storage/v1/b/bucket")[0] == 200


def test_a_flipped_bit_changes_the_bytes_and_nothing_that_is_told_of_them(cloud):
    cloud.objects["bucket", "run/a"] = b"0123"
    before = send(cloud, "GET", item("run/a"))[2]
    cloud.objects.flip_bit("bucket", "run/a", 1)
    assert open_bucket().read("a").result(DEADLINE).value == b"0023"
    assert send(cloud, "GET", item("run/a"))[2] == before


def test_a_large_object_does_not_wait_for_leave_to_be_sent(cloud):
    data = os.urandom(4 << 20)
    store = open_bucket()
    store.write("large", data).result(DEADLINE)
    assert store.read("large").result(DEADLINE).value == data


def test_requests_are_told_with_their_action_and_object(cloud):
    for upload in UPLOADS:
        upload(cloud, "run/a", b"data")
    assert {(request.action, request.bucket, request.name) for request in cloud.requests} == {("write", "bucket", "run/a")}
    for method, target, action, name in (
        ("GET", item("run/a"), "read", "run/a"),
        ("GET", "/storage/v1/b/bucket/o", "list", ""),
        ("GET", "/storage/v1/b/bucket", "look", ""),
        ("POST", item("run/a") + "/rewriteTo/b/bucket/o/b", "copy", "run/a"),
        ("DELETE", item("run/a"), "delete", "run/a"),
    ):
        send(cloud, method, target)
        assert (cloud.requests[-1].action, cloud.requests[-1].name) == (action, name)


def test_several_stand_ins_serve_in_one_process(monkeypatch):
    with CloudStorage() as first, CloudStorage("bucket", "second") as second:
        for cloud in (first, second, first):
            for name, value in cloud.environment().items():
                monkeypatch.setenv(name, value)
            open_bucket().write("url", cloud.url.encode()).result(DEADLINE)
        for cloud in (first, second):
            assert cloud.objects["bucket", "run/url"] == cloud.url.encode()
        assert (len(first.requests), len(second.requests)) == (2, 1)
        assert open_bucket("second").read("url").result(DEADLINE).state == "missing"


def test_all_objects_are_those_of_one_moment():
    objects = Objects("bucket")
    objects["bucket", "a"] = objects["bucket", "b"] = b"x"
    items = objects.items()
    del objects["bucket", "b"]
    assert sorted(items) == [(("bucket", "a"), b"x"), (("bucket", "b"), b"x")]
