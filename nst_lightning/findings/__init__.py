"""Predictions about a sweep's scores, checked with its pairs of images as repeated measures."""

from nst_lightning.findings.predictions import Prediction, read_predictions
from nst_lightning.findings.statistics import ALPHA, interval
from nst_lightning.findings.sweeps import RESULTS
from nst_lightning.findings.table import as_json, as_markdown
from nst_lightning.findings.verdicts import Finding, check

__all__ = [
    "ALPHA",
    "RESULTS",
    "Finding",
    "Prediction",
    "as_json",
    "as_markdown",
    "check",
    "interval",
    "read_predictions",
]
