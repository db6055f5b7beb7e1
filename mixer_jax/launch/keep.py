"""Keeps a launch alive: asks again for a slice that was lost, until the run has ended or its hours are used up."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

from mixer_jax.endings import DONE, STOPPED
from mixer_jax.errors import EnvironmentFault, UserError
from mixer_jax.launch.commands import FINAL_CODES, GONE, LOST, READY, Observed, situation
from mixer_jax.launch.request import Request

POLL_SECONDS = 60.0
MAX_LAUNCHES = 5  # In a row, without a newer checkpoint.


@dataclasses.dataclass
class Keeper:
    """What `keep` needs from the world, as functions, so that it can be tried without one.

    Attributes:
      observe: returns the state of the resource.
      hours_used: returns the hours that the run has used.
      newest_step: returns the newest step that has been saved, or -1.
      launch: launches again, with so many hours.
      delete: deletes the resource.
      sleep: waits.
    """

    observe: Callable[[], Observed]
    hours_used: Callable[[], float]
    newest_step: Callable[[], int]
    launch: Callable[[float], None]
    delete: Callable[[], None]
    sleep: Callable[[float], None] = time.sleep


def keep(request: Request, keeper: Keeper) -> None:
    """Watch a launch and launch again what was lost. Return when the run is done.

    Raises UserError if a person must change something, or if the hours are used up, and EnvironmentFault if slices are lost
    again and again without a newer checkpoint. The resource is deleted before each of these and at the end.
    """
    losses, newest, last = 0, keeper.newest_step(), ""
    while True:
        observed = _attempt(keeper.observe)
        if observed is not None:
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
            if now in (GONE, LOST):
                step = keeper.newest_step()
                losses, newest = (0 if step > newest else losses), max(step, newest)
                left = request.max_hours - keeper.hours_used()
                _check_budget(request, keeper, losses, left)
                losses += _attempt(lambda left=left: keeper.launch(left) or True) is not None
        keeper.sleep(POLL_SECONDS)


def _check_budget(request: Request, keeper: Keeper, losses: int, hours_left: float) -> None:
    """Delete the resource and raise the error of `keep` if nothing more may be asked for."""
    if hours_left > 0 and losses < MAX_LAUNCHES:
        return
    keeper.delete()
    if hours_left <= 0:
        raise UserError(f"{request.name} has used its {request.max_hours:g} hours. Launch it again with more.")
    raise EnvironmentFault(f"{request.name} was launched again {losses} times, and lost each time without a newer checkpoint.")


def _attempt(action: Callable[[], Any]) -> Any:
    """Return the result of an action, or None for one that fails and may succeed at the next poll."""
    try:
        return action()
    except EnvironmentFault as error:
        print(f"{time.strftime('%H:%M:%S')} {error} Trying again in {POLL_SECONDS:g} s.", flush=True)
        return None
