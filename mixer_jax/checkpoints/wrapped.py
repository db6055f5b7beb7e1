"""Find a model's parameters in a file that other programs wrote with prefixes or together with an optimizer's state.

    _orig_mod.  module.  model.    prefixes of torch.compile, DataParallel, Lightning and others, which may be nested
    params/  opt/  chrono/         a checkpoint of big_vision: the parameters, the optimizer's state and the clock
    opt/target/  optimizer/target/ parameters in checkpoints of older code (flax.optim)

These prefixes are removed, and the optimizer's state is left out. Any other prefix (ema., state_dict., teacher., ...) is never
guessed: the user chooses it as FILE#PREFIX.
"""

from collections.abc import Collection, Iterable
from typing import NamedTuple

from mixer_jax.checkpoints.formats import FORMATS, Arrays, find_format
from mixer_jax.errors import UserError

WRAPPERS = ("module", "model", "params")  # A prefix of these parts alone does not distinguish between sets of parameters.
COMPILED = "_orig_mod."  # It may be anywhere in a name, because torch.compile can also wrap a part of a model.
OPTIMIZER = ("opt", "optimizer", "opt_state", "chrono")
TARGETS = ("opt/target/", "optimizer/target/")
MAX_SETS = 32  # If there are more prefixes, they are the blocks of some other model. Each takes a pass over all names.
SHOWN = 3  # The most names in a message.
SHOWN_CHARACTERS = 100  # The most characters of a name in a message.


class Unwrapped(NamedTuple):
    """The parameters of one model, without prefixes, and a note on what was removed ("" if nothing was)."""

    arrays: Arrays
    note: str


def split_choice(path: str) -> tuple[str, str | None]:
    """Return (FILE, PREFIX) of FILE#PREFIX. The prefix is None for a path without "#", and empty for "FILE#"."""
    file, sign, prefix = path.rpartition("#")
    return (file, prefix) if sign else (path, None)


def unwrap(arrays: Arrays, chosen: str | None = None) -> Unwrapped:
    """Return the parameters among the arrays of a file: those under the prefix `chosen`, or the only ones if it is None.

    If no prefix is known, the arrays are returned as they are. Raises UserError if the user must choose a prefix, or if there
    are no parameters under the prefix `chosen`.
    """
    arrays, compiled = _without_compiled(arrays)
    prefixes = _prefixes(arrays)
    if chosen is None:
        usual = [prefix for prefix in prefixes if _is_usual(prefix)]
        if not prefixes and not compiled:
            return Unwrapped(arrays, "")
        if len(prefixes) > 1 or len(usual) < len(prefixes):
            raise UserError(f"It holds {_list(prefixes)}. Choose one by name: {_choices(prefixes)}.")
        prefix = usual[0] if usual else ""
    else:
        matching = [prefix for prefix in prefixes if chosen.rstrip("./") == prefix.rstrip("./")]
        if not matching:
            raise UserError(f"It holds no parameters under {chosen!r}. {_choices(prefixes) or 'There are none that are known'}.")
        prefix = matching[0]
    nested = tuple(other for other in prefixes if other != prefix and other.startswith(prefix))  # They hold other sets.

    def is_omitted(name: str) -> bool:
        return not name.startswith(prefix) or name.startswith(nested) or (not prefix and _first(name) in OPTIMIZER)

    omitted = [name for name in arrays if is_omitted(name)]
    unexpected = [name for name in omitted if _first(name) not in OPTIMIZER]
    if unexpected and chosen is None:
        raise UserError(
            f"It holds parameters under {_shown(prefix)}, and beside them {len(unexpected)} other arrays, such as "
            f"{_examples(unexpected)}. If these are not part of the model, say so: FILE#{prefix.rstrip('./')}."
        )
    others = set(omitted)
    params = {name.removeprefix(prefix): x for name, x in arrays.items() if name not in others}
    notes = [f"took the {len(params)} arrays under {_shown(prefix)}"] if prefix else []
    notes += [f"took {COMPILED} out of {compiled} names"] if compiled else []
    notes += [f"left {len(omitted)} others (under {', '.join(sorted(set(map(_first, omitted)))[:SHOWN])})"] if omitted else []
    return Unwrapped(params, ", ".join(notes))


def _without_compiled(arrays: Arrays) -> tuple[Arrays, int]:
    """Return (arrays, count): the arrays without COMPILED in their names, and the number of names that had it."""
    renamed = {name.replace(COMPILED, ""): x for name, x in arrays.items()}
    if len(renamed) < len(arrays):
        raise UserError(f"It holds arrays whose names differ in {COMPILED} alone: two sets of weights. Save one of them alone.")
    return renamed, len(arrays.keys() - renamed.keys())


def _prefixes(names: Collection[str]) -> list[str]:
    """Return the prefixes under which a file holds a model's parameters, sorted. Those of an optimizer's moments are left out."""
    found = set()
    for format in FORMATS:
        for name in names:
            prefix = name.removesuffix(format.sign)
            if prefix != name and (not prefix or prefix[-1] in "./") and not _is_optimizer(prefix):
                found.add(prefix)
    usual = {prefix for prefix in found if _is_usual(prefix)}
    others = found - usual if len(found) <= MAX_SETS else ()
    return sorted(usual | {prefix for prefix in others if _is_whole(prefix, names)})


def _is_usual(prefix: str) -> bool:
    """Return whether a prefix can be removed without asking the user."""
    return prefix in TARGETS or all(part in WRAPPERS for part in prefix.replace("/", ".").split(".")[:-1])


def _is_optimizer(prefix: str) -> bool:
    """Return whether a prefix belongs to an optimizer's state, and not to the parameters that older code stored in it."""
    return bool(prefix) and _first(prefix) in OPTIMIZER and prefix not in TARGETS


def _is_whole(prefix: str, names: Iterable[str]) -> bool:
    """Return whether all names under a prefix are those of one model. Blocks of other models may have some of our names."""
    remainders = [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
    format = find_format(remainders)
    return format is not None and not format.unknown(remainders)


def _first(name: str) -> str:
    """Return the part of a name before its first "." or "/", shortened if it is long."""
    return name.replace("/", ".").partition(".")[0][:SHOWN_CHARACTERS]


def _shown(prefix: str) -> str:
    """Return a prefix for a message: quoted, and shortened if it is long."""
    return repr(prefix[:SHOWN_CHARACTERS]) if prefix else "no prefix"


def _examples(names: list[str]) -> str:
    """Return the first names for a message."""
    return ", ".join(name[:SHOWN_CHARACTERS] for name in sorted(names)[:SHOWN])


def _list(prefixes: list[str]) -> str:
    """Return a phrase that lists prefixes, for a message."""
    sets = " and ".join(map(_shown, prefixes[:SHOWN])) + (" and more" if len(prefixes) > SHOWN else "")
    return f"parameters under {sets}"


def _choices(prefixes: list[str]) -> str:
    """Return what the user can type to choose one of the prefixes, for a message."""
    return " or ".join(f"FILE#{prefix.rstrip('./')[:SHOWN_CHARACTERS]}" for prefix in prefixes[:SHOWN])
