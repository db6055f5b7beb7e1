"""A source is named by a URI, and what is said when there is none of that name."""

import pytest

from mixer_jax.config import dataset
from mixer_jax.data.sources.registry import open_source
from mixer_jax.errors import UserError


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": ""}, "digits, glyphs, folder:DIR, tfds:NAME, vtab:TASK or records:DIR"),
        ({"source": "imagenet"}, "digits, glyphs, folder:DIR, tfds:NAME, vtab:TASK or records:DIR"),
        ({"source": "digits", "split": "validation"}, "no split 'validation': it has train, test"),
        ({"source": "digits", "examples_per_class": 200}, "class '[0-9]' has only 1[0-9][0-9] records"),
    ],
)
def test_a_source_that_is_not_there_is_refused_with_those_that_are(changes, message):
    with pytest.raises(UserError, match=message):
        open_source(dataset(**changes))
