"""Tables of a sweep's scores, and the statistics that they and the findings share."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from nst_lightning.metrics.table import HEADLINES
from nst_lightning.study.results import Results

SCORES = ("overall", *(name for name in HEADLINES if name != "overall"), "psnr")
"""The scores that have a column, in this order, of those that there are."""
UNDEFINED = "n/a"


def interval(values: Iterable[float], level: float = 0.95) -> tuple[float, float, float]:
    """Returns the mean of finite numbers and the ends of its t interval of a level: NaN for one number and for none."""
    of = np.asarray(list(values), dtype=np.float64)
    if of.size < 2 or np.ptp(of) == 0:
        mean = float(of[0]) if of.size else math.nan
        return (mean, mean, mean) if of.size > 1 else (mean, math.nan, math.nan)
    low, high = stats.ttest_1samp(of, 0).confidence_interval(level)
    return float(of.mean()), float(low), float(high)


def tau(values: Sequence[float] | npt.NDArray[np.float64]) -> float:
    """Kendall's tau-b of values with their order; 0 where all are equal."""
    return float(np.nan_to_num(stats.kendalltau(np.arange(len(values)), values).statistic))


def means(results: Results) -> pd.DataFrame:
    """Returns the means of every score over pairs, in the order of the axes' values; seeds are averaged first.

    Columns are the axes, `score`, `n` (pairs that have a number), `mean`, `low` and `high` (of the 95 % t interval).
    """
    axes = list(results.axes)
    frame = results.frame()
    keys = [*axes, "score"]
    long = frame.melt([*axes, "pair"], [score for score in SCORES if score in frame], "score")
    for key in keys:
        order = SCORES if key == "score" else results.axes[key]
        long[key] = pd.Categorical(long[key], order, ordered=True)
    of_pairs = long.groupby([*keys, "pair"], observed=True)["value"].mean()
    rows = [(*key, each.count(), *interval(each.dropna())) for key, each in of_pairs.groupby(level=keys, observed=True)]
    return pd.DataFrame(rows, columns=[*keys, "n", "mean", "low", "high"])


def texts(table: pd.DataFrame) -> pd.DataFrame:
    """Returns means to read: a row a combination of values, a column a score."""
    axes = list(table.columns[: table.columns.get_loc("score")])
    texts = table[[*axes, "score"]].astype(str)
    texts["text"] = [with_ends(*ends) for ends in table[["mean", "low", "high"]].itertuples(index=False)]
    return texts.set_index([*axes, "score"])["text"].unstack(sort=False, fill_value=UNDEFINED).reset_index()


def number(value: float) -> str:
    """Returns a number to read."""
    if math.isnan(value):
        return UNDEFINED
    return f"{value:.3f}" if value == 0 or 1e-3 <= abs(value) < 1e4 else f"{value:.3e}"


def with_ends(value: float, low: float, high: float) -> str:
    """Returns a number with its interval, as far as they are defined."""
    if math.isnan(value):
        return UNDEFINED
    return f"{value:.3f}" + ("" if math.isnan(low) else f" [{low:.3f}, {high:.3f}]")


def markdown(frame: pd.DataFrame) -> str:
    """Returns a table of texts in Markdown, without a last line's end."""
    lines = [list(frame), ["---"] * frame.shape[1], *frame.astype(str).replace(r"\|", r"\|", regex=True).to_numpy()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
