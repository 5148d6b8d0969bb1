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
from typing import Any, Literal, NamedTuple, TypeAlias

from nst_lightning import pairs
from nst_lightning.errors import InputError
from nst_lightning.images import Source
from nst_lightning.pairs import Pair
from nst_lightning.study import schema

Options: TypeAlias = Mapping[str, Any]

OF_A_PAIR = {"content_weight", "style_weight", "tv_weight", "strength", "init", "seed", "size", "steps"}
"""The options that a pair can have of its own: cells that differ in nothing else are optimised in one run."""
_IMAGES = ("pairs", "content", "style", "pairing")
_OF_SWEEP = {"seed": "seeds", "output": "--output", "resume": "--output", "overwrite": "--overwrite"}
"""Options that a sweep sets itself, and what is said instead of them."""


class AxisValue(NamedTuple):
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
    """A base configuration and the axes that vary; the first of them is the columns of the figure."""

    axes: Mapping[str, tuple[AxisValue, ...]] = field(default_factory=dict)
    pairs: tuple[Pair, ...] = ()

    def cells(self) -> Iterator[Cell]:
        """Yields every combination of values, for every pair and seed."""
        fit = self.command == "fit"
        for combination in itertools.product(*self.axes.values()):
            labels = {axis: value.label for axis, value in zip(self.axes, combination, strict=True)}
            options = {name: option for value in combination for name, option in value.options.items()}
            words = [f"{axis}-{label}" for axis, label in labels.items()]
            varies = OF_A_PAIR if fit else {"layers"}  # what one run can have several of
            of_run = [word for word, value in zip(words, combination, strict=True) if value.options.keys() - varies]
            for pair, seed in itertools.product(self.pairs, self.seeds):
                name = "__".join([pair.name, *words, *([f"seed-{seed}"] if len(self.seeds) > 1 else [])])
                group = folder_name("__".join(of_run if fit else [pair.name, *of_run, f"seed-{seed}"])) or "all"
                yield Cell(slug(name), labels, options, pair, seed, group)


@dataclass(frozen=True, eq=False)
class Cell:
    """One picture: the label of its value by axis, the options these set, and the run that makes it with others."""

    name: str
    values: Mapping[str, str]
    options: Options
    pair: Pair
    seed: int
    group: str

    def image(self, base: Options) -> Source:
        """Returns the image that a reconstruction with a base rebuilds."""
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
    """Reads a sweep's YAML file: `_File`'s keys, with options of the command by their short or long names in `base`.

    A value of `axes` is an option's, or a mapping of options with a `label`. A list of pairs is looked up beside the
    file first. Overrides replace options of the base; `seed` replaces `seeds`, other pairs all of the base's.

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
    for problem in _problems(file, base, axes):
        raise InputError(f"{path}: {problem}")
    images = pairs.chosen(base.get("content"), base.get("style"), base.get("pairing", "zip"), base.get("pairs"))
    shared = {name: base[name] for name in base if name not in _IMAGES}
    about = " ".join(file.about.split())
    changes = {"title": file.title or path.stem, "about": about, "base": shared, "axes": axes, "pairs": images}
    experiment = Experiment(**{**vars(file), **changes})
    name, count = Counter(cell.name.casefold() for cell in experiment.cells()).most_common(1)[0]
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


def _problems(file: _File, base: Options, axes: Mapping[str, Sequence[AxisValue]]) -> Iterator[str]:
    """Yields what keeps a file from being a sweep, and options of which its figure would not say the truth."""
    if not axes or not all(axes.values()) or not file.seeds:
        yield "axes must name at least one option with values, and seeds at least one"
    layers = [value.options.get("layers") for value in axes.get("layers", [])]
    if file.command == "reconstruct" and (not layers or None in layers or file.against_time):
        yield "command reconstruct needs the axis layers, and has no against_time"
    keys: dict[str, str] = {}
    of_axes = [(f"axes.{axis}", name) for axis, values in axes.items() for value in values for name in value.options]
    for key, name in [*of_axes, *(("base", name) for name in base)]:
        if name in _OF_SWEEP:
            yield f"{key}: a sweep sets {name} itself; say {_OF_SWEEP[name]}"
        if key not in ("base", keys.setdefault(name, key)):
            yield f"{key}: {name} is set by {keys[name]} too"
    for axis, values in axes.items():
        if len({folder_name(value.label).casefold() for value in values}) < len(values):
            yield f"axes.{axis} has a value twice; give each a label of its own"
        for name in set(base).intersection(*(value.options for value in values)):
            yield f"base.{name}: every value of axes.{axis} replaces it; leave it out"
