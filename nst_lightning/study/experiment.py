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

from nst_lightning import pairs
from nst_lightning.errors import InputError
from nst_lightning.pairs import Pair
from nst_lightning.study import schema
from nst_lightning.study.schema import Plain

Options: TypeAlias = Mapping[str, Plain | list[Plain]]

OF_A_PAIR = {"content_weight", "style_weight", "tv_weight", "init", "seed", "size", "steps"}
"""The options that a pair can have of its own: cells that differ in nothing else are optimised in one run."""
_KEYS = ("title", "about", "command", "base", "axes", "seeds", "against_time")
_OF_PAIRS = ("pairs", "content", "style", "pairing")
_OF_SWEEP = {"seed": "seeds", "output": "--output", "resume": "--output", "overwrite": "--overwrite"}
"""Options that a sweep sets itself, and what is said instead of them."""


@dataclass(frozen=True)
class AxisValue:
    """A value of an axis: what stands on the figures for it, and the options that it sets."""

    label: str
    options: Options


@dataclass(frozen=True)
class Experiment:
    """A base configuration and the axes that vary.

    Attributes:
        command: `fit`, or `reconstruct` for images rebuilt from layers.
        base: The options of that command which all cells share.
        axes: The values of each axis, by its name; the first is the columns of the figure.
        seeds: The seeds that every cell is repeated with.
        against_time: Whether the losses are plotted along the seconds that they took.
    """

    title: str
    about: str
    command: Literal["fit", "reconstruct"]
    base: Options
    axes: Mapping[str, tuple[AxisValue, ...]]
    seeds: tuple[int, ...]
    against_time: bool
    pairs: tuple[Pair, ...] = field(repr=False)

    def cells(self) -> Iterator[Cell]:
        """Yields every combination of values, for every pair and seed."""
        for combination in itertools.product(*self.axes.values()):
            chosen = dict(zip(self.axes, combination, strict=True))
            labels = {axis: value.label for axis, value in chosen.items()}
            options = {name: option for value in combination for name, option in value.options.items()}
            of_run = [
                f"{axis}-{value.label}" for axis, value in chosen.items() if not value.options.keys() <= OF_A_PAIR
            ]
            for pair, seed in itertools.product(self.pairs, self.seeds):
                parts = [pair.name, *(f"{axis}-{label}" for axis, label in labels.items())]
                if len(self.seeds) > 1:
                    parts.append(f"seed-{seed}")
                group = folder_name("__".join(of_run)) or "all"
                yield Cell(slug("__".join(parts)), labels, options, pair, seed, group)


@dataclass(frozen=True, eq=False)
class Cell:
    """One picture that a sweep asks for.

    Attributes:
        values: The label of its value, by axis.
        options: The options that these set.
        group: What the cells are called that differ only in what a pair can have of its own.
    """

    name: str
    values: Mapping[str, str]
    options: Options
    pair: Pair
    seed: int
    group: str

    @property
    def source(self) -> str:
        """Which image a reconstruction keeps, `content` or `style`."""
        return str(self.options.get("from", "content"))

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
        overrides: Options that replace those of the base; `seed` replaces `seeds`, other pairs all of the base's.

    Raises:
        InputError: If the file cannot be read or is not as above; names the file and the key.
    """
    given = _given(path)
    command = given.get("command", "fit")
    if command not in ("fit", "reconstruct"):
        raise _error(path, f"command must be fit or reconstruct, got {command!r}")
    base = _base(path, given.get("base", {}), overrides)
    axes = given.get("axes")
    if not isinstance(axes, dict) or not axes:
        raise _error(path, "axes must name at least one option and its values")
    values = {str(name): _values(path, str(name), values) for name, values in axes.items()}
    _check_options(path, base, values)
    experiment = Experiment(
        title=str(given.get("title") or path.stem),
        about=" ".join(str(given.get("about") or "").split()),
        command=command,
        base={name: value for name, value in base.items() if name not in _OF_PAIRS},
        axes=values,
        seeds=_seeds(path, given.get("seeds", [0]), overrides.get("seed")),
        against_time=bool(given.get("against_time", False)),
        pairs=_pairs(path, base),
    )
    if command == "reconstruct":
        _check_reconstruction(path, experiment)
    _check_names(path, experiment)
    return experiment


def arguments(options: Options) -> list[str]:
    """Returns options as they are typed."""
    return [f"--{name}={json.dumps(value) if isinstance(value, list) else value}" for name, value in options.items()]


def _given(path: Path) -> dict[str, Any]:
    given = schema.load(path, "a sweep's YAML file")
    if not isinstance(given, dict):
        raise _error(path, f"must be a mapping with the keys {', '.join(_KEYS)}")
    unknown = sorted(given.keys() - set(_KEYS), key=str)
    if unknown:
        raise _error(path, f"unknown key {unknown[0]!r}; known are {', '.join(_KEYS)}")
    return given


def _base(path: Path, given: object, overrides: Mapping[str, str]) -> dict[str, Plain | list[Plain]]:
    """Returns the options of the base, with the list of pairs where it is."""
    base = _options(path, "base", given)
    beside = path.parent / str(base.get("pairs"))
    if "pairs" in base and beside.is_file():
        base["pairs"] = str(beside)
    if "pairs" in overrides:
        base = {name: value for name, value in base.items() if name not in _OF_PAIRS}
    elif not {"content", "style"}.isdisjoint(overrides):
        base.pop("pairs", None)
    base |= {name: value for name, value in overrides.items() if name != "seed"}
    for name in base:
        if name in _OF_SWEEP:
            raise _error(path, f"base.{name}: a sweep sets it itself; say {_OF_SWEEP[name]}")
    return base


def _seeds(path: Path, given: object, override: str | None) -> tuple[int, ...]:
    seeds = given if override is None else [int(override) if override.isdecimal() else override]
    whole = isinstance(seeds, list) and seeds and all(type(seed) is int and 0 <= seed < 2**63 for seed in seeds)
    if not isinstance(seeds, list) or not whole or len(set(seeds)) < len(seeds):
        raise _error(path, f"seeds must be a list of different whole numbers, 0 or above, got {seeds!r}")
    return tuple(seeds)


def _check_options(path: Path, base: Options, axes: Mapping[str, tuple[AxisValue, ...]]) -> None:
    """Refuses options that would be taken no notice of, or would be in each other's way."""
    seen: dict[str, str] = {}
    for axis, values in axes.items():
        for name in dict.fromkeys(name for value in values for name in value.options):
            if name in _OF_PAIRS:
                raise _error(path, f"axes.{axis}: {name} is no axis; every pair of base is run with every value")
            if name in _OF_SWEEP:
                raise _error(path, f"axes.{axis}: a sweep sets {name} itself; say {_OF_SWEEP[name]}")
            if name in seen:
                raise _error(path, f"axes.{axis}: {name} is set by axes.{seen[name]} too")
            seen[name] = axis
            if name in base and all(name in value.options for value in values):
                raise _error(path, f"base.{name}: every value of axes.{axis} replaces it; leave it out")


def _check_reconstruction(path: Path, experiment: Experiment) -> None:
    values = [value for values in experiment.axes.values() for value in values]
    names = {name for value in values for name in value.options}
    layers = all("layers" in value.options for value in experiment.axes.get("layers", ()))
    if not layers or not {"layers"} <= names <= _TAKEN_UP:
        raise _error(path, "axes of command reconstruct are layers and, if wanted, from")
    for name in sorted(_TAKEN_UP & experiment.base.keys()):
        raise _error(path, f"base.{name}: make it an axis, of one value perhaps")
    if experiment.against_time:
        raise _error(path, "against_time is for command fit")


_TAKEN_UP = {"layers", "from"}


def _check_names(path: Path, experiment: Experiment) -> None:
    taken: set[str] = set()
    for cell in experiment.cells():
        if cell.name.casefold() in taken:
            raise _error(path, f"two cells would be called {cell.name!r}; give pairs and values other names")
        if len(cell.name.encode()) > pairs.MAX_NAME:
            raise _error(path, f"the cell's name {cell.name!r} is too long; give pairs and values shorter ones")
        taken.add(cell.name.casefold())


def _values(path: Path, axis: str, given: object) -> tuple[AxisValue, ...]:
    if not isinstance(given, list) or not given:
        raise _error(path, f"axes.{axis} must be a list of values, got {given!r}")
    values = []
    for each in given:
        plain = ", ".join(map(str, each)) if isinstance(each, list) else str(each)
        options = dict(each) if isinstance(each, dict) else {"label": plain, axis: each}
        label = options.pop("label", None)
        if label is None:
            raise _error(path, f"axes.{axis}: a value of several options needs a label, got {each!r}")
        values.append(AxisValue(str(label), _options(path, f"axes.{axis}", options)))
    if len({folder_name(value.label).casefold() for value in values}) < len(values):
        raise _error(path, f"axes.{axis} has a value twice; give each a label of its own")
    return tuple(values)


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
    several = [name for name in ("content", "style", "pairing") if name in base]
    if listed is not None:
        if several:
            raise _error(path, f"base.{several[0]}: not beside pairs, a list that names all images")
        return pairs.read_pairs(str(listed))
    for name in ("content", "style"):
        if name not in base:
            raise _error(path, f"base.{name} is missing; base must name pairs, or content and style")
    contents = pairs.find("content", base["content"], pairs.CONTENT_FOLDER)
    styles = pairs.find("style", base["style"], pairs.STYLE_FOLDER)
    return pairs.pair_up(contents, styles, base.get("pairing", "zip"))


def slug(text: str) -> str:
    """What can stand in a file's name on every system."""
    return re.sub(r"[^\w.+-]+", "-", text)


def folder_name(text: str) -> str:
    """The same for a run's folder, which nst fit would take for a picture's file if it had a dot."""
    return slug(text).replace(".", "_")


def _error(path: Path, text: str) -> InputError:
    return InputError(f"{path}: {text}")
