"""Each fault of the stand-in of Cloud Storage does what it says, and is over when it is lifted."""

import time

import pytest
from stand_ins.cloud_clients import DEADLINE, LOST, item, open_bucket, send
from stand_ins.cloud_faults import CutOff, Delay, Down, Fault, LoseAnswer, Refuse, WrongRange

DATA = bytes(range(100))


def test_a_client_that_tries_again_gets_through_refusals(cloud):
    store = open_bucket()
    cloud.fail(Refuse((429, 503), share=0.2))
    for i in range(40):
        store.write(f"{i}", b"%d" % i).result(DEADLINE)
    assert [store.read(f"{i}").result(DEADLINE).value for i in range(40)] == [b"%d" % i for i in range(40)]
    assert cloud.faults[0].strikes == len(cloud.requests) - 80 > 5


@pytest.mark.parametrize("seed", [0, 1])
def test_the_same_seed_refuses_the_same_requests(cloud, seed):
    def statuses() -> list[int]:
        with cloud.failing(Refuse((429, 503), share=0.5, seed=seed)):
            return [send(cloud, "GET", "/storage/v1/b/bucket")[0] for _ in range(20)]

    assert statuses() == statuses() and set(statuses()) == {200, 429, 503}


def test_a_fault_happens_to_what_it_names(cloud):
    cloud.objects["bucket", "lease"] = cloud.objects["bucket", "data"] = b""
    requests = [("GET", "lease"), ("GET", "data"), ("DELETE", "lease")]
    for fault, refused in (
        (Refuse((403,)), requests),
        (Refuse((403,), actions=("delete", "write")), [("DELETE", "lease")]),
        (Refuse((403,), name="lease"), [("GET", "lease"), ("DELETE", "lease")]),
        (Refuse((403,), bucket="other"), []),
    ):
        with cloud.failing(fault):
            assert [request for request in requests if send(cloud, request[0], item(request[1]))[0] == 403] == refused
        cloud.objects["bucket", "lease"] = b""


def test_a_fault_happens_so_often_and_no_more(cloud):
    with cloud.failing(Refuse(times=2)) as fault:
        assert [send(cloud, "GET", "/storage/v1/b/bucket")[0] for _ in range(4)] == [503, 503, 200, 200]
    assert fault.strikes == 2


def test_a_missing_right_is_an_error_at_once(cloud):
    cloud.fail(Refuse((403,), bucket="bucket"))
    with pytest.raises(ValueError, match="PERMISSION_DENIED"):
        open_bucket().read("a").result(DEADLINE)
    with pytest.raises(ValueError, match="PERMISSION_DENIED"):
        open_bucket().write("a", b"").result(DEADLINE)
    assert len(cloud.requests) == 2


def test_a_list_without_the_right_is_empty_to_tensorstore(cloud):
    cloud.objects["bucket", "run/a"] = DATA
    with cloud.failing(Refuse((403,), actions=("list",))):
        assert open_bucket().read("a").result(DEADLINE).value == DATA
        assert open_bucket().list().result(DEADLINE) == []  # It takes the error for a list without names.
    assert open_bucket().list().result(DEADLINE) == [b"a"]


def test_a_write_whose_answer_is_lost_took_effect_and_looks_like_a_lost_race(cloud):
    store = open_bucket()
    first = store.write("lease", b"old").result(DEADLINE)
    cloud.fail(LoseAnswer(actions=("write",), times=1))
    assert store.write("lease", b"mine", if_equal=first.generation).result(DEADLINE).generation == LOST
    assert store.read("lease").result(DEADLINE).value == b"mine"


@pytest.mark.parametrize("fault", [Down(), Refuse()])
def test_a_server_that_is_down_is_an_error_after_the_last_retry_and_serves_when_healed(cloud, fault):
    store = open_bucket(max_retries=2)
    cloud.objects["bucket", "run/a"] = DATA
    cloud.fail(fault)
    with pytest.raises(ValueError, match="ABORTED: All 2 retry attempts failed"):
        store.read("a").result(DEADLINE)
    cloud.heal()
    assert store.read("a").result(DEADLINE).value == DATA


def test_a_delay_lasts_as_long_as_it_says(cloud):
    store = open_bucket()
    began = time.monotonic()
    with cloud.failing(Delay(0.05)):
        store.read("a").result(DEADLINE)
        store.read("b").result(DEADLINE)
    assert time.monotonic() - began >= 0.1


def test_a_silent_server_answers_when_it_is_healed(cloud):
    cloud.fail(Delay(3600))
    read = open_bucket().read("a")
    with pytest.raises(TimeoutError):
        read.result(timeout=0.05)
    cloud.heal()
    assert read.result(DEADLINE).state == "missing"


@pytest.mark.parametrize("how, seen", [("flipped", bytes([11, *range(11, 20)])), ("shifted", bytes(range(11, 21)))])
def test_wrong_bytes_of_a_range_reach_the_reader(cloud, how, seen):
    cloud.objects["bucket", "run/a"] = DATA
    with cloud.failing(WrongRange(how)):
        assert open_bucket().read("a", byte_range=slice(10, 20)).result(DEADLINE).value == seen
        assert open_bucket().read("a").result(DEADLINE).value == DATA


@pytest.mark.parametrize("how, error", [("short", "OUT_OF_RANGE"), ("whole", "FAILED_PRECONDITION")])
def test_a_range_of_another_length_is_an_error(cloud, how, error):
    cloud.objects["bucket", "run/a"] = DATA
    cloud.fail(WrongRange(how))
    with pytest.raises(ValueError, match=error):
        open_bucket().read("a", byte_range=slice(10, 20)).result(DEADLINE)


def test_a_body_that_is_cut_off_is_read_again(cloud):
    cloud.objects["bucket", "run/a"] = DATA
    cloud.fail(CutOff(times=3))
    assert open_bucket().read("a").result(DEADLINE).value == DATA
    assert len(cloud.requests) == 4


def test_faults_meet_a_request_in_their_order(cloud):
    cloud.fail(LoseAnswer(actions=("write",), times=1))
    cloud.fail(Refuse((403,), actions=("write",), times=1))
    with pytest.raises(ValueError, match="PERMISSION_DENIED"):  # The refusal answers, so there is no answer to lose.
        open_bucket().write("a", b"").result(DEADLINE)
    assert len(cloud.objects) == 0


def test_a_fault_without_a_kind_is_a_mistake_of_the_test():
    with pytest.raises(NotImplementedError):
        Fault().answer(None, None)
