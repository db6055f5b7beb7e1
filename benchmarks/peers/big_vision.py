"""big_vision's input pipeline, timed in an environment of its own: no process of ours ever imports this, or TensorFlow.

    python -m benchmarks.peers.big_vision IMAGES

beside_big_vision.py starts it, with a clone of github.com/google-research/big_vision on the path and IMAGES, a folder of JPEG
files. A question is (big_vision's preprocessing, threads, seconds); it is answered by what speed.measure returns.

The preprocessing is big_vision's own. Around it stands what its input_pipeline.py has: one tf.data map with a private pool of
threads, each operation in one, then batches. Like ours here it has its images in memory; in its favor, nothing is shuffled.
"""

import sys
from functools import cache
from pathlib import Path

import tensorflow as tf
from big_vision.pp import (
    builder,
    ops_image,  # noqa: F401  registers the crop and the flip
)
from big_vision.pp.archive import randaug  # noqa: F401  registers RandAugment

from benchmarks.peers.process import START
from mixer_jax.bench.speed import BATCH, measure
from mixer_jax.worker_process import serve


def main(folder: Path) -> None:
    images = [file.read_bytes() for file in sorted(folder.iterdir())]

    @cache
    def batches(pipeline: str, threads: int):
        options = tf.data.Options()
        options.threading.private_threadpool_size = threads
        options.threading.max_intra_op_parallelism = 1
        dataset = tf.data.Dataset.from_tensor_slices({"image": images}).repeat()
        dataset = dataset.map(builder.get_preprocess_fn(pipeline, log_data=False), num_parallel_calls=threads)
        return dataset.batch(BATCH, drop_remainder=True).prefetch(1).with_options(options).as_numpy_iterator()

    def answer(question: str | tuple[str, int, float]) -> dict:
        if question == START:
            return {"images": len(images)}
        pipeline, threads, seconds = question
        return measure(batches(pipeline, threads), seconds, threads)

    serve(answer)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
