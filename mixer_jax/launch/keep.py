"""Keeps a launch alive: asks again for a slice that was lost, until the run has ended or its hours are used up."""

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any

from mixer_jax.endings import DONE, STOPPED
from mixer_jax.errors import EnvironmentFault, UserError
from mixer_jax.launch.commands import FINAL_CODES, GONE, LOST, READY, Observed, situation
from mixer_jax.launch.request import MARGIN_HOURS, Request

POLL_SECONDS = 60.0
MAX_LAUNCHES = 5  # In a row, without a newer checkpoint.


@dataclasses.dataclass
class Keeper:
    """What `keep` needs from the world, as functions, so that it can be tried without one.

    Attributes:
      observe: returns the state of the resource.
      count_hours: takes the state of the resource, and returns the hours that the launch has used.
      newest_step: returns the newest step that has been saved, or -1.
      launch: launches again, with so many hours.
      delete: deletes the resource.
      sleep: waits.
    """

    observe: Callable[[], Observed]
    count_hours: Callable[[Observed], float]
    newest_step: Callable[[], int]
    launch: Callable[[float], None]
    delete: Callable[[], None]
    sleep: Callable[[float], None] = time.sleep


def keep(request: Request, keeper: Keeper) -> None:
    """Watch a launch and launch again what was lost. Return when the run is done.

    Raises UserError if a person must change something, or if the hours are used up, and EnvironmentFault if slices are lost, or
    all their hosts give up, again and again without a newer checkpoint. The resource is deleted before each of these and at the
    end. It is left alone only if the run was stopped, which raises UserError too.
    """
    losses, newest, last = 0, keeper.newest_step(), ""
    while True:
        observed = _attempt(keeper.observe)
        hours = None if observed is None else _attempt(functools.partial(keeper.count_hours, observed))
        if observed is not None and hours is not None:
            now = situation(request, observed)
            if now != last:
                print(f"{time.strftime('%H:%M:%S')} {request.name} is {now}", flush=True)
            last = now
            if final := set(observed.ended.values()) & FINAL_CODES.keys():
                keeper.delete()
                if DONE in final:
                    return
                reason = FINAL_CODES[min(final)]
                raise UserError(f"{request.name} has ended: {reason}. See `launch logs {request.name}`.")
            if now == READY and STOPPED in observed.ended.values():
                raise UserError(f"{request.name} was stopped, and its machines wait: launch it again, or delete it.")
            left = request.max_hours - hours
            if now in (GONE, LOST) or _have_all_given_up(observed):
                step = keeper.newest_step()
                losses, newest = (0 if step > newest else losses), max(step, newest)
                _check_budget(request, keeper, losses, left)
                losses += _attempt(lambda left=left: keeper.launch(left) or True) is not None
            elif left < -MARGIN_HOURS:  # The hosts should have ended by themselves.
                _check_budget(request, keeper, losses, left)
        keeper.sleep(POLL_SECONDS)


def _have_all_given_up(observed: Observed) -> bool:
    """Return whether the job has ended on all hosts, for example because none could install what it needs."""
    return 0 < observed.num_hosts <= len(observed.ended)


def _check_budget(request: Request, keeper: Keeper, losses: int, hours_left: float) -> None:
    """Delete the resource and raise the error of `keep` if nothing more may be asked for."""
    if hours_left > 0 and losses < MAX_LAUNCHES:
        return
    keeper.delete()
    if hours_left <= 0:
        raise UserError(f"{request.name} has used its {request.max_hours:g} hours. Launch it again with more.")
    raise EnvironmentFault(
        f"{request.name} was launched again {losses} times, and ended each time without a newer checkpoint. "
        f"See `launch logs {request.name}`."
    )


def _attempt(action: Callable[[], Any]) -> Any:
    """Return the result of an action, or None for one that fails and may succeed at the next poll."""
    try:
        return action()
    except EnvironmentFault as error:
        print(f"{time.strftime('%H:%M:%S')} {error} Trying again in {POLL_SECONDS:g} s.", flush=True)
        return None
