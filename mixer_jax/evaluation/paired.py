"""Figures about two models, A and B, that answered the same examples: the difference of their accuracies, and how sure it is."""

from bisect import bisect_left
from typing import NamedTuple

import numpy as np

NEGLIGIBLE = 1e-15  # Numbers of examples in the tails of this probability are left out.


class PairedCounts(NamedTuple):
    """The numbers of examples by which of the models A and B are right."""

    both: int
    only_a: int
    only_b: int
    neither: int

    @property
    def examples(self) -> int:
        """The number of all examples."""
        return sum(self)

    @property
    def right(self) -> tuple[int, int]:
        """The numbers of examples that A has right, and that B has right."""
        return self.both + self.only_a, self.both + self.only_b


def difference(counts: PairedCounts) -> float:
    """Return the accuracy of B minus that of A, from -1 to 1."""
    return (counts.only_b - counts.only_a) / counts.examples


def bootstrap_interval(counts: PairedCounts, confidence: float) -> tuple[float, float]:
    """Return the percentile interval of the paired bootstrap for the difference, from -1 to 1.

    The bootstrap draws N of the N examples with replacement, each with both answers. The difference of an example is -1, 0 or 1,
    so the drawn numbers of these values follow a multinomial distribution, and the sum D of the drawn differences has a known
    distribution. This function takes the quantiles of D itself. Random draws, as those of scipy.stats.bootstrap, would only
    approximate them (the "ideal bootstrap": Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapters 6 and 13).

    Percentiles are taken as they are, without the corrections of BCa. Of 100 examples, of which each model alone has 2 % right,
    intervals of 95 % by percentiles cover the true difference in 96 % of all cases, and those by BCa in 90 %. With more examples
    that differ, both come near 95 % (tests/evaluation/test_paired.py).

    Args:
      counts: the numbers of examples.
      confidence: the probability that the interval is made for, in (0, 1).
    """
    swapped = counts._replace(only_a=counts.only_b, only_b=counts.only_a)
    level = (1 - confidence) / 2
    return _quantile(counts, level) / counts.examples, -_quantile(swapped, level) / counts.examples


def _quantile(counts: PairedCounts, level: float) -> int:
    """Return the least number d for which the probability of D <= d is at least `level`."""
    from scipy.stats import binom  # It is heavy, and only comparisons need it.

    examples, discordant = counts.examples, counts.only_a + counts.only_b
    if not discordant:
        return 0
    # Of the drawn examples, M have a difference, and of these, B is right in R: D = R - (M - R). Both M and R are binomial.
    share = discordant / examples
    drawn = np.arange(binom.ppf(NEGLIGIBLE, examples, share), binom.isf(NEGLIGIBLE, examples, share) + 1)
    probabilities = binom.pmf(drawn, examples, share)

    def probability_at_most(sum_of_differences: int) -> float:
        at_most = binom.cdf(np.floor((sum_of_differences + drawn) / 2), drawn, counts.only_b / discordant)
        return float(probabilities @ at_most)

    sums = range(-examples, examples + 1)
    return sums[bisect_left(sums, level, key=probability_at_most)]


def mcnemar_p_value(counts: PairedCounts) -> float:
    """Return the p-value of McNemar's exact test, two-sided, of the hypothesis that A and B are right equally often.

    If it holds, the examples that only B has right are binomial among those that only one has right, with probability 1/2
    (McNemar, Psychometrika 12, 1947). Without such examples, the p-value is 1.
    """
    from scipy.stats import binomtest  # It is heavy, and only comparisons need it.

    discordant = counts.only_a + counts.only_b
    return float(binomtest(counts.only_b, discordant, 0.5).pvalue) if discordant else 1.0
