"""Optimisation-based neural style transfer as a PyTorch Lightning project."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nst_lightning.api import reconstruct, stylize
    from nst_lightning.modules import Reconstruction, StyleTransfer

__all__ = ["Reconstruction", "StyleTransfer", "reconstruct", "stylize"]


def __getattr__(name: str) -> object:
    # Imported on first use: `nst --help` has to answer before torch could be imported.
    if name not in __all__:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(f"{__name__}.{'modules' if name[0].isupper() else 'api'}"), name)
