"""The folder DIR/SPLIT/.preparing/ of a split that is not finished: its plan, the rows of its finished shards, and its locks.

plan.json states what the shards are made from, and what else the manifest needs. shard-000003.json is the row of shard 3 in the
manifest, which is written after the shard. Its seal is a digest of the row and the plan. So damaged rows and rows of another plan
are never used, even if two machines that begin a split at the same time are given different options.

The locks are files, because on disks that machines share (NFS, Lustre) a lock on a folder excludes only processes of one machine.
The file `lock` is held alone by a preparation of the whole split and by the joining of its parts, and is shared by the processes
that make parts. Each of these also holds the file of its part. Should locks not work between machines, no wrong split is made:
whoever makes a shard makes the same bytes, and replaces the whole file.
"""

import contextlib
import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from mixer_jax.data.sources.manifest import MANIFEST, PLAN, UNFINISHED, Manifest, Shard, command_of, find_sound, shard_name
from mixer_jax.errors import EnvironmentFault, UserError
from mixer_jax.lease import HeldError, Lease
from mixer_jax.preparation.parts import Part
from mixer_jax.storage import check_regular, json_text, read_json, refuse_links, write_json

LOCK = "lock"
JUST_ENDED = "a process that has just ended"
# The entries of `made` that may change when a split is continued or repaired. The command may: older versions wrote --skip-bad
# for --skip-unreadable, and a source may have moved. The files that are no images of the split may too, because no shard has
# them.
NOT_COMPARED = ("command", "ignored_files", "ignored_kinds")
FOR_JOIN = ("class_names", "allow_empty_classes")  # The entries of plan.json that are not of `made`.


class Plan(NamedTuple):
    """The content of plan.json.

    Attributes:
      made: what the shards are made from, which is the entry `made` of the manifest.
      class_names: the names of the classes, in the order of their numbers.
      allow_empty_classes: whether classes may have no image.
    """

    made: dict
    class_names: tuple[str, ...]
    allow_empty_classes: bool

    @property
    def num_shards(self) -> int:
        """The number of shards of the split."""
        return -(-self.made["images"] // self.made["records_per_shard"])

    @property
    def drops_near_duplicates(self) -> bool:
        """Whether copies of any images are left out."""
        return "references" in self.made or "within" in self.made

    def digest(self) -> str:
        """Return a digest of the entries on which the bytes of the shards and the meaning of their labels depend."""
        compared = {name: value for name, value in self.made.items() if name not in NOT_COMPARED}
        return hashlib.sha256(json_text([compared, self.class_names], sort_keys=True).encode()).hexdigest()


@contextlib.contextmanager
def hold(target: Path, part: Part | None = None) -> Iterator[Lease]:
    """Make .preparing/ if it is missing, and lock it for this process: alone, or together with those that make other parts.

    Raises EnvironmentFault if another process prepares the split, or the same part of it.
    """
    folder = target / UNFINISHED
    refuse_links(folder)
    folder.mkdir(parents=True, exist_ok=True)
    held = (
        f"{target} is being prepared as a whole, or its parts joined," if part else f"{target} or a part of it is being prepared"
    )
    lease = _take(folder / LOCK, part is not None, held)
    with contextlib.closing(lease), contextlib.ExitStack() as stack:
        if part:
            file = folder / f"part-{part.number:05d}-of-{part.count:05d}.lock"
            stack.enter_context(contextlib.closing(_take(file, False, f"Part {part} of {target} is being made")))
        yield lease


def _take(file: Path, shared: bool, held: str) -> Lease:
    """Return the lease of a file in .preparing/. Raises EnvironmentFault, which begins with `held`, if it is another's."""
    try:
        if file.exists():
            check_regular(file)
        lease = Lease(file, shared)
        if file.exists():
            return lease
        lease.close()  # The owner has removed the folder after we opened the file.
        owner = JUST_ENDED
    except FileNotFoundError:
        owner = JUST_ENDED
    except HeldError as error:
        owner = str(error)
    raise EnvironmentFault(f"{held} by {owner}. Wait for it, or stop it.")


def remove_unfinished(target: Path, lease: Lease) -> None:
    """Remove .preparing/ after the manifest was written, and end the lease of it.

    The lock goes last, so that hardly any time passes between its release and its removal. It is released first because NFS keeps
    a file that is removed while it is open, under another name, and the folder could not be removed.
    """
    folder = target / UNFINISHED
    for entry in list(os.scandir(folder)):
        if entry.name != LOCK and entry.is_file(follow_symlinks=False):
            os.unlink(entry.path)
    lease.close()
    shutil.rmtree(folder)


def remove_rest(target: Path) -> None:
    """Remove .preparing/ of a finished split, if a kill has left it and no other process is repairing the split."""
    if (target / UNFINISHED).exists():
        with contextlib.suppress(EnvironmentFault), hold(target) as lease:
            remove_unfinished(target, lease)


def begin(target: Path, plan: Plan, numbers: range, how: str = "whole") -> tuple[dict[int, Shard], dict[str, str]]:
    """Write plan.json, and return the finished shards among `numbers` by their numbers, and their stamps by their names.

    A shard is finished if it has a row, and its bytes are those of the row. If `how` is "ends" in place of "whole", its size and
    its ends are compared alone. A stamp is the inode, size and times of a shard before it was hashed. Raises UserError if the
    folder contains another split.
    """
    refuse_other(target, plan.made)
    rows = read_rows(target, plan, numbers)
    content = plan.made | {"class_names": list(plan.class_names), "allow_empty_classes": plan.allow_empty_classes}
    if _read_content(target) != content:
        write_json(target / UNFINISHED / PLAN, content)
    sound = find_sound(target, list(rows.values()), how)
    return {number: shard for number, shard in rows.items() if shard.name in sound}, sound


def read_made(target: Path) -> dict:
    """Return the entry `made` of the split in a folder, finished or not, or an empty dict if there is none."""
    if (target / MANIFEST).exists():
        return Manifest(target).content["made"]
    return {name: value for name, value in _read_content(target).items() if name not in FOR_JOIN}


def refuse_other(target: Path, made: dict) -> None:
    """Raise UserError if the folder contains a split that is not the one to make, with `made`."""
    earlier = read_made(target)
    different = [name for name in earlier | made if name not in NOT_COMPARED and earlier.get(name) != made.get(name)]
    if earlier and different:
        raise UserError(
            f"{target} holds another split (other {', '.join(different)}), made by: {command_of(earlier, target)}. "
            f"Choose another --to or --split, or remove it: rm -r {target}"
        )


def read_plan(target: Path) -> Plan:
    """Return the plan of an unfinished split. Raises UserError if plan.json is damaged, or was written by an older version."""
    content = _read_content(target)
    if content and not content.keys() >= set(FOR_JOIN):
        raise UserError(
            f"{target} was begun by an earlier version of mixer_jax, which made no parts. Go on: {command_of(content, target)}"
        )
    names, allow_empty = (content.pop(name, None) for name in FOR_JOIN)
    counts = content.get("images"), content.get("records_per_shard")
    is_sound = isinstance(names, list) and bool(names) and all(isinstance(name, str) for name in names)
    if not (is_sound and type(allow_empty) is bool and all(type(count) is int and 0 < count < 2**63 for count in counts)):
        raise _damaged(target)
    return Plan(content, tuple(names), allow_empty)


def _read_content(target: Path) -> dict:
    """Return the content of plan.json, or an empty dict if there is none. Raises UserError if it is damaged."""
    try:
        return read_json(target / UNFINISHED / PLAN)
    except UserError as error:
        raise _damaged(target) from error


def _damaged(target: Path) -> UserError:
    file = target / UNFINISHED / PLAN
    return UserError(
        f"{file} is missing or damaged. Remove it, and run the command that prepares, or one of its parts, again, which writes "
        f"it anew and keeps whole shards: rm -f {file}"
    )


def row_file(target: Path, number: int) -> Path:
    """Return the file of the row of a shard."""
    return target / UNFINISHED / f"shard-{number:06d}.json"


def write_row(target: Path, number: int, shard: Shard, plan: Plan) -> None:
    """Write the row of a shard that was made by `plan`."""
    write_json(row_file(target, number), shard._asdict() | {"seal": _seal(shard._asdict(), plan.digest())})


def read_rows(target: Path, plan: Plan, numbers: range) -> dict[int, Shard]:
    """Return the rows of the shards among `numbers` that have one, in the manifest or in .preparing/.

    A damaged row, and one of another plan, are as good as none: the shard is made anew.
    """
    if (target / MANIFEST).exists():
        return {number: shard for number, shard in enumerate(Manifest(target).shards) if number in numbers}
    found = [re.fullmatch(r"shard-(\d{6,18})\.json", entry.name) for entry in os.scandir(target / UNFINISHED)]
    listed = sorted(number for match in found if match and (number := int(match[1])) in numbers)
    digest, count = plan.digest(), plan.num_shards
    rows = {number: _read_row(row_file(target, number), shard_name(target.name, number, count), digest) for number in listed}
    return {number: row for number, row in rows.items() if row}


def _read_row(file: Path, name: str, digest: str) -> Shard | None:
    """Return the row of the shard `name`, or None if it is damaged or of another plan. Older versions wrote no seal."""
    try:
        content = read_json(file)
        seal = content.pop("seal", None)
        shard = Shard(**content)
    except (UserError, TypeError):
        return None
    is_sealed = seal is None or seal == _seal(content, digest)
    return shard if is_sealed and shard.name == name and _is_sound(shard) else None


def _seal(row: dict, plan_digest: str) -> str:
    """Return a digest of a row and its plan."""
    return hashlib.sha256(json_text([row, plan_digest], sort_keys=True).encode()).hexdigest()


def _is_sound(shard: Shard) -> bool:
    """Return whether the entries of a row have the types that `make_shards` writes."""
    counts, digests = (shard.bytes, shard.records, shard.reencoded), (shard.sha256, shard.ends_sha256)
    is_sound = all(type(count) is int and 0 <= count < 2**63 for count in counts)
    is_sound &= all(isinstance(digest, str) for digest in digests)
    is_sound &= _is_table(shard.left_out, (str, str))
    return is_sound and _is_table(shard.duplicates, (str, str, int | float, str, str))


def _is_table(rows: Any, types: tuple) -> bool:
    """Return whether `rows` is a list of lists of entries of these types."""
    if not isinstance(rows, list | tuple) or not all(isinstance(row, list) and len(row) == len(types) for row in rows):
        return False
    return all(isinstance(entry, kind) for row in rows for entry, kind in zip(row, types, strict=True))
