"""What a sweep left: the scores in its results.json, as a table of pairs and values of an axis."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from nst_lightning.errors import InputError
from nst_lightning.findings.predictions import Value, key_of, listed, short
from nst_lightning.findings.statistics import DIGITS, Floats

RESULTS = "results.json"
"""The name of the file."""


@dataclass(frozen=True)
class Cell:
    """The scores of a pair with one seed and one value of each axis."""

    pair: str
    seed: int
    values: Mapping[str, str | float]
    scores: Mapping[str, float]


@dataclass(frozen=True)
class Sweep:
    """What a sweep left: its cells, and the values of its axes as they are written there."""

    path: Path
    cells: tuple[Cell, ...]
    axes: Mapping[str, Mapping[str | float, object]]

    @cached_property
    def pairs(self) -> tuple[str, ...]:
        """The pairs in the order of the cells."""
        return tuple(dict.fromkeys(cell.pair for cell in self.cells))

    def means(self, score: str, axis: str, values: Sequence[Value]) -> Floats:
        """The means (pairs, values) over seeds, then over other axes, of pairs that have them all defined."""
        keys = [key_of(value) for value in values]
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
        table = np.asarray(rows, dtype=np.float64).reshape(len(rows), len(keys)).round(DIGITS)
        defined: Floats = table[np.isfinite(table).all(axis=1)]
        return defined


def read_sweep(path: Path) -> Sweep | None:
    """The results in a file, None where there is no such file."""
    if not path.exists():
        return None
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({type(error).__name__}); expected a sweep's results") from error
    if not isinstance(given, dict) or not isinstance(given.get("cells"), list):
        raise InputError(f"{path}: must have a list of cells, got {short(given)}")
    axes: dict[str, dict[str | float, object]] = {}
    cells: dict[str, Cell] = {}
    for place, each in enumerate(given["cells"], start=1):
        try:
            values = {str(axis): key_of(value) for axis, value in each["values"].items()}
            scores = {name: math.nan if score is None else float(score) for name, score in each["scores"].items()}
            cell = Cell(str(each["pair"]), int(each["seed"]), values, scores)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            msg = f"{path}: cell {place} must have a pair, a seed, values and scores, got {short(each)}"
            raise InputError(msg) from error
        if cells.setdefault(repr((cell.pair, cell.seed, sorted(values.items()))), cell) is not cell:
            msg = f"{path}: cell {place} is there twice: {cell.pair}, seed {cell.seed}, {short(each['values'])}"
            raise InputError(msg)
        if values.keys() != next(iter(cells.values())).values.keys():
            msg = f"{path}: cell {place} must have the axes of the others, got {listed(values)}"
            raise InputError(msg)
        for axis, value in each["values"].items():
            axes.setdefault(str(axis), {}).setdefault(key_of(value), value)
    return Sweep(path, tuple(cells.values()), axes)
