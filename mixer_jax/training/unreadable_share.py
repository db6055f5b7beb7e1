"""How many training images could not be read so far, and when they are too many to go on.

The count is the step's own metric, summed over all devices: every host sees the same number and stops at the same step.
"""

import dataclasses
import math
from collections.abc import Callable

from mixer_jax.errors import UserError


class TooManyUnreadableError(UserError):
    """More than the stated share of the training images cannot be read."""


@dataclasses.dataclass
class UnreadableShare:
    """The count of examples so far whose image could not be read, and the bound on it.

    `max_share` of the records may be unreadable; `first(n)` lists some of those that were met.
    """

    num_examples: int
    batch_size: int
    max_share: float
    first: Callable[[int], list[str]]
    count: int = 0

    def add(self, step: int, substituted: int) -> int:
        """Add those of a step's batch; return the count. Raises TooManyUnreadableError."""
        self.count += substituted
        if self.count > self.allowed(step * self.batch_size):
            images, listed = step * self.batch_size, "\n  ".join(self.first(5)) or "none"
            raise TooManyUnreadableError(
                f"By step {step}, {self.count} of {images} training images could not be read ({self.count / images:.2%}); "
                f"config.loader.max_unreadable_share allows {self.max_share:.2%} of the data. The first this host met:\n"
                f"  {listed}\nMend or replace them, or raise config.loader.max_unreadable_share. "
                "The same command goes on from the last checkpoint."
            )
        return self.count

    def allowed(self, images: int) -> float:
        """Return how many of the first `images` may be unreadable: the smaller of two bounds.

        An epoch has each record once, so max_share x num_examples for each epoch begun: data at the share or below never stop a
        run, and data above it stop a run within one epoch (later by a batch, where a batch reaches into the next epoch). Until
        then a statistical bound applies: mean + 5 sigma + 5, exceeded by chance in fewer than one run in a million.
        """
        epochs_begun = math.ceil(images / self.num_examples)
        mean = self.max_share * images
        return min(self.max_share * self.num_examples * epochs_begun, mean + 5 * math.sqrt(mean) + 5)
