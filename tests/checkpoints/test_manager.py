"""Tests of checkpoints on disk: they are restored exactly, damaged ones are skipped, and those that do not fit are refused."""

import errno
import json
import os
import resource
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mixer_jax.checkpoints.digest import named_arrays
from mixer_jax.checkpoints.manager import Checkpoints, _seal, _unseal, differences, load_run
from mixer_jax.errors import EnvironmentFault, UserError
from mixer_jax.parallel import make_mesh, state_sharding


def items(step: int, fsdp: int = 1) -> dict:
    rng = np.random.default_rng(step)
    kernel = rng.normal(size=(512, 256)).astype(np.float32)
    tree = {
        "params": {"stem": {"kernel": kernel, "bias": kernel[0].copy()}},
        "optimizer": {"step": np.int32(step), "mu": {"stem": {"kernel": kernel.astype(jnp.bfloat16)}}},
    }
    return jax.device_put(tree, state_sharding(jax.tree.map(jnp.asarray, tree), make_mesh(fsdp)))


def shapes(fsdp: int = 1) -> dict:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), items(0, fsdp))


def save(workdir: Path, *steps: int, fsdp: int = 1) -> None:
    checkpoints = Checkpoints(workdir, keep=3)
    for step in steps:
        checkpoints.save(step, items(step, fsdp), {"step": step})
    checkpoints.finish()


def restore(workdir: Path, fsdp: int = 1) -> tuple[dict, dict] | None:
    return Checkpoints(workdir, keep=3).restore_latest(shapes(fsdp))


def assert_same(left, right) -> None:
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(np.asarray(x), np.asarray(y)), left, right)


def data_files(step_folder: Path) -> list[Path]:
    """Return the files that hold the bytes of arrays. Orbax writes some of them twice."""
    return [file for file in (step_folder / "params").rglob("d/*") if file.stat().st_size > 4096]


def test_a_save_that_fails_in_the_background_is_the_environments_fault_and_leaves_the_step_before(tmp_path: Path):
    save(tmp_path, 1)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    checkpoints = Checkpoints(tmp_path, keep=3)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))  # This limit of file sizes acts like a full disk.
    try:
        with pytest.raises(EnvironmentFault, match=rf"could not be saved in {tmp_path}, where \d+ MiB are free \(.*the last"):
            checkpoints.save(2, items(2), {"step": 2})
            checkpoints.finish()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    tree, meta = restore(tmp_path)
    assert meta["step"] == 1
    assert_same(tree, items(1))


PATH = '"/x/checkpoints/3.orbax-checkpoint-tmp/optimizer.orbax-checkpoint-tmp/_sharding"'
FAILED_WRITES = [  # Each case is (an error of Orbax or TensorStore, the reason in our message).
    (ValueError(f"RESOURCE_EXHAUSTED: Error writing local file {PATH}: Failed to write 4731 bytes"), "No space left on device"),
    (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
    (OSError(errno.EDQUOT, "Disk quota exceeded", "/x"), "Disk quota exceeded"),
    (
        ValueError(f"UNKNOWN: Error writing {PATH}: failed [OS error 5: EIO Input/output error] [x=1]"),
        "Input/output error",
    ),
    (ValueError(f"INTERNAL: Error writing {PATH} [OS error 116: Stale file handle]"), "Stale file handle"),
    (RuntimeError("something else\nand more"), "RuntimeError: something else"),
]


@pytest.mark.parametrize(("error", "reason"), FAILED_WRITES, ids=str)
def test_a_save_that_fails_says_why_in_one_line(tmp_path: Path, monkeypatch, error, reason):
    checkpoints = Checkpoints(tmp_path, keep=3)

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(checkpoints._manager, "save", fail)
    said = rf"^A checkpoint could not be saved in {tmp_path}, where \d+ MiB are free \({reason}\)"
    with pytest.raises(EnvironmentFault, match=said):
        checkpoints.save(1, items(1), {"step": 1})
    monkeypatch.setattr("shutil.disk_usage", fail if isinstance(error, OSError) else shutil.disk_usage)
    with pytest.raises(EnvironmentFault, match=rf"\({reason}\)"):  # The reason is given even if the disk is gone.
        checkpoints.save(1, items(1), {"step": 1})


def test_a_clock_that_is_set_by_days_while_arrays_are_written_costs_no_save(tmp_path: Path, monkeypatch):
    limits = []

    def left(start: float, limit: float | None) -> float | None:  # Orbax asks this for each array, by time.time().
        limits.append(limit or 0)
        return limit

    monkeypatch.setattr("orbax.checkpoint._src.futures.future.get_remaining_time", left)
    save(tmp_path, 1)
    assert max(limits) > 5 * 86400


def test_an_error_beside_does_not_cost_the_step_that_is_being_saved(tmp_path: Path):
    checkpoints = Checkpoints(tmp_path, keep=3)
    with pytest.raises(UserError, match="an image"), checkpoints.finishing(after_on_all_hosts=()):
        checkpoints.save(1, items(1), {"step": 1})
        raise UserError("an image cannot be read")
    assert restore(tmp_path)[1]["step"] == 1


def test_an_empty_folder_has_nothing_to_restore(tmp_path: Path):
    assert restore(tmp_path) is None


@pytest.mark.parametrize("saved, restored", [(1, 1), (1, 8), (8, 1), (4, 2)])
def test_what_was_saved_comes_back_bit_for_bit_on_any_mesh(tmp_path: Path, saved: int, restored: int):
    save(tmp_path, 5, fsdp=saved)
    tree, meta = restore(tmp_path, fsdp=restored)
    assert meta["step"] == 5
    assert_same(tree, items(5))
    assert tree["params"]["stem"]["kernel"].sharding == shapes(restored)["params"]["stem"]["kernel"].sharding


@pytest.mark.parametrize("name", ["checkpoints", "damaged", "checkpoints/7"])
def test_a_run_with_a_link_where_it_deletes_is_refused_and_nothing_behind_it_is_touched(tmp_path: Path, name: str):
    save(tmp_path / "other", 1, 2, 3)
    save(tmp_path / "run", 9)
    link = tmp_path / "run" / name
    if link.exists():
        shutil.rmtree(link)
    link.symlink_to(tmp_path / "other/checkpoints")
    with pytest.raises(UserError, match="is a link to"):
        save(tmp_path / "run", 10, 11, 12)
    assert sorted(folder.name for folder in (tmp_path / "other/checkpoints").iterdir()) == ["1", "2", "3"]


def test_the_newest_steps_are_kept(tmp_path: Path):
    save(tmp_path, 1, 2, 3, 4, 5)
    assert sorted(folder.name for folder in (tmp_path / "checkpoints").iterdir()) == ["3", "4", "5"]


def flip_a_bit(folder: Path) -> None:
    for file in data_files(folder):
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 16
        file.write_bytes(data)


def truncate(folder: Path) -> None:
    for file in data_files(folder):
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def delete_data(folder: Path) -> None:
    for file in data_files(folder):
        file.unlink()


def empty(folder: Path) -> None:
    for file in sorted(folder.rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()


def cut_meta(folder: Path) -> None:
    file = folder / "meta" / "metadata"
    file.write_text(file.read_text()[:20])


def change_meta(folder: Path) -> None:
    file = folder / "meta" / "metadata"
    text = file.read_text()
    assert "512" in text  # A shape has this number.
    file.write_text(text.replace("512", "513"))


DAMAGES = [flip_a_bit, truncate, delete_data, empty, cut_meta, change_meta]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_step_is_set_aside_and_the_one_before_restored(tmp_path: Path, damage, capsys):
    save(tmp_path, 1, 2)
    damage(tmp_path / "checkpoints/2")
    tree, meta = restore(tmp_path)
    assert meta["step"] == 1
    assert_same(tree, items(1))
    said = capsys.readouterr().out
    assert "Checkpoint 2 is damaged" in said
    assert damage is not flip_a_bit or "the bytes of stem/kernel" in said  # Orbax alone does not detect this.
    assert [folder.name.split("-")[0] for folder in (tmp_path / "damaged").iterdir()] == ["2"]
    save(tmp_path, 2)  # The run reaches the damaged step again.
    assert restore(tmp_path)[1]["step"] == 2


@pytest.mark.parametrize("damage", DAMAGES)
def test_reading_weights_passes_over_a_damaged_step_and_changes_nothing(tmp_path: Path, damage):
    save(tmp_path, 1, 2)
    damage(tmp_path / "checkpoints/2")
    arrays, meta = load_run(str(tmp_path))
    assert meta["step"] == 1
    assert_same(arrays, named_arrays(items(1)["params"]))
    assert all(isinstance(x, np.ndarray) for x in arrays.values())
    assert (tmp_path / "checkpoints/2").exists()
    with pytest.raises(UserError, match="step 2"):
        load_run(str(tmp_path / "checkpoints/2"))


def test_no_bit_of_a_description_changes_unnoticed():
    meta = {
        "arrays": {"params": {"stem/bias": {"dtype": "float32", "shape": [3], "checksum": 12}}},
        "step": 7,
        "class_names": ["\u00e9"],
    }
    stored = json.dumps(_seal(meta)).encode()
    for bit in range(8 * len(stored)):
        changed = bytearray(stored)
        changed[bit // 8] ^= 1 << bit % 8
        try:
            assert _unseal(json.loads(changed)) == meta
        except (ValueError, KeyError, TypeError, AttributeError):
            continue


DESCRIPTIONS = {
    "no arrays": lambda meta: meta.pop("arrays"),
    "no parameters": lambda meta: meta.update(arrays={}),
    "no step": lambda meta: meta.pop("step"),
    "a shape of texts": lambda meta: meta["arrays"]["params"]["stem/bias"].update(shape=["a"]),
    "a negative shape": lambda meta: meta["arrays"]["params"]["stem/bias"].update(shape=[-1]),
    "an unknown type": lambda meta: meta["arrays"]["params"]["stem/bias"].update(dtype="object9"),
    "no checksum": lambda meta: meta["arrays"]["params"]["stem/bias"].pop("checksum"),
    "a list": lambda meta: meta.update(arrays=[1]),
    "zeros that fill the memory": lambda meta: meta["arrays"]["params"]["stem/bias"].update(shape=[2**20, 2**20]),
}


@pytest.mark.parametrize("case", DESCRIPTIONS)
def test_a_step_with_another_description_than_ours_is_passed_over(tmp_path: Path, case: str):
    save(tmp_path, 1, 2)
    file = tmp_path / "checkpoints/2/meta/metadata"
    meta = json.loads(json.loads(file.read_text())["content"])
    DESCRIPTIONS[case](meta)
    file.write_text(json.dumps(_seal(meta)))
    _, found = load_run(str(tmp_path))
    assert found["step"] == 1


def test_a_run_whose_every_step_is_damaged_does_not_start_over(tmp_path: Path):
    save(tmp_path, 1, 2)
    for step in "12":
        flip_a_bit(tmp_path / "checkpoints" / step)
    with pytest.raises(UserError, match="Choose a new --workdir to start over"):
        restore(tmp_path)


MUTANTS = {
    "missing": (lambda tree: tree["params"]["stem"].pop("bias"), "extra     stem/bias"),
    "extra": (lambda tree: tree["params"].update(new=jnp.zeros(3)), "missing   new"),
    "shape": (lambda tree: tree["params"]["stem"].update(bias=jnp.zeros(255)), r"differs   stem/bias.*\(256,\).*\(255,\)"),
    "dtype": (lambda tree: tree["params"]["stem"].update(bias=jnp.zeros(256, jnp.bfloat16)), "differs   stem/bias.*bfloat16"),
    "transposed": (lambda tree: tree["params"]["stem"].update(kernel=jnp.zeros((256, 512))), "differs   stem/kernel"),
    "renamed": (lambda tree: tree["params"].update(root=tree["params"].pop("stem")), "missing   root/bias"),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_checkpoint_of_another_model_is_refused_with_what_differs_and_left_alone(tmp_path: Path, name: str):
    mutate, message = MUTANTS[name]
    save(tmp_path, 1)
    wanted = items(0)
    mutate(wanted)
    wanted = jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), wanted, state_sharding(wanted, make_mesh(1))
    )
    with pytest.raises(UserError, match=message):
        Checkpoints(tmp_path, keep=3).restore_latest(wanted)
    assert restore(tmp_path)[1]["step"] == 1


NO_CHECKPOINT = {
    "nowhere": r"There is no \S+/nowhere\.",
    "checkpoints/7": r"There is no \S+/checkpoints/7\.",
    "checkpoints": "neither a run's folder",
    "best": "has no best checkpoint",
}


@pytest.mark.parametrize("path", NO_CHECKPOINT)
def test_a_path_without_a_checkpoint_is_refused(tmp_path: Path, path: str):
    save(tmp_path, 1)
    with pytest.raises(UserError, match=NO_CHECKPOINT[path]):
        load_run(str(tmp_path / path))


def test_a_message_lists_the_first_of_very_many_differences():
    found = {f"extra{i}": ("float32", (1,)) for i in range(30_000)}
    lines = differences({}, found)
    assert len(lines) == 101 and lines[-1] == "... and 29900 more"


def test_a_run_that_deletes_a_step_while_another_process_opens_it_does_no_harm(tmp_path: Path, monkeypatch):
    save(tmp_path, 1, 2)
    real = os.walk

    def walk(folder):
        for found in real(folder):
            if folder.name == "1":
                shutil.rmtree(folder, ignore_errors=True)
            yield found

    monkeypatch.setattr("os.walk", walk)
    assert load_run(str(tmp_path))[1]["step"] == 2
