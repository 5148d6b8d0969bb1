"""Runs the cells of a sweep that are not there yet: each run is one that could be typed by hand."""

from __future__ import annotations

import io
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from nst_lightning import pairs
from nst_lightning.runs import Run
from nst_lightning.study.experiment import Cell, Experiment, arguments

PROCESSES = ("devices", "strategy", "trainer.accelerator")
"""Options that say where a run runs, which may change when it goes on."""


@dataclass(frozen=True)
class Job:
    """Cells that one command makes, each with the picture that it puts into a run's folder."""

    run: Run
    cells: tuple[Cell, ...]
    pictures: tuple[Path, ...]
    command: tuple[str, ...]

    @property
    def name(self) -> str:
        """What the job is called."""
        return self.run.folder.name

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
    make = _fit if experiment.command == "fit" else _reconstruction
    return tuple(make(experiment, Run(folder / "runs" / name), tuple(cells)) for name, cells in groups.items())


def _fit(experiment: Experiment, run: Run, cells: tuple[Cell, ...]) -> Job:
    files = ("--pairs", str(run.folder.with_suffix(".csv")), "--output", str(run.folder), "--overwrite", "true")
    options = arguments({"batch_size": 4, **experiment.base, **cells[0].of_run})
    return Job(run, cells, tuple(run.picture(cell.name) for cell in cells), ("fit", *files, *options))


def _reconstruction(experiment: Experiment, run: Run, cells: tuple[Cell, ...]) -> Job:
    layers = [str(cell.options["layers"]) for cell in cells]
    given = {**experiment.base, **cells[0].options, "seed": cells[0].seed, "layers": ",".join(layers)}
    image = cells[0].image(experiment.base)
    options = arguments({"image": image, "output": run.folder, "overwrite": "true", **given})
    return Job(run, cells, tuple(map(run.picture, layers)), ("reconstruct", *options))


def execute(jobs: Iterable[Job]) -> dict[str, str]:
    """Runs what is missing, one job after the other, and returns why some failed, by their name.

    The output of the commands goes to stderr as it comes.

    Raises:
        KeyboardInterrupt: If the user breaks off; what is finished stays so.
    """
    failed = {}
    todo = [job for job in jobs if job.missing]
    for number, job in enumerate(todo, start=1):
        print(f"run {number}/{len(todo)}, {job.name}: {len(job.missing)} pictures", file=sys.stderr)
        prepare(job)
        reason = _call(_command(job))
        if reason is None and job.missing:
            reason = f"it ended without {len(job.missing)} of its pictures"
        if reason is not None:
            failed[job.name] = reason
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
                _pass_on(line)
                last.extend([line.strip()] if line.strip() else [])
        except KeyboardInterrupt:
            for line in lines:  # it was interrupted too, and saves what it has
                _pass_on(line)
            process.wait()
            raise
    if process.wait() == 0:
        return None
    return last[0].rpartition("nst: error: ")[2] if last else f"exit code {process.returncode}"


def _pass_on(line: str) -> None:
    sys.stderr.write(line)
    sys.stderr.flush()
