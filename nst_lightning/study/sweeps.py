"""Sweeps: run where something is missing, and written as a figure, tables, plots and results into one folder."""

from __future__ import annotations

import math
import shutil
from argparse import ArgumentError
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from nst_lightning import images, planning, runs
from nst_lightning.cli import plan
from nst_lightning.errors import InputError
from nst_lightning.study import experiment as experiments
from nst_lightning.study import plots, results, runner, schema, tables
from nst_lightning.study.experiment import Cell, Experiment
from nst_lightning.study.results import Results
from nst_lightning.study.runner import Job

FILES = ("grid.png", "table.md", "cells.csv", results.FILE)
"""What is in a sweep's folder beside its runs and plots."""


def sweep(
    file: str | Path, output: str | Path | None = None, overwrite: bool = False, **overrides: str | int | float
) -> Results:
    """Runs the cells of a sweep that are not finished, and writes its tables, plots and figure.

    Args:
        file: The YAML file, see `experiment.read`.
        output: The sweep's folder; by default `data/output-images/<the file's name>`.
        overwrite: Whether what a sweep of other settings left there may go.
        overrides: Options that replace those of the file's base.

    Returns:
        What was found, and why runs failed.

    Raises:
        InputError: If the file cannot be used, the folder holds another sweep, or no cell could be run.
    """
    path = Path(file)
    experiment = experiments.read(path, {name: str(value) for name, value in overrides.items()})
    folder = folder_of(path, output)
    _claim(folder, experiment, overwrite)
    jobs = runner.jobs(experiment, folder)
    failed = runner.execute(jobs)
    found = results.gather(experiment, jobs, failed)
    if not found.cells:
        msg = f"{path}: none of the runs succeeded: {'; '.join(failed.values())}"
        raise InputError(msg)
    _write(found, folder, experiment.against_time)
    return found


def folder_of(file: Path, output: str | Path | None) -> Path:
    """Returns the folder of a file's sweep."""
    return runs.FOLDER / file.stem if output is None else Path(output)


def describe(file: Path, folder: Path, overrides: Mapping[str, str]) -> None:
    """Prints the runs with their cells, and how long each is estimated to take; writes nothing that stays."""
    experiment = experiments.read(file, overrides)
    total, measured = 0.0, planning.Measured()
    with TemporaryDirectory() as elsewhere:
        pretended = runner.jobs(experiment, Path(elsewhere))
        for job, alike in zip(runner.jobs(experiment, folder), pretended, strict=True):
            share = len(job.missing) / len(job.cells)
            try:
                seconds = 0.0 if share == 0 else share * _seconds(alike, measured)
                span = _span(seconds)
            except (InputError, ArgumentError) as error:
                seconds, span = math.nan, f"cannot be run: {' '.join(str(error).split())}"
            total += seconds
            print(f"{job.name}: {len(job.missing)} of {len(job.cells)} cells to do, {span}")
            for cell in job.cells:
                print(f"  {cell.name}{'' if cell in job.missing else ' (finished)'}")
    print(f"together {_span(total)} on one process")


_BUDGET = 2.0  # s for measuring a job whose steps are like no earlier job's


def _seconds(job: Job, measured: planning.Measured) -> float:
    """Estimates the optimisation of a job from a few steps; NaN for a reconstruction, which has no plan."""
    if job.list is None:
        return math.nan
    runner.prepare(job)
    return plan.estimate(job.command[1:], _BUDGET, measured)[1].total


def _span(seconds: float) -> str:
    return f"about {planning.span(seconds)}" if math.isfinite(seconds) else "time unknown"


# ---- the folder ----


@dataclass(frozen=True)
class _Note:
    """What is in sweep.json: what the folder is for."""

    command: str
    base: Mapping[str, str]
    cells: Mapping[str, Mapping[str, str]]


def _claim(folder: Path, experiment: Experiment, overwrite: bool) -> None:
    """Notes what the folder is for, and refuses one that holds a sweep with another base."""
    images.check_writable(folder)
    note = folder / "sweep.json"
    base = {name: str(value) for name, value in experiment.base.items() if name not in runner.PROCESSES}
    cells: dict[str, Mapping[str, str]] = {cell.name: _settings(cell) for cell in experiment.cells()}
    if note.is_file() and not overwrite:
        theirs: _Note = schema.structured(_Note, schema.load(note, "what a sweep is of"), note)
        differs = ["command"] if theirs.command != experiment.command else []
        differs += sorted(name for name in {*base, *theirs.base} if base.get(name) != theirs.base.get(name))
        differs += [name for name in cells if theirs.cells.get(name, cells[name]) != cells[name]]
        if differs:
            msg = f"{folder}: holds a sweep with another {differs[0]}; name another --output, or --overwrite true"
            raise InputError(msg)
        cells = {**theirs.cells, **cells}
    elif note.is_file():
        for made in ("runs", "plots"):
            shutil.rmtree(folder / made, ignore_errors=True)
    elif folder.is_dir() and any(folder.iterdir()):
        msg = f"{folder}: holds files that are no sweep's; name another --output"
        raise InputError(msg)
    text = schema.as_json(_Note(experiment.command, base, cells))
    if not note.is_file() or note.read_text(encoding="utf-8") != text:
        with runs.replacing(note) as written:
            written.write_text(text, encoding="utf-8")


def _settings(cell: Cell) -> dict[str, str]:
    """Returns what a cell is made of: its images by their files' names, for folders are moved."""
    images_of = {"content": [cell.pair.content], "style": cell.pair.styles}
    names = {kind: "|".join(Path(str(image)).name for image in each) for kind, each in images_of.items()}
    options = {name: str(value) for name, value in {**cell.row, **cell.of_run}.items()}
    return {**options, **names}


def _write(found: Results, folder: Path, against_time: bool) -> None:
    means = tables.means(found)
    plots.scores(found, means, folder / "plots" / "scores.png")
    if against_time:
        plots.losses(found, folder / "plots" / "losses.png")
    plots.grid(found).save(folder / "grid.png")
    along = "".join(f"- {line}\n" for line in tables.trends(found))
    note = "Means over pairs [95 % interval] (number of pairs where not all have a number).\n"
    parts = (
        f"# {found.title}",
        found.about,
        tables.markdown(tables.texts(means)),
        note + (f"\n{along}" if along else ""),
    )
    (folder / "table.md").write_text("\n\n".join(parts), encoding="utf-8")
    found.frame().to_csv(folder / "cells.csv", index=False, lineterminator="\n")
    results.write(found, folder)
