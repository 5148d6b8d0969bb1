"""What it costs that losses reach self.log: the same run, logged every so many steps and never.

    python -m tests.benchmarks.logs [--size 96] [--steps 120] [--every 10] [--repeats 4]

The two take turns, into a CSVLogger, of the step that is over soonest. Of each turn the ratio of the process's seconds,
which other work on the machine disturbs least; and what the steps that are logged, and those after them, take more than
the median of the others of their own run, as a share of the run.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import warnings
from itertools import pairwise
from pathlib import Path

import lightning as L
from lightning.pytorch.loggers import CSVLogger

from nst_lightning.data import PairDataModule
from nst_lightning.modules import StyleTransfer
from tests.benchmarks.machine import CPU, machine
from tests.benchmarks.step import pictures
from tests.benchmarks.trainer import fit

NEVER = 1_000_000


class Clock(L.Callback):
    """Notes the process's seconds at the ends of steps, before what is logged of them is written."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_batch_end(self, *_: object) -> None:
        self.ends.append(time.process_time())


def run(size: int, steps: int, every: int) -> list[float]:
    """Returns the seconds from the end of each step to that of the next."""
    content, style, _ = pictures(size)
    data = PairDataModule(content[0], style[0], size=size, steps=steps, stages=1)  # type: ignore[arg-type] # see api
    clock, module = Clock(), StyleTransfer(style_loss="gram")
    with tempfile.TemporaryDirectory() as folder:
        fit(module, data, clock, folder=Path(folder), logger=CSVLogger(folder), log_every_n_steps=every)
    return [later - before for before, later in pairwise(clock.ends)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=96, help="height and width in pixels")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--every", type=int, default=10, help="steps between two that are logged, above 2")
    parser.add_argument("--repeats", type=int, default=4)
    options = parser.parse_args()
    warnings.filterwarnings("ignore", "The number of training batches")  # fewer than never
    run(options.size, options.every, options.every)  # warms up
    ratios, shares = [], []
    for turn in range(options.repeats):
        order = (options.every, NEVER) if turn % 2 == 0 else (NEVER, options.every)
        taken = {every: run(options.size, options.steps, every) for every in order}
        ratios.append(sum(taken[options.every]) / sum(taken[NEVER]))
        places = [taken[options.every][place :: options.every] for place in range(options.every)]
        # Seconds at place 0 are those of step 2: the logged steps' are last but one, what is written of them is last.
        *usual, logged, after = (statistics.median(each) for each in places)
        without = statistics.median(usual)
        shares.append((logged + after - 2 * without) / (options.every * without))
    print(f"{machine(CPU)}; {options.size} px, {options.steps} steps, logged every {options.every}")
    print("ratio of the runs:", *(f"{each:.4f}" for each in ratios), f"median {statistics.median(ratios):.4f}")
    print("share of logging:", *(f"{each:.2%}" for each in shares), f"median {statistics.median(shares):.2%}")


if __name__ == "__main__":
    main()
