"""Whole runs of train.py in a bucket, killed, stopped and under faults: they end with the bits of a run on a disk."""

import json
import random
import re
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from programs import finish, start, start_two, wait_for, without_timings
from stand_ins.cloud_faults import Down, Fault, LoseAnswer, Refuse

import mixer_jax
from mixer_jax.checkpoints.digest import params_sha256
from mixer_jax.checkpoints.run_paths import config_file
from mixer_jax.checkpoints.weights import load_weights
from mixer_jax.endings import STOPPED, TRY_AGAIN
from mixer_jax.mirror import local_files
from mixer_jax.report.runs import read_run

pytestmark = pytest.mark.slow
pytest.importorskip("gcsfs", reason="checkpoints in a bucket need gcsfs, the extra gcs")

URL = "gs://bucket/runs/tiny"
# train.py, whose lease expires soon after a kill, and which soon gives up on a bucket that is down.
QUICK = """import sys; sys.path[:0] = [""]; sys.argv[0] = "train.py"
from mixer_jax import bucket, lease
lease.EXPIRY_SECONDS, lease.RENEWAL_SECONDS, lease.POLL_SECONDS = 6, 0.5, 0.2
bucket.RETRIES |= {"max_retries": 20, "initial_delay": "2ms", "max_delay": "50ms"}
import gcsfs.retry
# As many attempts as TensorStore has. A run makes about 300 requests by gcsfs: with its six attempts, a fifth of refusals ends
# one run in 50.
gcsfs.retry.range = lambda attempts: [0] * (20 - attempts) + list(range(attempts))
gcsfs.retry.min = lambda *_: 0.02  # The pauses between the attempts, which would add up to half a minute.
import train
from mixer_jax import app
app.run(train.main, train.join, workdir="")
"""
TWO = (QUICK, QUICK)


def objects(cloud) -> dict[str, bytes]:
    return {name.removeprefix("runs/tiny/"): data for (_, name), data in list(cloud.objects.items())}


def commits(cloud) -> set[str]:
    return {match[1] for name in objects(cloud) if (match := re.fullmatch(r"checkpoints/(\d+)/commit_success\.txt", name))}


def rows(text: bytes) -> list[dict]:
    """Return the lines of metrics.jsonl without the figures that depend on the speed of the machine."""
    return without_timings(list(map(json.loads, text.splitlines())))


def assert_same_run(cloud, reference: Path) -> None:
    there = objects(cloud)
    one, other = (json.loads(text) for text in (there["results.json"], (reference / "results.json").read_bytes()))
    assert (one["params_sha256"], one["evals"]) == (other["params_sha256"], other["evals"])
    assert rows(there["metrics.jsonl"]) == rows((reference / "metrics.jsonl").read_bytes())
    assert {"config.json", "run.json", "predictions/test.parquet"} <= there.keys() and ".lease" not in there


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> Path:
    """Return the folder of a run on a disk that was never interrupted."""
    workdir = tmp_path_factory.mktemp("reference")
    finish(start(f"--workdir={workdir}"))
    return workdir


@pytest.fixture(scope="module")
def reference_of_two(tmp_path_factory) -> Path:
    """Return the folder of a run of two processes on a disk."""
    workdir = tmp_path_factory.mktemp("reference")
    for process in start_two(f"--workdir={workdir}"):
        finish(process)
    return workdir


def kill_after_a_commit(cloud, process, rng: random.Random, others=()) -> None:
    before = commits(cloud)
    wait_for(lambda: commits(cloud) - before, process)
    time.sleep(rng.uniform(0, 0.5))
    for each in (process, *others):
        each.send_signal(signal.SIGKILL)
        each.communicate()


def test_a_run_killed_at_random_moments_ends_with_the_bits_of_a_disk(reference: Path, cloud):
    rng = random.Random(0)
    for _ in range(2):
        kill_after_a_commit(cloud, start(f"--workdir={URL}", program=QUICK), rng)
    said = finish(start(f"--workdir={URL}", program=QUICK))
    assert re.search(rf"{URL} belongs to process \d+ on .*\. Waiting up to 6 s for a sign of life\.", said)
    assert_same_run(cloud, reference)
    assert commits(cloud) == {"20", "25", "30"}


def test_two_processes_killed_and_resumed_end_with_the_bits_of_a_disk(reference_of_two: Path, cloud):
    first, second = start_two(f"--workdir={URL}", programs=TWO)
    kill_after_a_commit(cloud, first, random.Random(1), others=(second,))
    for process in start_two(f"--workdir={URL}", programs=TWO):
        finish(process)
    assert_same_run(cloud, reference_of_two)


def test_a_run_asked_to_stop_frees_the_bucket_and_goes_on(reference: Path, cloud):
    process = start(f"--workdir={URL}", program=QUICK)
    wait_for(lambda: commits(cloud), process)
    process.send_signal(signal.SIGTERM)
    assert "Stopped as asked" in finish(process, STOPPED)
    assert ".lease" not in objects(cloud)
    assert "belongs to" not in finish(start(f"--workdir={URL}", program=QUICK))
    assert_same_run(cloud, reference)


@pytest.mark.parametrize(
    ("processes", "fault"),
    [
        (1, Refuse(share=0.2, statuses=(429, 503))),
        (1, LoseAnswer(share=0.2)),
        (2, Refuse(share=0.2, statuses=(429, 503), seed=1)),
    ],
    ids=["refusals", "lost answers", "refusals with two processes"],
)
def test_a_run_under_faults_ends_with_the_bits_of_a_disk(processes: int, fault: Fault, cloud, request):
    flags = (f"--workdir={URL}", "--config.checkpoint.every.steps=15")
    with cloud.failing(fault):
        for process in [start(*flags, program=QUICK)] if processes == 1 else start_two(*flags, programs=TWO):
            finish(process)
        assert fault.strikes > 50
    there = json.loads(objects(cloud)["results.json"])
    reference = request.getfixturevalue("reference" if processes == 1 else "reference_of_two")
    assert there["params_sha256"] == json.loads((reference / "results.json").read_bytes())["params_sha256"]


def test_a_bucket_that_is_down_is_one_message_at_the_start_in_the_middle_and_at_the_end(reference: Path, cloud):
    with cloud.failing(Down()):
        said = finish(start(f"--workdir={URL}", program=QUICK), TRY_AGAIN)
        assert re.fullmatch(r"(I\d+ .*\n)*error: gs://bucket/runs/tiny/\.probe-\w+ cannot be written .*Try again later\.\n", said)
    for step in ("5", "30"):
        process = start(f"--workdir={URL}", program=QUICK)
        wait_for(lambda step=step: any(name.startswith(f"checkpoints/{step}/") for name in objects(cloud)), process)
        with cloud.failing(Down()):
            said = finish(process, TRY_AGAIN)
        assert said.count("error: ") == 1 and "Traceback" not in said and URL in said
    finish(start(f"--workdir={URL}", program=QUICK))
    assert_same_run(cloud, reference)


def test_a_fresh_machine_takes_compiled_programs_from_the_bucket(cloud, tmp_path: Path):
    flags = ("--config.compilation_cache=gs://bucket/programs", "--config.total.steps=2", "--config.evals=None")

    def train(name: str) -> set[str]:
        """Train, with a machine's cache of its own, and return which programs in the bucket were read."""
        del cloud.requests[:]
        finish(start(f"--workdir={tmp_path / name}", *flags, XDG_CACHE_HOME=str(tmp_path / f"cache of {name}")))
        return {request.name for request in cloud.requests if request.action == "read"}

    train("first")
    kept = {name for _, name in cloud.objects}
    assert len(kept) > 1
    assert train("second") >= kept
    for key, content in list(cloud.objects.items()):
        middle = len(content) // 2
        cloud.objects[key] = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    assert train("third") >= kept
    assert len({params_sha256(load_weights(str(tmp_path / name)).arrays) for name in ("first", "second", "third")}) == 1


def test_a_zombie_that_wakes_after_a_takeover_commits_nothing(reference: Path, cloud):
    zombie = start(f"--workdir={URL}", program=QUICK)
    wait_for(lambda: commits(cloud), zombie)
    zombie.send_signal(signal.SIGSTOP)
    there = commits(cloud)
    heir = start(f"--workdir={URL}", program=QUICK)
    wait_for(lambda: commits(cloud) - there, heir)
    zombie.send_signal(signal.SIGCONT)
    assert "It writes nothing more; the other process goes on" in finish(zombie, TRY_AGAIN)
    finish(heir)
    assert_same_run(cloud, reference)


def damage(cloud, step: int) -> None:
    arrays = [key for key in cloud.objects if f"/checkpoints/{step}/ema/" in key[1] and "/d/" in key[1]]
    largest = max(arrays, key=lambda key: len(cloud.objects[key]))
    content = bytearray(cloud.objects[largest])
    content[len(content) // 2] ^= 1
    cloud.objects[largest] = bytes(content)


def test_what_reads_runs_reads_them_in_a_bucket_and_passes_over_a_damaged_step(cloud, reference: Path, tmp_path: Path):
    finish(start(f"--workdir={URL}", program=QUICK))
    there, here = load_weights(URL), load_weights(str(reference))
    assert there.arrays.keys() == here.arrays.keys() and there.class_names == here.class_names
    for name in here.arrays:
        np.testing.assert_array_equal(there.arrays[name], here.arrays[name])
    assert load_weights(f"{URL}/checkpoints/20").step == 20
    config = Path(config_file(URL))
    assert json.loads(config.read_text())["batch_size"] == 16
    assert mixer_jax.load(URL).config.num_classes == 10
    with local_files(URL) as folder:
        run = read_run(folder)
        assert (run.label, run.results["step"]) == ("tiny", 30)
    said = finish(start(f"--workdir={tmp_path}", f"--config.init_from={URL}", "--config.total.steps=2"))
    assert "restored" in said
    flags = (f"--checkpoint={URL}", "--workdir=gs://bucket/evaluation")
    finish(start(*flags, program="evaluate.py"))
    figures = [json.loads(cloud.objects["bucket", f"{name}/results.json"])["evals"] for name in ("runs/tiny", "evaluation")]
    assert figures[0] == figures[1]

    damage(cloud, 30)
    assert load_weights(URL).step == 25
    for key in [key for key in cloud.objects if key[1].endswith("results.json")]:
        del cloud.objects[key]
    said = finish(start(f"--workdir={URL}", program=QUICK))
    mark = re.search(rf"Checkpoint 30 is damaged \(.+\)\. It is passed over, and marked by {URL}/(damaged/30-\d+\.json)\.", said)
    assert json.loads(objects(cloud)[mark[1]])["reason"][:40] in said
    assert_same_run(cloud, reference)
    assert commits(cloud) == {"20", "25", "30"} and load_weights(URL).step == 30
