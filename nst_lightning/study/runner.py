"""Runs the cells of a sweep that are not there yet: each run is one that could be typed by hand."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from nst_lightning import pairs
from nst_lightning.interruption import Interrupted
from nst_lightning.runs import Run
from nst_lightning.study.experiment import Cell, Experiment, arguments

PROCESSES = ("devices", "strategy", "trainer.accelerator")  # where a run runs, which may change when it goes on


@dataclass(frozen=True)
class Job:
    """Cells that one command makes, each with the picture that it puts into a run's folder."""

    run: Run
    cells: tuple[Cell, ...]
    pictures: tuple[Path, ...]
    command: tuple[str, ...]

    @property
    def list(self) -> Path | None:
        """The list of pairs that the command reads, None where it reads none."""
        return self.run.folder.with_suffix(".csv") if self.command[0] == "fit" else None

    @property
    def missing(self) -> tuple[Cell, ...]:
        """The cells that are not finished."""
        # A fit marks it after the picture and its scores are written.
        marked = self.run.finished() if self.command[0] == "fit" else {cell.name for cell in self.cells}
        both = zip(self.cells, self.pictures, strict=True)
        return tuple(cell for cell, picture in both if not picture.is_file() or cell.name not in marked)


def jobs(experiment: Experiment, folder: Path) -> tuple[Job, ...]:
    """Returns the jobs of a sweep's folder: cells that differ only in what one run can vary share one."""
    groups: dict[str, list[Cell]] = {}
    for cell in experiment.cells():
        groups.setdefault(cell.group, []).append(cell)
    return tuple(_job(experiment, Run(folder / "runs" / name), tuple(cells)) for name, cells in groups.items())


def _job(experiment: Experiment, run: Run, cells: tuple[Cell, ...]) -> Job:
    first, out = cells[0], ("--output", str(run.folder), "--overwrite", "true")
    if experiment.command == "fit":
        listed = ("--pairs", str(run.folder.with_suffix(".csv")))
        options = arguments({"batch_size": 4, **experiment.base, **first.of_run})
        return Job(run, cells, tuple(run.picture(cell.name) for cell in cells), ("fit", *listed, *out, *options))
    layers = [str(cell.options["layers"]) for cell in cells]
    options = arguments({**experiment.base, **first.options, "layers": ",".join(layers), "seed": first.seed})
    command = ("reconstruct", "--image", str(first.image(experiment.base)), *out, *options)
    return Job(run, cells, tuple(map(run.picture, layers)), command)


def execute(jobs: Iterable[Job]) -> dict[str, str]:
    """Runs what is missing, one job after the other, and returns why some failed, by their name."""
    failed = {}
    todo = [job for job in jobs if job.missing]
    for number, job in enumerate(todo, start=1):
        print(f"run {number}/{len(todo)}, {job.run.folder.name}: {len(job.missing)} pictures", file=sys.stderr)
        prepare(job)
        reason = _call(_command(job))
        if reason is None and job.missing:
            reason = f"it ended without {len(job.missing)} of its pictures"
        if reason is not None:
            failed[job.run.folder.name] = reason
    return failed


def prepare(job: Job) -> None:
    """Writes the list of pairs that a job reads."""
    job.run.folder.parent.mkdir(parents=True, exist_ok=True)
    if job.list is not None:
        columns = ["name", *(column for column in pairs.COLUMNS if column != "name")]
        pd.DataFrame([cell.row for cell in job.cells], columns=columns).to_csv(job.list, index=False)


def _command(job: Job) -> list[str]:
    chosen = job.command
    if job.list is not None and job.run.config.is_file():
        processes = [option for option in job.command if option[2:].partition("=")[0] in PROCESSES]
        # The list again, for the folder may have been moved.
        chosen = ("fit", "--resume", str(job.run.folder), "--pairs", str(job.list), *processes)
    return [sys.executable, "-m", "nst_lightning", *chosen]


def _call(command: Sequence[str]) -> str | None:
    """Runs a command, and returns the last line of what it says where it fails."""
    last: deque[str] = deque(maxlen=1)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    # newline="": the progress bar's returns to the line's beginning stay what they are.
    with io.TextIOWrapper(process.stderr, encoding="utf-8", errors="replace", newline="") as lines:
        try:
            for line in lines:
                print(line, end="", file=sys.stderr, flush=True)
                last.extend([line.strip()] if line.strip() else [])
        except (Interrupted, KeyboardInterrupt) as ended:  # the latter where Python called
            process.send_signal(ended.number if isinstance(ended, Interrupted) else signal.SIGINT)
            for line in lines:  # it saves what it has
                print(line, end="", file=sys.stderr, flush=True)
            process.wait()
            raise
    if process.wait() == 0:
        return None
    return last[0].rpartition("nst: error: ")[2] if last else f"exit code {process.returncode}"
