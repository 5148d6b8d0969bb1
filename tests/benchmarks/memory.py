"""Peak memory against image size: whole, by tiles, and a bare torch loop.

    python -m tests.benchmarks.memory [--sizes 256 512 1024] [--tile 256]

Each is a process of its own that takes four L-BFGS steps on a square image through Trainer, or with the bare loop of
`tests.benchmarks.step`. What is shown is resident memory above a process that has imported the same and made the
network: what a user's machine has to have beside the 1 GB of the libraries.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import lightning as L

from nst_lightning.data import PairDataModule
from nst_lightning.modules import StyleTransfer
from tests.benchmarks.machine import CPU, machine
from tests.benchmarks.step import UNCOUNTED, bare, pictures
from tests.benchmarks.trainer import fit
from tests.benchmarks.trimming import peak_kib

STEPS = UNCOUNTED + 1  # as many as the bare loop takes at the least


class _Reset(L.Callback):
    def __init__(self) -> None:
        self.before = 0

    def on_train_start(self, *_: object) -> None:
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak
        self.before = peak_kib()


def measure(size: int, tile: int, precision: str) -> None:
    """Prints by how many MiB four steps through Trainer raise the peak."""
    content, style, _ = pictures(size)
    given = content[0], style[0]
    data = PairDataModule(*given, size=size, steps=STEPS, stages=1)  # type: ignore[arg-type] # see api.stylize
    reset = _Reset()
    fit(StyleTransfer(tile=tile if tile else "off"), data, reset, precision=precision)
    print(json.dumps((peak_kib() - reset.before) / 1024))


def measure_bare(size: int) -> None:
    """Prints by how many MiB four steps of the bare loop raise the peak."""
    bare(64, 1, CPU)
    Path("/proc/self/clear_refs").write_text("5")
    before = peak_kib()
    bare(size, 1, CPU)
    print(json.dumps((peak_kib() - before) / 1024))


def peak(*arguments: str) -> float:
    """Returns what a process of its own prints at last."""
    command = [sys.executable, "-m", "tests.benchmarks.memory", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return float(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512, 1024], help="height and width in pixels")
    parser.add_argument("--tile", type=int, default=256)
    parser.add_argument("--one", nargs=3, metavar=("SIZE", "TILE", "PRECISION"), help=argparse.SUPPRESS)
    parser.add_argument("--one-bare", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one is not None:
        measure(int(options.one[0]), int(options.one[1]), options.one[2])
        return
    if options.one_bare is not None:
        measure_bare(options.one_bare)
        return
    print(f"{machine()}; VGG16, L-BFGS; MiB above the start, and as a ratio to the bare loop")
    print(f"{'px':>6}{'bare loop':>12}{'ours':>16}{'bf16-mixed':>16}{f'tiles of {options.tile}':>18}", flush=True)
    for size in options.sizes:
        reference = peak("--one-bare", str(size))
        line = f"{size:6}{reference:12.0f}"
        for tile, precision in ((0, "32-true"), (0, "bf16-mixed"), (options.tile, "32-true")):
            found = peak("--one", str(size), str(tile), precision)
            line += f"{found:9.0f} ({found / reference:4.2f})"
        print(line, flush=True)


if __name__ == "__main__":
    main()
