"""Whether a long run grows: memory, open files, threads and seconds a pair, the first hundred against the last.

    python -m tests.benchmarks.soak [--pairs 200] [--steps 10] [--size 32]

One process of `nst fit`, looked at from outside as it finishes its pairs; on Linux, which shows them in /proc.
"""

from __future__ import annotations

import argparse
import csv
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import cycle, islice, product
from pathlib import Path

from nst_lightning.runs import Run
from tests.benchmarks.machine import machine

DATA = Path(__file__).parents[2] / "data"


@dataclass(frozen=True)
class Look:
    """What a process had when so many pairs were finished."""

    finished: int
    seconds: float  # since it began
    megabytes: int
    files: int
    threads: int

    @classmethod
    def at(cls, pid: int, finished: int, began: float) -> Look:
        """Returns what a process has now."""
        told = dict(re.findall(r"^(\w+):\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE))
        files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
        return cls(finished, time.perf_counter() - began, int(told["VmRSS"]) // 1024, files, int(told["Threads"]))


def write_list(path: Path, pairs: int) -> None:
    """Writes a list of so many pairs of the samples."""
    images = product(sorted(DATA.glob("content-images/*.*")), sorted(DATA.glob("style-images/*.*")))
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["content", "style", "name"])
        writer.writerows([*pair, f"pair{number:04d}"] for number, pair in enumerate(islice(cycle(images), pairs), 1))


def watched(folder: Path, pairs: int, options: list[str]) -> list[Look]:
    """Runs so many pairs, and returns a look at the process as each was finished."""
    write_list(folder / "pairs.csv", pairs)
    run, found = Run(folder / "run"), list[Look]()
    command = [sys.executable, "-m", "nst_lightning", "fit", "--pairs", str(folder / "pairs.csv"), *options]
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(
            [*command, "--trainer.accelerator", "cpu", "--output", str(run.folder)], stdout=log, stderr=log
        ) as process,
    ):
        began = time.perf_counter()
        while process.poll() is None:
            finished = len(run.finished())
            if finished > (found[-1].finished if found else 0):
                found.append(Look.at(process.pid, finished, began))
            time.sleep(0.05)
    if process.returncode != 0:
        raise SystemExit((folder / "log").read_text())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--size", type=int, default=32, help="long side in pixels")
    given = parser.parse_args()
    print(f"{machine()}; {given.pairs} pairs of {given.steps} steps at {given.size} px", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        looks = watched(
            Path(folder), given.pairs, ["--steps", str(given.steps), "--size", str(given.size), "--stages", "1"]
        )
    half = given.pairs // 2
    print("pairs finished        memory, MB   open files   threads   s a pair")
    for name, part in (("first half", looks[1 : half + 1]), ("last half", looks[-half:])):
        pace = (part[-1].seconds - part[0].seconds) / (part[-1].finished - part[0].finished)
        print(
            f"{name} ({part[0].finished} to {part[-1].finished})".ljust(22)
            + f"{part[0].megabytes} to {part[-1].megabytes}".ljust(13)
            + f"{part[0].files} to {part[-1].files}".ljust(13)
            + f"{part[0].threads} to {part[-1].threads}".ljust(10)
            + f"{pace:.3f}"
        )


if __name__ == "__main__":
    main()
