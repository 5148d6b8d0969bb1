"""Optimisation-based neural style transfer as a PyTorch Lightning project."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nst_lightning.api import paint, reconstruct, stylize
    from nst_lightning.data import PairDataModule
    from nst_lightning.modules import Reconstruction, StyleTransfer

__all__ = ["PairDataModule", "Reconstruction", "StyleTransfer", "paint", "reconstruct", "stylize"]
_MODULES = {"PairDataModule": "data", "Reconstruction": "modules", "StyleTransfer": "modules"}

__version__ = version("nst-lightning")


def __getattr__(name: str) -> object:
    # Imported on first use: `nst --help` has to answer before torch could be imported.
    if name not in __all__:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(f"{__name__}.{_MODULES.get(name, 'api')}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
