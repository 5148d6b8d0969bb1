"""The study: sweeps of settings, predictions checked on their scores, and reports of what is on disk."""

from nst_lightning.study.sweeps import sweep

__all__ = ["sweep"]
