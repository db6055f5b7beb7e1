"""The recipe behind each row of the paper: which config pre-trains it, how it is fine-tuned, and how our recipe deviates."""

import dataclasses
import re

from mixer_jax.reproduction.exhibit import Row
from mixer_jax.reproduction.setup import SCRATCH, Setup

CONFIGS = "configs/"
PRETRAINING_FOLDER = "pretraining"

# {(heading, row without marks): {epochs: config}}. Where an exhibit gives no epochs, the last one of the row is meant.
PRETRAININGS = {
    ("ImageNet", "Mixer-B/16"): {300: "pretrain_imagenet.py:B/16"},
    ("ImageNet", "Mixer-L/16"): {300: "pretrain_imagenet.py:L/16"},
    ("ImageNet", "ViT-B/16"): {300: "pretrain_vit_imagenet.py:B/16"},
    ("ImageNet", "ViT-L/16"): {300: "pretrain_vit_imagenet.py:L/16"},
    ("ImageNet-21k", "Mixer-B/16"): {300: "pretrain_imagenet21k.py:B/16"},
    ("ImageNet-21k", "Mixer-L/16"): {300: "pretrain_imagenet21k.py:L/16"},
    ("ImageNet-21k", "ViT-B/16"): {300: "pretrain_vit_imagenet21k.py:B/16-300ep"},
    ("ImageNet-21k", "ViT-L/16"): {
        300: "pretrain_vit_imagenet21k.py:L/16-300ep",
        90: "pretrain_vit_imagenet21k.py:L/16-90ep",
    },
    ("ImageNet-21k", "BiT-R152x4"): {90: "pretrain_bit_sgd.py:imagenet21k"},
    ("JFT-300M", "BiT-R152x4"): {40: "pretrain_bit_sgd.py:jft300m"},
    ("JFT-300M", "Mixer-S/32"): {5: "pretrain_jft300m.py:S/32"},
    ("JFT-300M", "Mixer-S/16"): {5: "pretrain_jft300m.py:S/16"},
    ("JFT-300M", "Mixer-B/32"): {7: "pretrain_jft300m.py:B/32"},
    ("JFT-300M", "Mixer-B/16"): {7: "pretrain_jft300m.py:B/16"},
    ("JFT-300M", "Mixer-L/32"): {7: "pretrain_jft300m.py:L/32"},
    ("JFT-300M", "Mixer-L/16"): {7: "pretrain_jft300m.py:L/16", 14: "pretrain_jft300m.py:L/16-14ep"},
    ("JFT-300M", "Mixer-H/14"): {14: "pretrain_jft300m.py:H/14"},
    ("JFT-300M", "ViT-B/32"): {7: "pretrain_vit_jft300m.py:B/32"},
    ("JFT-300M", "ViT-B/16"): {7: "pretrain_vit_jft300m.py:B/16"},
    ("JFT-300M", "ViT-L/32"): {7: "pretrain_vit_jft300m.py:L/32"},
    ("JFT-300M", "ViT-L/16"): {7: "pretrain_vit_jft300m.py:L/16", 14: "pretrain_vit_jft300m.py:L/16-14ep"},
    ("JFT-300M", "ViT-H/14"): {14: "pretrain_vit_jft300m.py:H/14"},
    ("JFT-300M", "BiT-R50x1"): {7: "pretrain_bit_jft300m.py:R50x1"},
    ("JFT-300M", "BiT-R50x2"): {7: "pretrain_bit_jft300m.py:R50x2"},
    ("JFT-300M", "BiT-R152x1"): {7: "pretrain_bit_jft300m.py:R152x1"},
    ("JFT-300M", "BiT-R152x2"): {7: "pretrain_bit_jft300m.py:R152x2"},
}
RELEASED = {  # {config: the weights that the authors released}
    "configs/pretrain_imagenet.py:B/16": "released:imagenet1k/Mixer-B_16",
    "configs/pretrain_imagenet.py:L/16": "released:imagenet1k/Mixer-L_16",
    "configs/pretrain_imagenet21k.py:B/16": "released:imagenet21k/Mixer-B_16",
    "configs/pretrain_imagenet21k.py:L/16": "released:imagenet21k/Mixer-L_16",
}
NOT_RUN = ("HaloNet", "NFNet-F4+", "MPL", "ALIGN")
NO_RECIPE = {  # {model: why it has no recipe}
    "ViT-S/32": "Neither the Mixer paper nor the ViT paper gives a recipe for ViT-S.",
    "ViT-S/16": "Neither the Mixer paper nor the ViT paper gives a recipe for ViT-S.",
    "BiT-R152x2": "Neither the Mixer paper nor the ViT paper gives the learning rate of R152x2 for 14 epochs.",
    "BiT-R200x3": "Neither the Mixer paper nor the ViT paper gives the learning rate of R200x3.",
}
CITED_MODEL = "The paper cites this model and did not run it, and it is none of our models."

STOCHASTIC_DEPTH = (
    "Stochastic depth rises from block to block, as in the authors' released code. The paper lets it rise from the first MLP to "
    "the last."
)
ASSUMED_RECIPE = (
    "The recipe is assumed: the authors of ViT told the paper these figures privately, and ours is that of AugReg "
    "(arXiv 2106.10270)."
)
CHOSEN_EPOCHS = "The ViT paper says 30 or 90 epochs. That this row had 90 follows from its core-days."

# What the paper leaves open, and what our configs do there. The docstrings of the configs name the sources.
CHOICES = {
    "pre-training": (
        "Loss: sigmoid cross-entropy with a negative bias of the head.",
        "The learning rate's linear decay ends at an absolute 1e-5.",
        "Weight decay acts on kernels only.",
        "RandAugment's operations, mixup's partner and the missing rescaling of stochastic depth are those of big_vision's code.",
        "ImageNet-21k: the first 51 200 images are held out, as in big_vision's code.",
        "Activations are in bfloat16 (--config.model.dtype=float32 changes it). The authors' Mixer code uses float32.",
    ),
    "fine-tuning": (
        "Warm-up of 500 or 100 steps, softmax loss and momentum 0.9 in bfloat16, as in the authors' code.",
        "Training crop: shorter side to 8/7 of the image size, a random square, a flip.",
        "At 448 pixels, evaluation resizes to 512 before the crop.",
        "Activations are in bfloat16. The authors' Mixer code uses float32.",
    ),
    "fine-tuning of BiT": ("R152x4: the BiT-HyperRule of the authors' code, which tries no learning rates. No clipping.",),
    "VTAB-1k": (
        "2 500 steps, as in the ViT paper. BiT's rule has 500.",
        "Images below 96 x 96 pixels count as small. Crops and flips are switched off for tasks as in BiT's code.",
        "The learning rate is chosen for each task.",
    ),
    "pre-training for Figure 2": (
        "The images of a share are the first 3, 10 or 30 %. The best top-1 accuracy on the last 1 % decides which step counts.",
        "On all of JFT-300M or JFT-3B the last step counts, and nothing is held out.",
        "JFT-3B: 30 000 classes, and the recipe and the number of steps of JFT-300M.",
    ),
    "pre-training for Figure 4": ("The permutations are those of a fixed seed. The paper does not publish its own.",),
    "linear 5-shot": (
        "The weight of the ridge regression is fixed at 2^10, as in big_vision's code today. The code of 2021 chose it among 30 "
        "values by test accuracy, as the evaluator does with l2_choice=best_on_test.",
    ),
}


@dataclasses.dataclass(frozen=True)
class Pretraining:
    """The pre-training of a row.

    Attributes:
      config: FILE.py:ROW, or "" if we have no recipe.
      reason: why there is none, or "".
      released: the name of the authors' weights, or "".
      flags: further flags of its run.
      deviations: how the recipe differs from what the paper states.
    """

    config: str = ""
    reason: str = ""
    released: str = ""
    flags: tuple[str, ...] = ()
    deviations: tuple[str, ...] = ()

    @property
    def folder(self) -> str:
        """The name of the folder for its run and for the runs that start from it, such as imagenet21k-L16."""
        file, _, row = self.config.removeprefix(f"{CONFIGS}pretrain_").partition(".py:")
        return ",".join([f"{file}-{row.replace('/', '')}", *(flag.rpartition(".")[2] for flag in self.flags)])

    def own_weights(self, setup: Setup) -> str:
        """Return the folder of its run."""
        return f"{setup.workdir}/{self.folder}/{PRETRAINING_FOLDER}"

    def weights(self, setup: Setup) -> str:
        """Return what its fine-tunings start from, as config.init_from: weights of the authors, or the folder of its run."""
        return self.released if self.released and setup.start != SCRATCH else self.own_weights(setup)


def model_name(row: Row) -> str:
    """Return the name of the row's model without marks, such as ViT-L/16."""
    return re.sub(r" [\[(].*", "", row.name)


def is_cited_model(row: Row) -> bool:
    """Return whether the paper cites the row's model from elsewhere, so that there is nothing to run."""
    return model_name(row) in NOT_RUN


def pretraining(row: Row, epochs: float | None = None) -> Pretraining:
    """Return the pre-training of a row of an exhibit whose rows are models.

    `epochs` is its length if the row does not give it. Without any, the last one in PRETRAININGS is meant.
    """
    model = model_name(row)
    if is_cited_model(row):
        return Pretraining(reason=CITED_MODEL)
    recipes = PRETRAININGS.get((row.group, model), {})
    epochs = row.cells["epochs"].value if "epochs" in row.cells else epochs
    file = recipes.get(epochs) if epochs else list(recipes.values())[-1] if recipes else None
    if file is None:
        return Pretraining(reason=NO_RECIPE[model])
    config = CONFIGS + file
    return Pretraining(config, released=RELEASED.get(config, ""), deviations=_deviations(row, file))


def _deviations(row: Row, file: str) -> tuple[str, ...]:
    found = []
    if file.startswith(("pretrain_imagenet.", "pretrain_imagenet21k.")):
        found.append(STOCHASTIC_DEPTH)
    if "☎" in row.name:
        found.append(ASSUMED_RECIPE)
    if file.endswith("L/16-90ep"):
        found.append(CHOSEN_EPOCHS)
    return tuple(found)
