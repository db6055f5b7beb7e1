"""A trace of the steps that were asked for, and of no other."""

import jax.numpy as jnp
import pytest

from mixer_jax.errors import UserError
from mixer_jax.training.profiling import Profiler, steps_to_profile


def test_steps_are_first_and_last():
    assert list(steps_to_profile("3:5", 10)) == [3, 4, 5]
    assert list(steps_to_profile("10:10", 10)) == [10]
    assert list(steps_to_profile("", 10)) == []


@pytest.mark.parametrize("text", ["3", "5:3", "0:2", "9:11", "a:b", "-1:2", "1:2:3", "9" * 30 + ":1"])
def test_other_steps_are_refused_with_what_is_possible(text: str):
    with pytest.raises(UserError, match=r"must be FIRST:LAST, two steps from 1 to 10"):
        steps_to_profile(text, 10)


@pytest.mark.parametrize(("first_step", "last_step", "is_traced"), [(0, 6, True), (0, 3, True), (3, 6, False), (0, 1, False)])
def test_a_trace_is_of_whole_steps_and_written_when_the_run_ends_within_them(tmp_path, capsys, first_step, last_step, is_traced):
    profiler = Profiler(range(2, 5), tmp_path / "profile")
    for step in range(first_step + 1, last_step + 1):
        with profiler.step(step):
            values = jnp.float32(step) + 1
        profiler.finish(step, values)
    profiler.close()
    assert len(list(tmp_path.rglob("*.xplane.pb"))) == is_traced
    assert ("profile of steps 2 to 4" in capsys.readouterr().out) == (last_step >= 4 and is_traced)
