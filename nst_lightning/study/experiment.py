"""What a sweep is asked to compare: a file of a base configuration and the axes that vary."""

from __future__ import annotations

import itertools
import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from nst_lightning import pairs
from nst_lightning.errors import InputError
from nst_lightning.images import Source
from nst_lightning.pairs import Pair
from nst_lightning.study import schema

Options: TypeAlias = Mapping[str, Any]

OF_A_PAIR = {"content_weight", "style_weight", "tv_weight", "init", "seed", "size", "steps"}
"""The options that a pair can have of its own: cells that differ in nothing else are optimised in one run."""
_IMAGES = ("pairs", "content", "style", "pairing")
_OF_SWEEP = {"seed": "seeds", "output": "--output", "resume": "--output", "overwrite": "--overwrite"}
"""Options that a sweep sets itself, and what is said instead of them."""


@dataclass(frozen=True)
class AxisValue:
    """A value of an axis: what stands on the figures for it, and the options that it sets."""

    label: str
    options: Options


@dataclass(frozen=True)
class _File:
    """What is in a sweep's file, see `read`."""

    title: str = ""
    about: str = ""
    command: Literal["fit", "reconstruct"] = "fit"
    base: Options = field(default_factory=dict)
    axes: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    seeds: tuple[int, ...] = (0,)
    against_time: bool = False


@dataclass(frozen=True)
class Experiment(_File):
    """A base configuration and the axes that vary.

    Attributes:
        command: `fit`, or `reconstruct` for images rebuilt from layers.
        base: The options of that command which all cells share.
        axes: The values of each axis, by its name; the first is the columns of the figure.
        seeds: The seeds that every cell is repeated with.
        against_time: Whether the losses are plotted along the seconds that they took.
    """

    axes: Mapping[str, tuple[AxisValue, ...]] = field(default_factory=dict)
    pairs: tuple[Pair, ...] = field(default=(), repr=False)

    def cells(self) -> Iterator[Cell]:
        """Yields every combination of values, for every pair and seed."""
        of_cell = OF_A_PAIR if self.command == "fit" else {"layers"}
        for combination in itertools.product(*self.axes.values()):
            chosen = dict(zip(self.axes, combination, strict=True))
            labels = {axis: value.label for axis, value in chosen.items()}
            options = {name: option for value in combination for name, option in value.options.items()}
            of_run = [f"{axis}-{value.label}" for axis, value in chosen.items() if not value.options.keys() <= of_cell]
            for pair, seed in itertools.product(self.pairs, self.seeds):
                seeded = [f"seed-{seed}"]
                parts = [pair.name, *(f"{axis}-{label}" for axis, label in labels.items())]
                name = "__".join([*parts, *(seeded if len(self.seeds) > 1 else [])])
                group = of_run if self.command == "fit" else [pair.name, *of_run, *seeded]
                yield Cell(slug(name), labels, options, pair, seed, folder_name("__".join(group)) or "all")


@dataclass(frozen=True, eq=False)
class Cell:
    """One picture that a sweep asks for.

    Attributes:
        values: The label of its value, by axis.
        options: The options that these set.
        group: The name of the run that makes it, with all cells that differ only in what one run can vary.
    """

    name: str
    values: Mapping[str, str]
    options: Options
    pair: Pair
    seed: int
    group: str

    def image(self, base: Options) -> Source:
        """Returns the image that a reconstruction rebuilds, with the options of the base."""
        return self.pair.styles[0] if {**base, **self.options}.get("from") == "style" else self.pair.content

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
    given = schema.load(path, "a sweep's YAML file")
    if isinstance(given, dict) and "seed" in overrides:
        seed = overrides["seed"]
        given = {**given, "seeds": [int(seed) if seed.isdecimal() else seed]}
    file: _File = schema.structured(_File, given, path, strict=True)
    base = _base(path, file.base, overrides)
    axes = {str(axis): tuple(_value(str(axis), each) for each in values) for axis, values in file.axes.items()}
    for problem in itertools.chain(_problems(file, axes), _conflicts(base, axes)):
        raise InputError(f"{path}: {problem}")
    experiment = Experiment(
        file.title or path.stem,
        " ".join(file.about.split()),
        file.command,
        {name: base[name] for name in base if name not in _IMAGES},
        axes,
        file.seeds,
        file.against_time,
        pairs.chosen(base.get("content"), base.get("style"), base.get("pairing", "zip"), base.get("pairs")),
    )
    names = Counter(cell.name.casefold() for cell in experiment.cells())
    name, count = names.most_common(1)[0]
    if count > 1:
        raise InputError(f"{path}: two cells would be called {name!r}; give pairs and values other names")
    return experiment


def arguments(options: Options) -> list[str]:
    """Returns options as they are typed."""
    return [f"--{name}={json.dumps(value) if isinstance(value, list) else value}" for name, value in options.items()]


def slug(text: str) -> str:
    """What can stand in a file's name on every system."""
    return re.sub(r"[^\w.+-]+", "-", text)


def folder_name(text: str) -> str:
    """The same for a run's folder, which nst fit would take for a picture's file if it had a dot."""
    return slug(text).replace(".", "_")


def _base(path: Path, given: Options, overrides: Mapping[str, str]) -> dict[str, Any]:
    """Returns the options of the base, with the list of pairs where it is."""
    base = dict(given)
    beside = path.parent / str(base.get("pairs"))
    if "pairs" in base and beside.is_file():
        base["pairs"] = str(beside)
    if "pairs" in overrides:
        base = {name: value for name, value in base.items() if name not in _IMAGES}
    elif not {"content", "style"}.isdisjoint(overrides):
        base.pop("pairs", None)
    return base | {name: value for name, value in overrides.items() if name != "seed"}


def _value(axis: str, given: object) -> AxisValue:
    options = dict(given) if isinstance(given, dict) else {axis: given}
    lists = [each if isinstance(each, list) else [each] for each in options.values()]
    label = options.pop("label", ", ".join(str(part) for parts in lists for part in parts))
    return AxisValue(str(label), options)


def _problems(file: _File, axes: Mapping[str, Sequence[AxisValue]]) -> Iterator[str]:
    """Yields what keeps a file from being a sweep."""
    if not axes or not all(axes.values()) or not file.seeds:
        yield "axes must name at least one option with values, and seeds at least one"
    for axis, values in axes.items():
        if len({folder_name(value.label).casefold() for value in values}) < len(values):
            yield f"axes.{axis} has a value twice; give each a label of its own"
    if file.command == "reconstruct":
        if "layers" not in axes or not all("layers" in value.options for value in axes["layers"]):
            yield "command reconstruct needs the axis layers"
        if file.against_time:
            yield "against_time is for command fit"


def _conflicts(base: Options, axes: Mapping[str, Sequence[AxisValue]]) -> Iterator[str]:
    """Yields options that would be taken no notice of: the figure would not say what its pictures are."""
    keys: dict[str, str] = {}
    of_axes = [(f"axes.{axis}", name) for axis, values in axes.items() for value in values for name in value.options]
    for key, name in [*of_axes, *(("base", name) for name in base)]:
        if name in _OF_SWEEP:
            yield f"{key}: a sweep sets {name} itself; say {_OF_SWEEP[name]}"
        if key not in ("base", keys.setdefault(name, key)):
            yield f"{key}: {name} is set by {keys[name]} too"
    for axis, values in axes.items():
        for name in set(base).intersection(*(value.options for value in values)):
            yield f"base.{name}: every value of axes.{axis} replaces it; leave it out"
