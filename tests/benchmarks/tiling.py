"""What tiles save: peak memory and time of one evaluation of a style transfer, whole and tile by tile.

    python -m tests.benchmarks.tiling [--tile 256] [--map-dtype bfloat16] [--large] [--large-whole]

The objective is a style transfer's: VGG16 with its bundled weights, default layers. Each measurement is taken in a
process of its own, from the state with the network but without images; the targets are made by tiles in either case.
Beside the peak stands what of it is as large as the image. `--large` adds 4096x3072 px to 1024x768 px,
`--large-whole` also without tiles.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import torch

from nst_lightning.modules import StyleTransfer
from nst_lightning.tiling import Tiled, Whole
from tests.benchmarks.evaluation import loss_of, targets_of
from tests.benchmarks.machine import machine
from tests.benchmarks.trimming import peak_kib

SMALL, LARGE = (768, 1024), (3072, 4096)
MIB = 2**20


def measure(height: int, width: int, tile: int, whole: bool, map_dtype: str | None) -> None:
    """Prints what one evaluation raises the peak by, the bytes of what grows with the image, and seconds."""
    module = StyleTransfer()
    goal, backbone = module.objective, module.backbone
    tiled = Tiled(backbone, goal, tile, map_dtype=None if map_dtype is None else getattr(torch, map_dtype))
    evaluator = Whole(backbone, goal) if whole else tiled
    generator = torch.Generator().manual_seed(0)
    patch = torch.rand(1, 3, 64, 64, generator=generator)
    # What the first use of a library loads stays for good, and is not the evaluation's.
    torch.autograd.backward(
        loss_of(goal, evaluator, targets_of(goal, tiled, patch, patch))(patch.requires_grad_()).sum()
    )
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = peak_kib()
    image = torch.rand(1, 3, height, width, generator=generator, requires_grad=True)
    # By tiles in either case: it is the evaluation whose peak is looked for.
    targets = targets_of(goal, tiled, image.detach().flip(3), patch)
    began = time.perf_counter()
    torch.autograd.backward(loss_of(goal, evaluator, targets)(image).sum())
    measured = {
        "seconds": time.perf_counter() - began,
        "peak": (peak_kib() - before) / 1024,
        "image": image.nbytes / MIB,
        "content target": sum(maps.nbytes for maps in targets["content/relu4_2"]) / MIB,
        "gradient of the terms on layers": image.nbytes / MIB,
        "gradient of the total variation": image.nbytes / MIB,
        "overhead": tiled.plan.overhead(height, width),
    }
    print(json.dumps(measured))


def measured(size: tuple[int, int], whole: bool, options: argparse.Namespace) -> dict[str, float]:
    """Returns what `measure` prints, from a process of its own."""
    command = [sys.executable, "-m", "tests.benchmarks.tiling", "--tile", str(options.tile)]
    command += ["--one", str(size[0]), str(size[1]), *["--whole"] * whole]
    command += [] if options.map_dtype is None else ["--map-dtype", options.map_dtype]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def report(label: str, found: dict[str, float]) -> None:
    sized = {name: size for name, size in found.items() if name not in {"seconds", "peak", "overhead"}}
    rest = found["peak"] - sum(sized.values())
    print(
        f"{label:<20} {found['seconds']:8.1f} s   peak {found['peak']:6.0f} MiB above the start, of which", flush=True
    )
    for name, size in [*sized.items(), ("everything else", rest)]:
        print(f"{'':<34}{size:6.0f} MiB   {name}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tile", type=int, default=256, help="side of a tile in pixels")
    parser.add_argument("--map-dtype", choices=("bfloat16", "float16"), help="what the content target is kept in")
    parser.add_argument("--large", action="store_true", help="also 4096x3072 px, by tiles")
    parser.add_argument("--large-whole", action="store_true", help="also 4096x3072 px without tiles: 27 GiB")
    parser.add_argument("--one", type=int, nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--whole", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one is not None:
        height, width = options.one
        measure(height, width, options.tile, options.whole, options.map_dtype)
        return
    print(f"{machine()}; VGG16, default layers, float32, tiles of {options.tile} px", flush=True)
    whole, tiled = (measured(SMALL, each, options) for each in (True, False))
    report("1024x768, whole", whole)
    report("1024x768, tiles", tiled)
    print(f"tiles: {tiled['seconds'] / whole['seconds']:.2f} times the seconds, {tiled['overhead']:.2f} the pixels")
    if options.large:
        large = measured(LARGE, False, options)
        report("4096x3072, tiles", large)
        print(f"4096x3072 beside 1024x768, by tiles: {large['peak'] / tiled['peak']:.2f} times the peak")
    if options.large_whole:
        report("4096x3072, whole", measured(LARGE, True, options))


if __name__ == "__main__":
    main()
