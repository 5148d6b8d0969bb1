"""What a sweep found: tables, plots and the figure, out of the files that its runs left."""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import PIL.Image
import PIL.ImageOps
from scipy.stats import kendalltau
from torchmetrics.functional.image import peak_signal_noise_ratio

from nst_lightning import figures, images
from nst_lightning.findings import interval
from nst_lightning.sweep.experiment import Cell, Experiment, Value
from nst_lightning.sweep.runner import Run

SCORES = ("overall", "outline", "ms_ssim", "palette", "texture", "leak", "lpips", "psnr")
"""The scores that are shown, in this order, of those that there are."""
_PACKAGES = ("nst-lightning", "torch", "torchvision", "lightning", "torchmetrics")


@dataclass(frozen=True, eq=False)
class Found:
    """A finished cell.

    Attributes:
        cell: The cell.
        picture: Its file.
        scores: Its scores by name, NaN where undefined.
        losses: Its losses by name.
    """

    cell: Cell
    picture: Path
    scores: Mapping[str, float]
    losses: Mapping[str, float]


@dataclass(frozen=True)
class Mean:
    """The mean of a score over the pairs, of the cells with one combination of values.

    Attributes:
        values: The labels of the values, by axis.
        score: The score's name.
        count: How many pairs have a number.
        mean: Their mean.
        low: The lower end of its 95 % interval; NaN for a single pair.
        high: The upper end.
    """

    values: Mapping[str, str]
    score: str
    count: int
    mean: float
    low: float
    high: float


def gather(runs: Iterable[Run]) -> tuple[Found, ...]:
    """Returns the finished cells of runs."""
    found = []
    for run in runs:
        missing = {cell.name for cell in run.missing}
        for cell, picture in zip(run.cells, run.pictures, strict=True):
            if cell.name not in missing:
                scores = None if run.list is None else run.folder / "scores" / f"{cell.name}.json"
                found.append(_found(cell, picture, scores))
    return tuple(found)


def means(found: Sequence[Found], experiment: Experiment) -> tuple[Mean, ...]:
    """Returns the means of every score over pairs, in the order of the axes' values; seeds are averaged first."""
    table = []
    for values in _combinations(found, experiment.axes):
        alike = [each for each in found if each.cell.values == values]
        for score in [name for name in SCORES if any(name in each.scores for each in alike)]:
            of_pairs = [
                _mean_of([each.scores.get(score, math.nan) for each in alike if each.cell.pair.name == pair.name])
                for pair in experiment.pairs
            ]
            defined = [value for value in of_pairs if math.isfinite(value)]
            mean, low, high = interval(defined) if defined else (math.nan, math.nan, math.nan)
            table.append(Mean(values, score, len(defined), mean, low, high))
    return tuple(table)


def as_markdown(table: Sequence[Mean], experiment: Experiment) -> str:
    """Returns the means as a Markdown table: a line a combination of values, a column a score."""
    scores = list(dict.fromkeys(mean.score for mean in table))
    combinations = list({tuple(mean.values.items()): mean.values for mean in table}.values())
    lines = [f"| {' | '.join([*experiment.axes, *scores])} |", "|" + " --- |" * (len(experiment.axes) + len(scores))]
    for values in combinations:
        cells = {mean.score: mean for mean in table if mean.values == values}
        lines.append(f"| {' | '.join([*values.values(), *(_cell(cells.get(score)) for score in scores)])} |")
    note = "Means over pairs [95 % interval] (number of pairs where not all have a number)."
    return "\n".join([*lines, "", note, ""])


def trends(found: Sequence[Found], experiment: Experiment) -> list[str]:
    """Returns a line a score on how it moves along the first axis, if that is of numbers and there is no other.

    Says in how many pairs it falls or rises from every value to the next, and Kendall's tau-b, the mean over pairs: 1
    for a score that always rises, -1 for one that always falls.
    """
    (axis, *others) = experiment.axes
    numbers = {value.label: _number(value.label) for value in experiment.axes[axis]}
    if others or len(numbers) < 3 or not all(math.isfinite(number) for number in numbers.values()):
        return []
    lines = []
    for score in [name for name in SCORES if any(name in each.scores for each in found)]:
        along = {pair.name: _along(found, axis, numbers, pair.name, score) for pair in experiment.pairs}
        complete = [values for values in along.values() if len(values) == len(numbers)]
        if complete:
            steps = [[later - earlier for earlier, later in itertools.pairwise(values)] for values in complete]
            falls, rises = (sum(all(sign * step > 0 for step in each) for each in steps) for sign in (-1, 1))
            lower, higher = (sum(sign * (each[-1] - each[0]) > 0 for each in complete) for sign in (-1, 1))
            tau = sum(map(_tau, complete)) / len(complete)
            throughout = f"falls throughout in {falls} of {len(complete)} pairs, rises throughout in {rises}"
            lines.append(f"{score}: {throughout}; lower at the end in {lower}, higher in {higher}; mean tau {tau:.2f}")
    return lines


def _tau(values: Sequence[float]) -> float:
    """Kendall's tau-b of values with their order; 0 where all are equal."""
    return 0.0 if len(set(values)) == 1 else float(kendalltau(range(len(values)), values).statistic)


def _along(found: Sequence[Found], axis: str, numbers: Mapping[str, float], pair: str, score: str) -> list[float]:
    """The defined values of a score for one pair in the order of an axis, seeds averaged."""
    of_pair = [each for each in found if each.cell.pair.name == pair and score in each.scores]
    values = [
        _mean_of([each.scores[score] for each in of_pair if each.cell.values[axis] == label])
        for label in sorted(numbers, key=numbers.__getitem__)
    ]
    return [value for value in values if math.isfinite(value)]


def _number(label: str) -> float:
    try:
        return float(label)
    except ValueError:
        return math.nan


def as_csv(found: Sequence[Found]) -> str:
    """Returns a line a cell: its values, pair and seed, its losses and scores; undefined is empty."""
    rows = [
        {
            **each.cell.values,
            "pair": each.cell.pair.name,
            "seed": each.cell.seed,
            **{f"loss_{name}": value if math.isfinite(value) else "" for name, value in each.losses.items()},
            **{name: value if math.isfinite(value) else "" for name, value in each.scores.items()},
        }
        for each in found
    ]
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def as_json(
    found: Sequence[Found], table: Sequence[Mean], experiment: Experiment, folder: Path, failed: Mapping[str, str]
) -> str:
    """Returns all that a report needs, paths being relative to the sweep's folder."""
    everything = {
        "title": experiment.title,
        "about": experiment.about,
        "axes": {axis: [value.label for value in values] for axis, values in experiment.axes.items()},
        "base": experiment.base,
        "versions": {name: version(name) for name in _PACKAGES} | {"python": platform.python_version()},
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}",
        "failed": failed,
        "cells": [
            {
                "name": each.cell.name,
                "values": each.cell.values,
                "pair": each.cell.pair.name,
                "content": str(each.cell.pair.content),
                "style": "|".join(map(str, each.cell.pair.styles)),
                "seed": each.cell.seed,
                "picture": each.picture.relative_to(folder).as_posix(),
                "losses": {name: _plain(value) for name, value in each.losses.items()},
                "scores": {name: _plain(value) for name, value in each.scores.items()},
            }
            for each in found
        ],
        "table": [
            {
                "values": mean.values,
                "score": mean.score,
                "n": mean.count,
                "mean": _plain(mean.mean),
                "low": _plain(mean.low),
                "high": _plain(mean.high),
            }
            for mean in table
        ],
        "grid": "grid.png",
        "plots": sorted(path.relative_to(folder).as_posix() for path in (folder / "plots").glob("*.png")),
    }
    return json.dumps(everything, indent=1, default=str) + "\n"


def picture(found: Sequence[Found], experiment: Experiment) -> PIL.Image.Image:
    """Returns the figure: content and style, then a column a value of the first axis; a row a pair and other value."""
    first, *others = experiment.axes
    rows, labels = [], []
    combinations = _combinations(found, {axis: experiment.axes[axis] for axis in others})
    seeds = experiment.seeds
    for pair in experiment.pairs:
        content = _opened(pair.content)
        # In the content's proportions: a portrait beside landscapes would make its row twice as high.
        sources = [content, PIL.ImageOps.pad(_opened(pair.styles[0]), content.size, color="white")]
        for values in combinations:
            for seed in seeds:
                own = [values[axis] for axis in others] + ([f"seed {seed}"] if len(seeds) > 1 else [])
                labels.append(" ".join([pair.name, *own]))
                rows.append([*sources, *_row(found, experiment, pair.name, values, seed)])
    heads = ["content", "style", *(f"{first} {value.label}" for value in experiment.axes[first])]
    settings = ", ".join(f"{name} {value}" for name, value in experiment.base.items())
    return figures.grid(rows, labels, heads, experiment.title, f"nst {experiment.command}: {settings}")


def _row(
    found: Sequence[Found], experiment: Experiment, pair: str, others: Mapping[str, str], seed: int
) -> list[PIL.Image.Image | None]:
    first = next(iter(experiment.axes))
    of_row = {
        each.cell.values[first]: each.picture
        for each in found
        if each.cell.pair.name == pair
        and each.cell.seed == seed
        and all(each.cell.values[axis] == label for axis, label in others.items())
    }
    labels = [value.label for value in experiment.axes[first]]
    return [_opened(of_row[label]) if label in of_row else None for label in labels]


def _opened(source: images.Source) -> PIL.Image.Image:
    return images.to_pil(images.read(source).rgb)


def _combinations(found: Sequence[Found], axes: Mapping[str, Sequence[Value]]) -> list[Mapping[str, str]]:
    """Returns the labels of some axes that occur together, in the order of the axes' values."""
    every = itertools.product(*([value.label for value in values] for values in axes.values()))
    there = {tuple(each.cell.values[axis] for axis in axes) for each in found}
    return [dict(zip(axes, labels, strict=True)) for labels in every if labels in there]


def _found(cell: Cell, picture: Path, scores: Path | None) -> Found:
    """Returns a cell with what a fit scored, and with nothing where that was off; None is for a reconstruction."""
    if scores is None:
        return Found(cell, picture, _psnr(cell, picture), {})
    if not scores.is_file():
        return Found(cell, picture, {}, {})
    values: dict[str, Any] = json.loads(scores.read_text(encoding="utf-8"))
    numbers = {name: math.nan if value is None else value for name, value in values.items() if name != "pair"}
    losses = {name.removeprefix("loss/"): value for name, value in numbers.items() if name.startswith("loss/")}
    return Found(cell, picture, {name: value for name, value in numbers.items() if "/" not in name}, losses)


def _psnr(cell: Cell, picture: Path) -> dict[str, float]:
    """How near a picture rebuilt from the content comes to it, in dB; from the style, nothing keeps its place."""
    if cell.options.get("from", "content") != "content":
        return {"psnr": math.nan}
    rebuilt = images.read(picture).rgb
    original = images.resize(images.read(cell.pair.content).rgb, (rebuilt.shape[-2], rebuilt.shape[-1])).clamp(0, 1)
    return {"psnr": peak_signal_noise_ratio(rebuilt, original, data_range=1.0).item()}


def _mean_of(values: Sequence[float]) -> float:
    defined = [value for value in values if math.isfinite(value)]
    return sum(defined) / len(defined) if defined else math.nan


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _cell(mean: Mean | None) -> str:
    if mean is None or not math.isfinite(mean.mean):
        return "n/a"
    low_high = f" [{mean.low:.3f}, {mean.high:.3f}]" if math.isfinite(mean.low) else ""
    return f"{mean.mean:.3f}{low_high}"
