"""Serves a folder as a bucket of Cloud Storage at a stated latency, in a process of its own: the stand-in of the tests.

    python -m benchmarks.peers.cloud_storage FOLDER MILLISECONDS

bucket_input.py starts this program, with tests/ in PYTHONPATH. The files of FOLDER are objects of the bucket "bucket". The answer
to the question START is the environment that sends clients here. The answer to any other is the number of requests so far.
"""

import sys
from pathlib import Path

from stand_ins.cloud_faults import Delay
from stand_ins.cloud_storage import CloudStorage

from benchmarks.peers.process import START
from mixer_jax.worker_process import serve

if __name__ == "__main__":
    folder, milliseconds = Path(sys.argv[1]), float(sys.argv[2])
    with CloudStorage() as cloud:
        for file in filter(Path.is_file, folder.rglob("*")):
            cloud.objects["bucket", str(file.relative_to(folder))] = file.read_bytes()
        cloud.fail(Delay(milliseconds / 1000))
        serve(lambda question: cloud.environment() if question == START else len(cloud.requests))
