"""The budget of the host's memory: what raises it, what it holds for certain, and what a refusal says."""

import re
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

import train
from mixer_jax.config import classification, dataset, default_config, fewshot, flatten
from mixer_jax.data.sources.glyphs import GlyphsSource
from mixer_jax.data.sources.mixture import Mixture
from mixer_jax.data.sources.source import Record
from mixer_jax.errors import UserError
from mixer_jax.parallel import make_mesh
from mixer_jax.training import memory
from mixer_jax.training.program import make_program


class Split:
    """Of encoded images, without any."""

    num_classes, class_names, max_labels = 10, tuple("0123456789"), 1

    def __init__(self, count: int):
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Record:
        return Record(b"", ())


def needed(config, share: float = 1.0, count: int = 10**6) -> int:
    return sum(memory.input_bytes(config, share, [Split(count)]).values())


def required(config, devices: int = 1, count: int = 10**6) -> dict[str, int]:
    mesh = make_mesh(config.parallel.fsdp, jax.devices()[:devices])
    examples = {
        name: {field: SimpleNamespace(source=Split(count)) for field in ("data", "train", "test") if field in evaluator}
        for name, evaluator in config.evals.items()
    }
    shapes = make_program(config, 10, 0).state_shapes(mesh)
    return memory.check_host_memory(config, mesh, np.arange(config.batch_size), shapes, Split(count), examples)


def test_the_default_config_fits_a_host_of_8_gib(monkeypatch, capsys):
    monkeypatch.setattr(memory, "host_bytes", lambda: 8 * 2**30)
    monkeypatch.setattr(memory, "resident_bytes", lambda: 300 * 2**20)  # of a run's process, not of that of all tests
    config = default_config()
    assert sum(required(config).values()) < 8 * 1024
    assert "loader.workers" in capsys.readouterr().err  # should all images be as large as they may
    config.loader.max_pixels = 2**20
    required(config)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("option", ["loader.workers", "loader.prefetch", "loader.max_pixels", "batch_size", "image_size"])
def test_every_option_that_a_refusal_names_raises_the_budget(tiny_config, option):
    tiny_config.loader.max_pixels = 2**20
    before = needed(tiny_config)
    tiny_config.update_from_flattened_dict({option: 4 * flatten(tiny_config)[option]})
    assert needed(tiny_config) > before


def test_a_host_that_reads_a_part_of_the_batch_and_evaluators_that_read_less_need_less(tiny_config):
    whole = memory.input_bytes(tiny_config, 1.0, [Split(10)])
    half = memory.input_bytes(tiny_config, 0.5, [Split(10)])
    assert half["batches"] * 2 == whole["batches"] and half["ready"] == whole["ready"]
    tiny_config.evals.test.batch_size = 10 * tiny_config.batch_size
    assert memory.input_bytes(tiny_config, 1.0, [Split(10)])["batches"] > 2 * whole["batches"]
    tiny_config.evals = {}
    assert memory.input_bytes(tiny_config, 1.0, [Split(10)])["ready"] * 2 == whole["ready"]


def test_what_is_kept_of_a_split_does_not_grow_with_it_for_ever(tiny_config):
    small, large, larger = (needed(tiny_config, count=count) for count in (10**6, 3 * 10**8, 10**10))
    assert small < large == larger < small + 300 * 2**20


def test_processes_count_and_what_a_source_holds_as_often_as_it_is_copied(tiny_config):
    def workers(source) -> int:
        return memory.input_bytes(tiny_config, 1.0, [source])["workers"]

    assert workers(Split(10)) == 0
    tiny_config.loader.processes = True
    large = Split(10)
    large.names = [f"{number:020}" for number in range(10_000)]
    few = workers(large) - workers(Split(10))
    assert few > 2 * 2 * 200_000  # for two workers
    tiny_config.loader.workers *= 4
    assert workers(large) - workers(Split(10)) == 4 * few


def test_of_a_mixture_every_part_counts_that_has_images_to_decode(tiny_config):
    sources = [GlyphsSource("train", 100), Split(10**6)]
    for source in (sources, [Mixture(dict(zip("ab", sources, strict=True)), [1, 1])]):
        assert memory.input_bytes(tiny_config, 1.0, source) == memory.input_bytes(tiny_config, 1.0, [Split(10**6)])
    assert memory.input_bytes(tiny_config, 1.0, sources[:1])["places"] == 0


FAMILIES = {
    "mixer": {},
    "vit": {"family": "vit", "tokens_mlp_dim": 0, "num_heads": 2},
    "resnet": {"family": "resnet", "variant": "R50x1", "hidden_dim": 32, "dropout": 0.0, "stoch_depth": 0.0}
    | dict.fromkeys(("num_blocks", "tokens_mlp_dim", "channels_mlp_dim"), 0),
}


@pytest.mark.parametrize(("family", "channels"), [("mixer", 16), ("vit", 16), ("resnet", 32 * 4 * 8)])
def test_few_shot_features_have_as_many_channels_as_the_head_reads(tiny_config, family: str, channels: int):
    tiny_config.model.update(FAMILIES[family])
    sets = {field: SimpleNamespace(source=Split(1)) for field in ("train", "test")}
    shapes = make_program(tiny_config, 10, 0).state_shapes(make_mesh(1, jax.devices()[:1]))
    assert memory.fewshot_bytes(tiny_config.evals.fewshot, sets, shapes) == (16 + 16 + 16) * channels + (16 + 8) * 10


@pytest.mark.parametrize(("devices", "fsdp"), [(1, 1), (4, 1), (4, 4)])
def test_the_state_is_counted_as_it_lies_on_the_devices_and_as_it_is_written(tiny_config, devices, fsdp):
    mesh = make_mesh(fsdp, jax.devices()[:devices])
    shapes = make_program(tiny_config, 10, 0).state_shapes(mesh)
    state = jax.tree.leaves(jax.tree.map(lambda x: jax.device_put(np.zeros(x.shape, x.dtype), x.sharding), shapes))
    held = sum(shard.data.nbytes for x in state for shard in x.addressable_shards)
    written = sum(x.nbytes for x in state)
    assert memory.state_bytes(shapes, mesh, evaluated=False) == round(held + memory.COPIES_WHILE_SAVING * written)


def test_few_shot_features_are_counted_for_few_shot_evaluators_alone(tiny_config):
    data = dataset("digits")
    tiny_config.evals = {"test": classification(data, resize_size=8)}
    assert required(tiny_config)["fewshot"] == 0
    tiny_config.evals = {"test": fewshot(data, data, resize_size=8)}
    channels, count = tiny_config.model.hidden_dim, 10**6
    assert required(tiny_config, count=count)["fewshot"] > 2 * 4 * channels * count >> 20


def test_predictions_are_counted_for_sets_whose_predictions_are_written(tiny_config):
    tiny_config.evals.test.max_predictions = 10**6
    assert required(tiny_config, count=10**6)["predictions"] == 10**6 * memory.PREDICTION_BYTES >> 20
    assert required(tiny_config, count=10**6 + 1)["predictions"] == 0
    del tiny_config.evals["test"]
    assert required(tiny_config, count=10**6)["predictions"] == 0


def test_a_run_that_needs_more_than_the_host_has_is_refused_with_the_numbers_before_it_leaves_anything(
    tmp_path, tiny_config, monkeypatch
):
    monkeypatch.setattr(memory, "host_bytes", lambda: 2**29)
    with pytest.raises(UserError, match=r"needs about \d\.\d GiB of memory on this host, which has 0\.5 GiB") as error:
        train.train(tiny_config, str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()
    assert re.findall(r"\n +\d+ MiB  (\w+):", str(error.value)) == list(memory.PARTS)
    assert all(
        option in str(error.value) for option in ("loader.workers", "loader.prefetch", "batch_size", "more hosts: each writes")
    )


GROUPS = [
    ({}, None),
    ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max\n"}, None),
    ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "1000\n"}, 1000),
    ({"proc/self/cgroup": "0::/job/7\n", "sys/fs/cgroup/job/memory.max": "500", "sys/fs/cgroup/job/7/memory.max": "max"}, 500),
    ({"proc/self/cgroup": "4:cpu,memory:/docker/f\n0::/\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "700"}, 700),
    ({"proc/self/cgroup": "4:memory:/\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712"}, None),
    ({"proc/self/cgroup": "4:cpuset:/\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "700"}, None),
]


@pytest.mark.parametrize(("files", "limit"), GROUPS)
def test_a_host_has_its_memory_or_its_containers_limit(tmp_path: Path, files, limit):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    physical = memory.sysconf("SC_PHYS_PAGES") * memory.sysconf("SC_PAGE_SIZE")
    assert memory.host_bytes(tmp_path) == (limit or physical)


def test_the_process_is_as_large_as_the_system_says():
    before = memory.resident_bytes()
    block = np.ones(2**28, np.uint8)  # far more than what else comes and goes
    assert memory.resident_bytes() - before > 0.9 * block.nbytes
    assert memory.resident_bytes("VmHWM") >= memory.resident_bytes()
