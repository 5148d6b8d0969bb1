"""The command `nst sweep`: a figure of a study out of one file."""

from __future__ import annotations

import json
import math
import shutil
import sys
import time
from argparse import ArgumentError, ArgumentParser
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from nst_lightning import images, planning, runs
from nst_lightning.cli import plan
from nst_lightning.errors import InputError, refused
from nst_lightning.sweep import experiment as experiment_
from nst_lightning.sweep import plots, results, runner
from nst_lightning.sweep.experiment import Cell, Experiment
from nst_lightning.sweep.results import Found, Mean
from nst_lightning.sweep.runner import Run

HELP = """usage: nst sweep FILE [--output FOLDER] [--dry-run] [options of nst fit]

Runs a base configuration with every combination of values of some axes, on every pair, and puts the pictures in a
labelled grid. What is finished is not run again: the same command goes on with a sweep that was broken off.

  FILE                     a YAML file, e.g. configs/figures/initialization.yaml: title, about, base, axes, seeds
  --output FOLDER          [data/output-images/<the file's name>]
  --dry-run                list the runs and their cells, and how long they would take; write nothing
  --overwrite true|false   throw away what a sweep of other settings left in the folder [false]
  other options            replace those of the file's base, e.g. --size 512 or --devices 8 --strategy pair_parallel

The folder gets grid.png, table.md (means with intervals over the pairs), cells.csv, plots/, results.json, which
nst report reads, and runs/ with an ordinary run folder each (TensorBoard: --logdir FOLDER).
"""


@dataclass(frozen=True)
class Sweep:
    """A sweep that was run.

    Attributes:
        folder: Where its files are.
        found: Its finished cells.
        table: The means of the scores.
        failed: Why runs failed, by their name.
    """

    folder: Path
    found: tuple[Found, ...]
    table: tuple[Mean, ...]
    failed: Mapping[str, str]


def main(arguments: Sequence[str]) -> int:
    """Runs `nst sweep`.

    Args:
        arguments: The options, without the command.

    Returns:
        The exit code: 0; 1 where runs failed, each with a line; 2 after one line on what cannot be used.
    """
    if {"-h", "--help"} & set(arguments):
        print(HELP, end="")
        return 0
    try:
        return _run(arguments)
    except (InputError, ArgumentError) as error:
        return refused(error)
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on", file=sys.stderr)
        return 1


def sweep(
    file: str | Path, output: str | Path | None = None, overwrite: bool = False, **overrides: str | int | float
) -> Sweep:
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
    experiment = experiment_.read(path, {name: str(value) for name, value in overrides.items()})
    folder = _folder(path, output)
    _claim(folder, experiment, overwrite)
    runs = runner.runs(experiment, folder)
    failed = runner.execute(runs)
    found = results.gather(runs)
    if not found:
        msg = f"{path}: none of the runs succeeded: {'; '.join(failed.values())}"
        raise InputError(msg)
    return Sweep(folder, found, _write(experiment, folder, found, failed), failed)


def _run(arguments: Sequence[str]) -> int:
    parser = ArgumentParser(prog="nst sweep", add_help=False, exit_on_error=False, allow_abbrev=False)
    parser.add_argument("file", nargs="?")
    parser.add_argument("--output")
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--overwrite", choices=["true", "false"], default="false")
    given, rest = parser.parse_known_args(arguments)
    if given.file is None:
        msg = "no file was given; name one, e.g. one of configs/figures"
        raise InputError(msg)
    overrides = _overrides(rest)
    if given.dry_run:
        path = Path(given.file)
        _describe(experiment_.read(path, overrides), _folder(path, given.output))
        return 0
    began = time.monotonic()
    done = sweep(given.file, given.output, given.overwrite == "true", **overrides)
    for name in ("grid.png", "table.md", "cells.csv", "results.json"):
        print(done.folder / name)
    print(f"{len(done.found)} cells, {time.monotonic() - began:.0f} s", file=sys.stderr)
    for name, reason in done.failed.items():
        print(f"nst: error: {name} was not run: {reason}", file=sys.stderr)
    return 1 if done.failed else 0


def _folder(file: Path, output: str | Path | None) -> Path:
    return runs.FOLDER / file.stem if output is None else Path(output)


def _overrides(arguments: Sequence[str]) -> dict[str, str]:
    """Returns options given as `--name value` or `--name=value`."""
    overrides: dict[str, str] = {}
    waiting: str | None = None
    for argument in arguments:
        if waiting is not None:
            overrides[waiting], waiting = argument, None
        elif argument.startswith("--") and "=" in argument:
            name, _, value = argument[2:].partition("=")
            overrides[name] = value
        elif argument.startswith("--"):
            waiting = argument[2:]
        else:
            msg = f"unexpected {argument!r}; options are given as --name value"
            raise InputError(msg)
    if waiting is not None:
        msg = f"--{waiting} needs a value"
        raise InputError(msg)
    return overrides


def _claim(folder: Path, experiment: Experiment, overwrite: bool) -> None:
    """Notes what the folder is for, and refuses one that holds a sweep with another base."""
    images.check_writable(folder)
    note = folder / "sweep.json"
    base = {name: str(value) for name, value in experiment.base.items() if name not in runner.PROCESSES}
    cells = {cell.name: _settings(cell) for cell in experiment.cells()}
    if note.is_file() and not overwrite:
        try:
            theirs = json.loads(note.read_text(encoding="utf-8"))
            their_command, their_base, their_cells = theirs["command"], theirs["base"], theirs.get("cells", {})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{note}: is damaged; name another --output") from error
        differs = ["command"] if their_command != experiment.command else []
        differs += sorted(name for name in {*base, *their_base} if base.get(name) != their_base.get(name))
        differs += [name for name in cells if their_cells.get(name, cells[name]) != cells[name]]
        if differs:
            msg = f"{folder}: holds a sweep with another {differs[0]}; name another --output, or --overwrite true"
            raise InputError(msg)
        cells = {**their_cells, **cells}
    elif note.is_file():
        for made in ("runs", "plots"):
            shutil.rmtree(folder / made, ignore_errors=True)
    elif folder.is_dir() and any(folder.iterdir()):
        msg = f"{folder}: holds files that are no sweep's; name another --output"
        raise InputError(msg)
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"command": experiment.command, "base": base, "cells": cells}, indent=1)
    if not note.is_file() or note.read_text(encoding="utf-8") != text:
        written = note.with_suffix(".tmp")
        written.write_text(text, encoding="utf-8")
        written.replace(note)  # whole or not at all


def _settings(cell: Cell) -> dict[str, str]:
    """Returns what a cell is made of: its images by their files' names, for folders are moved."""
    images_of = {"content": [cell.pair.content], "style": cell.pair.styles}
    names = {kind: "|".join(Path(str(image)).name for image in each) for kind, each in images_of.items()}
    options = {name: str(value) for name, value in {**cell.row, **cell.of_run}.items()}
    return {**options, **names}


def _write(experiment: Experiment, folder: Path, found: Sequence[Found], failed: Mapping[str, str]) -> tuple[Mean, ...]:
    table = results.means(found, experiment)
    plots.scores(table, found, experiment, folder / "plots" / "scores.png")
    if experiment.against_time:
        plots.losses(found, experiment, folder / "plots" / "losses.png")
    results.picture(found, experiment).save(folder / "grid.png")
    along = "".join(f"- {line}\n" for line in results.trends(found, experiment))
    written = results.as_markdown(table, experiment)
    texts = {
        "table.md": f"# {experiment.title}\n\n{experiment.about}\n\n{written}" + (f"\n{along}" if along else ""),
        "cells.csv": results.as_csv(found),
        "results.json": results.as_json(found, table, experiment, folder, failed),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return table


def _describe(experiment: Experiment, folder: Path) -> None:
    """Prints the runs with their cells, and how long each is estimated to take; writes nothing that stays."""
    total = 0.0
    with TemporaryDirectory() as elsewhere:
        pretended = runner.runs(experiment, Path(elsewhere))
        for run, alike in zip(runner.runs(experiment, folder), pretended, strict=True):
            share = len(run.missing) / len(run.cells)
            try:
                seconds = 0.0 if share == 0 else share * _seconds(alike)
            except (InputError, ArgumentError) as error:
                seconds, span = math.nan, f"cannot be run: {' '.join(str(error).split())}"
            else:
                span = _span(seconds)
            total += seconds
            print(f"{run.folder.name}: {len(run.missing)} of {len(run.cells)} cells to do, {span}")
            for cell in run.cells:
                print(f"  {cell.name}{'' if cell in run.missing else ' (finished)'}")
    print(f"together {_span(total)} on one process")


def _seconds(run: Run) -> float:
    """Estimates the optimisation of a run from a few steps; NaN for a reconstruction, which has no plan."""
    if run.list is None:
        return math.nan
    runner.prepare(run)
    return plan.estimate(run.command[1:])[1].total


def _span(seconds: float) -> str:
    return f"about {planning.span(seconds)}" if math.isfinite(seconds) else "time unknown"
