"""Draws Figures 5 to 7 from files of weights: hidden units of token-mixing MLPs, and filters of the stem."""

from collections.abc import Sequence

import numpy as np

from mixer_jax.checkpoints.digest import params_sha256
from mixer_jax.checkpoints.manager import signatures
from mixer_jax.checkpoints.permuted import permutation_note
from mixer_jax.checkpoints.weights import Weights, load_weights
from mixer_jax.errors import UserError
from mixer_jax.models.identify import identify
from mixer_jax.pages.parts import Facts, Pairs, Part, Section, Text, number
from mixer_jax.pages.pictures import filter_picture, weights_picture
from mixer_jax.report.units import UnitPair, pair_units, spatial_frequency, stem_filters, token_mixing_units

BLOCKS = {"figure5": (0, 1, 2), "figure6": (0, 1), "figure7": ()}  # {figure: the token-mixing MLPs that the paper shows}
PAIRS_OF_FIGURE_5 = 32
FREQUENCY = (
    "The frequency of a unit is the centroid of the energy of its 2-D spectrum. The paper does not define how it sorts the "
    "units, so this rule is ours."
)
TOKEN_MIXING = (
    "Each square image is a hidden unit, and each of its pixels is the unit\u2019s weight of one patch: red is positive, blue is "
    "negative, white is zero. Every unit has a color scale of its own, which is symmetric about zero. Units of opposite phase "
    "stand side by side: among all pairs of units, the one with the smallest cosine similarity of the weights is taken first, "
    "then the next one among the units that are left. The pairs are sorted by the mean frequency of their units, low first. "
)
CHOSEN = f" Of each MLP, the {PAIRS_OF_FIGURE_5} pairs with the smallest cosine similarity are shown. The paper shows as many."
STEM = (
    "Each image is a filter of the stem, with its red, green and blue weights as colors: mid-gray is zero. Every filter has a "
    "color scale of its own, which is symmetric about zero and the same for the three colors. The filters are sorted by "
    "frequency, low first. The paper does not say how it normalizes and sorts them. "
)
INTRODUCTIONS = {"figure5": TOKEN_MIXING + FREQUENCY + CHOSEN, "figure6": TOKEN_MIXING + FREQUENCY, "figure7": STEM + FREQUENCY}


def drawing_sections(figure: str, weights: Sequence[str], blocks: Sequence[int] | None = None) -> list[Section]:
    """Return the sections of a page that show a figure, drawn from weights.

    Args:
      figure: a key of BLOCKS.
      weights: the paths of the weights, as `load_weights` takes them.
      blocks: the numbers of the token-mixing MLPs, from 0. None: those that the paper shows.

    Raises:
      UserError: the exhibit is not such a figure, the weights cannot be read, the model is no Mixer, or it has no such MLP.
    """
    if figure not in BLOCKS:
        raise UserError(f"{figure} is not drawn from weights: --weights is for {', '.join(BLOCKS)}.")
    if blocks is not None and not BLOCKS[figure]:
        raise UserError(f"{figure} shows the stem, which has no layers: leave --layers out.")
    sections = [Section("How to read it", [Text(INTRODUCTIONS[figure])])]
    shown = BLOCKS[figure] if blocks is None else blocks
    for path in weights:
        loaded = load_weights(path)
        try:
            parts = [part for block in shown for part in _token_mixing(figure, loaded, block)] if shown else _stem(loaded)
        except UserError as error:
            raise UserError(f"{path} cannot be drawn as {figure}: {error}.") from error
        sections.append(Section(loaded.path, [*_facts(loaded), *parts]))
    return sections


def _facts(weights: Weights) -> list[Part]:
    """Return what the weights are: the model, the step if it is known, and the digest of the parameters."""
    facts = {"model": str(identify(signatures(weights.arrays))), "format": weights.format}
    step = {"step": number(weights.step)} if weights.step else {}
    note = permutation_note(weights.metadata)
    return [Facts(facts | step), Text(f"SHA-256 of the parameters: {params_sha256(weights.arrays)}{note and '.'}{note}")]


def _token_mixing(figure: str, weights: Weights, block: int) -> list[Part]:
    """Return a text about a token-mixing MLP and its units in pairs: all of them or, for Figure 5, the most opposite ones."""
    units = token_mixing_units(weights.arrays, block)
    count, side, _ = units.shape
    pairs = pair_units(units)
    if figure == "figure5":
        chosen = set(sorted(pairs, key=lambda pair: (pair.cosine, pair.units))[:PAIRS_OF_FIGURE_5])
        pairs = [pair for pair in pairs if pair in chosen]
    num_shown = number(sum(len(pair.units) for pair in pairs))
    cosine = np.median([pair.cosine for pair in pairs])
    frequencies = [pair.frequency for pair in pairs]
    text = (
        f"Token-mixing MLP {block}: {num_shown} of its {number(count)} hidden units, each with the weights of {side} x {side} "
        f"patches. The median cosine similarity of these pairs is {number(cosine, 2)}. Their frequencies are "
        f"{number(min(frequencies), 2)} to {number(max(frequencies), 2)} cycles per patch."
    )
    size = 48 if figure == "figure5" else 32
    return [Text(text), Pairs([[weights_picture(units[i], _title(i, pair), size) for i in pair.units] for pair in pairs])]


def _title(unit: int, pair: UnitPair) -> str:
    return f"unit {unit}, {pair.frequency:.2f} cycles per patch, cosine similarity {pair.cosine:.2f}"


def _stem(weights: Weights) -> list[Part]:
    """Return a text about the stem and all of its filters, from low to high frequency."""
    filters = stem_filters(weights.arrays)
    count, side, *_ = filters.shape
    frequency = spatial_frequency(filters)
    text = (
        f"The stem: its {number(count)} filters of {side} x {side} pixels. Their frequency is {number(np.median(frequency), 2)} "
        "cycles per pixel in the median."
    )
    order = np.argsort(frequency, kind="stable")
    pictures = [filter_picture(filters[i], f"filter {i}, {frequency[i]:.2f} cycles per pixel") for i in order]
    return [Text(text), Pairs([[picture] for picture in pictures])]
