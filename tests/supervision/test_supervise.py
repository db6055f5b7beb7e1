"""`supervise` starts a program again as long as that can help, stops with it, and keeps what it prints."""

import errno
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT
from stand_ins.cloud_faults import Refuse
from supervision.programs_to_supervise import HEARING, PLANNED, supervise, write_program

import mixer_jax.bucket
from mixer_jax.__main__ import make_parser
from mixer_jax.app import parse_tool
from mixer_jax.checkpoints.committed_steps import committed_steps
from mixer_jax.endings import DONE, INTERRUPTED, STALLED, STOPPED, TO_MEND, TRY_AGAIN
from mixer_jax.errors import UserError
from mixer_jax.supervision import child
from mixer_jax.supervision import log as logs
from mixer_jax.supervision.cli import run_supervisor
from mixer_jax.supervision.program import find_program, flag_value, read_program
from mixer_jax.supervision.restarts import Budget, Limits
from mixer_jax.workdir import Workdir, refuse_run_folder

KILLED = "program.py was ended by SIGKILL"
GIVEN_UP = "not again: 3 starts in a row have made no newer checkpoint. See the end of "


def call(*words: str, options: tuple[str, ...] = ()) -> int:
    """Supervise in this process, and return the exit code."""
    argv = supervise(*words, options=options)[3:]
    with pytest.raises(SystemExit) as ended:
        run_supervisor(parse_tool(make_parser(argv), argv))
    return ended.value.code


def lines_of(err: str) -> list[str]:
    """Return what the supervisor said, without the time of day."""
    return [line.split(" ", 2)[2] for line in err.splitlines() if line.startswith("supervise: ")]


def in_logs(workdir: Path) -> list[str]:
    """Return the text of each log, in the order of time."""
    return [file.read_text() for file in sorted((workdir / "logs").iterdir())]


PLANS = [  # The end of each start and the checkpoints that it makes; the number of starts, the supervisor's code, its last line.
    ("0", 1, DONE, "program.py is done"),
    ("2", 1, TO_MEND, "program.py ended with 2 (a person must change something)"),
    ("75 5\n0", 2, DONE, "program.py is done"),
    ("1 5\n76 10\n-9 15\n130 20\n143 25\n1 30\n-15 35\n0", 8, DONE, "program.py is done"),
    ("1\n1\n1", 3, TRY_AGAIN, f"program.py ended with 1 (failed) without a checkpoint; {GIVEN_UP}"),
    ("1 5\n1\n76\n-9", 4, 128 + signal.SIGKILL, f"{KILLED} without a newer checkpoint than that of step 5; {GIVEN_UP}"),
    ("1\n1\n1 5\n1\n1\n76", 6, STALLED, "program.py ended with 76 (stalled) without a newer checkpoint than that of step 5; not"),
    ("75\n75\n75", 3, STOPPED, f"program.py ended with 75 (stopped and saved) without a checkpoint; {GIVEN_UP}"),
    ("1\n2", 2, TO_MEND, "program.py ended with 2 (a person must change something)"),
]  # fmt: skip


@pytest.mark.parametrize(("plan", "starts", "code", "last"), PLANS, ids=[plan.replace("\n", ", ") for plan, *_ in PLANS])
def test_a_program_is_started_again_while_that_may_help(tmp_path: Path, capfd, plan: str, starts: int, code: int, last: str):
    (tmp_path / "plan").write_text(plan + "\n")
    assert call(write_program(tmp_path, PLANNED), f"--workdir={tmp_path}") == code
    out, err = capfd.readouterr()
    said = lines_of(err)
    assert len([line for line in said if line.startswith("start ")]) == starts == len(in_logs(tmp_path))
    assert out.splitlines() == [f"ending with {end.split()[0]}" for end in plan.splitlines()]
    assert said[-1].startswith(last)
    assert "".join(in_logs(tmp_path)).count("\n") == len(said) + len(out.splitlines())


def test_each_start_says_where_it_goes_on_and_how_far_it_came(tmp_path: Path, capfd):
    (tmp_path / "plan").write_text("1 5 10\n76 25\n1\n0\n")
    call(write_program(tmp_path, PLANNED), f"--workdir={tmp_path}")
    assert lines_of(capfd.readouterr().err) == [
        "start 1 of program.py, from the beginning",
        "program.py ended with 1 (failed) at step 10, 10 steps after this start; again in 0.01 s",
        "start 2 of program.py, from step 10",
        "program.py ended with 76 (stalled) at step 25, 15 steps after this start; again in 0.01 s",
        "start 3 of program.py, from step 25",
        "program.py ended with 1 (failed) without a newer checkpoint than that of step 25; again in 0.01 s",
        "start 4 of program.py, from step 25",
        "program.py is done",
    ]


def test_the_budget_may_be_larger(tmp_path: Path):
    (tmp_path / "plan").write_text("1\n" * 4 + "0\n")
    assert call(write_program(tmp_path, PLANNED), f"--workdir={tmp_path}", options=("--max-starts=5",)) == DONE


def test_the_pause_is_short_after_progress_and_grows_without():
    budget = Budget(Limits(25, 5, 60, 300), None)
    assert [budget.spend(step) for step in (None, 5, 5, 5, 10, 10, 10, 9, None)] == [10, 1, 10, 60, 1, 10, 60, 60, 60]
    assert budget.spend(10) is None and budget.spend(11) == 1


def test_a_machine_that_cannot_start_a_process_for_now_costs_a_start(tmp_path: Path, monkeypatch, capfd):
    (tmp_path / "plan").write_text("0\n")
    popen, failures = subprocess.Popen, [OSError(errno.EAGAIN, "Resource temporarily unavailable")]

    def start_process(*arguments, **options):
        if failures:
            raise failures.pop()
        return popen(*arguments, **options)

    monkeypatch.setattr(child.subprocess, "Popen", start_process)
    assert call(write_program(tmp_path, PLANNED), f"--workdir={tmp_path}") == DONE
    assert "program.py cannot be started: [Errno 11] Resource temporarily unavailable" in lines_of(capfd.readouterr().err)


@pytest.fixture
def start(tmp_path: Path):
    """Return a function that supervises HEARING in a process of its own, and returns this process and the program's number."""
    processes = []

    def begin(needed: int, *options: str, ready: bool = True) -> tuple[subprocess.Popen, int]:
        command = supervise(write_program(tmp_path, HEARING), str(needed), f"--workdir={tmp_path}", options=options)
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        processes.append(process)
        return process, int(process.stdout.readline().split()[1])

    yield begin
    for process in processes:
        process.kill()
        process.communicate()


def heard(workdir: Path) -> list[int]:
    return list(map(int, (workdir / "heard").read_text().split()))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_comes_once_and_the_program_is_not_started_again(tmp_path: Path, start, number: signal.Signals):
    process, _ = start(1)
    process.send_signal(number)
    err = process.communicate(timeout=20)[1]
    assert process.returncode == STOPPED and heard(tmp_path) == [number]
    assert lines_of(err)[1:] == [f"{number.name} is passed on to program.py", "program.py ended with 75 (stopped and saved)"]


def test_a_second_sigterm_does_not_disturb_the_saving_but_a_second_ctrl_c_is_passed_on(tmp_path: Path, start):
    process, _ = start(3)
    for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT, signal.SIGINT):
        process.send_signal(number)
        time.sleep(0.1)
    process.communicate(timeout=20)
    assert heard(tmp_path) == [signal.SIGTERM, signal.SIGINT, signal.SIGINT] and process.returncode == STOPPED


def test_a_program_that_does_not_end_within_the_time_of_grace_is_killed(tmp_path: Path, start):
    process, program = start(9, "--grace=0.3")
    process.send_signal(signal.SIGTERM)
    begin = time.monotonic()
    err = process.communicate(timeout=20)[1]
    assert process.returncode == STOPPED and 0.2 < time.monotonic() - begin < 10
    assert lines_of(err)[2:] == ["program.py has not ended within 0.3 s: SIGKILL", KILLED]
    assert not is_running(program)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, STOPPED), (signal.SIGINT, INTERRUPTED)])
def test_a_signal_between_two_starts_ends_at_once(tmp_path: Path, number: signal.Signals, code: int):
    (tmp_path / "plan").write_text("1\n0\n")
    command = supervise(write_program(tmp_path, PLANNED), f"--workdir={tmp_path}", options=("--max-pause=100",))
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        while "again in 10 s" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(number)
        try:
            err = process.communicate(timeout=5)[1]
        finally:
            process.kill()
    assert process.returncode == code and lines_of(err) == [f"{number.name}: program.py is not started again"]


def is_running(process_id: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{process_id}/status").read_text()
    except FileNotFoundError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone ends a program with its supervisor")
def test_a_program_never_outlives_its_supervisor(start):
    process, program = start(9)
    assert is_running(program)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 5
    while is_running(program):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_the_program_leaves_running_is_killed(tmp_path: Path, capfd):
    left = "import os, subprocess, sys; print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']).pid)"
    assert call(write_program(tmp_path, left), f"--workdir={tmp_path}") == DONE
    left_running, deadline = int(capfd.readouterr().out), time.monotonic() + 10
    while is_running(left_running):  # It has been sent SIGKILL, and it is not a child of the supervisor, which could wait for it.
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_output_goes_where_it_went_and_into_the_log_in_whole_lines(tmp_path: Path, capfd):
    program = (
        "import os, sys; assert not any(map(os.isatty, range(3)))\n"
        "for i in range(1000): print(i, 'out'); print(i, 'err', file=sys.stderr)\n"
        "sys.stdout.buffer.write(b'\\xff no end')"
    )
    assert call(write_program(tmp_path, program), f"--workdir={tmp_path}") == DONE
    out, err = capfd.readouterr()
    assert out.startswith("0 out\n1 out\n") and out.endswith(" no end") and "999 err\n" in err
    (file,) = (tmp_path / "logs").iterdir()
    lines = file.read_bytes().splitlines()
    whole = [b"%d %s" % (i, name) for i in range(1000) for name in (b"out", b"err")]
    assert sorted(lines[1:-1]) == sorted([*whole, b"\xff no end"])
    assert re.fullmatch(rb"supervise: .* program.py is done", lines[-1])


def test_each_write_to_the_log_ends_with_a_newline(tmp_path: Path, capfd, monkeypatch):
    """Otherwise, lines of the two streams and of the supervisor would mix."""
    written, write = [], logs.Log.write
    monkeypatch.setattr(logs.Log, "write", lambda log, text: (written.append(text), write(log, text)))
    program = "import sys; print('too long ' * 50_000, end=''); print('no end', end='', file=sys.stderr)"
    assert call(write_program(tmp_path, program), f"--workdir={tmp_path}") == DONE
    assert all(text.endswith(b"\n") for text in filter(None, written))
    _, *lines, _ = b"".join(written).splitlines()
    assert b"no end" in lines and b"".join(line for line in lines if line != b"no end") == b"too long " * 50_000
    assert capfd.readouterr().out == "too long " * 50_000


def test_a_log_is_continued_in_another_file_and_the_first_and_newest_files_are_kept(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(logs, "MAX_BYTES", 100)
    monkeypatch.setattr(logs, "MAX_FILES", 3)
    log = logs.Log(str(tmp_path), "host")
    log.begin()
    for i in range(10):
        log.write(b"%d" % i * 60)
    log.close()
    assert in_logs(tmp_path) == ["0" * 60, "8" * 60, "9" * 60]


def test_a_log_that_cannot_be_written_is_said_once_and_the_program_goes_on(tmp_path: Path, capfd):
    (tmp_path / "plan").write_text("1\n0\n")
    (tmp_path / "logs").write_text("in the way")
    assert call(write_program(tmp_path, PLANNED), f"--workdir={tmp_path}") == DONE
    out, err = capfd.readouterr()
    assert out == "ending with 1\nending with 0\n" and err.count("the log cannot be kept") == 1


def test_a_log_in_a_bucket_is_uploaded_while_the_program_runs_and_at_its_end(tmp_path: Path, cloud, monkeypatch):
    monkeypatch.setattr(logs, "UPLOAD_SECONDS", 0.05)
    log = logs.Log("gs://bucket/run", "host")
    log.begin()
    log.write(b"one\n")
    deadline = time.monotonic() + 10
    while not (uploaded := dict(cloud.objects.items())):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert list(uploaded.values()) == [b"one\n"]
    log.write(b"two\n")
    log.begin()
    log.write(b"of the second start\n")
    log.close()
    names, texts = zip(*sorted(cloud.objects.items()), strict=True)
    assert texts == (b"one\ntwo\n", b"of the second start\n")
    assert all(re.fullmatch(r"run/logs/host-\d{10}\.log", name) for _, name in names)


def test_a_bucket_that_refuses_is_said_once_and_never_delays(cloud, monkeypatch, capfd):
    monkeypatch.setattr(mixer_jax.bucket, "RETRIES", {"max_retries": 1, "initial_delay": "1ms", "max_delay": "1ms"})
    monkeypatch.setattr(logs, "UPLOAD_SECONDS", 0.01)
    with cloud.failing(Refuse(statuses=(403,))):
        log = logs.Log("gs://bucket/run", "host")
        log.begin()
        for _ in range(20):
            log.write(b"line\n")
            time.sleep(0.01)
        log.close()
    assert capfd.readouterr().err.count("the log cannot be kept (gs://bucket/run/logs/host-") == 1


def test_the_committed_steps_are_those_of_a_disk_and_of_a_bucket(tmp_path: Path, cloud):
    assert committed_steps(str(tmp_path)) == committed_steps("gs://bucket/run") == []
    for step, is_complete in (("5", True), ("10", True), ("100", False)):
        (tmp_path / f"checkpoints/{step}{'' if is_complete else '.orbax-checkpoint-tmp'}").mkdir(parents=True)
        cloud.objects["bucket", f"run/checkpoints/{step}/params/d/0"] = b"0"
        if is_complete:
            cloud.objects["bucket", f"run/checkpoints/{step}/commit_success.txt"] = b""
    assert committed_steps(str(tmp_path)) == committed_steps("gs://bucket/run") == [5, 10]


@pytest.mark.parametrize("workdir", ["run", "gs://bucket/run"])
def test_a_folder_that_has_only_logs_is_free_for_a_run(tmp_path: Path, cloud, monkeypatch, tiny_config, workdir: str):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    log = logs.Log(workdir, "host")
    log.begin()
    log.write(b"line\n")
    log.close()
    refuse_run_folder(workdir)  # An evaluation may write there too.
    with Workdir(workdir) as run:
        run.refuse_other_run(tiny_config)
        assert not (run.path / "logs").exists() or workdir == "run"  # They are not copied from a bucket.


def test_the_folder_of_the_run_is_that_of_the_program():
    assert flag_value("workdir", ["--workdir", "a b", "--x"]) == "a b" == flag_value("workdir", ["-workdir=c", "--workdir=a b"])
    assert flag_value("workdir", ["--my_workdir=a", "workdir=b"]) == ""


def test_a_log_is_named_after_the_machine_and_the_process(monkeypatch):
    for name in ("JAX_PROCESS_ID", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)

    def name(*flags: str) -> str:
        return read_program(["sh", "--workdir=run", *flags]).log_name

    assert name("--process_id=3") == name("--process_id", "3") == f"{name()}-3"
    machine = name()
    monkeypatch.setenv("JAX_PROCESS_ID", "2")
    assert name() == f"{machine}-2" and name("--process_id=3") == f"{machine}-3"


def test_a_script_of_the_repository_is_found_from_any_folder(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_program("train.py") == [sys.executable, str(ROOT / "train.py")]
    (tmp_path / "train.py").write_text("")
    assert find_program("train.py") == [sys.executable, "train.py"]
    assert find_program("sh")[0].endswith("/sh")
    with pytest.raises(UserError, match="There is no program nothing"):
        find_program("nothing")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--", "train.py", "--config=x"],
            "error: supervise needs the run's folder, among the arguments of train.py: --workdir=RUN.",
        ),
        (["--", "none.py", "--workdir=x"], "error: There is no program none.py."),
        (["--", "train.py", "--workdir=s3://x"], "error: s3://x: of all buckets, only those of Google Cloud Storage"),
        (["train.py", "--workdir=x"], "unrecognized arguments: --workdir=x"),
    ],
)
def test_a_command_that_cannot_be_is_one_message(words: list[str], message: str, tmp_path: Path):
    command = [sys.executable, "-m", "mixer_jax", "supervise", *words]
    ended = subprocess.run(command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert ended.returncode == TO_MEND and message in ended.stderr and "Traceback" not in ended.stderr
    assert not list(tmp_path.iterdir())


def test_the_supervisor_imports_no_jax():
    code = "import sys, mixer_jax.supervision.supervise; sys.exit(bool({'jax', 'orbax', 'numpy'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
