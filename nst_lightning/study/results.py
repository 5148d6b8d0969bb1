"""What a sweep found: the one schema of its results.json, written and read here, and taken from its runs' files."""

from __future__ import annotations

import itertools
import math
import os
import platform
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torchmetrics.functional.image import peak_signal_noise_ratio

from nst_lightning import images
from nst_lightning.errors import InputError
from nst_lightning.pairs import Pair
from nst_lightning.runs import Run
from nst_lightning.study import schema
from nst_lightning.study.experiment import Cell, Experiment
from nst_lightning.study.runner import Job

FILE = "results.json"
"""Its name in a sweep's folder."""
_PACKAGES = ("nst-lightning", "torch", "torchvision", "lightning", "torchmetrics")


@dataclass(frozen=True)
class Result:
    """A finished picture: scores are NaN where undefined, paintings have | between them.

    Files are relative to the folder of results.json there, and absolute or relative to the working directory here.
    """

    name: str
    pair: str
    seed: int
    values: Mapping[str, str]
    scores: Mapping[str, float]
    losses: Mapping[str, float] = field(default_factory=dict)
    content: str = ""
    style: str = ""
    picture: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Results:
    """All that is known of a sweep: what it is of, its finished cells, and why runs failed, by their name."""

    title: str = ""
    about: str = ""
    command: str = "fit"
    axes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    base: Mapping[str, Any] = field(default_factory=dict)
    cells: tuple[Result, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    machine: str = ""
    failed: Mapping[str, str] = field(default_factory=dict)
    plots: tuple[str, ...] = ()

    def distinct(self, name: Literal["pair", "seed"]) -> tuple[Any, ...]:
        """Returns the names of the pairs or the seeds, in the order of the cells."""
        return tuple(dict.fromkeys(getattr(cell, name) for cell in self.cells))

    @property
    def letters(self) -> tuple[str, ...]:
        """What the columns of the figure are called, one a value of the first axis."""
        return tuple(_letters(place) for place, _ in enumerate(next(iter(self.axes.values()))))

    @property
    def rows(self) -> tuple[tuple[str, tuple[Result | None, ...]], ...]:
        """The rows of the figure, one a pair, value of the other axes and seed, with the labels of what they are."""
        first, *others = self.axes
        seeds = self.distinct("seed")
        found = {(cell.pair, *cell.values.values(), cell.seed): cell for cell in self.cells}
        rows = []
        for pair, *values, seed in itertools.product(
            self.distinct("pair"), *(self.axes[name] for name in others), seeds
        ):
            row = tuple(found.get((pair, label, *values, seed)) for label in self.axes[first])
            if any(row):
                rows.append((" ".join([pair, *values, *([f"seed {seed}"] if len(seeds) > 1 else [])]), row))
        return tuple(rows)

    @property
    def places(self) -> dict[str, Result]:
        """The cells by what they are called in the figure, e.g. B3."""
        numbered = enumerate((row for _, row in self.rows), start=1)
        named = [
            (f"{letters}{n}", cell) for n, row in numbered for letters, cell in zip(self.letters, row, strict=True)
        ]
        return {name: cell for name, cell in named if cell is not None}

    def frame(self) -> pd.DataFrame:
        """Returns a row a cell: its value on each axis, its pair and seed, `loss_<name>` and scores."""
        rows = [
            {**each.values, "pair": each.pair, "seed": each.seed}
            | {f"loss_{name}": value for name, value in each.losses.items()}
            | dict(each.scores)
            for each in self.cells
        ]
        return pd.DataFrame(rows, columns=None if rows else [*self.axes, "pair", "seed"])


def _letters(place: int) -> str:
    """Returns what spreadsheets call the column at a place, from 0: A to Z, AA and so on."""
    return (_letters(place // 26 - 1) if place >= 26 else "") + string.ascii_uppercase[place % 26]


def read(folder: Path) -> Results:
    """Reads the results in a sweep's folder.

    Raises:
        InputError: If the file cannot be read or is not as a sweep writes it.
    """
    path = folder / FILE
    results: Results = schema.structured(Results, schema.load(path, "a sweep's results"), path)
    axes = {axis: dict.fromkeys(labels) for axis, labels in results.axes.items()}
    for place, cell in enumerate(results.cells):
        if cell.values.keys() != results.cells[0].values.keys():
            got = ", ".join(cell.values)
            raise InputError(f"{path}: cells[{place}].values must be of the axes of the others, got {got}")
        for axis, label in cell.values.items():
            axes.setdefault(axis, {})[label] = None
    cells = tuple(replace(cell, picture=str(folder / cell.picture) if cell.picture else "") for cell in results.cells)
    return replace(results, axes={axis: tuple(labels) for axis, labels in axes.items()}, cells=cells)


def write(results: Results, folder: Path) -> None:
    """Writes results into a sweep's folder, with the plots that are there."""
    cells = (replace(cell, picture=Path(cell.picture).relative_to(folder).as_posix()) for cell in results.cells)
    plots = sorted(path.relative_to(folder).as_posix() for path in (folder / "plots").glob("*.png"))
    text = schema.as_json(replace(results, cells=tuple(cells), plots=tuple(plots)))
    (folder / FILE).write_text(text, encoding="utf-8")


def gather(experiment: Experiment, jobs: Sequence[Job], failed: Mapping[str, str]) -> Results:
    """Returns what is finished of a sweep, after its jobs were run, and why some of them failed."""
    missing = {cell for job in jobs for cell in job.missing}
    cells = [
        _scored(experiment, result(job.run, cell.name, cell.pair, picture, seed=cell.seed, values=cell.values), cell)
        for job in jobs
        for cell, picture in zip(job.cells, job.pictures, strict=True)
        if cell not in missing
    ]
    axes = {axis: tuple(value.label for value in values) for axis, values in experiment.axes.items()}
    versions = {name: version(name) for name in _PACKAGES} | {"python": platform.python_version()}
    machine = f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}"
    told = (experiment.title, experiment.about, experiment.command, axes, experiment.base)
    return Results(*told, tuple(cells), versions, machine, failed)


def result(run: Run, name: str, pair: Pair, picture: Path, **known: Any) -> Result:
    """Returns a pair's picture in a run's folder with its scores and losses."""
    scores, losses = numbers(run.scores(name))
    content, style = str(pair.content), "|".join(map(str, pair.styles))
    of_run = {"scores": scores, "losses": losses, "content": content, "style": style, "picture": str(picture)}
    return Result(name, pair.name, **{**of_run, **known})


def numbers(file: Path) -> tuple[dict[str, float], dict[str, float]]:
    """Returns the scores and the losses that a run of `nst fit` left of a pair, none where there is no such file."""
    given = schema.load(file, "a pair's scores") if file.is_file() else {}
    plain = schema.structured(Mapping[str, Any], given, file)
    found = schema.structured(Mapping[str, float], {name: plain[name] for name in plain if name != "pair"}, file)
    losses = {name.removeprefix("loss/"): value for name, value in found.items() if name.startswith("loss/")}
    return {name: value for name, value in found.items() if not name.startswith("loss/")}, losses


def curves(run: Run, name: str) -> dict[str, pd.DataFrame]:
    """Returns a pair's losses by name, a point a row: `step`, `value`, `wall_time` in s; none where they are gone."""
    folder = run.tensorboard(name)
    if not folder.is_dir():
        return {}
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    tags = [tag for tag in events.Tags()["scalars"] if tag.startswith("loss/")]
    return {tag.removeprefix("loss/"): pd.DataFrame(events.Scalars(tag)) for tag in tags}


def _scored(experiment: Experiment, made: Result, cell: Cell) -> Result:
    """Returns a picture with its headline scores; of one that was rebuilt its PSNR to the content, in dB."""
    if experiment.command == "fit":
        return replace(made, scores={name: score for name, score in made.scores.items() if "/" not in name})
    if cell.image(experiment.base) is not cell.pair.content:  # from the style, nothing keeps its place
        return replace(made, scores={"psnr": math.nan})
    rebuilt = images.read(made.picture).rgb
    scaled = images.resize(images.read(cell.pair.content).rgb, (rebuilt.shape[-2], rebuilt.shape[-1])).clamp(0, 1)
    return replace(made, scores={"psnr": peak_signal_noise_ratio(rebuilt, scaled, data_range=1.0).item()})
