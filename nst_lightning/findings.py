"""Predictions about a sweep's scores, checked with its pairs of images as repeated measures."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

import numpy as np
import numpy.typing as npt
import yaml
from scipy import stats

from nst_lightning.errors import InputError

Test: TypeAlias = Literal["highest", "rise", "fall", "flat", "step"]
Verdict: TypeAlias = Literal["agrees", "disagrees", "undecided", "not run here"]
Value: TypeAlias = str | int | float
"""A value of an axis; 100, 100.0 and "100" are one."""

ALPHA = 0.05
"""What a corrected p has to be below."""
RESULTS = "results.json"

_Floats: TypeAlias = npt.NDArray[np.float64]

_SHARED = ("id", "claim", "figure", "score", "test", "axis")
_OWN: dict[str, tuple[str, ...]] = {
    "highest": ("value", "values", "effect"),
    "rise": ("values", "effect"),
    "fall": ("values", "effect"),
    "flat": ("values", "margin"),
    "step": ("before", "after", "effect"),
}
_LEAST = {"highest": 2, "rise": 3, "fall": 3, "flat": 2}  # values; Page's test needs three
_NOTHING = (math.nan, math.nan, math.nan, math.nan)  # effect, low, high, p
_DIGITS = 12  # scores that differ further behind the point are tied: their means are rounded


@dataclass(frozen=True)
class Prediction:
    """What a score is expected to do along an axis of a sweep, written down before there are results.

    Attributes:
        id: Its name, which no other has.
        claim: What the study reported, in words.
        figure: The sweep, by its folder's name.
        score: The score.
        test: `highest`: it is higher for `value` than for each other value. `rise`, `fall`: it follows the order of
            the values. `flat`: no two values differ by `margin`. `step`: its mean over the values of `after` is
            higher than over those of `before`.
        axis: The axis; over others, the mean is taken.
        value: For `highest`, the value expected on top.
        values: The axis' values, in this order; None for all there are, numbers in rising order.
        before: For `step`, the values on the lower side.
        after: For `step`, the values on the higher side.
        margin: For `flat`, the difference that is no longer none.
        effect: What the effect has to exceed in the expected direction, >= 0.
    """

    id: str
    claim: str
    figure: str
    score: str
    test: Test
    axis: str
    value: Value | None = None
    values: tuple[Value, ...] | None = None
    before: tuple[Value, ...] = ()
    after: tuple[Value, ...] = ()
    margin: float = math.nan
    effect: float = 0.0


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


def interval(values: Sequence[float] | _Floats, level: float = 0.95) -> tuple[float, float, float]:
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


# ---- predictions ----


def read_predictions(path: str | PathLike[str]) -> tuple[Prediction, ...]:
    """Reads predictions: a YAML list of mappings with the keys of `Prediction`.

    Args:
        path: The file.

    Raises:
        InputError: If the file cannot be read or an entry is not as above; names the file, the entry and the key.
    """
    path = Path(path)
    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        msg = f"{path}: cannot be read ({type(error).__name__}); expected a YAML list of predictions"
        raise InputError(msg) from error
    except yaml.YAMLError as error:
        raise InputError(f"{path}: is no YAML ({' '.join(str(error).split())})") from error
    if not isinstance(given, list) or not given:
        msg = f"{path}: must be a list of predictions, at least one, got {_short(given)}"
        raise InputError(msg)
    predictions: dict[str, Prediction] = {}
    for place, each in enumerate(given, start=1):
        prediction = _prediction(path, place, each)
        if prediction.id in predictions:
            msg = f"{path}: entry {place}: id {prediction.id!r} is taken; give each an id of its own"
            raise InputError(msg)
        predictions[prediction.id] = prediction
    return tuple(predictions.values())


def _prediction(path: Path, place: int, given: object) -> Prediction:
    if not isinstance(given, dict):
        msg = f"{path}: entry {place} must be a mapping with the keys {', '.join(_SHARED)}, got {_short(given)}"
        raise InputError(msg)
    entry = _Entry(path, repr(given["id"]) if isinstance(given.get("id"), str) else str(place), given)
    words = {key: entry.word(key) for key in _SHARED}
    test = words["test"]
    if test not in _OWN:
        raise entry.error(f"test must be one of {', '.join(_OWN)}, got {test!r}")
    unknown = [key for key in given if key not in (*_SHARED, *_OWN[test])]
    if unknown:
        raise entry.error(f"unknown key {unknown[0]!r}; a {test} has {', '.join((*_SHARED, *_OWN[test]))}")
    values = entry.values("values", _LEAST[test]) if "values" in given else None
    value = entry.value("value") if test == "highest" else None
    if value is not None and values is not None and _key(value) not in map(_key, values):
        raise entry.error(f"value must be among values, got {value!r}; those are {_listed(values)}")
    before, after = (entry.values(key, 1) if test == "step" else () for key in ("before", "after"))
    both = {_key(each) for each in before} & {_key(each) for each in after}
    if both:
        raise entry.error(f"after must have other values than before, got {_listed(after)} after {_listed(before)}")
    margin = entry.number("margin", above=True) if test == "flat" else math.nan
    effect = entry.number("effect", above=False) if "effect" in given else 0.0
    return Prediction(
        words["id"],
        words["claim"],
        words["figure"],
        words["score"],
        cast(Test, test),
        words["axis"],
        value,
        values,
        before,
        after,
        margin,
        effect,
    )


@dataclass(frozen=True)
class _Entry:
    """One entry of the file, by its id or its place."""

    path: Path
    name: str
    given: Mapping[str, Any]

    def error(self, text: str) -> InputError:
        return InputError(f"{self.path}: entry {self.name}: {text}")

    def word(self, key: str) -> str:
        value = self.given.get(key)
        if not isinstance(value, str) or not value.strip():
            raise self.error(f"{key} must be {_WORDS.get(key, 'a text')}, {self._got(key)}")
        return " ".join(value.split())

    def value(self, key: str) -> Value:
        value = self.given.get(key)
        if not _is_value(value):
            raise self.error(f"{key} must be a word or a number, {self._got(key)}")
        return cast(Value, value)

    def values(self, key: str, least: int) -> tuple[Value, ...]:
        values = self.given.get(key)
        if not isinstance(values, list) or not all(map(_is_value, values)) or len(set(map(_key, values))) < least:
            allowed = f"a list of words or numbers, at least {least}"
            raise self.error(f"{key} must be {allowed}, {self._got(key)}")
        if len(set(map(_key, values))) < len(values):
            raise self.error(f"{key} must have each value once, {self._got(key)}")
        return tuple(values)

    def number(self, key: str, *, above: bool) -> float:
        value = self.given.get(key)
        number = value if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan
        if not (math.isfinite(number) and (number > 0 if above else number >= 0)):
            raise self.error(f"{key} must be a finite number, {'above 0' if above else '0 or above'}, {self._got(key)}")
        return float(number)

    def _got(self, key: str) -> str:
        return f"got {_short(self.given[key])}" if key in self.given else "and there is none"


_WORDS = {"test": f"one of {', '.join(_OWN)}", "figure": "the name of a sweep", "score": "the name of a score"}


def _is_value(value: object) -> bool:
    return isinstance(value, (str, int, float))


def _key(value: object) -> str | float:
    """What two values share that are one."""
    try:
        number = float(str(value))
    except ValueError:
        return str(value)
    return number if math.isfinite(number) else str(value)


def _listed(values: Iterable[object]) -> str:
    return ", ".join(map(str, values))


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


# ---- a sweep's results ----


@dataclass(frozen=True)
class _Cell:
    pair: str
    seed: int
    values: Mapping[str, str | float]
    scores: Mapping[str, float]


@dataclass(frozen=True)
class _Sweep:
    """What a sweep left: its cells, and the values of its axes as they are written there."""

    path: Path
    cells: tuple[_Cell, ...]
    axes: Mapping[str, Mapping[str | float, object]]

    @cached_property
    def pairs(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(cell.pair for cell in self.cells))

    def means(self, score: str, axis: str, values: Sequence[Value]) -> _Floats:
        """The means (pairs, values) over seeds, then over other axes, of pairs that have them all defined."""
        keys = [_key(value) for value in values]
        gathered: dict[tuple[str, str | float, str], list[float]] = {}
        others: dict[str | float, dict[str, None]] = {key: {} for key in keys}
        for cell in self.cells:
            key = cell.values[axis]
            if key in others:
                other = repr(sorted((name, value) for name, value in cell.values.items() if name != axis))
                others[key][other] = None
                gathered.setdefault((cell.pair, key, other), []).append(cell.scores.get(score, math.nan))
        missing = [math.nan]
        rows = [
            [np.mean([np.mean(gathered.get((pair, key, other), missing)) for other in others[key]]) for key in keys]
            for pair in self.pairs
        ]
        table = np.asarray(rows, dtype=np.float64).reshape(len(rows), len(keys)).round(_DIGITS)
        defined: _Floats = table[np.isfinite(table).all(axis=1)]
        return defined


def _read_sweep(path: Path) -> _Sweep | None:
    """The results in a file, None where there is no such file."""
    if not path.exists():
        return None
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({type(error).__name__}); expected a sweep's results") from error
    if not isinstance(given, dict) or not isinstance(given.get("cells"), list):
        raise InputError(f"{path}: must have a list of cells, got {_short(given)}")
    axes: dict[str, dict[str | float, object]] = {}
    cells: dict[str, _Cell] = {}
    for place, each in enumerate(given["cells"], start=1):
        try:
            values = {str(axis): _key(value) for axis, value in each["values"].items()}
            scores = {name: math.nan if score is None else float(score) for name, score in each["scores"].items()}
            cell = _Cell(str(each["pair"]), int(each["seed"]), values, scores)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            msg = f"{path}: cell {place} must have a pair, a seed, values and scores, got {_short(each)}"
            raise InputError(msg) from error
        if cells.setdefault(repr((cell.pair, cell.seed, sorted(values.items()))), cell) is not cell:
            msg = f"{path}: cell {place} is there twice: {cell.pair}, seed {cell.seed}, {_short(each['values'])}"
            raise InputError(msg)
        if values.keys() != next(iter(cells.values())).values.keys():
            msg = f"{path}: cell {place} must have the axes of the others, got {_listed(values)}"
            raise InputError(msg)
        for axis, value in each["values"].items():
            axes.setdefault(str(axis), {}).setdefault(_key(value), value)
    return _Sweep(path, tuple(cells.values()), axes)


# ---- checking ----


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
    sweeps = {figure: _read_sweep(folder / figure / RESULTS) for figure in {each.figure for each in predictions}}
    checked = [_checked(prediction, sweeps[prediction.figure]) for prediction in predictions]
    outcomes = [outcome for _, _, outcome in checked if isinstance(outcome, _Outcome)]
    corrected = iter(_holm([outcome.p for outcome in outcomes]))
    attainable = iter(_holm([outcome.floor for outcome in outcomes]))
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


def _checked(prediction: Prediction, sweep: _Sweep | None) -> tuple[str, int, _Outcome | str]:
    """The prediction as a sentence, how many pairs there are, and the outcome or why there is none."""
    wanted = prediction.values if prediction.test != "step" else (*prediction.before, *prediction.after)
    if sweep is None or not sweep.cells:
        there = "there is no" if sweep is None else "there are no cells in"
        return _sentence(prediction, wanted), 0, f"{there} {prediction.figure}/{RESULTS}"
    if prediction.axis not in sweep.axes:
        msg = f"{sweep.path}: has no axis {prediction.axis!r}, which {prediction.id!r} is about; "
        raise InputError(f"{msg}there is {_listed(sweep.axes)}")
    found = sweep.axes[prediction.axis]
    values = _all_of(prediction, found) if wanted is None else wanted
    sentence = _sentence(prediction, values)
    top = () if prediction.value is None else (prediction.value,)
    missing = [value for value in (*values, *top) if _key(value) not in found]
    if missing:
        return sentence, 0, f"there is no {prediction.axis} {missing[0]} among {_listed(found.values())}"
    if len(values) < _LEAST.get(prediction.test, 0):
        return sentence, 0, f"{prediction.axis} has only {_listed(found.values())}"
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
        raise InputError(f"{msg} {_listed(found.values())}")
    return tuple(str(value) for value in found.values())


def _sentence(prediction: Prediction, values: Sequence[Value] | None) -> str:
    score, axis = prediction.score, prediction.axis
    by = f" by more than {prediction.effect:g}" if prediction.effect > 0 else ""
    if prediction.test == "step":
        return f"{score} is higher for {axis} {_listed(prediction.after)} than for {_listed(prediction.before)}{by}"
    if prediction.test == "highest":
        rivals = [value for value in values or () if _key(value) != _key(prediction.value)]
        others = "any other value" if values is None else _listed(rivals)
        return f"{score} is higher for {axis} {prediction.value} than for {others}{by}"
    along = axis if values is None else f"{axis} {_listed(values)}"
    if prediction.test == "flat":
        return f"{score} differs by less than {prediction.margin:g} between the values of {along}"
    by = f" with a tau beyond {prediction.effect:g}" if by else ""
    return f"{score} {prediction.test}s along {along}{by}"


def _pairs(n: int) -> str:
    return "1 pair" if n == 1 else f"{n} pairs"


# ---- tests ----


def _highest(prediction: Prediction, values: Sequence[Value], scores: _Floats) -> _Outcome:
    """Intersection-union: higher than every rival, so the largest p over rivals and the smallest difference."""
    own = [_key(value) for value in values].index(_key(prediction.value))
    rivals = [place for place in range(len(values)) if place != own]
    strongest = max(rivals, key=lambda place: float(scores[:, place].mean()))
    p = max(_paired(scores[:, own] - scores[:, place]) for place in rivals)
    return _compared(prediction, scores[:, own], scores[:, strongest], p, f" than {values[strongest]}")


def _step(prediction: Prediction, values: Sequence[Value], scores: _Floats) -> _Outcome:
    count = len(prediction.before)
    after, before = scores[:, count:].mean(axis=1), scores[:, :count].mean(axis=1)
    return _compared(prediction, after, before, _paired(after - before), "")


def _compared(prediction: Prediction, upper: _Floats, lower: _Floats, p: float, than: str) -> _Outcome:
    """The outcome where one column should be higher than another."""
    differences = (upper - lower).round(_DIGITS)
    effect, low, high = interval(differences)
    count = int((differences > 0).sum())
    why = f"{count} of {_pairs(len(upper))} higher{than}; mean {upper.mean():.3f} against {lower.mean():.3f}"
    return _Outcome(effect, low, high, p, _floor(upper), effect > prediction.effect, high < 0, why)


def _floor(scores: npt.NDArray[Any]) -> float:
    """The smallest p of a t test over pairs."""
    return 0.0 if len(scores) > 1 else math.nan


def _trend(prediction: Prediction, values: Sequence[Value], scores: _Floats) -> _Outcome:
    sign = 1 if prediction.test == "rise" else -1
    taus = np.array([_tau(row) for row in scores])
    effect, low, high = interval(taus)
    low, high = max(low, -1.0), min(high, 1.0)  # a first NaN stays
    perfect = np.tile(np.arange(scores.shape[1]), (len(scores), 1))
    floor, p = _page(perfect), _page(sign * scores)
    contrary = high < 0 if sign > 0 else low > 0
    count = int((sign * taus > 0).sum())
    means = _listed(f"{mean:.3f}" for mean in scores.mean(axis=0))
    why = f"{count} of {_pairs(len(scores))} {prediction.test}; means {means}"
    return _Outcome(effect, low, high, p, floor, sign * effect > prediction.effect, contrary, why)


def _flat(prediction: Prediction, values: Sequence[Value], scores: _Floats) -> _Outcome:
    margin = prediction.margin
    two = list(itertools.combinations(range(len(values)), 2))
    differences = [(scores[:, one] - scores[:, other]).round(_DIGITS) for one, other in two]
    p = max(_equivalence(each, margin) for each in differences)
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


# ---- statistics ----


def _error_of_mean(values: _Floats) -> float:
    return float(values.std(ddof=1)) / math.sqrt(values.size)


def _paired(differences: _Floats) -> float:
    """Returns p of the paired t test for differences above 0; NaN for a single pair.

    Not the signed-rank test, whose smallest p with six pairs is 1/64: corrected over a score of findings, no data could
    agree. The price is that differences are taken for normal, so how many are above 0 is said beside.
    """
    differences = differences.round(_DIGITS)
    if differences.size < 2:
        return math.nan
    mean, error = float(differences.mean()), _error_of_mean(differences)
    if error == 0:
        return 0.0 if mean > 0 else 1.0
    return float(stats.t.sf(mean / error, differences.size - 1))


def _page(scores: npt.NDArray[Any]) -> float:
    """Returns p of Page's test for scores (pairs, values) that rise; exact in small tables, else asymptotic."""
    return float(stats.page_trend_test(scores).pvalue) if len(scores) > 1 else math.nan


def _tau(scores: _Floats) -> float:
    """Kendall's tau-b of scores with their order; 0 where all are tied."""
    if (scores == scores[0]).all():
        return 0.0
    return float(stats.kendalltau(np.arange(scores.size), scores).statistic)


def _equivalence(differences: _Floats, margin: float) -> float:
    """Returns p of two one-sided t tests that the mean is inside a margin."""
    if differences.size < 2:
        return math.nan
    mean, error = float(differences.mean()), _error_of_mean(differences)
    if error == 0:
        return 0.0 if abs(mean) < margin else 1.0
    return float(stats.t.sf((margin - abs(mean)) / error, differences.size - 1))


def _holm(ps: Sequence[float]) -> list[float]:
    """Corrects p values by Holm's step-down method; NaN stays, but is counted as 1."""
    given = np.asarray(ps, dtype=np.float64)
    counted = np.where(np.isnan(given), 1.0, given)
    order = np.argsort(counted, kind="stable")
    corrected = np.empty_like(given)
    corrected[order] = np.maximum.accumulate(counted[order] * np.arange(len(ps), 0, -1)).clip(max=1)
    return [math.nan if math.isnan(p) else float(each) for p, each in zip(ps, corrected, strict=True)]


# ---- tables ----


def as_markdown(findings: Sequence[Finding]) -> str:
    """Returns findings as a Markdown table, and below it what its columns are."""
    heads = ("finding", "the study's claim", "prediction", "pairs", "effect", "p", "corrected", "verdict", "why")
    rows = [
        (
            f"`{finding.id}`",
            finding.claim,
            finding.prediction,
            str(finding.n),
            _effect(finding),
            _p(finding.p),
            _p(finding.corrected),
            f"**{finding.verdict}**",
            finding.why,
        )
        for finding in findings
    ]
    lines = [heads, ("---",) * len(heads), *(tuple(cell.replace("|", "\\|") for cell in row) for row in rows)]
    return "\n".join([*(f"| {' | '.join(line)} |" for line in lines), "", _LEGEND]) + "\n"


_LEGEND = (
    "The effect is a mean over pairs with its 95 % t interval: a paired difference (one-sided paired t "
    "test), to the strongest rival where there are several; Kendall's tau-b for a trend (Page's test); for no "
    "difference, the largest one with its 90 % interval (two one-sided t tests). p is one-sided and corrected by "
    f"Holm's method over all findings that were run; below {ALPHA:g} a finding agrees. It disagrees where the interval "
    "is wholly on the other side."
)


def as_json(findings: Sequence[Finding]) -> str:
    """Returns findings as JSON: {"findings": [...]}, NaN as null."""
    plain = [
        {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in asdict(each).items()}
        for each in findings
    ]
    return json.dumps({"findings": plain}, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _effect(finding: Finding) -> str:
    if math.isnan(finding.effect):
        return "n/a"
    ends = "" if math.isnan(finding.low) else f" [{finding.low:.3f}, {finding.high:.3f}]"
    return f"{finding.effect:.3f}{ends}"


def _p(p: float) -> str:
    return "n/a" if math.isnan(p) else f"{p:.3g}"
