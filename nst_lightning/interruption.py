"""How the program ends before its work is done: the exit codes, and what signals do."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

UNFINISHED = 3
"""The exit code of a run that was told to stop before it was finished, by its `max_time` say."""

_ENDING = [getattr(signal, name) for name in ("SIGHUP", "SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)]
_GRACE = 2.0  # s that a step has to come to its end before it is broken off
_Handler = Callable[[int, FrameType | None], object]


class Interrupted(SystemExit):
    """A signal asked the program to end; the exit code is that of shells, 128 and the signal's number."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = number


@contextmanager
def handled(handler: _Handler) -> Iterator[None]:
    """Has a function called for the signals that end programs, but for those that are ignored, by nohup say."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _ENDING}
    take(handler)
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)


@contextmanager
def importing() -> Iterator[None]:
    """Has a signal end the process on the spot, and what the first import of torch brings never looked at for garbage.

    It leaves none, and each look takes half a second, as the last one at the process's end.
    """
    first, before = "torch" not in sys.modules, gc.isenabled()
    gc.disable()
    try:
        with handled(leave):
            yield
    finally:
        if first:
            gc.freeze()
        if before:
            gc.enable()


def take(handler: _Handler) -> None:
    """Has a function called for those signals from now on."""
    for number in _ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


def leave(number: int, frame: FrameType | None) -> None:
    """Ends the process on the spot, as while modules are imported, which may swallow exceptions."""
    with suppress(OSError):
        os.write(2, b"nst: interrupted\n")  # not sys.stderr, which may be in the midst of writing
    os._exit(128 + number)


def break_off(number: int, frame: FrameType | None) -> None:
    """Raises `Interrupted`, for what has to be tidied up."""
    raise Interrupted(number)


class Wish:
    """The wish, by the first signal that came, that a run ends as soon as it stands between two steps.

    A step that takes long is broken off where Python is next at work; further signals change nothing.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self.patient = False  # whether steps take as long as they take

    def note(self, number: int, frame: FrameType | None = None) -> None:
        """Notes a signal."""
        if self.number is None:
            self.number = number
            if hasattr(signal, "setitimer") and not self.patient:  # not on Windows
                signal.signal(signal.SIGALRM, lambda *_: self.fulfil())
                signal.setitimer(signal.ITIMER_REAL, _GRACE)

    def fulfil(self) -> None:
        """Raises `Interrupted` where a signal came."""
        if self.number is not None:
            self.forget()
            raise Interrupted(self.number)

    def forget(self) -> None:
        """Breaks off nothing any more."""
        if self.number is not None and hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, 0)
