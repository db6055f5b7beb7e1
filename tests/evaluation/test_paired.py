"""The difference of two accuracies: its bootstrap interval and McNemar's exact test, against sums, draws and enumeration."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats

from mixer_jax.evaluation.paired import PairedCounts, bootstrap_interval, difference, mcnemar_p_value

COUNTS = [
    PairedCounts(330, 4, 13, 12), PairedCounts(80, 10, 2, 8), PairedCounts(5, 3, 3, 1), PairedCounts(40_000, 2000, 2150, 5850),
    PairedCounts(0, 0, 1, 0), PairedCounts(0, 3, 2, 0), PairedCounts(1, 1, 0, 9), PairedCounts(100, 0, 7, 0),
]  # fmt: skip


def differences(counts: PairedCounts) -> np.ndarray:
    """The difference of each example: -1 where only A is right, 1 where only B is, and otherwise 0."""
    return np.repeat([-1, 1, 0], [counts.only_a, counts.only_b, counts.both + counts.neither])


def test_the_difference_is_that_of_the_accuracies():
    counts = PairedCounts(both=330, only_a=4, only_b=13, neither=12)
    assert (counts.examples, counts.right) == (359, (334, 343))
    assert difference(counts) == pytest.approx(343 / 359 - 334 / 359)


@pytest.mark.parametrize(
    ("only_a", "only_b", "expected"),
    [
        (10, 2, 2 * (1 + 12 + 66) / 2**12),  # twice the chance of at most 2 heads in 12 throws: 0.0386
        (0, 5, 2 / 2**5),
        (1, 6, 2 * (1 + 7) / 2**7),
        (4, 4, 1.0),
        (0, 0, 1.0),
        (0, 1, 1.0),
    ],
)
def test_the_p_value_is_the_sum_of_the_binomial_distribution_at_both_ends(only_a: int, only_b: int, expected: float):
    for both, neither in ((0, 0 if only_a + only_b else 1), (300, 40)):  # These examples do not count.
        assert mcnemar_p_value(PairedCounts(both, only_a, only_b, neither)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("counts", COUNTS)
def test_the_p_value_is_twice_the_smaller_tail(counts: PairedCounts):
    all_of_them, term, tail = counts.only_a + counts.only_b, 1, 0
    for number in range(min(counts.only_a, counts.only_b) + 1):
        tail += term
        term = term * (all_of_them - number) // (number + 1)  # the next binomial coefficient
    assert mcnemar_p_value(counts) == pytest.approx(min(1.0, float(Fraction(2 * tail, 2**all_of_them))), rel=1e-9)


@pytest.mark.parametrize("counts", COUNTS)
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
def test_if_the_models_change_places_only_the_sign_changes(counts: PairedCounts, confidence: float):
    swapped = counts._replace(only_a=counts.only_b, only_b=counts.only_a)
    low, high = bootstrap_interval(counts, confidence)
    assert bootstrap_interval(swapped, confidence) == (-high, -low)
    assert mcnemar_p_value(swapped) == mcnemar_p_value(counts)
    assert difference(swapped) == -difference(counts)
    assert -1 <= low <= difference(counts) <= high <= 1


def test_equal_answers_have_no_difference_for_sure():
    counts = PairedCounts(both=90, only_a=0, only_b=0, neither=10)
    assert (difference(counts), bootstrap_interval(counts, 0.95), mcnemar_p_value(counts)) == (0, (0, 0), 1)


@pytest.mark.parametrize("counts", [PairedCounts(1, 1, 2, 1), PairedCounts(0, 3, 1, 0), PairedCounts(3, 2, 0, 0)])
@pytest.mark.parametrize("confidence", [0.5, 0.8, 0.95, 0.99])
def test_the_interval_is_that_of_all_samples_there_are(counts: PairedCounts, confidence: float):
    """Of N examples, N^N samples can be drawn, each as likely as the others."""
    sums = np.sort([sum(sample) for sample in itertools.product(differences(counts).tolist(), repeat=counts.examples)])
    level = (1 - confidence) / 2
    at_most = {value: np.mean(sums <= value) for value in np.unique(sums)}
    at_least = {value: np.mean(sums >= value) for value in np.unique(sums)}
    low = min(value for value, share in at_most.items() if share >= level)
    high = max(value for value, share in at_least.items() if share >= level)
    assert bootstrap_interval(counts, confidence) == pytest.approx((low / counts.examples, high / counts.examples))


@pytest.mark.parametrize("counts", [PairedCounts(330, 4, 13, 12), PairedCounts(150, 20, 12, 18)])
def test_the_interval_is_what_scipy_finds_by_drawing(counts: PairedCounts):
    drawn = stats.bootstrap(
        (differences(counts),), np.mean, n_resamples=20_000, batch=2000, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    # SciPy's draws come near the quantiles of the distribution, which has steps of 1/N.
    np.testing.assert_allclose(bootstrap_interval(counts, 0.95), drawn, atol=1.5 / counts.examples)


def test_of_many_examples_the_interval_is_that_of_the_normal_distribution():
    counts = PairedCounts(40_000, 2000, 2150, 5850)
    errors = np.std(differences(counts)) / np.sqrt(counts.examples)
    expected = [difference(counts) + sign * 1.959964 * errors for sign in (-1, 1)]
    np.testing.assert_allclose(bootstrap_interval(counts, 0.95), expected, atol=2 / counts.examples)


def bca_interval(counts: PairedCounts) -> tuple[float, float]:
    """The interval of 95 % by BCa, with the sum's distribution in place of draws (Efron and Tibshirani, chapter 14.3)."""
    examples = counts.examples
    law = np.array([counts.only_a, counts.both + counts.neither, counts.only_b]) / examples
    sums, mean = np.arange(-examples, examples + 1), difference(counts)
    probabilities = np.array([1.0])
    for _ in range(examples):
        probabilities = np.convolve(probabilities, law)
    deviations = np.array([-1, 0, 1]) - mean
    acceleration = (law @ deviations**3) / (6 * (law @ deviations**2) ** 1.5 * examples**0.5)
    here = counts.only_b - counts.only_a
    bias = stats.norm.ppf(probabilities[sums < here].sum() + probabilities[sums == here].sum() / 2)
    shifted = bias + stats.norm.ppf([0.025, 0.975])
    low, high = stats.norm.cdf(bias + shifted / (1 - acceleration * shifted))
    at_most, at_least = np.cumsum(probabilities), np.cumsum(probabilities[::-1])[::-1]
    return sums[np.argmax(at_most >= low)] / examples, sums[np.flatnonzero(at_least >= 1 - high)[-1]] / examples


# {(the shares of examples that only A, and that only B has right): how often intervals of 95 % cover the true difference, by
# percentiles and by BCa}, for 100 examples. The share covered is a sum over all outcomes, not a simulation.
COVERAGE = {(0.02, 0.02): (0.958, 0.902), (0.02, 0.08): (0.955, 0.951), (0.05, 0.10): (0.959, 0.952)}


@pytest.mark.parametrize("shares", COVERAGE)
def test_the_percentiles_cover_the_true_difference_more_often_than_bca(shares: tuple[float, float]):
    examples, true = 100, shares[1] - shares[0]
    covered, total = np.zeros(2), 0.0
    for only_a, only_b in itertools.product(range(20), range(30)):
        outcome = (only_a, only_b, examples - only_a - only_b)
        chance = stats.multinomial.pmf(outcome, examples, (*shares, 1 - sum(shares)))
        if chance > 1e-5:
            counts = PairedCounts(outcome[2], only_a, only_b, 0)
            intervals = [bootstrap_interval(counts, 0.95), bca_interval(counts) if only_a + only_b else (0.0, 0.0)]
            covered += [chance * (low - 1e-9 <= true <= high + 1e-9) for low, high in intervals]
            total += chance
    assert total > 0.998
    np.testing.assert_allclose(covered / total, COVERAGE[shares], atol=0.002)
    assert covered[0] > covered[1] and covered[0] / total > 0.95


def test_intervals_of_simulated_models_cover_the_true_difference_as_often_as_they_say():
    rng, true = np.random.default_rng(0), 0.05
    drawn = rng.multinomial(359, (0.7, 0.05, 0.10, 0.15), size=200)
    intervals = [bootstrap_interval(PairedCounts(*map(int, counts)), 0.95) for counts in drawn]
    assert np.mean([low <= true <= high for low, high in intervals]) == pytest.approx(0.95, abs=0.03)
