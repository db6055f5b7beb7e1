"""Being asked to stop: once politely, twice in earnest."""

import os
import signal

import pytest

from mixer_jax.training.preemption import Stopped, StopRequest


@pytest.fixture
def caught():
    """Signals that would have killed, as the usual handlers see them."""
    seen = []
    previous = {
        number: signal.signal(number, lambda number, _: seen.append(number)) for number in (signal.SIGTERM, signal.SIGINT)
    }
    yield seen
    for number, handler in previous.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_sets_the_flag_and_the_second_does_what_it_always_does(number, caught):
    with StopRequest() as stop:
        assert not stop.reached()
        stop.check_in_evaluation()
        os.kill(os.getpid(), number)
        assert stop.reached()
        assert stop.reached()
        with pytest.raises(Stopped, match="in an evaluation"):
            stop.check_in_evaluation()
        assert caught == []
        os.kill(os.getpid(), number)
        assert caught == [number]


def test_the_usual_handlers_are_back_afterwards_whether_asked_or_not(caught):
    for asked in (False, True):
        handlers = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
        with StopRequest():
            assert signal.getsignal(signal.SIGTERM) != handlers[0]
            if asked:
                os.kill(os.getpid(), signal.SIGTERM)
        assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == handlers


def test_on_several_hosts_every_question_has_its_own_number_and_a_yes_stays(monkeypatch):
    asked = []
    monkeypatch.setattr("jax.distributed.is_initialized", lambda: True)

    def answer(number):
        asked.append(number)
        return number == 3  # the service says yes at one number alone

    monkeypatch.setattr("mixer_jax.training.preemption.multihost_utils.reached_preemption_sync_point", answer)
    stop = StopRequest()
    assert [stop.reached() for _ in range(5)] == [False, False, True, True, True]
    assert asked == [1, 2, 3]
