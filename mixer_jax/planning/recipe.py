"""How long a config's training is, before its data are anywhere near, and what the paper says of the same row.

Sizes of public data sets and the paper's two columns of speed are here as data; nothing is computed from them but steps.
"""

from pathlib import Path
from types import SimpleNamespace

from ml_collections import ConfigDict

from mixer_jax.config import steps_of
from mixer_jax.errors import UserError

# Training images. ImageNet: 1 281 167; ImageNet-21k, all of the autumn 2011 release: 14 197 122; JFT-300M: 303 million
# (arXiv 2010.11929, section 4.1; arXiv 2105.01601 rounds to 300).
NUM_EXAMPLES = {"tfds:imagenet2012": 1_281_167, "tfds:imagenet21k": 14_197_122, "tfds:jft300m": 303_000_000}


# Table 3 of arXiv 2105.01601, images/s/core: inference, measured by its authors on TPU-v3, the best of a sweep of batch sizes.
THROUGHPUT = {
    "mixer": {"S/32": 11489, "B/32": 4208, "S/16": 3994, "B/16": 1384, "L/32": 1314, "L/16": 419, "H/14": 194},
    "vit": {"B/16": 861, "L/16": 280, "H/14": 87},
    "resnet": {"R50x1": 2159, "R152x1": 932, "R50x2": 890, "R152x2": 356},
}

# Table 3, TPU-v3 core-days of pre-training. On ImageNet and ImageNet-21k its authors extrapolated them from JFT-300M.
CORE_DAYS = {
    "pretrain_imagenet": {"B/16": 10, "L/16": 40},
    "pretrain_imagenet21k": {"B/16": 150, "L/16": 410},
    "pretrain_jft300m": {
        "S/32": 10, "S/16": 30, "B/32": 50, "B/16": 80, "L/32": 120, "L/16": 230, "L/16-14ep": 450, "H/14": 1010,
    },
}  # fmt: skip


def total_steps(config: ConfigDict, num_examples: int = 0) -> int:
    """Of the whole recipe. Raises UserError when that depends on how many training images there are, and neither is that given
    nor the source in NUM_EXAMPLES."""
    if config.total.epochs and not num_examples:
        num_examples = _num_examples(config.data)
    return steps_of(config.total, batch_size=config.batch_size, num_examples=num_examples)


def paper_core_days(place: str) -> float | None:
    """Of the row that FILE.py:ARG, a config's place, stands for."""
    file, _, row = place.partition(":")
    return CORE_DAYS.get(Path(file).stem, {}).get(row)


def _num_examples(data: ConfigDict) -> int:
    if data.parts:
        return sum(map(_num_examples, data.parts.values()))
    if data.source not in NUM_EXAMPLES:
        raise UserError(
            f"The recipe is {data.source or 'its data'} for a number of epochs, and how many images those are is not known here: "
            "give --examples=N."
        )
    from tensorflow_datasets.core.splits import ReadInstruction  # heavy, and most tools never need it

    name = data.split.partition("[")[0]
    whole = SimpleNamespace(num_examples=NUM_EXAMPLES[data.source])
    parts = ReadInstruction.from_spec(data.split).to_absolute({name: whole})
    return sum(len(range(whole.num_examples)[part.from_ : part.to]) for part in parts)
