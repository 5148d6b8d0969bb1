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

from nst_lightning.sweep.experiment import Cell, Experiment, Options, arguments, folder_name

_COLUMNS = ("name", "content", "style", "content_weight", "style_weight", "tv_weight", "size", "steps", "init", "seed")
PROCESSES = ("devices", "strategy", "trainer.accelerator")
"""Options that say where a run runs, which may change when it goes on."""
_PICTURES_OF = {"content": 0, "style": 1}


@dataclass(frozen=True)
class Run:
    """Cells that one command makes.

    Attributes:
        folder: Where it writes to.
        cells: The cells.
        command: The command and its options.
        pictures: Where it puts each cell's picture, in the cells' order.
        list: The list of pairs that it reads, by path; None where it reads none.
        processes: Of its options those that say where it runs, which may change when it goes on.
    """

    folder: Path
    cells: tuple[Cell, ...]
    command: tuple[str, ...]
    pictures: tuple[Path, ...]
    list: Path | None
    processes: tuple[str, ...] = ()

    @property
    def missing(self) -> tuple[Cell, ...]:
        """The cells that are not finished."""
        return tuple(
            cell for cell, file in zip(self.cells, self.pictures, strict=True) if not self._is_done(cell, file)
        )

    def _is_done(self, cell: Cell, picture: Path) -> bool:
        # A fit marks what is finished after its picture and scores are written.
        marker = self.folder / "checkpoints" / "finished" / cell.name if self.list is not None else picture
        return picture.is_file() and marker.is_file()


def runs(experiment: Experiment, folder: Path) -> tuple[Run, ...]:
    """Returns the runs of a sweep: cells that differ only in what a pair can have of its own share one.

    Args:
        experiment: What is compared.
        folder: The sweep's folder; a run's is in its folder `runs`.
    """
    groups: dict[str, list[Cell]] = {}
    of_fit = experiment.command == "fit"
    for cell in experiment.cells():
        groups.setdefault(cell.group if of_fit else _image(cell), []).append(cell)
    make = _fit if of_fit else _reconstruction
    return tuple(make(experiment, folder / "runs" / name, tuple(cells)) for name, cells in groups.items())


def execute(runs: Iterable[Run]) -> dict[str, str]:
    """Runs what is missing, one run after the other, and returns why runs failed, by the folder's name.

    The output of the commands goes to stderr as it comes.

    Raises:
        KeyboardInterrupt: If the user breaks off; what is finished stays so.
    """
    failed = {}
    todo = [run for run in runs if run.missing]
    for number, run in enumerate(todo, start=1):
        print(f"run {number}/{len(todo)}, {run.folder.name}: {len(run.missing)} pictures", file=sys.stderr)
        prepare(run)
        reason = _call(_command(run))
        if reason is None and run.missing:
            reason = f"it ended without {len(run.missing)} of its pictures"
        if reason is not None:
            failed[run.folder.name] = reason
    return failed


def _fit(experiment: Experiment, folder: Path, cells: tuple[Cell, ...]) -> Run:
    listed = folder.with_suffix(".csv")
    options: Options = {"batch_size": 4, **experiment.base, **cells[0].of_run}
    command = ("fit", "--pairs", str(listed), "--output", str(folder), "--overwrite", "true")
    pictures = tuple(folder / f"{cell.name}.png" for cell in cells)
    processes = arguments({name: value for name, value in options.items() if name in PROCESSES})
    return Run(folder, cells, (*command, *arguments(options)), pictures, listed, tuple(processes))


def _reconstruction(experiment: Experiment, folder: Path, cells: tuple[Cell, ...]) -> Run:
    shared = {name: value for name, value in cells[0].options.items() if name not in ("from", "layers")}
    layers = [str(cell.options["layers"]) for cell in cells]
    source = _source(cells[0])
    image = (cells[0].pair.content, cells[0].pair.styles[0])[_PICTURES_OF[source]]
    given = ("--image", str(image), "--from", source, "--layers", ",".join(layers))
    command = ("reconstruct", *given, "--output", str(folder), "--overwrite", "true")
    options = {**experiment.base, **shared, "seed": cells[0].seed}
    return Run(folder, cells, (*command, *arguments(options)), tuple(folder / f"{layer}.png" for layer in layers), None)


def _source(cell: Cell) -> str:
    return str(cell.options.get("from", "content"))


def _image(cell: Cell) -> str:
    return folder_name(f"{cell.pair.name}__from-{_source(cell)}__seed-{cell.seed}")


def prepare(run: Run) -> None:
    """Writes the list of pairs that a run reads."""
    run.folder.parent.mkdir(parents=True, exist_ok=True)
    if run.list is None:
        return
    with run.list.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, _COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(cell.row for cell in run.cells)


def _command(run: Run) -> list[str]:
    chosen = run.command
    if run.list is not None and (run.folder / "config.yaml").is_file():
        # The list again, for the folder may have been moved.
        chosen = ("fit", "--resume", str(run.folder), "--pairs", str(run.list), *run.processes)
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
