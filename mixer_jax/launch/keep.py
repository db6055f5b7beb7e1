"""Keeps a launch alive: asks again for a slice that was lost, until the run has ended or its hours are used up."""

import dataclasses
import time
from collections.abc import Callable

from mixer_jax.errors import EnvironmentFault, UserError
from mixer_jax.launch.commands import FINAL_CODES, GONE, LOST, READY, Observed, situation
from mixer_jax.launch.request import Request

POLL_SECONDS = 60.0
MAX_LOSSES = 5  # In a row, without a newer checkpoint.
DONE, STOPPED = 0, 75


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
        observed = keeper.observe()
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
        if now in (GONE, LOST):
            step, left = keeper.newest_step(), request.max_hours - keeper.hours_used()
            losses, newest = (0 if step > newest else losses + 1), max(step, newest)
            if left <= 0 or losses > MAX_LOSSES:
                keeper.delete()
                if left <= 0:
                    raise UserError(f"{request.name} has used its {request.max_hours:g} hours. Launch it again with more.")
                raise EnvironmentFault(f"{request.name} was lost {losses} times in a row without a newer checkpoint.")
            keeper.launch(left)
        elif now == READY and STOPPED in observed.ended.values():
            raise UserError(f"{request.name} was stopped, and its machines wait: launch it again, or delete it.")
        keeper.sleep(POLL_SECONDS)
