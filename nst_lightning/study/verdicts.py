"""What a sweep says about predictions: each one's test, and the verdict after a correction over all of them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from nst_lightning.errors import InputError
from nst_lightning.study import results
from nst_lightning.study.predictions import LEAST, Label, Prediction, key_of, listed
from nst_lightning.study.results import Results
from nst_lightning.study.tables import UNDEFINED, interval, markdown, tau, with_ends

Floats: TypeAlias = npt.NDArray[np.float64]
Verdict: TypeAlias = Literal["agrees", "disagrees", "undecided", "not run here"]

FILE = "findings.json"
ALPHA = 0.05
"""What a corrected p has to be below."""
DIGITS = 12
"""Scores that differ further behind the point are tied: their means are rounded."""
_NOTHING = (math.nan, math.nan, math.nan, math.nan)  # effect, low, high, p


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
    n: int
    effect: float
    low: float
    high: float
    p: float
    corrected: float
    verdict: Verdict
    why: str


@dataclass(frozen=True)
class Findings:
    """What is in findings.json."""

    findings: tuple[Finding, ...]


class _Outcome(NamedTuple):
    """What a test came to: `floor` is the smallest p with so many pairs, `contrary` an effect on the other side."""

    effect: float
    low: float
    high: float
    p: float
    floor: float
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
    sweeps = {each.figure: _read(Path(folder) / each.figure) for each in predictions}
    checked = [_checked(prediction, sweeps[prediction.figure]) for prediction in predictions]
    outcomes = [outcome for _, _, outcome in checked if isinstance(outcome, _Outcome)]
    corrected = iter(holm([outcome.p for outcome in outcomes]))
    attainable = iter(holm([outcome.floor for outcome in outcomes]))
    findings = []
    for each, (sentence, n, outcome) in zip(predictions, checked, strict=True):
        own = (each.id, each.claim, each.figure, sentence, n)
        if isinstance(outcome, str):
            findings.append(Finding(*own, *_NOTHING, math.nan, "not run here", outcome))
            continue
        p, best = next(corrected), next(attainable)
        verdict: Verdict = "disagrees" if outcome.contrary else "undecided"
        if p < ALPHA and outcome.expected:
            verdict = "agrees"
        least = "has no p" if math.isnan(best) else f"has p of at least {outcome.floor:.3g}, corrected {best:.3g}"
        reach = f"; out of reach of 'agrees': with {_pairs(n)} the test {least}" if n and not best < ALPHA else ""
        findings.append(Finding(*own, *outcome[:4], p, verdict, outcome.why + reach))
    return tuple(findings)


def _read(folder: Path) -> Results | None:
    return results.read(folder) if (folder / results.FILE).exists() else None


def _checked(prediction: Prediction, sweep: Results | None) -> tuple[str, int, _Outcome | str]:
    """The prediction as a sentence, how many pairs there are, and the outcome or why there is none."""
    axis, score = prediction.axis, prediction.score
    wanted = prediction.values if prediction.test != "step" else (*prediction.before, *prediction.after)
    if sweep is None or not sweep.cells:
        there = "there is no" if sweep is None else "there are no cells in"
        return _sentence(prediction, wanted), 0, f"{there} {prediction.figure}/{results.FILE}"
    found = _labels(prediction, sweep)
    values = _all_of(prediction, found) if wanted is None else wanted
    sentence = _sentence(prediction, values)
    top = () if prediction.value is None else (prediction.value,)
    missing = [value for value in (*values, *top) if key_of(value) not in found]
    if missing:
        return sentence, 0, f"there is no {axis} {missing[0]} among {listed(found.values())}"
    if len(values) < LEAST[prediction.test]:
        return sentence, 0, f"{axis} has only {listed(found.values())}"
    if all(score not in cell.scores for cell in sweep.cells):
        return sentence, 0, f"{score} was not scored"
    scores = _scores(sweep, prediction, values)
    if len(scores) == 0:
        return sentence, 0, _Outcome(*_NOTHING, 1.0, False, False, f"no pair has {score} defined in every cell")
    outcome = _TESTS[prediction.test](prediction, values, scores)
    if left_out := len(sweep.pairs) - len(scores):
        why = f"{outcome.why}; {_pairs(left_out)} left out, {score} not being defined in every cell"
        outcome = outcome._replace(why=why)
    return sentence, len(scores), outcome


def _labels(prediction: Prediction, sweep: Results) -> dict[str | float, str]:
    """The values of the prediction's axis that the sweep has."""
    if prediction.axis not in sweep.axes:
        msg = f"{prediction.figure}/{results.FILE}: has no axis {prediction.axis!r}, which {prediction.id!r} is about; "
        raise InputError(f"{msg}there is {listed(sweep.axes)}")
    return {key_of(label): label for label in sweep.axes[prediction.axis]}


def _scores(sweep: Results, prediction: Prediction, values: Sequence[Label]) -> Floats:
    """The means (pairs, values) over seeds, then over other axes, of pairs that have them all defined."""
    axis, score = prediction.axis, prediction.score
    frame = sweep.frame()
    frame = frame.assign(**{axis: frame[axis].map(key_of)})
    frame = frame[frame[axis].isin([key_of(value) for value in values])]
    others = [other for other in sweep.axes if other != axis]
    of_cells = frame.groupby(["pair", axis, *others], sort=False)[score].agg(lambda each: each.mean(skipna=False))
    # What no pair has is no column; what only this pair lacks is NaN, and leaves the pair out.
    wide = of_cells.unstack([axis, *others]).T
    table = wide.groupby(level=axis, sort=False).agg(lambda each: each.mean(skipna=False)).T
    scores: Floats = table[[key_of(value) for value in values]].dropna().to_numpy(np.float64).round(DIGITS)
    return scores


def _all_of(prediction: Prediction, found: Mapping[str | float, str]) -> tuple[Label, ...]:
    """All values of an axis: numbers in rising order, words in that of the results."""
    numbers = [key for key in found if isinstance(key, float)]
    if len(numbers) == len(found):
        return tuple(found[key] for key in sorted(numbers))
    if prediction.test in ("rise", "fall"):
        msg = f"prediction {prediction.id!r} needs values that say in which order: {prediction.axis} is"
        raise InputError(f"{msg} {listed(found.values())}")
    return tuple(found.values())


def _sentence(prediction: Prediction, values: Sequence[Label] | None) -> str:
    score, axis = prediction.score, prediction.axis
    by = f" by more than {prediction.effect:g}" if prediction.effect > 0 else ""
    if prediction.test == "step":
        return f"{score} is higher for {axis} {listed(prediction.after)} than for {listed(prediction.before)}{by}"
    if prediction.test == "highest":
        rivals = [value for value in values or () if key_of(value) != key_of(prediction.value)]
        others = "any other value" if values is None else listed(rivals)
        return f"{score} is higher for {axis} {prediction.value} than for {others}{by}"
    along = axis if values is None else f"{axis} {listed(values)}"
    if prediction.test == "flat":
        return f"{score} differs by less than {prediction.margin:g} between the values of {along}"
    by = f" with a tau beyond {prediction.effect:g}" if by else ""
    return f"{score} {prediction.test}s along {along}{by}"


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
    return _Outcome(effect, low, high, p, _floor(upper), effect > prediction.effect, high < 0, why)


def _floor(scores: Floats) -> float:
    """The smallest p of a t test over pairs."""
    return 0.0 if len(scores) > 1 else math.nan


def _trend(prediction: Prediction, values: Sequence[Label], scores: Floats) -> _Outcome:
    sign = 1 if prediction.test == "rise" else -1
    taus = np.array([tau(row) for row in scores])
    effect, low, high = interval(taus)
    low, high = max(low, -1.0), min(high, 1.0)  # a first NaN stays
    floor = page(np.tile(np.arange(scores.shape[1], dtype=np.float64), (len(scores), 1)))  # of all pairs in order
    contrary = high < 0 if sign > 0 else low > 0
    means = listed(f"{mean:.3f}" for mean in scores.mean(axis=0))
    why = f"{(sign * taus > 0).sum()} of {_pairs(len(scores))} {prediction.test}; means {means}"
    return _Outcome(effect, low, high, page(sign * scores), floor, sign * effect > prediction.effect, contrary, why)


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
    return _Outcome(effect, low, high, p, _floor(scores), effect < margin, contrary, why)


_TESTS = {"highest": _highest, "rise": _trend, "fall": _trend, "flat": _flat, "step": _step}


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
    rows = [
        {
            "finding": each.id,
            "the study's claim": each.claim,
            "prediction": each.prediction,
            "pairs": str(each.n),
            "effect": with_ends(each.effect, each.low, each.high),
            "p": UNDEFINED if math.isnan(each.p) else f"{each.p:.3g}",
            "corrected": UNDEFINED if math.isnan(each.corrected) else f"{each.corrected:.3g}",
            "verdict": each.verdict,
            "why": each.why,
        }
        for each in findings
    ]
    return pd.DataFrame(rows)


def as_markdown(findings: Sequence[Finding]) -> str:
    """Returns findings as a Markdown table, and below it what its columns are."""
    frame = texts(findings)
    frame["finding"], frame["verdict"] = "`" + frame["finding"] + "`", "**" + frame["verdict"] + "**"
    return f"{markdown(frame)}\n\n{_LEGEND}\n"
