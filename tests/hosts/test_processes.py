"""If hosts differ or one fails, all their processes end within seconds, each with one message."""

import contextlib
import json
import re
import resource
import signal
import subprocess
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from hosts.metadata import metadata_server
from programs import finish, free_port, start, start_two, wait_for

from mixer_jax.checkpoints.weights import load_weights, save_weights
from mixer_jax.endings import DONE, TO_MEND, TRY_AGAIN

# train.py with one more line, which makes one host fail.
PATCHED = """import sys, time; sys.path[:0] = [""]; sys.argv[0] = "train.py"
import train
from mixer_jax import app
{}
app.run(train.main, train.join, workdir="")
"""
SLOW_DATA = PATCHED.format("train.open_source = lambda _: print('opening', flush=True) or time.sleep(100)")
BROKEN_STEP = PATCHED.format("train.loop.to_global = lambda *_: 1 / 0")


ON_TPU_VM = PATCHED.format("import os; os.environ.pop('TPU_SKIP_MDS_QUERY')")  # JAX sets it on machines without a TPU chip.


def ends_alike(processes, code: int) -> str:
    """Wait for both processes, check that both print the same message, and return it."""
    first, second = (finish(process, code) for process in processes)
    messages = [output[output.index("error: ") :] for output in (first, second)]
    assert messages[0] == messages[1] and "Traceback" not in first + second
    return messages[0]


def test_hosts_with_other_options_are_refused_with_all_of_them(tmp_path: Path):
    other = ("--config.seed=1", "--config.optimizer.learning_rate=0.5", "--config.total.steps=20")
    said = ends_alike(start_two(f"--workdir={tmp_path / 'run'}", second=other), TO_MEND)
    assert "config.seed: 0 on host 0, 1 on host 1" in said and "config.total.steps: 30 on host 0, 20 on host 1" in said
    assert "config.optimizer.learning_rate: 0.01 on host 0, 0.5 on host 1" in said
    assert not (tmp_path / "run").exists()


def test_hosts_with_other_folders_are_refused(tmp_path: Path):
    said = ends_alike(start_two(f"--workdir={tmp_path / 'a'}", second=(f"--workdir={tmp_path / 'b'}",)), TO_MEND)
    assert re.search(r'--workdir: "\S+/a" on host 0, "\S+/b, which is another folder .*" on host 1', said)
    assert not (tmp_path / "b").exists()


def write_images(home: Path, images: int) -> None:
    for split, label in ((split, label) for split in ("train", "test") for label in range(10)):
        folder = home / "data" / split / str(label)
        folder.mkdir(parents=True)
        for i in range(images if label == 7 else 3):
            cv2.imwrite(str(folder / f"{i}.png"), np.full((9, 8, 3), 20 * label + i, np.uint8))


@pytest.mark.parametrize("images", [2, 0])
def test_hosts_with_other_data_under_the_same_name_are_refused(tmp_path: Path, monkeypatch, images: int):
    for host, number in (("a", 3), ("b", images)):
        if number:
            write_images(tmp_path / host, number)
    monkeypatch.setenv("HOME", str(tmp_path / "a"))
    flags = (f"--workdir={tmp_path / 'run'}", "--config.data.source=folder:~/data", "--config.evals=None")
    processes = start_two(*flags, HOME=str(tmp_path / "b"))
    if images:
        said = ends_alike(processes, TO_MEND)
        assert re.search(r'data: "30 records \(\w+\) .*" on host 0, "29 records \(\w+\) .*" on host 1', said)
    else:
        first, second = (finish(process, TO_MEND) for process in processes)
        message = second.removeprefix("error: ")
        assert "There is no folder" in message
        assert re.search(rf"error: host 1 \(.+\) stopped: {re.escape(message)}", first)
    assert not (tmp_path / "run").exists()


def test_a_host_that_fails_in_the_middle_ends_the_others(tmp_path: Path):
    first, second = start_two(f"--workdir={tmp_path}", programs=("train.py", BROKEN_STEP))
    assert "ZeroDivisionError: division by zero" in finish(second, TRY_AGAIN)
    assert re.search(r"error: host 1 \(.+\) stopped: ZeroDivisionError: division by zero\n$", finish(first, TRY_AGAIN))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_hosts_wait_for_each_other_ends_them(tmp_path: Path, number: signal.Signals):
    processes = start_two(f"--workdir={tmp_path / 'run'}", programs=("train.py", SLOW_DATA))
    assert processes[1].stdout.readline() == "opening\n"  # The first host is now waiting for the second.
    time.sleep(1)
    processes[0].send_signal(number)
    start = time.monotonic()
    finish(processes[0], 128 + number)
    assert re.search(r"error: host 0 \(.+\) stopped: ", finish(processes[1], TRY_AGAIN))
    assert time.monotonic() - start < 20


def test_a_signal_while_the_others_are_missing_ends_a_host(tmp_path: Path):
    port = free_port()
    process = start(f"--workdir={tmp_path / 'run'}", f"--coordinator=localhost:{port}", "--num_processes=2", "--process_id=0")
    wait_for(lambda: f":{port:04X} " in Path("/proc/net/tcp6").read_text() + Path("/proc/net/tcp").read_text(), process)
    process.send_signal(signal.SIGTERM)
    finish(process, -signal.SIGTERM)


def test_hosts_that_evaluate_other_weights_are_refused(tmp_path: Path, tiny_run: Path):
    weights = load_weights(str(tiny_run))
    for name in ("a", "b"):
        weights.arrays["head/bias"] = weights.arrays["head/bias"] + 1
        save_weights(weights, str(tmp_path / f"{name}.safetensors"))
    flags = (f"--workdir={tmp_path / 'out'}", f"--checkpoint={tmp_path}/a.safetensors")
    other = (f"--checkpoint={tmp_path}/b.safetensors",)
    said = ends_alike(start_two(*flags, second=other, programs=("evaluate.py", "evaluate.py")), TO_MEND)
    assert re.search(r'parameters \(SHA-256\): "\w+" on host 0, "\w+" on host 1', said)
    assert not (tmp_path / "out").exists()


def test_the_workers_of_a_tpu_slice_find_each_other_and_one_alone_is_refused(tmp_path: Path):
    with contextlib.ExitStack() as servers:
        addresses = [servers.enter_context(metadata_server(worker, "127.0.0.1,127.0.0.2")) for worker in range(2)]
        port = str(free_port())

        def start_worker(worker: int, *flags: str) -> subprocess.Popen:
            place = {"GCE_METADATA_IP": addresses[worker], "JAX_FORCE_TPU_INIT": "1", "JAX_COORDINATOR_PORT": port}
            return start(f"--workdir={tmp_path / 'run'}", *flags, devices=1, program=ON_TPU_VM, **place)

        alone = start_worker(1)
        assert "one host of several (a TPU pod slice). Add --distributed" in finish(alone, TO_MEND)
        said = ends_alike([start_worker(0, "--distributed"), start_worker(1, "--distributed", "--config.seed=1")], TO_MEND)
        assert "config.seed: 0 on host 0, 1 on host 1" in said
    assert not (tmp_path / "run").exists()


LAPTOP = [  # Flags, environment variables, the exit code, the message.
    (["--distributed"], {}, TO_MEND, "this machine belongs to no cluster that JAX knows"),
    ([], {"JAX_PLATFORMS": "tpu"}, TRY_AGAIN, "JAX finds no device for JAX_PLATFORMS=tpu"),
    ([], {"JAX_PLATFORMS": "cuda"}, TO_MEND, "JAX finds no device for JAX_PLATFORMS=cuda"),
    ([], {"JAX_NUM_PROCESSES": "two"}, TO_MEND, "JAX_NUM_PROCESSES=two: it must be a whole number"),
    ([], {"JAX_NUM_PROCESSES": "2"}, TO_MEND, "needs --coordinator"),
    (["--coordinator=localhost"], {}, TO_MEND, "it must be HOST:PORT"),
    (["--coordinator=localhost:1", "--num_processes=2", "--process_id=1"], {}, TRY_AGAIN, "nobody answers there"),
    (["--help"], {}, DONE, "Try --helpfull"),
]


@pytest.mark.parametrize(("flags", "variables", "code", "message"), LAPTOP, ids=lambda value: str(value)[:40])
def test_a_start_that_cannot_be_is_one_message_within_seconds(flags, variables, code, message, tmp_path: Path):
    said = finish(start(f"--workdir={tmp_path / 'run'}", "--join_timeout=1", *flags, **variables), code)
    assert message in said and "Traceback" not in said and said.count("error: ") == (code != DONE)
    assert not (tmp_path / "run").exists()


def test_a_disk_that_is_full_is_named_and_the_same_command_goes_on_when_it_is_mended(tmp_path: Path):
    """A limit on the size of files takes the place of a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        process = start(f"--workdir={tmp_path}")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    said = finish(process, TRY_AGAIN)
    assert re.search(rf"\nerror: A checkpoint could not be saved in {tmp_path}, where \d+ MiB are free .*\n$", said)
    finish(start(f"--workdir={tmp_path}"))
    assert json.loads((tmp_path / "results.json").read_text())["step"] == 30
