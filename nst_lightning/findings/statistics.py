"""The tests of predictions: what they come to for differences and orders in pairs, and Holm's correction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import stats

Floats: TypeAlias = npt.NDArray[np.float64]

ALPHA = 0.05
"""What a corrected p has to be below."""
DIGITS = 12
"""Scores that differ further behind the point are tied: their means are rounded."""


def interval(values: Sequence[float] | Floats, level: float = 0.95) -> tuple[float, float, float]:
    """Returns the mean of finite numbers and the ends of its t interval: NaN for one number, all NaN for none.

    Args:
        values: The numbers.
        level: How often such an interval covers the mean, in (0, 1).
    """
    of = np.asarray(values, dtype=np.float64)
    if of.size == 0:
        return math.nan, math.nan, math.nan
    mean = float(of.mean())
    if of.size == 1:
        return mean, math.nan, math.nan
    half = float(stats.t.ppf((1 + level) / 2, of.size - 1)) * _error_of_mean(of)
    return mean, mean - half, mean + half


def paired(differences: Floats) -> float:
    """Returns p of the paired t test for differences above 0; NaN for a single pair.

    Not the signed-rank test, whose smallest p with six pairs is 1/64: corrected over a score of findings, no data could
    agree. The price is that differences are taken for normal, so how many are above 0 is said beside.
    """
    differences = differences.round(DIGITS)
    if differences.size < 2:
        return math.nan
    mean, error = float(differences.mean()), _error_of_mean(differences)
    if error == 0:
        return 0.0 if mean > 0 else 1.0
    return float(stats.t.sf(mean / error, differences.size - 1))


def page(scores: npt.NDArray[Any]) -> float:
    """Returns p of Page's test for scores (pairs, values) that rise; exact in small tables, else asymptotic."""
    return float(stats.page_trend_test(scores).pvalue) if len(scores) > 1 else math.nan


def tau(scores: Floats) -> float:
    """Kendall's tau-b of scores with their order; 0 where all are tied."""
    if (scores == scores[0]).all():
        return 0.0
    return float(stats.kendalltau(np.arange(scores.size), scores).statistic)


def equivalence(differences: Floats, margin: float) -> float:
    """Returns p of two one-sided t tests that the mean is inside a margin."""
    if differences.size < 2:
        return math.nan
    mean, error = float(differences.mean()), _error_of_mean(differences)
    if error == 0:
        return 0.0 if abs(mean) < margin else 1.0
    return float(stats.t.sf((margin - abs(mean)) / error, differences.size - 1))


def holm(ps: Sequence[float]) -> list[float]:
    """Corrects p values by Holm's step-down method; NaN stays, but is counted as 1."""
    given = np.asarray(ps, dtype=np.float64)
    counted = np.where(np.isnan(given), 1.0, given)
    order = np.argsort(counted, kind="stable")
    corrected = np.empty_like(given)
    corrected[order] = np.maximum.accumulate(counted[order] * np.arange(len(ps), 0, -1)).clip(max=1)
    return [math.nan if math.isnan(p) else float(each) for p, each in zip(ps, corrected, strict=True)]


def _error_of_mean(values: Floats) -> float:
    return float(values.std(ddof=1)) / math.sqrt(values.size)
