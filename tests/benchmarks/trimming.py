"""What trimming saves: peak memory of one content step on the shallowest layer beside the deepest default one.

    python -m tests.benchmarks.trimming [--size 512]

Each layer is measured in a process of its own, from the state before the network is built.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import torch

from nst_lightning.backbones import Backbone
from nst_lightning.losses import Content, Objective, Term
from nst_lightning.tiling import Whole
from tests.benchmarks.machine import machine

LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")


def peak_kib() -> int:
    """Returns the process's peak resident memory since it was last reset, in KiB (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def measure(layer: str, size: int) -> None:
    """Prints by how many KiB building the network, the target and one evaluation raise the peak."""
    image = torch.rand(1, 3, size, size, requires_grad=True)
    objective = Objective([Term("content", (layer,), Content(), 1.0)])
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = peak_kib()
    backbone = Backbone("vgg16", [layer])
    evaluator = Whole(backbone, objective)
    targets = evaluator.targets("content", [image.flip(2)], [1.0], 0)
    (value,) = evaluator.values(image, targets, 0).values()
    torch.autograd.backward(value.sum())
    print(peak_kib() - before)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=512, help="height and width in pixels")
    parser.add_argument("--layer", choices=LAYERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.layer is not None:
        measure(options.layer, options.size)
        return
    print(f"{machine()}; {options.size}x{options.size} px; peak above the start")
    command = [sys.executable, "-m", "tests.benchmarks.trimming", "--size", str(options.size)]
    peaks = {
        layer: int(subprocess.run([*command, "--layer", layer], capture_output=True, text=True, check=True).stdout)
        for layer in LAYERS
    }
    for layer, peak in peaks.items():
        print(f"{layer}  {peak / 1024:7.0f} MiB   {peak / peaks['relu5_1']:6.1%} of relu5_1's")


if __name__ == "__main__":
    main()
