"""How much of their time many processes would work: pairs dealt out, and the tiles of one image dealt out.

    python -m tests.benchmarks.scale [--ranks 8 64] [--pairs 640] [--tile-size 2048]

Two cores cannot show 64 processes, so this simulates them from what is measured here. Pairs: seconds of a step and of a
stage's beginning at several sizes, a job of pairs of mixed sizes and steps, dealt out by `batches.deal` as in a run;
every process takes the measured start-up besides. Efficiency is the work's seconds over the processes' seconds until
the last one ends. Tiles: seconds of each tile, forward and backward, and of what every process does alike (the step of
the optimiser, the loss on the image), the bytes that are summed, and three assumed networks.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import lightning as L
import torch
from torch import nn

from nst_lightning import memory
from nst_lightning.batches import Batch, Gallery, Step, deal
from nst_lightning.data import PairDataModule
from nst_lightning.modules import StyleTransfer
from nst_lightning.optim import LBFGS
from nst_lightning.pairs import Pair
from nst_lightning.schedule import coarse_to_fine
from nst_lightning.tiling import Tiled, Whole
from tests.benchmarks.evaluation import loss_of, targets_of
from tests.benchmarks.machine import machine
from tests.benchmarks.startup import first_step
from tests.benchmarks.step import pictures
from tests.benchmarks.trainer import fit

SIZES = (256, 384, 512, 768)  # long sides of the job's pairs, which are 3:2
STEPS = (100, 200, 300)
NETWORKS = {"10 Gbit/s Ethernet": 1.25e9, "100 Gbit/s": 12.5e9, "NVLink, 300 GB/s": 300e9}
LATENCY = 50e-6  # seconds of one all-reduce of nothing, a pessimistic round of eight


class _Clock(L.Callback):
    """Notes the seconds of every step by its size: the first of a stage apart."""

    def __init__(self) -> None:
        self.first: dict[int, float] = {}
        self.others: dict[int, list[float]] = {}
        self._began = time.perf_counter()

    def on_train_batch_start(self, *_: object) -> None:
        self._began = time.perf_counter()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: Step, batch_idx: int
    ) -> None:
        taken, size = time.perf_counter() - self._began, batch.stage.size
        if size in self.first:
            self.others.setdefault(size, []).append(taken)
        else:
            self.first[size] = taken


def costs(sizes: Sequence[int]) -> dict[int, tuple[float, float]]:
    """Returns what a stage's beginning takes and what a step, in seconds, by size, through Trainer."""
    clock = _Clock()
    content, style, _ = pictures(max(sizes))
    cropped = content[0, :, : max(sizes) * 2 // 3]
    stages = [stage for size in sorted(sizes) for stage in coarse_to_fine(size, 6, 1)]
    data = PairDataModule(cropped, style[0], stages=stages)  # type: ignore[arg-type] # see api.stylize
    fit(StyleTransfer(), data, clock)
    steps = {size: statistics.median(taken) for size, taken in clock.others.items()}
    return {size: (max(0.0, clock.first[size] - steps[size]), steps[size]) for size in sizes}


def job(count: int) -> list[Batch]:
    """Returns pairs of mixed sizes and steps, the same at every call."""
    chance = random.Random(0)
    gallery = Gallery()
    batches = []
    for number in range(count):
        size, steps = chance.choice(SIZES), chance.choice(STEPS)
        pair = Pair("content.png", ("style.png",), f"pair_{number}")
        batches.append(Batch([pair], (2 * size // 3, size), coarse_to_fine(size, steps, 2), 1.0, True, gallery))
    return batches


def seconds_of(batch: Batch, known: Mapping[int, tuple[float, float]]) -> float:
    """Returns how long a batch takes, from the costs of its stages."""
    return sum(known[stage.size][0] + stage.steps * known[stage.size][1] for stage in batch.stages)


def of_pairs(batches: Sequence[Batch], ranks: int, known: Mapping[int, tuple[float, float]], start: float) -> float:
    """Returns the share of all processes' time until the last one ends that is work."""
    loads = [sum(seconds_of(batch, known) for batch in share) for share in deal(batches, ranks)]
    return sum(loads) / (ranks * (start + max(loads)))


def timed(call: Callable[[], object], repeats: int = 3) -> float:
    """Returns the least time of a call."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return min(times)


def of_tiles(size: int, tile: int, ranks: int) -> None:
    """Prints the efficiency of one image's tiles on so many processes."""
    module = StyleTransfer(tile=tile)
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 3, size, size, generator=generator)
    alone = Tiled(module.backbone, module.objective, tile)
    side = alone.plan.crop
    crop = torch.rand(1, 3, side, side, generator=generator)
    whole = Tiled(module.backbone, module.objective, side)
    loss = loss_of(module.objective, whole, targets_of(module.objective, whole, crop, crop))
    # A tile's seconds: its crop forward without a graph, then forward and backward, as in a step.
    trial = crop.clone().requires_grad_()

    def evaluation() -> None:
        torch.autograd.backward(loss(trial).sum())

    evaluation()
    each = timed(evaluation)
    # What every process does on the whole image: the step of the optimiser and the losses on pixels.
    parameter = nn.Parameter(image)
    optimizer = LBFGS([parameter])
    variation = module.objective.only(["tv"])
    loss_of_pixels = loss_of(variation, Whole(module.backbone, variation), {})

    def alike() -> torch.Tensor:
        optimizer.zero_grad()
        found = loss_of_pixels(parameter)
        torch.autograd.backward(found.sum())
        return found.detach()

    for _ in range(12):  # until the history is full
        optimizer.step(alike)
    same = timed(lambda: optimizer.step(alike))
    tiles = alone.plan.tiles(size, size)
    statistics_bytes = 4 * sum(c * c for c in (64, 128, 256, 512, 512)) + 4 * 512
    gradient_bytes = image.nbytes
    one = len(tiles) * each + same
    most = -(-len(tiles) // ranks) * each + same
    print(f"{size}x{size} px in {len(tiles)} tiles of {tile} px: {each:.3f} s a tile, {same:.3f} s alike in all")
    print(f"summed: {statistics_bytes / 1e6:.1f} MB of statistics, {gradient_bytes / 1e6:.1f} MB of gradient")
    for network, rate in NETWORKS.items():
        ring = 2 * (ranks - 1) / ranks * (statistics_bytes + gradient_bytes) / rate + 7 * LATENCY
        efficiency = one / (ranks * (most + ring))
        print(f"  {ranks} ranks, {network:20} {ring * 1e3:7.1f} ms of sums: efficiency {efficiency:.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, nargs="+", default=[8, 64])
    parser.add_argument("--pairs", type=int, default=640)
    parser.add_argument("--tile", type=int, default=256)
    parser.add_argument("--tile-size", type=int, default=2048, help="side of the image in tiles")
    options = parser.parse_args()
    print(machine())
    start, _ = first_step(64)
    memory.reuse_freed()
    stages = sorted({stage.size for batch in job(options.pairs) for stage in batch.stages})
    known = costs(stages)
    for size, (begin, step) in known.items():
        print(f"{size:4} px, 3:2: {step:.4f} s a step, {begin:.3f} s more for a stage's first")
    batches = job(options.pairs)
    total = sum(seconds_of(batch, known) for batch in batches)
    print(f"{len(batches)} pairs of {SIZES} px and {STEPS} steps: {total / 3600:.2f} h of work; start-up {start:.1f} s")
    for ranks in options.ranks:
        print(f"  {ranks:3} ranks: efficiency {of_pairs(batches, ranks, known, start):.1%}")
    of_tiles(options.tile_size, options.tile, 8)


if __name__ == "__main__":
    main()
