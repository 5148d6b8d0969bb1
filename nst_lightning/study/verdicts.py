"""What a sweep says about predictions: each one's test, and the verdict after a correction over all of them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

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
    """What a sweep says about a prediction; numbers are NaN where there is none.

    Attributes:
        n: How many pairs were used.
        effect: `highest`, `step`: the mean paired difference, for `highest` to the strongest rival. `rise`, `fall`:
            the mean of Kendall's tau-b. `flat`: the largest mean difference between two values.
        low: Lower end of the effect's t interval over pairs, of 95 %, for `flat` of 90 %; `high` is its upper end.
        corrected: The test's one-sided p after Holm's correction over all findings that were run.
        verdict: `agrees`: `corrected` is below 5 % and the effect is as large as expected. `disagrees`: the interval
            is on the other side of 0, for `flat` that of some difference outside the margin. Else `undecided`.
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


class _Outcome(NamedTuple):
    """What a test came to: whether the effect is as large as expected, and whether it is on the other side."""

    effect: float
    low: float
    high: float
    p: float
    expected: bool
    contrary: bool
    why: str


def check(predictions: Sequence[Prediction], folder: str | PathLike[str]) -> tuple[Finding, ...]:
    """Returns a finding for each prediction.

    Args:
        predictions: The predictions; Holm's correction is over those of them that can be checked.
        folder: The sweeps' folder: the results of one are in `<folder>/<figure>/results.json`.

    Raises:
        InputError: If results cannot be read, a sweep lacks a prediction's axis, or a trend along words has no
            `values` that say in which order.
    """
    folders = {each.figure: Path(folder) / each.figure for each in predictions}
    sweeps = {name: results.read(path) for name, path in folders.items() if (path / results.FILE).exists()}
    findings = [_checked(prediction, sweeps.get(prediction.figure)) for prediction in predictions]
    corrected = iter(holm([each.p for each in findings if each.verdict != "not run here"]))
    return tuple(each if each.verdict == "not run here" else _corrected(each, next(corrected)) for each in findings)


def _corrected(finding: Finding, p: float) -> Finding:
    doubtful = finding.verdict == "agrees" and not p < ALPHA
    return replace(finding, corrected=p, verdict="undecided" if doubtful else finding.verdict)


def _checked(prediction: Prediction, sweep: Results | None) -> Finding:
    """Returns the finding before the correction, with `agrees` where the effect is as large as expected."""
    wanted = (*prediction.values, *prediction.before, *prediction.after)
    values = wanted if wanted or sweep is None or not sweep.cells else _all_of(prediction, sweep)
    own = Finding(prediction.id, prediction.claim, prediction.figure, _sentence(prediction, values))
    lacking = _lacking(prediction, sweep, values)
    if lacking is not None or sweep is None:
        return replace(own, why=lacking or "")
    scores = _scores(sweep, prediction, values)
    n, score = len(scores), prediction.score
    if n == 0:
        return replace(own, verdict="undecided", why=f"no pair has {score} defined in every cell")
    effect, low, high, p, expected, contrary, why = _TESTS[prediction.test](prediction, values, scores)
    if left_out := len(sweep.pairs) - n:
        why += f"; {_pairs(left_out)} left out, {score} not being defined in every cell"
    verdict: Verdict = "agrees" if expected else "disagrees" if contrary else "undecided"
    return replace(own, n=n, effect=effect, low=low, high=high, p=p, verdict=verdict, why=why)


def _lacking(prediction: Prediction, sweep: Results | None, values: Sequence[Label]) -> str | None:
    """Returns what a sweep lacks for a prediction, None where it can be tested."""
    axis, file = prediction.axis, f"{prediction.figure}/{results.FILE}"
    if sweep is None or not sweep.cells:
        return f"there is no {file}" if sweep is None else f"there are no cells in {file}"
    labels = _labels(prediction, sweep)
    needed = values if prediction.value is None else (*values, prediction.value)
    missing = [value for value in needed if key_of(value) not in map(key_of, labels)]
    if missing:
        return f"there is no {axis} {missing[0]} among {listed(labels)}"
    if len(values) < (3 if prediction.test in ("rise", "fall") else 2):  # Page's test needs three
        return f"{axis} has only {listed(values)}"
    if all(prediction.score not in cell.scores for cell in sweep.cells):
        return f"{prediction.score} was not scored"
    return None


def _labels(prediction: Prediction, sweep: Results) -> tuple[str, ...]:
    """Returns the values of the prediction's axis that the sweep has."""
    if prediction.axis not in sweep.axes:
        msg = f"{prediction.figure}/{results.FILE}: has no axis {prediction.axis!r}, which {prediction.id!r} is about; "
        raise InputError(f"{msg}there is {listed(sweep.axes)}")
    return sweep.axes[prediction.axis]


def _all_of(prediction: Prediction, sweep: Results) -> tuple[str, ...]:
    """Returns all values of an axis: numbers in rising order, words in that of the results."""
    labels = _labels(prediction, sweep)
    keys = {label: key for label in labels if isinstance(key := key_of(label), float)}
    if len(keys) == len(labels):
        return tuple(sorted(keys, key=keys.__getitem__))
    if prediction.test in ("rise", "fall"):
        msg = f"prediction {prediction.id!r} needs values that say in which order: {prediction.axis} is"
        raise InputError(f"{msg} {listed(labels)}")
    return labels


def _scores(sweep: Results, prediction: Prediction, values: Sequence[Label]) -> Floats:
    """Returns the means (pairs, values) over seeds, then over other axes, of pairs that have them all defined."""
    axis, keys = prediction.axis, [key_of(value) for value in values]
    frame = sweep.frame()
    frame = frame.assign(**{axis: frame[axis].map(key_of)})
    others = [other for other in sweep.axes if other != axis]
    of_cells = frame[frame[axis].isin(keys)].groupby(["pair", axis, *others], sort=False)[prediction.score].agg(_mean)
    # What no pair has is no column; what only this pair lacks is NaN, and leaves the pair out.
    table = of_cells.unstack([axis, *others]).T.groupby(level=axis, sort=False).agg(_mean).T
    scores: Floats = table[keys].dropna().to_numpy(np.float64).round(DIGITS)
    return scores


def _mean(values: pd.Series) -> float:
    return float(values.mean(skipna=False))


def _sentence(prediction: Prediction, values: Sequence[Label]) -> str:
    score, axis, test = prediction.score, prediction.axis, prediction.test
    by = f" by more than {prediction.effect:g}" if prediction.effect > 0 else ""
    if test == "step":
        return f"{score} is higher for {axis} {listed(prediction.after)} than for {listed(prediction.before)}{by}"
    if test == "highest":
        rivals = [value for value in values if key_of(value) != key_of(prediction.value)]
        return f"{score} is higher for {axis} {prediction.value} than for {listed(rivals) or 'any other value'}{by}"
    along = f"{axis} {listed(values)}".strip()
    if test == "flat":
        return f"{score} differs by less than {prediction.margin:g} between the values of {along}"
    by = f" with a tau beyond {prediction.effect:g}" if by else ""
    return f"{score} {test}s along {along}{by}"


def _pairs(n: int) -> str:
    return "1 pair" if n == 1 else f"{n} pairs"


# ---- tests ----


def _highest(prediction: Prediction, values: Sequence[Label], scores: Floats) -> _Outcome:
    """Intersection-union: higher than every rival, so the largest p over rivals and the smallest difference."""
    own = [key_of(value) for value in values].index(key_of(prediction.value))
    rivals = [place for place in range(len(values)) if place != own]
    strongest = max(rivals, key=lambda place: float(scores[:, place].mean()))
    p = max(paired(scores[:, own] - scores[:, place]) for place in rivals)
    return _compared(prediction, scores[:, own], scores[:, strongest], p, f" than {values[strongest]}")


def _step(prediction: Prediction, values: Sequence[Label], scores: Floats) -> _Outcome:
    count = len(prediction.before)
    after, before = scores[:, count:].mean(axis=1), scores[:, :count].mean(axis=1)
    return _compared(prediction, after, before, paired(after - before), "")


def _compared(prediction: Prediction, upper: Floats, lower: Floats, p: float, than: str) -> _Outcome:
    """The outcome where one column should be higher than another."""
    differences = (upper - lower).round(DIGITS)
    effect, low, high = interval(differences)
    higher = f"{(differences > 0).sum()} of {_pairs(len(upper))} higher{than}"
    why = f"{higher}; mean {upper.mean():.3f} against {lower.mean():.3f}"
    return _Outcome(effect, low, high, p, effect > prediction.effect, high < 0, why)


def _trend(prediction: Prediction, values: Sequence[Label], scores: Floats) -> _Outcome:
    sign = 1 if prediction.test == "rise" else -1
    taus = np.array([tau(row) for row in scores])
    effect, low, high = interval(taus)
    low, high = max(low, -1.0), min(high, 1.0)  # a first NaN stays
    contrary = high < 0 if sign > 0 else low > 0
    means = listed(f"{mean:.3f}" for mean in scores.mean(axis=0))
    why = f"{(sign * taus > 0).sum()} of {_pairs(len(scores))} {prediction.test}; means {means}"
    return _Outcome(effect, low, high, page(sign * scores), sign * effect > prediction.effect, contrary, why)


def _flat(prediction: Prediction, values: Sequence[Label], scores: Floats) -> _Outcome:
    margin = prediction.margin
    differences = {
        (one, other): (scores[:, one] - scores[:, other]).round(DIGITS)
        for one, other in itertools.combinations(range(len(values)), 2)
    }
    p = max(equivalence(each, margin) for each in differences.values())
    one, other = max(differences, key=lambda both: abs(float(differences[both].mean())))
    largest = differences[one, other]
    effect, low, high = interval(largest if largest.mean() >= 0 else -largest, 0.9)
    ends = [interval(each, 0.9)[1:] for each in differences.values()]
    contrary = any(end[0] > margin or end[1] < -margin for end in ends)
    inside = f"{sum(end[0] > -margin and end[1] < margin for end in ends)} of {len(ends)} differences inside"
    apart = f"largest mean difference {effect:.3f}, {values[one]} against {values[other]}"
    why = f"{inside} ±{margin:g} with their intervals; {apart}"
    return _Outcome(effect, low, high, p, effect < margin, contrary, why)


_TESTS: dict[str, Callable[[Prediction, Sequence[Label], Floats], _Outcome]] = {
    **{"highest": _highest, "rise": _trend, "fall": _trend, "flat": _flat, "step": _step}
}


# ---- statistics ----


def paired(differences: Floats) -> float:
    """Returns p of the paired t test for differences above 0; NaN for a single pair.

    Not the signed-rank test, whose smallest p with six pairs is 1/64: corrected over a score of findings, no data could
    agree. The price is that differences are taken for normal, so how many are above 0 is said beside.
    """
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
    return frame.drop(columns=["figure", "low", "high"]).rename(columns=_HEADS)


_HEADS = {"id": "finding", "claim": "the study's claim", "n": "pairs"}


def as_markdown(findings: Sequence[Finding]) -> str:
    """Returns findings as a Markdown table, and below it what its columns are."""
    frame = texts(findings)
    frame["finding"], frame["verdict"] = "`" + frame["finding"] + "`", "**" + frame["verdict"] + "**"
    return f"{markdown(frame)}\n\n{_LEGEND}\n"
