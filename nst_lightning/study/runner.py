"""Runs the cells of a sweep that are not there yet: each run is one that could be typed by hand."""

from __future__ import annotations

import csv
import io
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nst_lightning import pairs
from nst_lightning.runs import Run
from nst_lightning.study.experiment import Cell, Experiment, Options, arguments, folder_name

PROCESSES = ("devices", "strategy", "trainer.accelerator")
"""Options that say where a run runs, which may change when it goes on."""


@dataclass(frozen=True)
class Job:
    """Cells that one command makes, each with the picture that it puts into a run's folder.

    Attributes:
        list: The list of pairs that it reads, by path; None where it reads none.
        processes: Of its options those that say where it runs.
    """

    run: Run
    cells: tuple[Cell, ...]
    pictures: tuple[Path, ...]
    command: tuple[str, ...]
    list: Path | None
    processes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What the job is called."""
        return self.run.folder.name

    @property
    def missing(self) -> tuple[Cell, ...]:
        """The cells that are not finished."""
        finished = self.run.finished()  # a fit marks it after the picture and its scores are written
        done = (
            picture.is_file() and (self.list is None or cell.name in finished)
            for cell, picture in zip(self.cells, self.pictures, strict=True)
        )
        return tuple(cell for cell, is_done in zip(self.cells, done, strict=True) if not is_done)


def jobs(experiment: Experiment, folder: Path) -> tuple[Job, ...]:
    """Returns the jobs of a sweep's folder: cells that differ only in what a pair can have of its own share one."""
    groups: dict[str, list[Cell]] = {}
    of_fit = experiment.command == "fit"
    for cell in experiment.cells():
        image = folder_name(f"{cell.pair.name}__from-{cell.source}__seed-{cell.seed}")
        groups.setdefault(cell.group if of_fit else image, []).append(cell)
    make = _fit if of_fit else _reconstruction
    return tuple(make(experiment, Run(folder / "runs" / name), tuple(cells)) for name, cells in groups.items())


def _fit(experiment: Experiment, run: Run, cells: tuple[Cell, ...]) -> Job:
    listed = run.folder.with_suffix(".csv")
    options: Options = {"batch_size": 4, **experiment.base, **cells[0].of_run}
    command = ("fit", "--pairs", str(listed), "--output", str(run.folder), "--overwrite", "true", *arguments(options))
    processes = arguments({name: value for name, value in options.items() if name in PROCESSES})
    pictures = tuple(run.picture(cell.name) for cell in cells)
    return Job(run, cells, pictures, command, listed, tuple(processes))


def _reconstruction(experiment: Experiment, run: Run, cells: tuple[Cell, ...]) -> Job:
    first = cells[0]
    shared = {name: value for name, value in first.options.items() if name not in ("from", "layers")}
    layers = [str(cell.options["layers"]) for cell in cells]
    image = {"content": first.pair.content, "style": first.pair.styles[0]}[first.source]
    given = ("--image", str(image), "--from", first.source, "--layers", ",".join(layers))
    options = arguments({**experiment.base, **shared, "seed": first.seed})
    command = ("reconstruct", *given, "--output", str(run.folder), "--overwrite", "true", *options)
    return Job(run, cells, tuple(map(run.picture, layers)), command, None)


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
    if job.list is None:
        return
    with job.list.open("w", encoding="utf-8", newline="") as file:
        columns = ["name", *(column for column in pairs.COLUMNS if column != "name")]
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(cell.row for cell in job.cells)


def _command(job: Job) -> list[str]:
    chosen = job.command
    if job.list is not None and job.run.config.is_file():
        # The list again, for the folder may have been moved.
        chosen = ("fit", "--resume", str(job.run.folder), "--pairs", str(job.list), *job.processes)
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
