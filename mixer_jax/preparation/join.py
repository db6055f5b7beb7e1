"""Joins the parts of a split that several machines have made: `prepare --to DIR --split SPLIT --join N`.

Nothing of the source is read. .preparing/ has the plan and the rows of the shards. Of each shard, the size, both ends and the
labels are read. `prepare --verify` compares all bytes.
"""

import contextlib
import shlex
from pathlib import Path

from mixer_jax.data.sources.manifest import MANIFEST, PREPARE, UNFINISHED, command_of, find_sound
from mixer_jax.errors import EnvironmentFault, UserError
from mixer_jax.preparation.finishing import finish
from mixer_jax.preparation.near_duplicates.pairs_page import PAGE
from mixer_jax.preparation.parts import unfinished_parts
from mixer_jax.preparation.unfinished import Plan, hold, read_plan, read_rows, remove_unfinished
from mixer_jax.storage import refuse_links

SHOWN = 8  # the most parts that a message names


def join(target: Path, count: int) -> str:
    """Make the manifest of the split in the folder `target`, whose shards were made as `count` parts, and return a summary.

    Raises:
        UserError: There are no parts, a part is missing, or a file in .preparing/ is damaged.
        EnvironmentFault: Another process is preparing the split, or a part of it.
    """
    refuse_links(target / UNFINISHED)
    if (target / MANIFEST).exists():
        _remove_rest(target)
        return f"{target} is finished: its parts were joined before."
    if not (target / UNFINISHED).exists():
        words = [*PREPARE, "--from", "KIND:PATH", "--to", str(target.parent), "--split", target.name, "--part", f"1/{count}"]
        raise UserError(f"{target} has no parts to join. Make them first: {shlex.join(words)}")
    with hold(target) as lease:
        plan = read_plan(target)
        rows = read_rows(target, plan, range(plan.num_shards))
        sound = find_sound(target, list(rows.values()), "ends")
        finished = {number: shard for number, shard in rows.items() if shard.name in sound}
        if len(finished) < plan.num_shards:
            raise _missing(target, plan, finished.keys(), count)
        manifest = finish(target, plan, [finished[number] for number in range(plan.num_shards)], {}, lease)
    if not plan.drops_near_duplicates:
        return manifest.summary()
    return f"{manifest.summary()}\n{target / PAGE} needs the images of the source. To write it: {manifest.command}"


def _remove_rest(target: Path) -> None:
    """Remove .preparing/ of a finished split, where a kill left it, unless another process is repairing the split."""
    if (target / UNFINISHED).exists():
        with contextlib.suppress(EnvironmentFault), hold(target) as lease:
            remove_unfinished(target, lease)


def _missing(target: Path, plan: Plan, finished: set[int], count: int) -> UserError:
    """Return the error that names the parts which must still be made."""
    command = command_of(plan.made, target)
    text = f"{target} cannot be joined: {plan.num_shards - len(finished)} of its {plan.num_shards} shards are missing or damaged."
    if "within" in plan.made:
        return UserError(f"{text} It is not made in parts: {command}")
    parts = unfinished_parts(finished, plan.num_shards, count)
    named = ", ".join(map(str, parts[:SHOWN])) + (f" and {len(parts) - SHOWN} more" if len(parts) > SHOWN else "")
    return UserError(f"{text} Run the parts {named}, each by its command: {command} --part {parts[0]}")
