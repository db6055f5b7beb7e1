"""Joins the parts of a split that several machines have made: `prepare --to DIR --split SPLIT --join N`.

Nothing of the source is read. .preparing/ has the plan and the rows of the shards. Of each shard, the size, both ends and the
labels are read. `prepare --verify` compares all bytes.
"""

import shlex
from collections.abc import Collection
from pathlib import Path

from mixer_jax.data.sources.manifest import MANIFEST, PREPARE, UNFINISHED, command_of, find_sound
from mixer_jax.errors import UserError
from mixer_jax.preparation.finishing import finish
from mixer_jax.preparation.near_duplicates.pairs_page import PAGE
from mixer_jax.preparation.parts import unfinished_parts
from mixer_jax.preparation.unfinished import Plan, hold, read_plan, read_rows, remove_rest, remove_unfinished

SHOWN = 8  # the most parts that a message names


def join(target: Path, count: int) -> str:
    """Make the manifest of the split in the folder `target`, whose shards were made as `count` parts, and return a summary.

    Raises:
        UserError: There are no parts, a part is missing, or a file in .preparing/ is damaged.
        EnvironmentFault: Another process is preparing the split, or a part of it.
    """
    joined_before = f"{target} is finished: its parts were joined before."
    if (target / MANIFEST).exists():
        remove_rest(target)
        return joined_before
    if not (target / UNFINISHED).exists():
        words = [*PREPARE, "--from", "KIND:PATH", "--to", str(target.parent), "--split", target.name, "--part", f"1/{count}"]
        raise UserError(f"{target} has no parts to join. Make them first: {shlex.join(words)}")
    with hold(target) as lease:
        if (target / MANIFEST).exists():  # Another process has joined them since we looked.
            remove_unfinished(target, lease)
            return joined_before
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


def _missing(target: Path, plan: Plan, finished: Collection[int], count: int) -> UserError:
    """Return the error that names the parts which must still be made."""
    command = command_of(plan.made, target)
    text = f"{target} cannot be joined: {plan.num_shards - len(finished)} of its {plan.num_shards} shards are missing or damaged."
    if "within" in plan.made:
        return UserError(f"{text} It is not made in parts: {command}")
    parts = unfinished_parts(finished, plan.num_shards, count)
    named = ", ".join(map(str, parts[:SHOWN])) + (f" and {len(parts) - SHOWN} more" if len(parts) > SHOWN else "")
    return UserError(f"{text} Run the parts {named}, each by its command: {command} --part {parts[0]}")
