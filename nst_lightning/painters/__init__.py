"""Painters: networks that paint a photograph in one pass, as they were trained to on an objective (`nst train`)."""

from nst_lightning.painters.files import BUNDLED, Trained, load, located
from nst_lightning.painters.network import PainterNetwork

__all__ = ["BUNDLED", "PainterNetwork", "Trained", "load", "located"]
