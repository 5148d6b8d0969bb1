"""Plots of a sweep: scores along the first axis, and losses along the seconds that they took."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from nst_lightning.sweep.experiment import Experiment
from nst_lightning.sweep.results import Found, Mean

_COLOURS = ("tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple", "tab:brown")
_LOSS = "loss/total"


def scores(table: Sequence[Mean], found: Sequence[Found], experiment: Experiment, file: Path) -> None:
    """Plots every score along the first axis: the means with their intervals, and each pair as a thin line.

    A second axis has a colour a value.

    Args:
        table: The means.
        found: The cells.
        experiment: What was compared.
        file: The PNG file to write.
    """
    first, *others = experiment.axes
    labels = [value.label for value in experiment.axes[first]]
    names = list(dict.fromkeys(mean.score for mean in table if math.isfinite(mean.mean)))
    if not names:
        return
    figure = Figure(figsize=(3.6 * min(3, len(names)), 3.0 * math.ceil(len(names) / 3)), layout="constrained")
    FigureCanvasAgg(figure)
    plots = figure.subplots(math.ceil(len(names) / 3), min(3, len(names)), squeeze=False).flatten()
    series = list(dict.fromkeys(tuple(mean.values[axis] for axis in others) for mean in table))
    for plot, name in zip(plots, names, strict=False):
        for colour, of_series in zip(_COLOURS * len(series), series, strict=False):
            means = {
                mean.values[first]: mean
                for mean in table
                if mean.score == name and tuple(mean.values[axis] for axis in others) == of_series
            }
            for pair in experiment.pairs:
                line = {
                    each.cell.values[first]: each.scores[name]
                    for each in found
                    if each.cell.pair.name == pair.name
                    and name in each.scores
                    and tuple(each.cell.values[axis] for axis in others) == of_series
                }
                places = [place for place, label in enumerate(labels) if label in line]
                plot.plot(places, [line[labels[place]] for place in places], color=colour, alpha=0.25, linewidth=0.8)
            places = [place for place, label in enumerate(labels) if label in means]
            shown = [means[labels[place]] for place in places]
            below, above = [each.mean - each.low for each in shown], [each.high - each.mean for each in shown]
            plot.errorbar(
                places,
                [each.mean for each in shown],
                yerr=[list(map(_or_zero, below)), list(map(_or_zero, above))],
                color=colour,
                marker="o",
                capsize=3,
                label=" ".join(of_series),
            )
        plot.set_title(name)
        plot.set_xticks(range(len(labels)), labels, rotation=30 if max(map(len, labels)) > 6 else 0)
        plot.set_xlabel(first)
        plot.grid(alpha=0.3)
    for plot in plots[len(names) :]:
        plot.set_axis_off()
    if others:
        plots[0].legend(title=" ".join(others))
    figure.suptitle(f"{experiment.title}: means over {len(experiment.pairs)} pairs with 95 % intervals")
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110)


def losses(found: Sequence[Found], experiment: Experiment, file: Path) -> None:
    """Plots the total loss of each pair along the seconds since its first point, a colour a value of the first axis.

    The seconds are those of the clock, as TensorBoard has them, with all that the machine did beside; those of pairs
    optimised in one batch are the batch's.

    Args:
        found: The cells.
        experiment: What was compared.
        file: The PNG file to write.
    """
    first = next(iter(experiment.axes))
    columns = min(3, len(experiment.pairs))
    rows = math.ceil(len(experiment.pairs) / columns)
    figure = Figure(figsize=(3.8 * columns, 3.0 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    plots = figure.subplots(rows, columns, squeeze=False).flatten()
    for plot, pair in zip(plots, experiment.pairs, strict=False):
        for colour, value in zip(_COLOURS * len(experiment.axes[first]), experiment.axes[first], strict=False):
            for each in found:
                if each.cell.pair.name == pair.name and each.cell.values[first] == value.label:
                    seconds, values = _curve(each)
                    plot.plot(seconds, values, color=colour, label=value.label)
        plot.set_title(pair.name, fontsize=9)
        plot.set_yscale("log")
        plot.set_xlabel("seconds")
        plot.grid(alpha=0.3)
    for plot in plots[len(experiment.pairs) :]:
        plot.set_axis_off()
    plots[0].set_ylabel("total loss")
    plots[0].legend()
    figure.suptitle(f"{experiment.title}: loss against time")
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110)


def _curve(found: Found) -> tuple[list[float], list[float]]:
    events = EventAccumulator(str(found.picture.parent / "tensorboard" / found.cell.name), size_guidance={"scalars": 0})
    events.Reload()
    points = events.Scalars(_LOSS)
    return [point.wall_time - points[0].wall_time for point in points], [point.value for point in points]


def _or_zero(value: float) -> float:
    return value if math.isfinite(value) else 0.0
