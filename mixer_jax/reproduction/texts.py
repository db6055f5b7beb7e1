"""What stands in the cells that hold words or pictures, and in those whose experiments this version cannot run."""

from mixer_jax.reproduction.exhibit import Row
from mixer_jax.reproduction.status import NO_RECIPE, NOT_BUILT, NOT_STARTED, SAME, Standing

SHARES = {"9M": (3, 233), "30M": (10, 70), "91M": (30, 23)}  # {column of Figure 2: percent of JFT-300M, epochs}
NO_HELD_OUT_JFT = "The paper stops these runs early by the best validation on JFT. No config has such an evaluator yet."
NO_PERMUTATION = "No option permutes patches or pixels yet."
NO_PICTURE = "No command draws the units of a model yet. The picture needs one checkpoint for each data set of pre-training."
RELEASED_PICTURE = "The authors released weights for ImageNet and ImageNet-21k, and none for JFT-300M."
NO_SIZES = "The paper gives no sizes of the changed models."
NO_SWEEP = "No command runs a search yet. All combinations are 256 pre-trainings for each model and data set."
SUPPLEMENT_A_FLAGS = {  # {row: the flag that makes it}
    "mixup": "--config.augment.mixup=P",
    "Polyak averaging": "--config.ema_decay=0.9999",
    "inception crops": "--config.augment.crop=inception",
}
SUPPLEMENT_C_OURS = {"crop (i)": "resize=square", "crop (ii)": "resize=small"}


def standing(exhibit: str, row: Row) -> Standing:
    """Return what stands in a cell that holds words or a picture."""
    if exhibit != "supplement":
        return Standing(NOT_BUILT, reasons=(NO_PICTURE, RELEASED_PICTURE))
    if row.name in SUPPLEMENT_C_OURS:
        return Standing(SAME, SUPPLEMENT_C_OURS[row.name])
    if row.name in SUPPLEMENT_A_FLAGS and row.group == "Changes of fine-tuning":
        return Standing(NOT_STARTED, reasons=(f"Add {SUPPLEMENT_A_FLAGS[row.name]} to a fine-tuning.",))
    return (
        Standing(NO_RECIPE, reasons=(NO_SIZES,))
        if row.group == "Changes of the model"
        else Standing(NOT_BUILT, reasons=(NO_SWEEP,))
    )


def few_shot_reasons(exhibit: str, row_name: str, column: str) -> list[str]:
    """Return what is missing for a cell of Figure 2 (right) or Figure 4, beside the data."""
    if exhibit == "figure4":
        return [NO_PERMUTATION] if "permuted" in row_name else []
    if column not in SHARES:
        return []
    percent, epochs = SHARES[column]
    share = f"Add --config.data.split=train[:{percent}%] --config.total.epochs={epochs} to the pre-training."
    return [share, NO_HELD_OUT_JFT]
