"""For programs that tests kill: a child that dies in the middle of its work, and its parent."""

import os
import threading
from collections.abc import Callable
from types import ModuleType


def die_at(module: ModuleType, name: str, when: str, number: int) -> None:
    """Kill -9 this process just "before" or "after" the call `number` of a function, in any of its threads."""
    real, lock, count = getattr(module, name), threading.Lock(), 0

    def counted(*arguments, **options):
        nonlocal count
        with lock:
            count += 1
            is_last = count == number
        if is_last and when == "before":
            os.kill(os.getpid(), 9)
        result = real(*arguments, **options)
        if is_last:
            os.kill(os.getpid(), 9)
        return result

    setattr(module, name, counted)


def child(work: Callable[[], object]) -> int:
    """Work in a process of its own, and return how it ended: 0, or the number of the signal that killed it."""
    process = os.fork()
    if process == 0:
        work()
        os._exit(0)
    return os.waitpid(process, 0)[1]
