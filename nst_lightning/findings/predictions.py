"""What a study leads one to expect of a sweep's scores: predictions, and the file they are in."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

import yaml

from nst_lightning.errors import InputError

Test: TypeAlias = Literal["highest", "rise", "fall", "flat", "step"]
Value: TypeAlias = str | int | float
"""A value of an axis; 100, 100.0 and "100" are one."""

LEAST = {"highest": 2, "rise": 3, "fall": 3, "flat": 2}
"""How many values of the axis a test needs; Page's needs three."""

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
        msg = f"{path}: must be a list of predictions, at least one, got {short(given)}"
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
        msg = f"{path}: entry {place} must be a mapping with the keys {', '.join(_SHARED)}, got {short(given)}"
        raise InputError(msg)
    entry = _Entry(path, repr(given["id"]) if isinstance(given.get("id"), str) else str(place), given)
    words = {key: entry.word(key) for key in _SHARED}
    test = words["test"]
    if test not in _OWN:
        raise entry.error(f"test must be one of {', '.join(_OWN)}, got {test!r}")
    unknown = [key for key in given if key not in (*_SHARED, *_OWN[test])]
    if unknown:
        raise entry.error(f"unknown key {unknown[0]!r}; a {test} has {', '.join((*_SHARED, *_OWN[test]))}")
    values = entry.values("values", LEAST[test]) if "values" in given else None
    value = entry.value("value") if test == "highest" else None
    if value is not None and values is not None and key_of(value) not in map(key_of, values):
        raise entry.error(f"value must be among values, got {value!r}; those are {listed(values)}")
    before, after = (entry.values(key, 1) if test == "step" else () for key in ("before", "after"))
    both = {key_of(each) for each in before} & {key_of(each) for each in after}
    if both:
        raise entry.error(f"after must have other values than before, got {listed(after)} after {listed(before)}")
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
        if not isinstance(values, list) or not all(map(_is_value, values)) or len(set(map(key_of, values))) < least:
            allowed = f"a list of words or numbers, at least {least}"
            raise self.error(f"{key} must be {allowed}, {self._got(key)}")
        if len(set(map(key_of, values))) < len(values):
            raise self.error(f"{key} must have each value once, {self._got(key)}")
        return tuple(values)

    def number(self, key: str, *, above: bool) -> float:
        value = self.given.get(key)
        number = value if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan
        if not (math.isfinite(number) and (number > 0 if above else number >= 0)):
            raise self.error(f"{key} must be a finite number, {'above 0' if above else '0 or above'}, {self._got(key)}")
        return float(number)

    def _got(self, key: str) -> str:
        return f"got {short(self.given[key])}" if key in self.given else "and there is none"


_WORDS = {"test": f"one of {', '.join(_OWN)}", "figure": "the name of a sweep", "score": "the name of a score"}


def _is_value(value: object) -> bool:
    return isinstance(value, (str, int, float))


def key_of(value: object) -> str | float:
    """What two values share that are one."""
    try:
        number = float(str(value))
    except ValueError:
        return str(value)
    return number if math.isfinite(number) else str(value)


def listed(values: Iterable[object]) -> str:
    """Values as they are named in a sentence."""
    return ", ".join(map(str, values))


def short(value: object) -> str:
    """What was given instead, for a message: not all of it where it is long."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
