"""Callbacks that a run can do without: where one fails, a line says so and the run goes on without it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from lightning.pytorch.callbacks import Callback

from nst_lightning.errors import InputError
from nst_lightning.terminal import say

Kind = TypeVar("Kind", bound=type[Callback])


def secondary(name: str) -> Callable[[Kind], Kind]:
    """Returns what makes a callback class one that a run can do without, called `name` where it fails.

    What it cannot use in what was asked for, an `InputError`, ends the run as ever.
    """

    def guarded(kind: Kind) -> Kind:
        for hook, method in list(vars(kind).items()):
            if hook.startswith("on_") or hook == "teardown":
                setattr(kind, hook, _guarded(method, name))
        return kind

    return guarded


def _guarded(method: Callable[..., None], name: str) -> Callable[..., None]:
    @functools.wraps(method)
    def hook(self: Callback, *arguments: Any, **named: Any) -> None:
        if getattr(self, "failed", False):
            return
        try:
            method(self, *arguments, **named)
        except InputError:
            raise
        except Exception as error:  # a disk, a folder that went away, a stream that no one reads
            self.failed = True  # type: ignore[attr-defined]
            say(f"nst: {name}: {' '.join(str(error).split()) or type(error).__name__}; the run goes on without")

    return hook
