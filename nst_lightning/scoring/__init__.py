"""Scores of any pictures: what they are made of, tables of them, and the command `nst score`."""

from nst_lightning.scoring.scorer import AUTO, NAMES, OFF, Choice, Reference, Scorer, checked

__all__ = ["AUTO", "NAMES", "OFF", "Choice", "Reference", "Scorer", "checked"]
