"""Pictures of a sweep: its labelled grid, scores along the first axis, and losses along the seconds that they took."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import PIL.Image
import PIL.ImageOps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from nst_lightning import figures, images
from nst_lightning.runs import Run
from nst_lightning.study.results import Result, Results

_LOSS = "loss/total"


def grid(results: Results) -> PIL.Image.Image:
    """Returns the figure: content and style, then a column a value of the first axis; a row a pair and other value."""
    first, *others = results.axes
    columns = results.axes[first]
    there = {(tuple(cell.values[axis] for axis in others), cell.seed) for cell in results.cells}
    combinations = itertools.product(itertools.product(*(results.axes[axis] for axis in others)), results.seeds)
    rows = [(pair, *key) for pair, key in itertools.product(results.pairs, combinations) if key in there]
    found = {(cell.pair, *cell.values.values(), cell.seed): cell for cell in results.cells}
    pictures, labels = [], []
    for pair, values, seed in rows:
        labels.append(" ".join([pair, *values, *([f"seed {seed}"] if len(results.seeds) > 1 else [])]))
        sources = _sources(next(cell for cell in results.cells if cell.pair == pair))
        cells = [found.get((pair, label, *values, seed)) for label in columns]
        pictures.append([*sources, *(None if cell is None else _opened(cell.picture) for cell in cells)])
    heads = ["content", "style", *(f"{first} {label}" for label in columns)]
    settings = ", ".join(f"{name} {value}" for name, value in results.base.items())
    return figures.grid(pictures, labels, heads, results.title, f"nst {results.command}: {settings}")


def _sources(cell: Result) -> list[PIL.Image.Image]:
    """Returns the photograph and the first painting of a pair."""
    content, style = _opened(cell.content), _opened(cell.style.split("|")[0])
    # In the content's proportions: a portrait beside landscapes would make its row twice as high.
    return [content, PIL.ImageOps.pad(style, content.size, color="white")]


def _opened(file: str) -> PIL.Image.Image:
    return images.to_pil(images.read(file).rgb)


def scores(results: Results, table: pd.DataFrame, file: Path) -> None:
    """Plots every score along the first axis: means with intervals, pairs as thin lines, other axes as colours."""
    first, *others = results.axes
    defined = table.dropna(subset="mean")
    frame = results.frame()
    names = list(defined["score"].unique())
    if not names:
        return
    figure, plots = _figure(len(names), 3.6)
    frame, defined = (each.assign(series=each[others].astype(str).agg(" ".join, axis=1)) for each in (frame, defined))
    labels = results.axes[first]
    for plot, name in zip(plots, names, strict=False):
        for number, of_series in enumerate(frame["series"].unique()):
            lines = frame[frame["series"] == of_series].pivot_table(name, first, "pair").reindex(list(labels))
            plot.plot(lines.to_numpy(), color=f"C{number}", alpha=0.25, linewidth=0.8)
            means = defined[(defined["score"] == name) & (defined["series"] == of_series)]
            places = [labels.index(label) for label in means[first]]
            ends = np.nan_to_num(np.stack([means["mean"] - means["low"], means["high"] - means["mean"]]))
            plot.errorbar(places, means["mean"], ends, label=of_series, color=f"C{number}", marker="o", capsize=3)
        plot.set_title(name)
        plot.set_xticks(range(len(labels)), labels, rotation=30 if max(map(len, labels)) > 6 else 0)
        plot.set_xlabel(first)
    if others:
        plots[0].legend(title=" ".join(others))
    _save(figure, f"{results.title}: means over {len(results.pairs)} pairs with 95 % intervals", file)


def losses(results: Results, file: Path) -> None:
    """Plots the total loss of each pair along the seconds since its first point, a colour a value of the first axis.

    The seconds are those of the clock, as TensorBoard has them, with all that the machine did beside; those of pairs
    optimised in one batch are the batch's.
    """
    first, labels = next(iter(results.axes.items()))
    figure, plots = _figure(len(results.pairs), 3.8)
    for plot, pair in zip(plots, results.pairs, strict=False):
        for cell in [cell for cell in results.cells if cell.pair == pair]:
            label = cell.values[first]
            plot.plot(*_curve(cell), color=f"C{labels.index(label)}", label=label)
        plot.set_title(pair, fontsize=9)
        plot.set_yscale("log")
        plot.set_xlabel("seconds")
    plots[0].set_ylabel("total loss")
    plots[0].legend()
    _save(figure, f"{results.title}: loss against time", file)


def _figure(count: int, width: float) -> tuple[Figure, Sequence[Axes]]:
    """Returns a figure with so many plots, up to three in a row, each of a width in inches."""
    columns = min(3, count)
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(width * columns, 3.0 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    plots = figure.subplots(rows, columns, squeeze=False).flatten()
    for plot in plots[:count]:
        plot.grid(alpha=0.3)
    for plot in plots[count:]:
        plot.set_axis_off()
    return figure, list(plots)


def _save(figure: Figure, title: str, file: Path) -> None:
    figure.suptitle(title)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110)


def _curve(cell: Result) -> tuple[npt.NDArray[np.float64], list[float]]:
    folder = Run(Path(cell.picture).parent).tensorboard(cell.name)
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    points = events.Scalars(_LOSS)
    seconds = np.array([point.wall_time for point in points])
    return seconds - seconds[0], [point.value for point in points]
