"""What a sweep is asked to compare: a file of a base configuration and the axes that vary."""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

import yaml

from nst_lightning import pairs
from nst_lightning.errors import InputError
from nst_lightning.initializers import INITIALIZERS
from nst_lightning.pairs import Pair

Plain: TypeAlias = "str | int | float | bool"
Options: TypeAlias = "Mapping[str, Plain | list[Plain]]"

OF_A_PAIR = ("content_weight", "style_weight", "tv_weight", "init", "seed", "size", "steps")
"""The options that a pair can have of its own: cells that differ in nothing else are optimised in one run."""
_KEYS = ("title", "about", "command", "base", "axes", "seeds", "against_time")
_OF_PAIRS = ("pairs", "content", "style", "pairing")


@dataclass(frozen=True)
class Value:
    """A value of an axis.

    Attributes:
        label: What stands on the figures.
        options: The options that it sets, by name.
    """

    label: str
    options: Options


@dataclass(frozen=True)
class Experiment:
    """A base configuration and the axes that vary.

    Attributes:
        title: What stands over the figure.
        about: What it is to show, in a sentence or two.
        command: `fit`, or `reconstruct` for images rebuilt from layers.
        base: The options of that command which all cells share.
        axes: The values of each axis, by its name; the first is the columns of the figure.
        seeds: The seeds that every cell is repeated with.
        against_time: Whether the losses are plotted along the seconds that they took.
        pairs: What is optimised in every cell.
    """

    title: str
    about: str
    command: Literal["fit", "reconstruct"]
    base: Options
    axes: Mapping[str, tuple[Value, ...]]
    seeds: tuple[int, ...]
    against_time: bool
    pairs: tuple[Pair, ...] = field(repr=False)

    def cells(self) -> Iterator[Cell]:
        """Yields every combination of values, for every pair and seed."""
        for combination in itertools.product(*self.axes.values()):
            labels = {axis: value.label for axis, value in zip(self.axes, combination, strict=True)}
            options = {name: chosen for value in combination for name, chosen in value.options.items()}
            of_run = [
                axis
                for axis, value in zip(self.axes, combination, strict=True)
                if any(name not in OF_A_PAIR for name in value.options)
            ]
            for pair, seed in itertools.product(self.pairs, self.seeds):
                parts = [pair.name, *(f"{axis}-{label}" for axis, label in labels.items())]
                if len(self.seeds) > 1:
                    parts.append(f"seed-{seed}")
                group = "__".join(f"{axis}-{labels[axis]}" for axis in of_run)
                yield Cell(
                    slug("__".join(parts)),
                    labels,
                    options,
                    pair,
                    seed,
                    slug(group).replace(".", "_") if of_run else "all",
                )


@dataclass(frozen=True, eq=False)
class Cell:
    """One picture of a sweep.

    Attributes:
        name: What its files are called.
        values: The label of its value, by axis.
        options: The options that these set.
        pair: The pair that is optimised.
        seed: The seed of its noise.
        group: What the cells are called that differ only in what a pair can have of its own.
    """

    name: str
    values: Mapping[str, str]
    options: Options
    pair: Pair
    seed: int
    group: str

    @property
    def of_run(self) -> Options:
        """The options that a pair cannot have of its own."""
        return {name: value for name, value in self.options.items() if name not in OF_A_PAIR}

    @property
    def row(self) -> dict[str, str]:
        """The line of a list of pairs, see `pairs.read_pairs`, that asks for the picture."""
        own = {name: value for name, value in self.options.items() if name in OF_A_PAIR}
        of_pair = {"size": self.pair.size, "steps": self.pair.steps, **self.pair.settings, "seed": self.seed}
        settings = {name: str(value) for name, value in {**of_pair, **own}.items() if value is not None}
        styles = "|".join(os.path.abspath(str(style)) for style in self.pair.styles)
        return {"name": self.name, "content": os.path.abspath(str(self.pair.content)), "style": styles, **settings}


def read(path: Path, overrides: Mapping[str, str]) -> Experiment:
    """Reads a sweep's file.

    Args:
        path: A YAML file with `title`, `about`, `base` (options of the command by their short or long names), `axes`
            (a list of values by an option's name; a value can be a mapping of options with a `label`), and optionally
            `command`, `seeds` and `against_time`. The list of pairs in `base` may be relative to the file.
        overrides: Options that replace those of the base.

    Raises:
        InputError: If the file cannot be read or is not as above; names the file and the key.
    """
    given = _mapping(path)
    unknown = sorted(given.keys() - set(_KEYS))
    if unknown:
        raise _error(path, f"unknown key {unknown[0]!r}; known are {', '.join(_KEYS)}")
    command = given.get("command", "fit")
    if command not in ("fit", "reconstruct"):
        raise _error(path, f"command must be fit or reconstruct, got {command!r}")
    base = {**_options(path, "base", given.get("base", {})), **overrides}
    axes = given.get("axes")
    if not isinstance(axes, dict) or not axes:
        raise _error(path, "axes must name at least one option and its values")
    seeds = given.get("seeds", [0])
    if not isinstance(seeds, list) or not seeds or not all(type(seed) is int and seed >= 0 for seed in seeds):
        raise _error(path, f"seeds must be a list of whole numbers, 0 or above, got {seeds!r}")
    return Experiment(
        str(given.get("title", path.stem)),
        " ".join(str(given.get("about", "")).split()),
        command,
        {name: value for name, value in base.items() if name not in _OF_PAIRS},
        {str(name): _values(path, str(name), values) for name, values in axes.items()},
        tuple(seeds),
        bool(given.get("against_time", False)),
        _pairs(path, base),
    )


def arguments(options: Options) -> list[str]:
    """Returns options as they are typed."""
    return [f"--{name}={json.dumps(value) if isinstance(value, list) else value}" for name, value in options.items()]


def _mapping(path: Path) -> dict[str, Any]:
    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise _error(path, f"cannot be read ({error.__class__.__name__}); expected a sweep's YAML file") from error
    except yaml.YAMLError as error:
        raise _error(path, f"is no YAML ({' '.join(str(error).split())})") from error
    if not isinstance(given, dict):
        raise _error(path, f"must be a mapping with the keys {', '.join(_KEYS)}")
    return given


def _values(path: Path, axis: str, given: object) -> tuple[Value, ...]:
    if not isinstance(given, list) or not given:
        raise _error(path, f"axes.{axis} must be a list of values, got {given!r}")
    values = [_value(path, axis, value) for value in given]
    labels = [slug(value.label).casefold() for value in values]
    if len(set(labels)) < len(labels):
        raise _error(path, f"axes.{axis} has a value twice; give each a label of its own")
    return tuple(values)


def _value(path: Path, axis: str, given: object) -> Value:
    if not isinstance(given, dict):
        options = _options(path, f"axes.{axis}", {axis: given})
        (value,) = options.values()
        return Value(", ".join(map(str, value)) if isinstance(value, list) else str(value), options)
    label = given.get("label")
    if label is None:
        raise _error(path, f"axes.{axis}: a value of several options needs a label, got {given!r}")
    return Value(str(label), _options(path, f"axes.{axis}", {name: given[name] for name in given if name != "label"}))


def _options(path: Path, key: str, given: object) -> dict[str, Plain | list[Plain]]:
    if not isinstance(given, dict):
        raise _error(path, f"{key} must be a mapping of options, got {given!r}")
    for name, value in given.items():
        for each in value if isinstance(value, list) else [value]:
            if not isinstance(each, (str, int, float, bool)):
                raise _error(path, f"{key}.{name} must be a plain value or a list of them, got {value!r}")
    return {str(name): value for name, value in given.items()}


def _pairs(path: Path, base: Mapping[str, Any]) -> tuple[Pair, ...]:
    listed = base.get("pairs")
    if listed is not None:
        beside = path.parent / str(listed)
        return pairs.read_pairs(beside if beside.is_file() else str(listed), allowed_inits=INITIALIZERS)
    found = [
        pairs.find(argument, base.get(argument), folder)
        for argument, folder in (("content", pairs.CONTENT_FOLDER), ("style", pairs.STYLE_FOLDER))
    ]
    return pairs.pair_up(found[0], found[1], base.get("pairing", "zip"))


def slug(text: str) -> str:
    """What can stand in a file's name on every system."""
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", text)


def _error(path: Path, text: str) -> InputError:
    return InputError(f"{path}: {text}")
