"""How many bad images are too many, and what is said then."""

import math

import numpy as np
import pytest

from mixer_jax.training.unreadable_share import TooManyUnreadableError, UnreadableShare


def share(max_share=0.01, num_examples=1000, batch_size=8, count=0) -> UnreadableShare:
    return UnreadableShare(num_examples, batch_size, max_share, lambda number: ["record 3, ant/3.jpg, is empty"][:number], count)


def steps_until_stop(bad: np.ndarray, batch_size: int, epochs: int, max_share: float = 0.01) -> int | None:
    """The step at which a run over records, `bad` of them, stops; each epoch in its own order."""
    rng, guard = np.random.default_rng(0), share(max_share, len(bad), batch_size)
    order = np.concatenate([rng.permutation(bad) for _ in range(epochs)])
    for step in range(1, len(order) // batch_size + 1):
        try:
            guard.add(step, int(order[(step - 1) * batch_size : step * batch_size].sum()))
        except TooManyUnreadableError:
            return step
    return None


@pytest.mark.parametrize("num_examples", [100, 1000, 20000])
@pytest.mark.parametrize("batch_size", [1, 7, 64])
@pytest.mark.parametrize("max_share", [0.0, 0.01, 0.2])
def test_data_at_the_share_never_stop_a_run_and_data_a_batch_above_it_do_within_an_epoch(num_examples, batch_size, max_share):
    bad = np.arange(num_examples) < max_share * num_examples
    assert steps_until_stop(bad, batch_size, 3, max_share) is None
    bad = np.arange(num_examples) < math.floor(max_share * num_examples) + batch_size
    assert steps_until_stop(bad, batch_size, 1, max_share) <= num_examples // batch_size


def test_in_a_large_set_far_too_many_stop_it_long_before_an_epoch_has_passed():
    assert steps_until_stop(np.arange(10**6) % 20 == 0, 64, 1) * 64 < 2000  # 5 % bad


def test_the_unluckiest_order_of_data_at_the_share_is_told_from_worse_data_only_at_the_start():
    guard = share(num_examples=10**6)
    assert [round(guard.allowed(n), 1) for n in (1, 100, 1000, 10**4, 10**6)] == [5.5, 11.0, 30.8, 155.0, 10000.0]


def test_the_message_says_how_many_what_is_allowed_which_and_what_to_do():
    guard = share(num_examples=100)
    assert guard.add(1, 1) == 1
    with pytest.raises(TooManyUnreadableError) as error:
        guard.add(2, 1)
    said = str(error.value)
    assert "By step 2, 2 of 16 training images could not be read (12.50%)" in said
    assert "config.loader.max_unreadable_share allows 1.00%" in said
    assert "record 3, ant/3.jpg, is empty" in said and "goes on from the last checkpoint" in said


def test_a_run_taken_up_counts_on():
    assert share(count=7).add(100, 2) == 9
    with pytest.raises(TooManyUnreadableError, match="11 of 808"):
        share(count=7).add(101, 4)
