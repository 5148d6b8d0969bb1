"""Sweeps: run where something is missing, and written as a figure, tables, plots and results into one folder."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from nst_lightning import images, planning, runs
from nst_lightning.cli import plan
from nst_lightning.errors import InputError
from nst_lightning.metrics.table import inert
from nst_lightning.study import experiment as experiments
from nst_lightning.study import plots, results, runner, schema, tables
from nst_lightning.study.experiment import Experiment
from nst_lightning.study.results import Results
from nst_lightning.study.runner import Job

FILES = ("grid.png", runs.SHEET, "table.md", "cells.csv", results.FILE)
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
        raise InputError(f"{path}: none of the runs succeeded: {'; '.join(failed.values())}")
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
            try:
                seconds = len(job.missing) / len(job.cells) * _seconds(alike, measured) if job.missing else 0.0
                span = _span(seconds)
            except InputError as error:
                seconds, span = math.nan, f"cannot be run: {' '.join(str(error).split())}"
            total += seconds
            print(f"{job.run.folder.name}: {len(job.missing)} of {len(job.cells)} cells to do, {span}")
            for cell in job.cells:
                print(f"  {cell.name}{'' if cell in job.missing else ' (finished)'}")
    print(f"together {_span(total)} on one process")


_BUDGET = 2.0  # s for measuring a job whose steps are like no earlier job's


def _seconds(job: Job, measured: planning.Measured) -> float:
    if job.list is None:
        return math.nan  # a reconstruction has no plan
    runner.prepare(job)
    return plan.estimate(job.command[1:], _BUDGET, measured)[1].total


def _span(seconds: float) -> str:
    return "time unknown" if math.isnan(seconds) else f"about {planning.span(seconds)}"


def _claim(folder: Path, experiment: Experiment, overwrite: bool) -> None:
    """Notes in sweep.json what the folder is for, and refuses one that holds another sweep."""
    images.check_writable(folder)
    note = folder / "sweep.json"
    noted = _settings(experiment)
    if note.is_file() and not overwrite:
        kind = Mapping[str, Mapping[str, str]]
        theirs: dict[str, dict[str, str]] = schema.structured(kind, schema.load(note, "what a sweep is of"), note)
        for name, own in noted.items():
            other = theirs.get(name, own)
            differs = [key for key in {**own, **other} if own.get(key) != other.get(key)]
            if differs:
                what = f"{folder}: holds a sweep with another {differs[0]} of {name}"
                raise InputError(f"{what}; name another --output, or --overwrite true")
        noted = {**theirs, **noted}
    elif note.is_file():
        for made in ("runs", "plots"):
            shutil.rmtree(folder / made, ignore_errors=True)
    elif folder.is_dir() and any(folder.iterdir()):
        raise InputError(f"{folder}: holds files that are no sweep's; name another --output")
    with runs.replacing(note) as written:
        written.write_text(json.dumps(noted, indent=1, ensure_ascii=False), encoding="utf-8")


def _settings(experiment: Experiment) -> dict[str, dict[str, str]]:
    """Returns what a sweep's base and each of its cells are made of: images by their names, for folders are moved."""
    base = {"command": experiment.command, **experiment.base}
    noted = {"base": {name: str(value) for name, value in base.items() if name not in runner.PROCESSES}}
    for cell in experiment.cells():
        row = {name: re.sub(r"[^|]*[/\\]", "", value) for name, value in cell.row.items()}
        noted[cell.name] = {**row, **{name: str(value) for name, value in cell.of_run.items()}}
    return noted


def _write(found: Results, folder: Path, against_time: bool) -> None:
    means = tables.means(found)
    plots.scores(found, means, folder / "plots" / "scores.png")
    if against_time:
        plots.losses(found, folder / "plots" / "losses.png")
    plots.grid(found).save(folder / "grid.png")
    places = {name: Path(cell.picture).relative_to(folder).as_posix() for name, cell in found.places.items()}
    (folder / runs.SHEET).write_text(json.dumps(places, indent=1, ensure_ascii=False), encoding="utf-8")
    table = tables.markdown(tables.texts(means))
    text = f"# {found.title}\n\n{found.about}\n\n{table}\n\nMeans over pairs [95 % interval].\n"
    (folder / "table.md").write_text(text, encoding="utf-8")
    cells = found.frame().map(inert).rename(columns=inert)
    cells.to_csv(folder / "cells.csv", index=False, lineterminator="\n")
    results.write(found, folder)
