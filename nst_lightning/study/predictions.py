"""What a study leads one to expect of a sweep's scores: predictions, and the file they are in."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Literal, TypeAlias

from nst_lightning.errors import InputError
from nst_lightning.study import schema
from nst_lightning.study.schema import shown

Test: TypeAlias = Literal["highest", "rise", "fall", "flat", "step"]
Label: TypeAlias = str | int | float
"""A value of an axis; 100, 100.0 and "100" are one."""

LEAST = {"highest": 2, "rise": 3, "fall": 3, "flat": 2, "step": 1}
"""How many values a test needs, `step` on either side; Page's needs three."""

_SHARED = ("id", "claim", "figure", "score", "test", "axis")
_OWN: dict[str, tuple[str, ...]] = {
    "highest": ("value", "values", "effect"),
    "rise": ("values", "effect"),
    "fall": ("values", "effect"),
    "flat": ("values", "margin"),
    "step": ("before", "after", "effect"),
}


@dataclass(frozen=True)
class Prediction:
    """What a score is expected to do along an axis of a sweep, written down before there are results.

    Attributes:
        claim: What the study reported, in words.
        figure: The sweep, by its folder's name.
        test: `highest`: the score is higher for `value` than for each other value. `rise`, `fall`: it follows the
            order of the values. `flat`: no two values differ by `margin`. `step`: its mean over the values of `after`
            is higher than over those of `before`.
        axis: The axis; over others, the mean is taken.
        values: The axis' values, in this order; None for all there are, numbers in rising order.
        effect: What the effect has to exceed in the expected direction, >= 0.
    """

    id: str
    claim: str
    figure: str
    score: str
    test: Test
    axis: str
    value: Label | None = None
    values: tuple[Label, ...] | None = None
    before: tuple[Label, ...] = ()
    after: tuple[Label, ...] = ()
    margin: float = math.nan
    effect: float = 0.0


def read_predictions(path: str | PathLike[str]) -> tuple[Prediction, ...]:
    """Reads predictions: a YAML list of mappings with the keys of `Prediction`.

    Raises:
        InputError: If the file cannot be read or an entry is not as above; names the file, the entry and the key.
    """
    given = schema.load(Path(path), "a YAML list of predictions")
    if not isinstance(given, list) or not given:
        msg = f"{path}: must be a list of predictions, at least one, got {shown(given)}"
        raise InputError(msg)
    predictions: dict[str, Prediction] = {}
    for place, entry in enumerate(given, start=1):
        name = repr(entry["id"]) if isinstance(entry, dict) and isinstance(entry.get("id"), str) else str(place)
        prediction: Prediction = schema.structured(Prediction, entry, f"{path}: entry {name}")
        problem = next(_problems(prediction, entry), None)
        if problem is not None:
            raise InputError(f"{path}: entry {name}: {problem}")
        if prediction.id in predictions:
            msg = f"{path}: entry {place}: id {prediction.id!r} is taken; give each an id of its own"
            raise InputError(msg)
        predictions[prediction.id] = prediction
    return tuple(predictions.values())


def _problems(prediction: Prediction, entry: Mapping[str, Any]) -> Iterator[str]:
    """Yields what keeps a prediction from being tested."""
    test, keys = prediction.test, (*_SHARED, *_OWN[prediction.test])
    yield from (f"unknown key {key!r}; a {test} has {', '.join(keys)}" for key in entry if key not in keys)
    yield from (f"{key} must be a text, got ''" for key in _SHARED if not entry[key].strip())
    for key in ("values", "before", "after"):
        values = getattr(prediction, key)
        if key in _OWN[test] and values is not None:
            if len(values) < LEAST[test]:
                yield f"{key} must be a list of words or numbers, at least {LEAST[test]}, got {shown(values)}"
            if len(set(map(key_of, values))) < len(values):
                yield f"{key} must have each value once, got {shown(values)}"
    if test == "highest" and prediction.value is None:
        yield "value is missing; expected a word or a number"
    if prediction.value is not None and prediction.values is not None:
        if key_of(prediction.value) not in map(key_of, prediction.values):
            yield f"value must be among values, got {prediction.value!r}; those are {listed(prediction.values)}"
    if {key_of(each) for each in prediction.before} & {key_of(each) for each in prediction.after}:
        yield f"after must have other values than before, got {shown(prediction.after)}"
    if test == "flat" and not 0 < prediction.margin < math.inf:
        yield f"margin must be a finite number, above 0, got {prediction.margin}"
    if not 0 <= prediction.effect < math.inf:
        yield f"effect must be a finite number, 0 or above, got {prediction.effect}"


def key_of(label: object) -> str | float:
    """What two values share that are one."""
    try:
        number = float(str(label))
    except ValueError:
        return str(label)
    return number if math.isfinite(number) else str(label)


def listed(values: Iterable[object]) -> str:
    """Values as they are named in a sentence."""
    return ", ".join(map(str, values))
