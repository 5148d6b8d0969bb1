"""What a run would take, known before it begins: its memory, and its time from a few steps that are really taken."""

from nst_lightning.planning.estimate import Cost, Estimate, Kind, Needs, Row, completed, plan
from nst_lightning.planning.measure import BUDGET, measure
from nst_lightning.planning.words import duration, span, text

__all__ = [
    "BUDGET",
    "Cost",
    "Estimate",
    "Kind",
    "Needs",
    "Row",
    "completed",
    "duration",
    "measure",
    "plan",
    "span",
    "text",
]
