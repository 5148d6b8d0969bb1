"""Pictures of a sweep: its labelled grid, scores along the first axis, and losses along the seconds that they took."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import PIL.Image
import PIL.ImageOps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from nst_lightning import figures, images
from nst_lightning.cards import is_card
from nst_lightning.inspection import drawn
from nst_lightning.runs import Run
from nst_lightning.study.results import Result, Results, curves


def grid(results: Results) -> PIL.Image.Image:
    """Returns the figure, content and style beside the cells, which are called after their column and row: B3."""
    first = next(iter(results.axes))
    pictures, labels = [], []
    for number, (label, row) in enumerate(results.rows, start=1):
        labels.append(f"{number}: {label}")
        cells = [None if cell is None else _opened(cell.picture) for cell in row]
        pictures.append([*_sources(next(filter(None, row))), *cells])
    named = zip(results.letters, results.axes[first], strict=True)
    heads = ["content", "style", *(f"{letters}: {first} {label}" for letters, label in named)]
    settings = ", ".join(f"{name} {value}" for name, value in results.base.items())
    return figures.grid(pictures, labels, heads, results.title, f"nst {results.command}: {settings}")


def _sources(cell: Result) -> list[PIL.Image.Image]:
    """Returns the photograph and the first painting of a pair."""
    content, named = _opened(cell.content), cell.style.split("|")[0]
    style = PIL.Image.new("RGB", content.size, "white") if is_card(named) else _opened(named)
    # In the content's proportions: a portrait beside landscapes would make its row twice as high.
    return [content, PIL.ImageOps.pad(style, content.size, color="white")]


def _opened(file: str) -> PIL.Image.Image:
    return images.to_pil(images.read(file).rgb)


def scores(results: Results, means: pd.DataFrame, file: Path) -> None:
    """Plots every score along the first axis: means with intervals, pairs as thin lines, other axes as colours."""
    first, *others = results.axes
    labels = list(results.axes[first])
    frame, defined = (
        each.assign(series=each[others].astype(str).agg(" ".join, axis=1))
        for each in (results.frame(), means.dropna(subset="mean"))
    )

    def draw(plot: Axes, score: str) -> None:
        for number, series in enumerate(frame["series"].unique()):
            lines = frame[frame["series"] == series].pivot_table(score, first, "pair").reindex(labels)
            plot.plot(lines.to_numpy(), color=f"C{number}", alpha=0.25, linewidth=0.8)
            own = defined[(defined["score"] == score) & (defined["series"] == series)]
            ends = np.nan_to_num(np.stack([own["mean"] - own["low"], own["high"] - own["mean"]]))
            places = [labels.index(label) for label in own[first]]
            plot.errorbar(places, own["mean"], ends, label=series, color=f"C{number}", marker="o", capsize=3)
        plot.set_xticks(range(len(labels)), labels, rotation=30 if max(map(len, labels)) > 6 else 0)
        plot.set_xlabel(first)

    title = f"{results.title}: means over {len(results.distinct('pair'))} pairs with 95 % intervals"
    _save(draw, list(defined["score"].unique()), title, file, legend=bool(others))


def losses(results: Results, file: Path) -> None:
    """Plots the total loss of each pair along the seconds of the clock, a colour a value of the first axis.

    Pairs that were optimised in one batch have the batch's seconds.
    """
    first, labels = next(iter(results.axes.items()))

    def draw(plot: Axes, pair: str) -> None:
        for cell in [cell for cell in results.cells if cell.pair == pair]:
            points = curves(Run(Path(cell.picture).parent), cell.name)["total"]
            label = cell.values[first]
            seconds = points["wall_time"] - points["wall_time"][0]
            plot.plot(seconds, points["value"], color=f"C{labels.index(label)}", label=label)
        plot.set_yscale("log")
        plot.set_xlabel("seconds")

    _save(draw, results.distinct("pair"), f"{results.title}: total loss against time", file, legend=True)


def curve(losses: Mapping[str, pd.DataFrame]) -> Tensor:
    """Returns a plot of a picture's losses, see `results.curves`, along its steps: (3, H, W), sRGB in [0, 1]."""
    figure = Figure(figsize=(6.0, 3.0), dpi=110, layout="constrained")
    plot = figure.add_subplot()
    for name, points in losses.items():
        above = points[points["value"] > 0]  # of a content that the picture begins with, the first is 0
        plot.plot(above["step"], above["value"], label=name)
    plot.set_yscale("log")
    plot.set_xlabel("steps")
    plot.grid(alpha=0.3)
    plot.legend()
    return drawn(figure)[0]


def _save(draw: Callable[[Axes, str], None], names: Sequence[str], title: str, file: Path, legend: bool) -> None:
    """Saves a figure of a plot a name, three in a row; none where there are no names."""
    if not names:
        return
    columns = min(3, len(names))
    rows = math.ceil(len(names) / columns)
    figure = Figure(figsize=(3.7 * columns, 3.0 * rows), layout="constrained")
    for place, name in enumerate(names, start=1):
        plot = figure.add_subplot(rows, columns, place)
        draw(plot, name)
        plot.set_title(name, fontsize=9)
        plot.grid(alpha=0.3)
    if legend:
        figure.axes[0].legend()
    figure.suptitle(title)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110)
