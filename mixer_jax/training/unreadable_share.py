"""Counts the training images that could not be read, and stops a run in which they are too many.

The count of a step is one of its metrics, summed over all devices. Every host therefore sees the same number and stops at the
same step.
"""

import dataclasses
import math
from collections.abc import Callable

from mixer_jax.errors import UserError


class TooManyUnreadableError(UserError):
    """More than the allowed share of the training images could not be read."""


@dataclasses.dataclass
class UnreadableShare:
    """The number of examples so far whose image could not be read, and the bound on it.

    Attributes:
      num_examples: the number of records in the training data.
      batch_size: the number of images in a step.
      max_share: the share of the records that may be unreadable.
      first: a function of n that lists the first n images that this host could not read.
      count: the number of examples so far.
    """

    num_examples: int
    batch_size: int
    max_share: float
    first: Callable[[int], list[str]]
    count: int = 0

    def add(self, step: int, substituted: int) -> int:
        """Add the `substituted` examples of a step, and return the count. Raises TooManyUnreadableError if it is too large."""
        self.count += substituted
        if self.count > self.allowed(step * self.batch_size):
            images, listed = step * self.batch_size, "\n  ".join(self.first(5)) or "none"
            raise TooManyUnreadableError(
                f"By step {step}, {self.count} of {images} training images could not be read ({self.count / images:.2%}); "
                f"config.loader.max_unreadable_share allows {self.max_share:.2%} of the data. The first on this host:\n"
                f"  {listed}\nMend or replace them, or raise config.loader.max_unreadable_share. "
                "The same command goes on from the last checkpoint."
            )
        return self.count

    def allowed(self, images: int) -> float:
        """Return how many of the first `images` may be unreadable: the smaller of two bounds.

        The first bound is max_share x num_examples for each epoch that has begun, because an epoch has each record once. Data
        with max_share or less never stop a run. Data with more stop a run within one epoch, or one batch later if that batch
        reaches into the next epoch. The second bound stops a run earlier if its data have far more. It is mean + 5 sigma + 5,
        which chance exceeds in fewer than one run in a million.
        """
        epochs_begun = math.ceil(images / self.num_examples)
        mean = self.max_share * images
        return min(self.max_share * self.num_examples * epochs_begun, mean + 5 * math.sqrt(mean) + 5)
