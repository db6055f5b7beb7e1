"""Shared memory: other processes write into it, and it is used again only when nobody holds its arrays."""

import pickle

import jax
import numpy as np
import pytest

from mixer_jax.data.stream.shared_memory import BatchMemory

SPEC = {"image": ((3, 2, 2), np.dtype(np.uint8)), "labels": ((3,), np.dtype(np.int32))}


@pytest.mark.parametrize("shared", [False, True])
def test_new_arrays_have_the_types_and_places_asked_for(shared):
    batch = BatchMemory(SPEC, shared=shared).allocate()
    assert {name: (array.shape, array.dtype) for name, array in batch.items()} == SPEC
    for number, array in enumerate(batch.values()):
        array[...] = number
    assert [np.unique(array).tolist() for array in batch.values()] == [[0], [1]]


def test_what_is_written_into_a_pickled_batch_is_in_the_batch():
    memory = BatchMemory(SPEC, shared=True)
    batch = memory.allocate()
    for name, array in pickle.loads(pickle.dumps(batch)).items():
        array[...] = np.arange(array.size).reshape(array.shape)
        np.testing.assert_array_equal(batch[name], array)


def test_memory_comes_back_once_nobody_holds_a_part_of_it():
    memory = BatchMemory(SPEC, shared=True)
    first = memory.allocate()
    first["labels"][:] = 7
    part = dict(first)["labels"][1:]
    del first
    others = [memory.allocate() for _ in range(3)]
    for other in others:
        other["labels"][:] = 0
    assert part.tolist() == [7, 7]
    places = {batch["image"].ctypes.data for batch in [*others, {"image": part}]}
    del part, other, others
    assert {memory.allocate()["image"].ctypes.data for _ in range(9)} < places


def test_what_a_device_was_given_stays_when_the_batch_is_let_go_of():
    memory = BatchMemory({"image": ((4, 64, 64, 3), np.dtype(np.uint8))}, shared=True)
    given = []
    for number in range(4):
        batch = memory.allocate()
        batch["image"][...] = number
        given.append(jax.device_put(batch["image"]))
    del batch
    for number, array in enumerate(given):
        assert np.unique(array).tolist() == [number]
