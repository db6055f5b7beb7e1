"""Finishes a split whose shards are all made: writes duplicates.tsv, index.bin and manifest.json, and removes .preparing/."""

from collections import Counter
from pathlib import Path

import numpy as np

from mixer_jax.data.sources.manifest import FORMAT, MANIFEST, UNFINISHED, Manifest, Shard, command_of
from mixer_jax.data.sources.record_index import INDEX_SHA256
from mixer_jax.data.sources.shards import read_labels
from mixer_jax.errors import UserError
from mixer_jax.lease import Lease
from mixer_jax.preparation.indexing import write_index
from mixer_jax.preparation.near_duplicates.references import write_list
from mixer_jax.preparation.unfinished import Plan, remove_unfinished
from mixer_jax.storage import write_json


def finish(target: Path, plan: Plan, shards: list[Shard], stamps: dict[str, str], lease: Lease) -> Manifest:
    """Write what a split has beside its shards, and return its manifest.

    Args:
        target: The folder of the split.
        plan: What the shards were made from.
        shards: The rows of all shards, in order.
        stamps: {name of a shard that was hashed: inode, size and times of its file before it was}.
        lease: The lease of .preparing/, which ends.

    Raises:
        UserError: No image is left, a class that must have images has none, or there are shards of another split.
    """
    if plan.drops_near_duplicates:
        write_list(target, shards)
    content = make_manifest(target, plan, shards)
    content[INDEX_SHA256] = write_index(target, shards)
    write_json(target / MANIFEST, content, target / UNFINISHED)
    remove_unfinished(target, lease)
    manifest = Manifest(target)
    manifest.check("ends", show_progress=False)  # This finds shards that are not in the manifest.
    if stamps:
        manifest.write_receipts(stamps)
    return manifest


def check_classes(
    class_names: tuple[str, ...], images_of_class: np.ndarray | None, allow_empty_classes: bool, command: str
) -> None:
    """Raise UserError for two classes of the same name, or for a class without an image.

    The latter is checked only if `images_of_class`, int64 [K], is known and empty classes are not allowed. `command` is the
    command of the preparation, for the message.
    """
    if repeated := [name for name, count in Counter(class_names).items() if count > 1]:
        raise UserError(f"There are two classes of one name, {repeated[0]!r}: name them differently, with --classes.")
    if images_of_class is None or allow_empty_classes:
        return
    empty = [name for name, count in zip(class_names, images_of_class, strict=True) if count == 0]
    if empty:
        raise UserError(
            f"{len(empty)} of {len(class_names)} classes have no image, the first is {empty[0]!r}. Add images, "
            f"take it out of --classes, or keep it: {command} --allow-empty-classes"
        )


def make_manifest(target: Path, plan: Plan, shards: list[Shard]) -> dict:
    """Return the content of manifest.json, without the digest of the index.

    Raises UserError if no image is left, or if a class that must have images has none.
    """
    class_names, made = plan.class_names, plan.made
    images_of_class, max_labels, single = np.zeros(len(class_names), np.int64), 0, True
    for shard in shards:
        ends, labels = read_labels(str(target / shard.name), shard.records)
        counts = np.diff(ends)
        images_of_class += np.bincount(labels, minlength=len(class_names))
        max_labels = max(max_labels, int(counts.max(initial=0)))
        single = single and bool(np.all(counts == 1))
    records, kinds = sum(shard.records for shard in shards), [row[1] for shard in shards for row in shard.duplicates]
    if not records:
        raise UserError(
            f"There is no sound image left for {target}, of {made['images']}, {len(kinds)} of which are duplicates: "
            "mend its images, or prepare another source."
        )
    check_classes(class_names, images_of_class, plan.allow_empty_classes, command_of(made, target))
    return {
        "format": FORMAT,
        "split": target.name,
        "made": made,
        "records": records,
        "left_out": sum(len(shard.left_out) for shard in shards),
        "reencoded": sum(shard.reencoded for shard in shards),
        "duplicates": {kind: kinds.count(kind) for kind in ("exact", "near")},
        "label_kind": "single" if single else "multi",
        "max_labels": max(1, max_labels),
        "classes": len(class_names),
        "class_names": list(class_names),
        "images_of_class": images_of_class.tolist(),
        "shards": [shard._asdict() for shard in shards],
    }
