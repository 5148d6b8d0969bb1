"""Sweeps: a figure of a study out of one file, with tables and plots, run again only where something is missing."""

from nst_lightning.sweep.command import Sweep, sweep

__all__ = ["Sweep", "sweep"]
