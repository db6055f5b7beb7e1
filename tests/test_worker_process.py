"""A worker process answers, refuses, fails, ends or is late, and may print other things."""

import sys
from contextlib import closing

import pytest
from conftest import ROOT

from mixer_jax.errors import UserError
from mixer_jax.worker_process import WorkerError, WorkerProcess

PROGRAM = """
import os, sys, time
from mixer_jax.errors import UserError
from mixer_jax.worker_process import serve

def answer(question):
    if question == "refuse":
        raise UserError("no such thing")
    if question == "fail":
        raise ValueError("out of range")
    if question == "sleep":
        time.sleep(60)
    if question == "end":
        print("one", "two", "out of luck", sep=chr(10), file=sys.stderr, flush=True)
        os._exit(7)
    print("something that a library prints")
    return {"question": question, "variable": os.environ["VARIABLE"]}

serve(answer)
"""


@pytest.fixture
def worker():
    environment = {"PYTHONPATH": str(ROOT), "VARIABLE": "value"}
    with closing(WorkerProcess([sys.executable, "-c", PROGRAM], environment, timeout_seconds=10)) as worker:
        yield worker


def test_a_worker_answers_one_question_after_the_other_whatever_else_it_prints(worker):
    for question in (1, [2, 3]):
        assert worker.ask(question) == {"question": question, "variable": "value"}


def test_a_worker_goes_on_after_it_refused_or_failed(worker):
    with pytest.raises(UserError, match=r"^no such thing$"):
        worker.ask("refuse")
    with pytest.raises(WorkerError, match=r"^failed\. ValueError: out of range$"):
        worker.ask("fail")
    assert worker.ask(1)["question"] == 1


def test_a_worker_that_ends_is_told_with_its_last_words(worker):
    with pytest.raises(WorkerError, match=r"^ended with 7:\none\ntwo\nout of luck$"):
        worker.ask("end")
    with pytest.raises(WorkerError, match=r"^ended with 7"):
        worker.ask(1)


def test_a_worker_that_is_late_is_ended():
    process = WorkerProcess([sys.executable, "-c", PROGRAM], {"PYTHONPATH": str(ROOT)}, timeout_seconds=0.5)
    with closing(process), pytest.raises(WorkerError, match=r"^took more than 0\.5 s$"):
        process.ask("sleep")


def test_a_program_that_is_not_there_cannot_be_started():
    with pytest.raises(OSError, match="No such file"):
        WorkerProcess(["/no/python"], {}, timeout_seconds=1)
