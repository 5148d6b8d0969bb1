"""What a step takes by each style loss: seconds against Gram matrices', and peak memory.

    python -m tests.benchmarks.losses [--size 512] [--tall 512] [--steps 8] [--tile 0] [--optimizer lbfgs]
        [--losses gram nearest ...]

Each is a process of its own that takes steps through Trainer, as `tests.benchmarks.memory` does; the median step
counts, after three, and Gram matrices are measured again after all others. With `--tile`, in tiles of that side. Memory
is what is resident above a process that has imported the same and made the network. `{gram: 1, nearest: 1}` and other
combinations are losses too.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import lightning as L
import yaml

from nst_lightning import images, optim
from nst_lightning.data import PairDataModule
from nst_lightning.losses import STYLE_LOSSES
from nst_lightning.modules import StyleTransfer
from tests.benchmarks.contenders import CONTENT, STYLE
from tests.benchmarks.machine import machine
from tests.benchmarks.trainer import fit
from tests.benchmarks.trimming import peak_kib


class _Clock(L.Callback):
    def __init__(self) -> None:
        self.ends: list[float] = []
        self.before = 0

    def on_train_start(self, *_: object) -> None:
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak
        self.before = peak_kib()

    def on_train_batch_end(self, *_: object) -> None:
        self.ends.append(time.perf_counter())


def measure(loss: str, size: int, tall: int, steps: int, tile: int, optimizer: str) -> None:
    """Prints the seconds of a step, and by how many MiB the run raises the peak."""
    sides = tall, size
    content, style = (images.resize(images.read(str(file)).rgb, sides).clamp(0, 1)[0] for file in (CONTENT, STYLE))
    data = PairDataModule(content, style, size=max(sides), steps=steps, stages=1)  # type: ignore[arg-type] # see api.stylize
    clock = _Clock()
    options = {"style_loss": yaml.safe_load(loss), "optimizer": optim.NAMED[optimizer]}
    fit(StyleTransfer(**options, tile=tile if tile else "off"), data, clock)
    seconds = [later - earlier for earlier, later in pairwise(clock.ends)]
    # The first steps make the optimiser's memory; two steps have one time between them.
    found = statistics.median(seconds[2:] or seconds or [math.nan])
    print(json.dumps([found, (peak_kib() - clock.before) / 1024]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=512, help="width in pixels")
    parser.add_argument("--tall", type=int, default=None, help="height in pixels [the width]")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--tile", type=int, default=0, help="side of the tiles in pixels; 0 for none")
    combined = ["{gram: 1, nearest: 1}", "{gram: 1, moments: 1}"]
    parser.add_argument("--optimizer", choices=optim.NAMED, default="lbfgs")
    parser.add_argument("--losses", nargs="+", default=[*STYLE_LOSSES, *combined])
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    tall = options.size if options.tall is None else options.tall
    if options.one is not None:
        measure(options.one, options.size, tall, options.steps, options.tile, options.optimizer)
        return
    tiles = options.tile or "the whole"
    print(f"{machine()}; VGG16, {options.optimizer}, {options.size}x{tall} px, {options.steps} steps, tiles of {tiles}")
    print(f"{'loss':28}{'s a step':>10}{'ratio':>8}{'MiB':>8}", flush=True)
    given = [
        word for name in ("size", "steps", "tile", "optimizer") for word in (f"--{name}", str(getattr(options, name)))
    ]
    first = None
    for loss in [*options.losses, *options.losses[:1] * (len(options.losses) > 1)]:
        command = [sys.executable, "-m", "tests.benchmarks.losses", *given, "--tall", str(tall), "--one", loss]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        seconds, memory = json.loads(done.stdout.splitlines()[-1])
        first = seconds if first is None else first
        print(f"{loss:28}{seconds:10.3f}{seconds / first:8.2f}{memory:8.0f}", flush=True)


if __name__ == "__main__":
    main()
