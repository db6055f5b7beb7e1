"""Times big_vision's input pipeline in an environment of its own. No other process of ours imports this file, or TensorFlow.

    python -m benchmarks.peers.big_vision IMAGES

beside_big_vision.py starts this program, with a clone of github.com/google-research/big_vision on the path. IMAGES is a folder of
JPEG files. A question is (preprocessing string of big_vision, threads, seconds), and the answer is what speed.measure returns.

The preprocessing is big_vision's own code. The pipeline around it is that of its input_pipeline.py: one tf.data map with a
private pool of threads and one thread for each operation, then batches. Like our pipeline in this comparison, it has its images
in memory. It has one advantage: nothing is shuffled.
"""

import sys
from functools import cache
from pathlib import Path

import tensorflow as tf
from big_vision.pp import (
    builder,
    ops_image,  # noqa: F401  Importing it registers the crop and the flip.
)
from big_vision.pp.archive import randaug  # noqa: F401  Importing it registers RandAugment.

from benchmarks.peers.process import START
from mixer_jax.bench.speed import BATCH, measure
from mixer_jax.worker_process import serve


def main(folder: Path) -> None:
    """Answer questions about the speed on the images in `folder`, until standard input ends."""
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
