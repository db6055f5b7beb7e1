"""The benchmark of a bucket reads each image by one request without a copy, and by hardly any with one."""

import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT

PROGRAM = """
import sys
from benchmarks import bucket_input
from mixer_jax import app
from mixer_jax.bench import speed
bucket_input.ROUND_SECONDS, speed.WARM_UP = 0.1, 1
options = ["--images=40", "--latency=1", "--rounds=1", "--json", "--config.loader.processes=False"]
sys.exit(app.run_tool(bucket_input.make_parser(), options))
"""


@pytest.mark.slow
def test_a_copy_and_ranges_are_measured_in_turns(tmp_path):
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path)}
    command = [sys.executable, "-c", PROGRAM]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, env=environment)
    figures = json.loads(run.stdout.splitlines()[-1])
    assert (figures["latency_ms"], figures["images"]) == (1, 40)
    (_, copy), *ranges = figures["pipelines"].items()
    assert len(ranges) == 2 and copy["requests_per_image"] < 0.2
    assert all(1 <= speed["requests_per_image"] < 1.2 and speed["images_per_sec"] > 0 for _, speed in ranges)
