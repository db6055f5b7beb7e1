"""The handwritten digits: all of scikit-learn's, in two splits."""

import numpy as np

from mixer_jax.config import dataset
from mixer_jax.data.sources.registry import open_source


def test_digits_are_all_of_scikit_learns_every_fifth_for_testing():
    from sklearn.datasets import load_digits

    whole = load_digits()
    train, test = (open_source(dataset("digits", split)) for split in ("train", "test"))
    assert (len(train), len(test)) == (1438, 359)
    for source, places in ((train, [i for i in range(1797) if i % 5 != 4]), (test, range(4, 1797, 5))):
        records = [source[i] for i in range(len(source))]
        seen = np.stack([record.image for record in records])
        assert (seen.shape[1:], seen.dtype) == ((32, 32, 3), np.uint8)
        assert np.all(seen == seen[..., :1])
        blocks = seen[..., 0].reshape(-1, 8, 4, 8, 4).mean((2, 4)) / 255 * 16  # back to 8 x 8, blurred a little
        assert np.abs(blocks - whole.images[places]).mean() < 1.5
        assert [record.labels for record in records] == [(label,) for label in whole.target[places]]
