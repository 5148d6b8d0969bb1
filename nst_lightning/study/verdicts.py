"""What a sweep says about predictions: each one's test, and the verdict after a correction over all of them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from nst_lightning.errors import InputError
from nst_lightning.study import results
from nst_lightning.study.predictions import Label, Prediction, key_of, listed
from nst_lightning.study.results import Results
from nst_lightning.study.tables import UNDEFINED, interval, markdown, tau, with_ends

Floats: TypeAlias = npt.NDArray[np.float64]
Verdict: TypeAlias = Literal["agrees", "disagrees", "undecided", "not run here"]

FILE = "findings.json"
ALPHA = 0.05
"""What a corrected p has to be below."""
DIGITS = 12
"""Scores that differ further behind the point are tied: their means are rounded."""


@dataclass(frozen=True)
class Finding:
    """What a sweep says about a prediction, from `n` pairs; numbers are NaN where there is none.

    See `_LEGEND` for effect, interval and p. It agrees where `corrected` is below 5 % and the effect is as large as
    expected, disagrees where the interval is on the other side of 0, for `flat` of some difference outside the margin.
    """

    id: str
    claim: str
    figure: str
    prediction: str
    n: int = 0
    effect: float = math.nan
    low: float = math.nan
    high: float = math.nan
    p: float = math.nan
    corrected: float = math.nan
    verdict: Verdict = "not run here"
    why: str = ""


@dataclass(frozen=True)
class Findings:
    """What is in findings.json."""

    findings: tuple[Finding, ...]


_Outcome: TypeAlias = tuple[tuple[float, float, float], float, Verdict, str]
"""What a test comes to: the effect and its interval, p, the verdict before p is looked at, and why."""


def check(predictions: Sequence[Prediction], folder: str | PathLike[str]) -> tuple[Finding, ...]:
    """Returns a finding for each prediction about the sweeps in a folder, `<folder>/<figure>/results.json`.

    Holm's correction is over those that can be checked.

    Raises:
        InputError: If results cannot be read or lack a prediction's axis, or a trend along words has no `values`.
    """
    folders = {each.figure: Path(folder) / each.figure for each in predictions}
    sweeps = {name: results.read(path) for name, path in folders.items() if (path / results.FILE).exists()}
    findings = {each.id: _checked(each, sweeps.get(each.figure)) for each in predictions}
    ran = [each for each in findings.values() if each.verdict != "not run here"]
    for each, p in zip(ran, holm([each.p for each in ran]), strict=True):
        verdict = "undecided" if each.verdict == "agrees" and not p < ALPHA else each.verdict
        findings[each.id] = replace(each, corrected=p, verdict=verdict)
    return tuple(findings.values())


def _checked(prediction: Prediction, sweep: Results | None) -> Finding:
    """Returns the finding before the correction, with `agrees` where the effect is as large as expected."""
    file = f"{prediction.figure}/{results.FILE}"
    values: tuple[Label, ...] = (*prediction.values, *prediction.before, *prediction.after)
    if sweep is None or not sweep.cells:
        lacking: str | None = f"there is no {file}" if sweep is None else f"there are no cells in {file}"
    elif prediction.axis not in sweep.axes:
        there = f"which {prediction.id!r} is about; there is {listed(sweep.axes)}"
        raise InputError(f"{file}: has no axis {prediction.axis!r}, {there}")
    else:
        values = values or _all_of(prediction, sweep.axes[prediction.axis])
        lacking = _lacking(prediction, sweep, values)
    own = Finding(prediction.id, prediction.claim, prediction.figure, _sentence(prediction, values))
    if sweep is None or lacking is not None:
        return replace(own, why=lacking or "")
    scores = _scores(sweep, prediction, values)
    if len(scores) == 0:
        return replace(own, verdict="undecided", why=f"no pair has {prediction.score} defined in every cell")
    (effect, low, high), p, verdict, why = _TESTS[prediction.test](prediction, values, scores)
    if left_out := len(sweep.distinct("pair")) - len(scores):
        why += f"; {_pairs(left_out)} left out, {prediction.score} not being defined in every cell"
    return replace(own, n=len(scores), effect=effect, low=low, high=high, p=p, verdict=verdict, why=why)


def _all_of(prediction: Prediction, labels: tuple[str, ...]) -> tuple[str, ...]:
    """Returns all values of an axis: numbers in rising order, words in that of the results."""
    if all(isinstance(key_of(label), float) for label in labels):
        return tuple(sorted(labels, key=float))
    if prediction.test in ("rise", "fall"):
        what = f"{prediction.axis} is {listed(labels)}"
        raise InputError(f"prediction {prediction.id!r} needs values that say in which order: {what}")
    return labels


def _lacking(prediction: Prediction, sweep: Results, values: Sequence[Label]) -> str | None:
    """Returns what a sweep lacks for a prediction, None where it can be tested."""
    axis, labels = prediction.axis, sweep.axes[prediction.axis]
    needed = values if prediction.value is None else (*values, prediction.value)
    missing = [value for value in needed if key_of(value) not in map(key_of, labels)]
    if missing:
        return f"there is no {axis} {missing[0]} among {listed(labels)}"
    if len(values) < (3 if prediction.test in ("rise", "fall") else 2):  # Page's test needs three
        return f"{axis} has only {listed(values)}"
    scored = any(prediction.score in cell.scores for cell in sweep.cells)
    return None if scored else f"{prediction.score} was not scored"


def _scores(sweep: Results, prediction: Prediction, values: Sequence[Label]) -> Floats:
    """Returns the means (pairs, values) over seeds, then over other axes, of pairs that have them all defined."""
    axis, keys = prediction.axis, [key_of(value) for value in values]
    frame = sweep.frame()
    frame = frame.assign(**{axis: frame[axis].map(key_of)})
    mean = partial(pd.Series.mean, skipna=False)
    others = [other for other in sweep.axes if other != axis]
    of_cells = frame[frame[axis].isin(keys)].groupby(["pair", axis, *others], sort=False)[prediction.score].agg(mean)
    # What no pair has is no column; what only this pair lacks is NaN, and leaves the pair out.
    table = of_cells.unstack([axis, *others]).T.groupby(level=axis, sort=False).agg(mean).T
    scores: Floats = table[keys].dropna().to_numpy(np.float64).round(DIGITS)
    return scores


_SENTENCES = {
    "highest": "{score} is higher for {axis} {value} than for {rivals}{by}",
    "step": "{score} is higher for {axis} {after} than for {before}{by}",
    "rise": "{score} rises along {axis} {values}{beyond}",
    "fall": "{score} falls along {axis} {values}{beyond}",
    "flat": "{score} differs by less than {margin:g} between the values of {axis} {values}",
}


def _sentence(prediction: Prediction, values: Sequence[Label]) -> str:
    lists = {"values": values, "before": prediction.before, "after": prediction.after}
    words = {**vars(prediction), **{name: listed(each) for name, each in lists.items()}}
    words |= {"rivals": listed(_rivals(prediction, values)) or "any other value", "by": "", "beyond": ""}
    if prediction.effect > 0:
        words |= {"by": f" by more than {prediction.effect:g}", "beyond": f" with a tau beyond {prediction.effect:g}"}
    return _SENTENCES[prediction.test].format(**words).strip()


def _rivals(prediction: Prediction, values: Sequence[Label]) -> list[Label]:
    return [value for value in values if key_of(value) != key_of(prediction.value)]


def _pairs(n: int) -> str:
    return "1 pair" if n == 1 else f"{n} pairs"


# ---- tests ----


def _verdict(expected: bool, contrary: bool) -> Verdict:
    return "agrees" if expected else "disagrees" if contrary else "undecided"


def _higher(prediction: Prediction, values: Sequence[Label], scores: Floats) -> _Outcome:
    """Intersection-union: higher than every rival, so the largest p over rivals and the smallest difference."""
    if prediction.test == "step":
        before = len(prediction.before)
        upper, rivals = scores[:, before:].mean(axis=1), {"": scores[:, :before].mean(axis=1)}
    else:
        columns = {key_of(value): column for value, column in zip(values, scores.T, strict=True)}
        upper = columns[key_of(prediction.value)]
        rivals = {f" than {value}": columns[key_of(value)] for value in _rivals(prediction, values)}
    p = max(paired(upper - lower) for lower in rivals.values())
    than, lower = max(rivals.items(), key=lambda rival: float(rival[1].mean()))
    differences = (upper - lower).round(DIGITS)
    effect, low, high = interval(differences)
    why = f"{(differences > 0).sum()} of {_pairs(len(upper))} higher{than}; mean {upper.mean():.3f} against "
    return (effect, low, high), p, _verdict(effect > prediction.effect, high < 0), f"{why}{lower.mean():.3f}"


def _trend(prediction: Prediction, values: Sequence[Label], scores: Floats) -> _Outcome:
    sign = 1 if prediction.test == "rise" else -1
    taus = np.array([tau(row) for row in scores])
    effect, low, high = interval(taus)
    low, high = max(low, -1.0), min(high, 1.0)  # a first NaN stays
    verdict = _verdict(sign * effect > prediction.effect, high < 0 if sign > 0 else low > 0)
    means = listed(f"{mean:.3f}" for mean in scores.mean(axis=0))
    why = f"{(sign * taus > 0).sum()} of {_pairs(len(scores))} {prediction.test}; means {means}"
    return (effect, low, high), page(sign * scores), verdict, why


def _flat(prediction: Prediction, values: Sequence[Label], scores: Floats) -> _Outcome:
    margin, columns = prediction.margin, zip(values, scores.T, strict=True)
    differences = {
        f"{one} against {other}": (upper - lower).round(DIGITS)
        for (one, upper), (other, lower) in itertools.combinations(columns, 2)
    }
    p = max(equivalence(each, margin) for each in differences.values())
    between, largest = max(differences.items(), key=lambda each: abs(float(each[1].mean())))
    effect, low, high = interval(largest if largest.mean() >= 0 else -largest, 0.9)
    ends = [interval(each, 0.9)[1:] for each in differences.values()]
    contrary = any(end[0] > margin or end[1] < -margin for end in ends)
    inside = f"{sum(end[0] > -margin and end[1] < margin for end in ends)} of {len(ends)} differences inside"
    why = f"{inside} ±{margin:g} with their intervals; largest mean difference {effect:.3f}, {between}"
    return (effect, low, high), p, _verdict(effect < margin, contrary), why


_TESTS = {"highest": _higher, "step": _higher, "rise": _trend, "fall": _trend, "flat": _flat}


# ---- statistics ----


def paired(differences: Floats) -> float:
    """Returns p of the paired t test for differences above 0; NaN for a single pair."""
    # Not the signed-rank test, whose smallest p with six pairs is 1/64: corrected over 20 findings, none agrees.
    differences = differences.round(DIGITS)
    if differences.size < 2:
        return math.nan
    if np.ptp(differences) == 0:
        return 0.0 if differences[0] > 0 else 1.0
    return float(stats.ttest_1samp(differences, 0, alternative="greater").pvalue)


def equivalence(differences: Floats, margin: float) -> float:
    """Returns p of two one-sided t tests that the mean is inside a margin; NaN for a single pair."""
    return max(paired(margin - differences), paired(margin + differences))


def page(scores: Floats) -> float:
    """Returns p of Page's test for scores (pairs, values) that rise; exact in small tables, else asymptotic."""
    return float(stats.page_trend_test(scores).pvalue) if len(scores) > 1 else math.nan


def holm(ps: Sequence[float]) -> list[float]:
    """Corrects p values by Holm's step-down method; NaN stays, but is counted as 1."""
    given = np.asarray(ps, dtype=np.float64)
    counted = np.where(np.isnan(given), 1.0, given)
    order = np.argsort(counted, kind="stable")
    corrected = np.empty_like(given)
    corrected[order] = np.maximum.accumulate(counted[order] * np.arange(len(ps), 0, -1)).clip(max=1)
    return [math.nan if math.isnan(p) else float(each) for p, each in zip(ps, corrected, strict=True)]


# ---- the table ----

_LEGEND = (
    "The effect is a mean over pairs with its 95 % t interval: a paired difference (one-sided paired t "
    "test), to the strongest rival where there are several; Kendall's tau-b for a trend (Page's test); for no "
    "difference, the largest one with its 90 % interval (two one-sided t tests). p is one-sided and corrected by "
    f"Holm's method over all findings that were run; below {ALPHA:g} a finding agrees. It disagrees where the interval "
    "is wholly on the other side."
)


def texts(findings: Sequence[Finding]) -> pd.DataFrame:
    """Returns findings to read: a row each."""
    frame = pd.DataFrame([vars(each) for each in findings])
    effects = frame[["effect", "low", "high"]].itertuples(index=False)
    ps = {name: [UNDEFINED if math.isnan(p) else f"{p:.3g}" for p in frame[name]] for name in ("p", "corrected")}
    frame = frame.assign(effect=[with_ends(*each) for each in effects], n=frame["n"].astype(str), **ps)
    heads = {"id": "finding", "claim": "the study's claim", "n": "pairs"}
    return frame.drop(columns=["figure", "low", "high"]).rename(columns=heads)


def as_markdown(findings: Sequence[Finding]) -> str:
    """Returns findings as a Markdown table, and below it what its columns are."""
    frame = texts(findings)
    frame["finding"], frame["verdict"] = "`" + frame["finding"] + "`", "**" + frame["verdict"] + "**"
    return f"{markdown(frame)}\n\n{_LEGEND}\n"
