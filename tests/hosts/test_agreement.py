"""Hosts that differ in anything are all refused with the same message, which names what differs and on which hosts."""

import re
import time

import pytest
from hosts.fake_board import FakeService, on_all_hosts
from tiny_config import get_config

from mixer_jax.config import flatten
from mixer_jax.errors import EnvironmentFault, UserError
from mixer_jax.hosts import agreement
from mixer_jax.hosts.agreement import agree, agree_on_folder, compare
from mixer_jax.hosts.software import code_digests, program_facts, versions


@pytest.mark.parametrize("num_hosts", [1, 2, 5])
def test_hosts_that_have_the_same_facts_go_on(num_hosts):
    assert (
        on_all_hosts(num_hosts, lambda board: agree("data", lambda: {"data": 3, "seeds": (0, 1)}, 10, board))
        == [None] * num_hosts
    )


@pytest.mark.parametrize("odd_one", [0, 1, 3])
def test_a_difference_is_refused_on_every_host_in_the_same_words(odd_one):
    ended = on_all_hosts(4, lambda board: agree("config", lambda: {"config.seed": int(board.host == odd_one)}, 10, board))
    assert {type(error) for error in ended} == {UserError} and len({str(error) for error in ended}) == 1
    values = {0: "1 on host 0, 0 on hosts 1, 2, 3", 1: "0 on hosts 0, 2, 3, 1 on host 1", 3: "0 on hosts 0, 1, 2, 1 on host 3"}
    assert f"config.seed: {values[odd_one]}" in str(ended[0])


def changed(name: str) -> dict:
    """Return the facts of a program, with another value for one of them."""
    facts = program_facts(get_config())
    return facts | {name: "another"}


FIELDS = ["config.seed", "config.optimizer.learning_rate", "config.total.steps", "config.evals.test.data.source", "XLA_FLAGS"]


@pytest.mark.parametrize(
    "field", [*FIELDS, "code of train.py", "code of mixer_jax/app.py", "version of jax", "version of Python"]
)
def test_each_fact_of_a_program_is_compared(field):
    facts = program_facts(get_config())
    assert not compare([facts, dict(facts)], ["a", "b"])
    assert re.search(rf'\n  {re.escape(field)}: .* on host 0, "another" on host 1$', compare([facts, changed(field)], ["a", "b"]))


def test_every_option_every_file_of_ours_and_every_version_is_a_fact():
    config, facts = get_config(), program_facts(get_config())
    assert {f"config.{name}" for name in flatten(config)} <= facts.keys()
    assert {f"code of {file}" for file in ("train.py", "evaluate.py", "mixer_jax/hosts/agreement.py")} <= facts.keys()
    assert len(code_digests()) > 100 and {f"version of {name}" for name in versions()} <= facts.keys()


def test_an_option_that_only_some_hosts_have_is_a_difference():
    assert "config.a: nothing on host 0, 1 on host 1" in compare([{}, {"config.a": 1}], ["x", "y"])
    assert "config.a: 1 on host 0, nothing on host 1" in compare([{"config.a": 1}, {}], ["x", "y"])


def test_a_message_stays_short_for_many_hosts_fields_and_values():
    facts = [{f"field {i:02d}": "x" * 9999 + str(host if host % 3 else 0) for i in range(99)} for host in range(512)]
    message = compare(facts, [f"machine-{host}" for host in range(512)])
    assert len(message.splitlines()) == 2 + agreement.MAX_FIELDS and len(message) < 8000
    assert "on hosts 0, 3, 6, 9 and 167 more" in message and "and 91 more, such as field 08" in message
    assert "host 0 is machine-0" in message and message.count("machine-") <= agreement.MAX_HOSTS


def test_a_host_that_is_not_heard_from_is_named():
    service = FakeService()
    with pytest.raises(EnvironmentFault, match=r"from hosts 1, 2 in 0\.05 s \(data\)"):
        agree("data", dict, 0.05, service.board(0, 3))


def test_a_host_that_is_waited_for_long_is_named_meanwhile(monkeypatch, capsys):
    monkeypatch.setattr(agreement, "NOTICE_SECONDS", 0.02)

    def on_host(board):
        time.sleep(0.1 * board.host)
        agree("data", dict, 10, board)

    assert on_all_hosts(2, on_host) == [None, None]
    assert capsys.readouterr().out.startswith("Waiting for the data of host 1.\n")


def test_a_host_alone_makes_no_facts():
    agree("anything", lambda: pytest.fail("facts cost time"))
    agree_on_folder("folder", lambda: pytest.fail("reading costs time"), "token")


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Return a function of two folders, one for each host, that returns what agree_on_folder raises on each host."""
    monkeypatch.setattr(agreement, "DISK_SECONDS", 0.3)

    def ended(*paths):
        def on_host(board):
            path = tmp_path / paths[board.host]
            if board.host == 0:
                path.mkdir()
                (path / ".lock").write_text("process 1 on a")
            lock = path / ".lock"
            token = "process 1 on a" if board.host == 0 else None
            return agree_on_folder(str(path), lambda: lock.read_text() if lock.exists() else None, token, board)

        return on_all_hosts(2, on_host)

    return ended


def test_a_folder_that_is_spelled_differently_is_the_same(folders, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path)
    assert folders("run", "link/run") == [None, None]


@pytest.mark.parametrize("there", [None, "process 7 on b"])
def test_a_folder_that_is_another_is_refused_on_both_hosts(folders, tmp_path, there):
    if there:
        (tmp_path / "other").mkdir()
        (tmp_path / "other/.lock").write_text(there)
    ended = folders("run", "other")
    assert isinstance(ended[0], UserError) and str(ended[0]) == str(ended[1])
    assert re.search(
        r'--workdir: "\S+/run" on host 0, "\S+/other, which is another folder or not on a disk .* on host 1', str(ended[0])
    )
