"""What a sweep says about predictions: each one's test, and the verdict after a correction over all of them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from nst_lightning.errors import InputError
from nst_lightning.findings.predictions import LEAST, Prediction, Value, key_of, listed
from nst_lightning.findings.statistics import ALPHA, DIGITS, Floats, equivalence, holm, interval, page, paired, tau
from nst_lightning.findings.sweeps import RESULTS, Sweep, read_sweep

Verdict: TypeAlias = Literal["agrees", "disagrees", "undecided", "not run here"]

_NOTHING = (math.nan, math.nan, math.nan, math.nan)  # effect, low, high, p


@dataclass(frozen=True)
class Finding:
    """What a sweep says about a prediction; numbers are NaN where there is none.

    Attributes:
        id: The prediction's name.
        claim: What the study reported.
        figure: The sweep.
        prediction: The prediction as a sentence.
        n: How many pairs were used.
        effect: `highest`, `step`: the mean paired difference, for `highest` to the strongest rival. `rise`, `fall`:
            the mean of Kendall's tau-b. `flat`: the largest mean difference between two values.
        low: Lower end of the effect's t interval over pairs, of 95 %, for `flat` of 90 %.
        high: Its upper end.
        p: That of the test, one-sided.
        corrected: The same after Holm's correction over all findings that were run.
        verdict: `agrees`: `corrected` is below 5 % and the effect is as large as expected. `disagrees`: the interval
            is on the other side of 0, for `flat` that of some difference outside the margin. Else `undecided`.
        why: What that rests on, as a sentence.
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
class _Outcome:
    """What a test came to.

    Attributes:
        floor: The smallest p that it can come to with so many pairs.
        expected: Whether the effect is as large as expected, in that direction.
        contrary: Whether the interval is on the other side.
    """

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
    folder = Path(folder)
    sweeps = {figure: read_sweep(folder / figure / RESULTS) for figure in {each.figure for each in predictions}}
    checked = [_checked(prediction, sweeps[prediction.figure]) for prediction in predictions]
    outcomes = [outcome for _, _, outcome in checked if isinstance(outcome, _Outcome)]
    corrected = iter(holm([outcome.p for outcome in outcomes]))
    attainable = iter(holm([outcome.floor for outcome in outcomes]))
    findings = []
    for prediction, (sentence, n, outcome) in zip(predictions, checked, strict=True):
        own = (prediction.id, prediction.claim, prediction.figure, sentence, n)
        if isinstance(outcome, str):
            findings.append(Finding(*own, *_NOTHING, math.nan, "not run here", outcome))
            continue
        p, best = next(corrected), next(attainable)
        verdict: Verdict = "undecided"
        if p < ALPHA and outcome.expected:
            verdict = "agrees"
        elif outcome.contrary:
            verdict = "disagrees"
        why = outcome.why
        if n > 0 and not best < ALPHA:
            least = "has no p" if math.isnan(best) else f"has p of at least {outcome.floor:.3g}, corrected {best:.3g}"
            why += f"; out of reach of 'agrees': with {_pairs(n)} the test {least}"
        numbers = (outcome.effect, outcome.low, outcome.high, outcome.p, p)
        findings.append(Finding(*own, *numbers, verdict, why))
    return tuple(findings)


def _checked(prediction: Prediction, sweep: Sweep | None) -> tuple[str, int, _Outcome | str]:
    """The prediction as a sentence, how many pairs there are, and the outcome or why there is none."""
    wanted = prediction.values if prediction.test != "step" else (*prediction.before, *prediction.after)
    if sweep is None or not sweep.cells:
        there = "there is no" if sweep is None else "there are no cells in"
        return _sentence(prediction, wanted), 0, f"{there} {prediction.figure}/{RESULTS}"
    if prediction.axis not in sweep.axes:
        msg = f"{sweep.path}: has no axis {prediction.axis!r}, which {prediction.id!r} is about; "
        raise InputError(f"{msg}there is {listed(sweep.axes)}")
    found = sweep.axes[prediction.axis]
    values = _all_of(prediction, found) if wanted is None else wanted
    sentence = _sentence(prediction, values)
    top = () if prediction.value is None else (prediction.value,)
    missing = [value for value in (*values, *top) if key_of(value) not in found]
    if missing:
        return sentence, 0, f"there is no {prediction.axis} {missing[0]} among {listed(found.values())}"
    if len(values) < LEAST.get(prediction.test, 0):
        return sentence, 0, f"{prediction.axis} has only {listed(found.values())}"
    if all(prediction.score not in cell.scores for cell in sweep.cells):
        return sentence, 0, f"{prediction.score} was not scored"
    scores = sweep.means(prediction.score, prediction.axis, values)
    n, left_out = len(scores), len(sweep.pairs) - len(scores)
    if n == 0:
        nothing = f"no pair has {prediction.score} defined in every cell"
        return sentence, 0, _Outcome(*_NOTHING, 1.0, False, False, nothing)
    outcome = _TESTS[prediction.test](prediction, values, scores)
    if left_out:
        why = f"{outcome.why}; {_pairs(left_out)} left out, {prediction.score} not being defined in every cell"
        outcome = replace(outcome, why=why)
    return sentence, n, outcome


def _all_of(prediction: Prediction, found: Mapping[str | float, object]) -> tuple[Value, ...]:
    """All values of an axis: numbers in rising order, words in that of the results."""
    numbers = [key for key in found if isinstance(key, float)]
    if len(numbers) == len(found):
        return tuple(cast(Value, found[key]) for key in sorted(numbers))
    if prediction.test in ("rise", "fall"):
        msg = f"prediction {prediction.id!r} needs values that say in which order: {prediction.axis} is"
        raise InputError(f"{msg} {listed(found.values())}")
    return tuple(str(value) for value in found.values())


def _sentence(prediction: Prediction, values: Sequence[Value] | None) -> str:
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


def _highest(prediction: Prediction, values: Sequence[Value], scores: Floats) -> _Outcome:
    """Intersection-union: higher than every rival, so the largest p over rivals and the smallest difference."""
    own = [key_of(value) for value in values].index(key_of(prediction.value))
    rivals = [place for place in range(len(values)) if place != own]
    strongest = max(rivals, key=lambda place: float(scores[:, place].mean()))
    p = max(paired(scores[:, own] - scores[:, place]) for place in rivals)
    return _compared(prediction, scores[:, own], scores[:, strongest], p, f" than {values[strongest]}")


def _step(prediction: Prediction, values: Sequence[Value], scores: Floats) -> _Outcome:
    count = len(prediction.before)
    after, before = scores[:, count:].mean(axis=1), scores[:, :count].mean(axis=1)
    return _compared(prediction, after, before, paired(after - before), "")


def _compared(prediction: Prediction, upper: Floats, lower: Floats, p: float, than: str) -> _Outcome:
    """The outcome where one column should be higher than another."""
    differences = (upper - lower).round(DIGITS)
    effect, low, high = interval(differences)
    count = int((differences > 0).sum())
    why = f"{count} of {_pairs(len(upper))} higher{than}; mean {upper.mean():.3f} against {lower.mean():.3f}"
    return _Outcome(effect, low, high, p, _floor(upper), effect > prediction.effect, high < 0, why)


def _floor(scores: npt.NDArray[Any]) -> float:
    """The smallest p of a t test over pairs."""
    return 0.0 if len(scores) > 1 else math.nan


def _trend(prediction: Prediction, values: Sequence[Value], scores: Floats) -> _Outcome:
    sign = 1 if prediction.test == "rise" else -1
    taus = np.array([tau(row) for row in scores])
    effect, low, high = interval(taus)
    low, high = max(low, -1.0), min(high, 1.0)  # a first NaN stays
    perfect = np.tile(np.arange(scores.shape[1]), (len(scores), 1))
    floor, p = page(perfect), page(sign * scores)
    contrary = high < 0 if sign > 0 else low > 0
    count = int((sign * taus > 0).sum())
    means = listed(f"{mean:.3f}" for mean in scores.mean(axis=0))
    why = f"{count} of {_pairs(len(scores))} {prediction.test}; means {means}"
    return _Outcome(effect, low, high, p, floor, sign * effect > prediction.effect, contrary, why)


def _flat(prediction: Prediction, values: Sequence[Value], scores: Floats) -> _Outcome:
    margin = prediction.margin
    two = list(itertools.combinations(range(len(values)), 2))
    differences = [(scores[:, one] - scores[:, other]).round(DIGITS) for one, other in two]
    p = max(equivalence(each, margin) for each in differences)
    far = max(range(len(two)), key=lambda place: abs(float(differences[place].mean())))
    largest = differences[far] * (1 if differences[far].mean() >= 0 else -1)
    effect, low, high = interval(largest, 0.9)
    ends = [interval(each, 0.9)[1:] for each in differences]
    contrary = any(end[0] > margin or end[1] < -margin for end in ends)
    inside = sum(end[0] > -margin and end[1] < margin for end in ends)
    one, other = (values[place] for place in two[far])
    apart = f"largest mean difference {effect:.3f}, {one} against {other}"
    why = f"{inside} of {len(two)} differences inside ±{margin:g} with their intervals; {apart}"
    return _Outcome(effect, low, high, p, _floor(scores), effect < margin, contrary, why)


_TESTS = {"highest": _highest, "rise": _trend, "fall": _trend, "flat": _flat, "step": _step}
