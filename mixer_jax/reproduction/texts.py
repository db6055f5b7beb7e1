"""What stands in the cells that hold words or pictures."""

import dataclasses

from mixer_jax.reproduction.exhibit import Row
from mixer_jax.reproduction.recipes import pretraining
from mixer_jax.reproduction.setup import Setup
from mixer_jax.reproduction.status import NO_DATA, NO_RECIPE, NOT_STARTED, SAME, Standing

PICTURE = "The picture is drawn from any weights of a Mixer. For this row: python -m mixer_jax reproduce {} --weights={}"
NO_RELEASED = (
    "JFT-300M is internal to Google, and the authors released no weights of this pre-training. They released some of ImageNet "
    "and ImageNet-21k (released:imagenet21k/Mixer-B_16), from which the figure can be drawn too."
)
NO_SIZES = "The paper gives no sizes of the changed models."
SEARCH = (
    "All combinations are 256 pre-trainings for each model and data set. `python -m mixer_jax sweep` runs them, with one --vary "
    "for each option. A magnitude of 0 is --config.augment.randaugment_layers=0, in a sweep of its own. The paper does not say "
    "on which images it chose."
)
SUPPLEMENT_A_FLAGS = {  # {row: the flag that makes it}
    "mixup": "--config.augment.mixup=P",
    "Polyak averaging": "--config.ema_decay=0.9999",
    "inception crops": "--config.augment.crop=inception",
}
SUPPLEMENT_C_OURS = {"crop (i)": "resize=square", "crop (ii)": "resize=small"}


def standing(exhibit: str, row: Row, setup: Setup) -> Standing:
    """Return what stands in a cell that holds words or a picture."""
    if exhibit != "supplement":
        return _picture(exhibit, row, setup)
    if row.name in SUPPLEMENT_C_OURS:
        return Standing(SAME, SUPPLEMENT_C_OURS[row.name])
    if row.name in SUPPLEMENT_A_FLAGS and row.group == "Changes of fine-tuning":
        return Standing(NOT_STARTED, reasons=(f"Add {SUPPLEMENT_A_FLAGS[row.name]} to a fine-tuning.",))
    is_model = row.group == "Changes of the model"
    return Standing(NO_RECIPE, reasons=(NO_SIZES,)) if is_model else Standing(NOT_STARTED, reasons=(SEARCH,))


def _picture(exhibit: str, row: Row, setup: Setup) -> Standing:
    """Return what stands in the cell of a picture, with the command that draws it from the weights of the row.

    In Figure 6 the name of a row is the data set of its pre-training. In Figures 5 and 7 the data set is JFT-300M.
    """
    name = "Mixer-B/32" if row.name == "Mixer-B/32" else "Mixer-B/16"
    data = row.name if exhibit == "figure6" else "JFT-300M"
    recipe = pretraining(dataclasses.replace(row, group=data, name=name))
    draw = PICTURE.format(exhibit, recipe.weights(setup))
    return Standing(NOT_STARTED, reasons=(draw,)) if recipe.released else Standing(NO_DATA, reasons=(draw, NO_RELEASED))
