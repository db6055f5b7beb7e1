"""Parameters within a file that holds more: below prefixes that other programs put in front of them, and beside an optimizer.

    _orig_mod.  module.  model.    torch.compile, DataParallel, Lightning and the like; also several, one in the other
    params/  opt/  chrono/         a checkpoint of big_vision: its parameters, the optimizer, the clock
    opt/target/  optimizer/target/ the same, of older code (flax.optim)

These are taken off, and an optimizer is left. Any other prefix (ema., state_dict., teacher., ...) is a choice that nobody but the
user can make: it is made by FILE#PREFIX, and never guessed.
"""

from collections.abc import Collection, Iterable
from typing import NamedTuple

from mixer_jax.checkpoints.formats import FORMATS, Arrays, find_format
from mixer_jax.errors import UserError

WRAPPERS = ("module", "model", "params")  # parts of a prefix that say nothing of what is in it
COMPILED = "_orig_mod."  # anywhere in a name: torch.compile also wraps parts of a model
OPTIMIZER = ("opt", "optimizer", "opt_state", "chrono")
TARGETS = ("opt/target/", "optimizer/target/")
MAX_SETS = 32  # with more prefixes they are blocks of some other model, and each costs a pass over all names
SHOWN = 3  # names in a message
SHOWN_CHARACTERS = 100


class Unwrapped(NamedTuple):
    """The parameters of one model, without prefixes."""

    arrays: Arrays
    said: str  # what was taken off and left; "" if nothing was


def split_choice(path: str) -> tuple[str, str | None]:
    """Split FILE#PREFIX. The prefix is None where there is none, and empty in FILE#."""
    file, sign, prefix = path.rpartition("#")
    return (file, prefix) if sign else (path, None)


def unwrap(arrays: Arrays, chosen: str | None = None) -> Unwrapped:
    """Return the parameters among the arrays of a file, those below the prefix `chosen` where it is not None.

    Files that hold nothing that is known are returned as they are. Raises UserError where there is a choice to make.
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
    within = tuple(other for other in prefixes if other != prefix and other.startswith(prefix))  # another set, to be left

    def is_left(name: str) -> bool:
        return not name.startswith(prefix) or name.startswith(within) or (not prefix and _first(name) in OPTIMIZER)

    left = [name for name in arrays if is_left(name)]
    unexpected = [name for name in left if _first(name) not in OPTIMIZER]
    if unexpected and chosen is None:
        raise UserError(
            f"It holds parameters under {_shown(prefix)}, and beside them {len(unexpected)} other arrays, such as "
            f"{_some(unexpected)}. If these are not part of the model, say so: FILE#{prefix.rstrip('./')}."
        )
    others = set(left)
    taken = {name.removeprefix(prefix): x for name, x in arrays.items() if name not in others}
    said = [f"took the {len(taken)} arrays under {_shown(prefix)}"] if prefix else []
    said += [f"took {COMPILED} out of {compiled} names"] if compiled else []
    said += [f"left {len(left)} others (under {', '.join(sorted(set(map(_first, left)))[:SHOWN])})"] if left else []
    return Unwrapped(taken, ", ".join(said))


def _without_compiled(arrays: Arrays) -> tuple[Arrays, int]:
    """Return the arrays without what torch.compile puts into their names, and in how many it was."""
    renamed = {name.replace(COMPILED, ""): x for name, x in arrays.items()}
    if len(renamed) < len(arrays):
        raise UserError(f"It holds arrays whose names differ in {COMPILED} alone: two sets of weights. Save one of them alone.")
    return renamed, len(arrays.keys() - renamed.keys())


def _prefixes(names: Collection[str]) -> list[str]:
    """Return the prefixes below which the parameters of a model lie, but for an optimizer's moments, in the order of text."""
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
    return prefix in TARGETS or all(part in WRAPPERS for part in prefix.replace("/", ".").split(".")[:-1])


def _is_optimizer(prefix: str) -> bool:
    return bool(prefix) and _first(prefix) in OPTIMIZER and prefix not in TARGETS


def _is_whole(prefix: str, names: Iterable[str]) -> bool:
    """Return whether all that lies below a prefix is a model: blocks of other models have names like ours, too."""
    below = [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
    format = find_format(below)
    return format is not None and not format.unknown(below)


def _first(name: str) -> str:
    """Return the first part of a name."""
    return name.replace("/", ".").partition(".")[0][:SHOWN_CHARACTERS]


def _shown(prefix: str) -> str:
    return repr(prefix[:SHOWN_CHARACTERS]) if prefix else "no prefix"


def _some(names: list[str]) -> str:
    return ", ".join(name[:SHOWN_CHARACTERS] for name in sorted(names)[:SHOWN])


def _list(prefixes: list[str]) -> str:
    sets = " and ".join(map(_shown, prefixes[:SHOWN])) + (" and more" if len(prefixes) > SHOWN else "")
    return f"parameters under {sets}"


def _choices(prefixes: list[str]) -> str:
    return " or ".join(f"FILE#{prefix.rstrip('./')[:SHOWN_CHARACTERS]}" for prefix in prefixes[:SHOWN])
