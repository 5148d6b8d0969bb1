"""The study: sweeps of settings, predictions checked on their scores, and reports of what is on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nst_lightning.study.sweeps import sweep

__all__ = ["sweep"]


def __getattr__(name: str) -> object:
    """Imports the Python call on its first use, for the commands' help has to answer before torch is there."""
    if name != "sweep":
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    from nst_lightning.study.sweeps import sweep

    return sweep
