"""A few records of each class, drawn by a seed."""

import pytest

from mixer_jax.config import dataset
from mixer_jax.data.sources.registry import open_source


def subset(examples_per_class: int, seed: int):
    return open_source(dataset("digits", "train", examples_per_class=examples_per_class, subset_seed=seed))


@pytest.mark.parametrize("examples_per_class", [1, 7, 100])
def test_a_subset_has_as_many_of_each_class_as_asked_and_none_twice(examples_per_class):
    chosen = subset(examples_per_class, 0)
    labels = [chosen.labels(i) for i in range(len(chosen))]
    assert sorted(labels) == [(label,) for label in range(10) for _ in range(examples_per_class)]
    assert len({chosen.locate(i) for i in range(len(chosen))}) == len(chosen)
    assert [chosen[i].labels for i in range(len(chosen))] == labels
    assert (chosen.num_classes, chosen.class_names) == (10, tuple("0123456789"))


def test_a_subset_is_a_function_of_its_seed_and_those_of_one_seed_are_nested():
    def records(examples_per_class, seed):
        chosen = subset(examples_per_class, seed)
        return {chosen.locate(i) for i in range(len(chosen))}

    assert records(5, 0) == records(5, 0)
    assert records(5, 0) < records(20, 0)
    assert len(records(20, 0) & records(20, 1)) < 100  # of 200
