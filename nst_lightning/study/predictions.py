"""What a study leads one to expect of a sweep's scores: predictions, and the file they are in."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Literal, TypeAlias

from nst_lightning.errors import InputError
from nst_lightning.study import schema

Test: TypeAlias = Literal["highest", "rise", "fall", "flat", "step"]
Label: TypeAlias = str | int | float
"""A value of an axis; 100, 100.0 and "100" are one."""


@dataclass(frozen=True)
class Prediction:
    """What a score is expected to do along an axis of a sweep, by its folder's name, written before there are results.

    Attributes:
        test: `highest`: the score is higher for `value` than for each other value. `rise`, `fall`: it follows the
            order of the values. `flat`: no two values differ by `margin`. `step`: its mean over the values of `after`
            is higher than over those of `before`.
        values: The axis' values, in this order; empty for all there are, numbers in rising order.
        effect: What the effect has to exceed in the expected direction, >= 0.
    """

    id: str
    claim: str
    figure: str
    score: str
    test: Test
    axis: str
    value: Label | None = None
    values: tuple[Label, ...] = ()
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
        raise InputError(f"{path}: must be a list of predictions, at least one")
    predictions: dict[str, Prediction] = {}
    for place, entry in enumerate(given, start=1):
        where = f"{path}: entry {place}"
        prediction: Prediction = schema.structured(Prediction, entry, where, strict=True)
        for problem in _problems(prediction):
            raise InputError(f"{where}: {problem}")
        if prediction.id in predictions:
            raise InputError(f"{where}: id {prediction.id!r} is taken; give each an id of its own")
        predictions[prediction.id] = prediction
    return tuple(predictions.values())


def _problems(prediction: Prediction) -> Iterator[str]:
    """Yields what keeps a prediction from being tested."""
    values = [key_of(each) for each in (*prediction.values, *prediction.before, *prediction.after)]
    if len(set(values)) < len(values):
        yield "values, before and after must have each value once"
    if prediction.test == "highest" and prediction.value is None:
        yield "value is missing; expected a word or a number"
    if prediction.value is not None and values and key_of(prediction.value) not in values:
        yield f"value must be among values, got {prediction.value!r}; those are {listed(prediction.values)}"
    if prediction.test == "step" and not (prediction.before and prediction.after):
        yield "before and after must each be a list of words or numbers, at least one"
    if prediction.test == "flat" and not 0 < prediction.margin < math.inf:
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
