"""What a transfer restores, replaces and drops, for every pair of heads."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from mixer_jax.checkpoints.manager import Checkpoints
from mixer_jax.checkpoints.transfer import init_from
from mixer_jax.config import UserError
from mixer_jax.parallel import make_mesh


def params(value: float, num_classes: int | None) -> dict:
    tree = {"stem": {"kernel": jnp.full((4, 3), value)}}
    return tree if num_classes is None else tree | {"head": {"kernel": jnp.full((3, num_classes), value)}}


def saved(workdir: Path, num_classes: int | None) -> str:
    checkpoints = Checkpoints(str(workdir), keep=2)
    checkpoints.save(1, {"params": params(1.0, num_classes)}, {"step": 1})
    checkpoints.finish()
    return str(workdir)


@pytest.mark.parametrize(
    "there, here, replaced, dropped",
    [(5, 5, ["head/kernel"], []), (5, 7, ["head/kernel"], []), (5, None, [], ["head/kernel"]), (None, 7, [], [])],
)
def test_a_new_head_is_kept_and_the_rest_restored(tmp_path: Path, there, here, replaced, dropped):
    merged, listing = init_from(saved(tmp_path, there), params(2.0, here), make_mesh(1), head="new")
    assert listing == {"restored": ["stem/kernel"], "replaced": replaced, "dropped": dropped}
    np.testing.assert_array_equal(merged["stem"]["kernel"], 1.0)
    if here:
        np.testing.assert_array_equal(merged["head"]["kernel"], np.full((3, here), 2.0))


def test_a_head_to_be_restored_must_fit(tmp_path: Path):
    path = saved(tmp_path, 5)
    merged, listing = init_from(path, params(2.0, 5), make_mesh(1), head="restore")
    assert listing["restored"] == ["head/kernel", "stem/kernel"]
    np.testing.assert_array_equal(merged["head"]["kernel"], 1.0)
    with pytest.raises(UserError, match="differs   head/kernel"):
        init_from(path, params(2.0, 7), make_mesh(1), head="restore")
