"""From the shell to the help, to an error, and to the first step; and what of it are imports.

    python -m tests.benchmarks.startup [--size 256] [--rounds 3]

The least of the rounds counts: the first reads the libraries from the disk.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks.machine import machine

DATA = Path(__file__).parents[2] / "data"
IMPORTS = ("numpy", "torch", "torchvision", "torchmetrics", "lightning", "nst_lightning.cli")


def seconds(command: Sequence[str]) -> float:
    """Returns how long a command takes."""
    began = time.perf_counter()
    subprocess.run([sys.executable, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - began


def first_step(size: int) -> tuple[float, float]:
    """Returns the seconds until the progress bar shows a first step of three, and until the command ends."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "nst_lightning", "fit", "--size", str(size), "--steps", "3", "--stages", "1"]
        command += ["--content", str(DATA / "content-images/temple.jpg"), "--output", f"{folder}/picture.png"]
        command += ["--style", str(DATA / "style-images/church_at_auvers.jpg"), "--trainer.accelerator", "cpu"]
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        assert process.stderr is not None
        said, first = b"", None
        while piece := process.stderr.read1():  # type: ignore[attr-defined]
            said += piece
            if first is None and re.search(rb"[ |]1/3 ", said):
                first = time.perf_counter() - began
        process.wait()
        if first is None or process.returncode != 0:
            raise SystemExit(said.decode())
        return first, time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=256, help="long side in pixels")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print(machine())
    rounds = range(options.rounds)
    for name in IMPORTS:
        print(
            f"python -c 'import {name}'".ljust(44) + f"{min(seconds(['-c', f'import {name}']) for _ in rounds):6.2f} s"
        )
    for command in (["--help"], ["backbones"], ["fit", "--content", "nowhere.jpg"], ["fit", "--help"]):
        line = f"nst {' '.join(command)}".ljust(44)
        print(line + f"{min(seconds(['-m', 'nst_lightning', *command]) for _ in rounds):6.2f} s", flush=True)
    runs = [first_step(options.size) for _ in rounds]
    print(f"nst fit, {options.size} px: first step".ljust(44) + f"{min(first for first, _ in runs):6.2f} s")
    print(f"nst fit, {options.size} px, 3 steps: end".ljust(44) + f"{min(end for _, end in runs):6.2f} s")


if __name__ == "__main__":
    main()
