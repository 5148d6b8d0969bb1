"""Optimisation-based neural style transfer as a PyTorch Lightning project."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nst_lightning.api import reconstruct, stylize
    from nst_lightning.modules import Reconstruction, StyleTransfer

__all__ = ["Reconstruction", "StyleTransfer", "reconstruct", "stylize"]

_HOMES = {
    "Reconstruction": "nst_lightning.modules",
    "StyleTransfer": "nst_lightning.modules",
    "reconstruct": "nst_lightning.api",
    "stylize": "nst_lightning.api",
}


def __getattr__(name: str) -> object:
    # Imported on first use: `nst --help` has to answer before torch could be imported.
    if name not in _HOMES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
