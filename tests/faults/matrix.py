"""All cells, and what they share: images, undisturbed runs, how long a run takes on this machine."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image

from tests.faults import files, inputs, life, machine
from tests.faults.bench import Bench, Cell


def cells() -> list[Cell]:
    """Returns all cells, those of many processes first."""
    return [*life.cells(), *machine.cells(), *files.cells(), *inputs.cells()]


def prepared(shared: Path) -> tuple[float, float]:
    """Makes the images that cells share; returns the seconds of a run's steps, and those before its first."""
    shared.mkdir(parents=True)
    for index, name in enumerate(("c1", "c2", "c3", "c4", "s")):
        pixels = np.random.default_rng(index).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((48, 36), Image.Resampling.BICUBIC).save(shared / f"{name}.png")
    bench = Bench(shared.parent, shared, Random())  # its undisturbed runs are made before there are two workers
    with bench.stack:
        began, folder = time.monotonic(), shared / "measured"
        run = bench.started(*life.slow(bench), "--output", str(folder), anew=True)
        run.until((folder / "checkpoints/begun.json").exists)
        first = time.monotonic()
        run.wait().expect(0)
        bench.undisturbed("slow", *life.slow(bench))
        bench.undisturbed("four", *bench.fit("c1", "c2", "c3", "c4", steps=60))
        for name in ("c1", "c2"):
            bench.undisturbed(f"only {name}", *bench.fit(name))
        bench.whole()
        Image.open(shared / "c1.png").resize((1024, 768)).save(shared / "large.png")
        bench.undisturbed("large", *machine.large(bench))
        bench.unfinished()
    shutil.rmtree(folder)
    shutil.rmtree(bench.folder / "run")
    return time.monotonic() - first, first - began
