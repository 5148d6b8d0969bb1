"""Whether a long job stays as it began: memory, open files, threads, and seconds a pair of one process of `nst fit`.

    python -m tests.benchmarks.soak [--pairs 200] [--steps 10] [--size 32] [--folder FOLDER] [options of nst fit]

Every pair has images of its own, pieces of the samples. The program is looked at from outside, in /proc (Linux), each
time that it has marked another pair as finished; what is printed of a half is the median over its last quarter.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass
from pathlib import Path
from random import Random
from statistics import median

from PIL import Image

from nst_lightning.runs import Run
from tests.benchmarks.machine import machine
from tests.benchmarks.pairs import DATA, SIDE

_PAUSE = 0.02  # s between two looks
_MIB, _TICKS = 2**20, os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Look:
    """What a process has, and has used."""

    finished: int  # pairs
    seconds: float  # on the clock
    computed: float  # s of processors
    resident: float  # MiB
    files: int
    threads: int

    @classmethod
    def at(cls, process: int, finished: int) -> Look:
        """Looks at a process; an OSError if it has ended."""
        of_it = Path("/proc", str(process))
        fields = of_it.joinpath("stat").read_text().rpartition(")")[2].split()  # from the third, see proc(5)
        computed = (int(fields[11]) + int(fields[12])) / _TICKS
        resident = int(fields[21]) * os.sysconf("SC_PAGE_SIZE") / _MIB
        return cls(
            finished,
            time.perf_counter(),
            computed,
            resident,
            len(list(of_it.joinpath("fd").iterdir())),
            int(fields[17]),
        )


def listed(folder: Path, count: int) -> Path:
    """Writes so many pairs of pieces of the samples, and a list of them."""
    random, rows = Random(0), []
    samples = {name: sorted((DATA / f"{name}-images").glob("*.jpg")) for name in ("content", "style")}
    for number in range(count):
        row = {"name": f"pair{number:04d}"}
        for name, files in samples.items():
            with Image.open(files[number % len(files)]) as image:
                half = min(image.size) // 2
                left, top = (random.randrange(long - half) for long in image.size)
                piece = image.convert("RGB").crop((left, top, left + half, top + half)).resize((SIDE, SIDE))
            row[name] = str(folder / f"{row['name']}-{name}.png")
            piece.save(row[name])
        rows.append(row)
    with (folder / "pairs.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return folder / "pairs.csv"


def watched(process: subprocess.Popen[bytes], run: Run) -> Iterator[Look]:
    """Yields a look at the process each time that it has finished another pair."""
    last = 0
    while process.poll() is None:
        finished = len(run.finished())
        if finished > last:
            last = finished
            with suppress(OSError):  # it has just ended
                yield Look.at(process.pid, finished)
        time.sleep(_PAUSE)


def rows(looks: Sequence[Look]) -> Iterator[tuple[float, ...]]:
    """Yields seconds and computed seconds a pair, memory, files and threads of each half of the looks."""
    middle = len(looks) // 2
    for half in (looks[: middle + 1], looks[middle:]):
        pairs = half[-1].finished - half[0].finished
        late = [astuple(look)[3:] for look in half[-len(half) // 4 :]]
        spent = ((half[-1].seconds - half[0].seconds) / pairs, (half[-1].computed - half[0].computed) / pairs)
        yield (*spent, *(median(column) for column in zip(*late, strict=True)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=200, help="how many")
    parser.add_argument("--steps", type=int, default=10, help="of each pair")
    parser.add_argument("--size", type=int, default=32, help="long side of the outputs in pixels")
    parser.add_argument("--folder", type=Path, default=None, help="where to leave images and run")
    options, given = parser.parse_known_args()
    print(f"{machine()}; {options.pairs} pairs, {options.size} px, {options.steps} steps each", *given, flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) if options.folder is None else options.folder
        folder.mkdir(exist_ok=True)
        command = [sys.executable, "-m", "nst_lightning", "fit", "--pairs", str(listed(folder, options.pairs))]
        command += ["--size", str(options.size), "--steps", str(options.steps), "--stages", "1"]
        command += ["--trainer.accelerator", "cpu", "--output", str(folder / "run"), "--overwrite", "true", *given]
        with (folder / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
            looks = list(watched(process, Run(folder / "run")))
        made = len(list((folder / "run").glob("*.png")))
        if process.returncode != 0 or made != options.pairs:
            raise SystemExit(f"exit code {process.returncode}, {made} pictures\n{(folder / 'log').read_text()}")
    print(f"{'pairs':<14}{'s a pair':>10}{'CPU s':>10}{'MiB':>10}{'files':>10}{'threads':>10}")
    first, last = rows(looks)
    for name, values in (("first half", first), ("last half", last)):
        print(f"{name:<14}" + "".join(f"{value:10.2f}" for value in values))
    print(f"{'last / first':<14}" + "".join(f"{new / old:10.3f}" for old, new in zip(first, last, strict=True)))
    print(
        "MiB after pair "
        + ", ".join(f"{look.finished}: {look.resident:.0f}" for look in looks[:: max(1, len(looks) // 8)])
    )


if __name__ == "__main__":
    main()
