"""What a run would take, known before it begins: its memory, and its time from a few steps that are really taken."""

from __future__ import annotations

import itertools
import math
import re
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
import torch

from nst_lightning.batches import Batch, deal
from nst_lightning.data import PairDataModule, Worker
from nst_lightning.errors import InputError
from nst_lightning.memory import available
from nst_lightning.modules import ImageOptimization
from nst_lightning.modules.problem import described
from nst_lightning.paper import Paper
from nst_lightning.precision import true_float32
from nst_lightning.tiling import Plan

BUDGET = 45.0  # seconds that measuring may take; what would go beyond is not measured

_STEPS = 4  # of each kind: one that starts the device up, three that are timed
_SMALL = 256  # px a side at most of what is measured first, to know how long more would take
_TILED = 1.5  # forward twice and backward once, instead of once each
_HEADS = "stage|size|batches|steps|tile|halo|overhead|memory|of free|s/step|time".split("|")

Size = tuple[int, int, int]  # height and width of outputs in pixels, and how many are optimised together


@dataclass(frozen=True)
class Kind:
    """Steps that cost the same: their size, and the tiles, None for whole images."""

    size: Size
    tiles: Plan | None

    @property
    def work(self) -> float:
        """The pixels that the network sees in a step, which its time grows with."""
        height, width, count = self.size
        return height * width * count * (1.0 if self.tiles is None else _TILED * self.tiles.overhead(height, width))


Measured = dict[Hashable, dict[Kind, float]]
"""Seconds a step by kind, for what steps of one kind cost the same in: the network, losses, optimiser and device."""


@dataclass(frozen=True)
class Cost:
    """How many seconds a step of a kind takes, and the size at which steps were timed to know it."""

    kind: Kind
    step: float
    measured_at: Size


def completed(kinds: Iterable[Kind], measured: Mapping[Kind, float]) -> dict[Size, Cost]:
    """Returns the costs of kinds by size: as measured, else by their work, beside the nearest that was measured.

    Between two that were measured they lie on a straight line, for a small image leaves a GPU waiting for its host;
    beyond they are in proportion.
    """
    known = sorted((each.work, found) for each, found in measured.items())
    works, seconds = [work for work, _ in known], [found for _, found in known]
    costs = {}
    for kind in kinds:
        nearest = min(measured, key=lambda each: abs(math.log(each.work / kind.work)))
        within = min(max(kind.work, works[0]), works[-1])
        step = measured.get(kind, float(np.interp(within, works, seconds)) * kind.work / within)
        costs[kind.size] = Cost(kind, step, nearest.size)
    return costs


@dataclass(frozen=True)
class Estimate:
    """What a run would take."""

    batches: tuple[Batch, ...]  # of one process
    costs: Mapping[Size, Cost]  # of their steps
    memory: Callable[[Size], int]  # returns the bytes that a step of a size takes; measures at the first call
    deals_tiles: bool = False  # whether several processes work on the tiles of one image

    @cached_property
    def rows(self) -> Counter[tuple[int, Size, int]]:
        """How many batches are alike at a stage: in its place from 1, the size, and the steps that are left of it."""
        return Counter(sorted(part for batch in self.batches for part in _left(batch)))

    @cached_property
    def units(self) -> dict[Batch, float]:
        """The seconds of what is dealt out to processes: single pairs, and batches that go on from a checkpoint."""
        units = {}
        for batch in self.batches:
            alone = [replace(batch, pairs=[pair]) for pair in batch.pairs] if batch.saved is None else [batch]
            seconds = sum(steps * self.costs[size].step for _, size, steps in _left(batch))
            units.update(dict.fromkeys(alone, seconds / len(alone)))
        return units

    @property
    def total(self) -> float:
        """Seconds on one process."""
        return sum(self.units.values())

    def on(self, ranks: int) -> float:
        """Returns how many seconds several processes take until the last has finished; at best, if they share tiles."""
        if self.deals_tiles:
            return self.total / ranks
        return max(sum(self.units[unit] for unit in share) for share in deal(list(self.units), ranks))

    def ranks_within(self, seconds: float) -> int | None:
        """Returns the fewest processes that take no longer, None where even one a pair do."""
        if not self.deals_tiles and max(self.units.values()) > seconds:
            return None
        fewest = max(1, math.ceil(self.total / seconds * (1 - 1e-9)))  # what is divided evenly rounds either way
        return next(ranks for ranks in itertools.count(fewest) if self.on(ranks) <= seconds)


def _left(batch: Batch) -> Iterator[tuple[int, Size, int]]:
    """Yields the stages that a batch has steps left of: the place from 1, the size and the number of steps."""
    for place, (stage, first, last) in enumerate(batch.stretches(), start=1):
        if first < last:
            yield place, (*batch.output_size(stage), len(batch.pairs)), last - first


def estimate(
    module: ImageOptimization,
    data: PairDataModule,
    worker: Worker,
    budget: float = BUDGET,
    measured: Measured | None = None,
) -> Estimate:
    """Estimates a fit from a few steps on random images; writes nothing, and leaves the data as they are.

    The worker is what a process of the run would compute on; the others need not be there. Measuring takes the budget
    in seconds, but for one small image. What was `measured` for other runs is not measured again, and is added to.
    """
    worker = replace(worker, agree=lambda found: found)
    problem = module.problem
    problem.check(worker, data.pairs, data.stages)
    batches = data.batches_alone(module.bytes_of_step, worker)
    kinds = {_kind(module, worker, size) for batch in batches for _, size, _ in _left(batch)}
    losses = tuple((term.layers, type(term.loss)) for term in problem.weighed.terms)
    of_module = repr(module.backbone), losses, described(problem.make_optimizer), problem.compile, problem.graph
    known = {} if measured is None else measured.setdefault((*of_module, worker.device, worker.precision), {})
    module.to(worker.device).on_fit_start()
    _measure(module, worker, sorted(kinds, key=lambda kind: kind.work), time.monotonic() + budget, known)
    module.on_fit_end()
    memory = partial(_bytes_of_step, module, worker)
    return Estimate(batches, completed(kinds, known), memory, worker.deals_tiles)


def _kind(module: ImageOptimization, worker: Worker, size: Size) -> Kind:
    tile = module.sizing.tile_for(worker, size[0] * size[1], size[2])
    return Kind(size, None if tile is None else module.sizing.tiled(tile).plan)


def _bytes_of_step(module: ImageOptimization, worker: Worker, size: Size) -> int:
    return module.sizing.bytes_of_step(worker, size[0] * size[1], size[2])


def _measure(
    module: ImageOptimization, worker: Worker, kinds: Sequence[Kind], deadline: float, known: dict[Kind, float]
) -> None:
    """Measures a small, the middle and the largest kind, as far as the time goes and the memory holds them."""
    side = max(_SMALL, module.backbone.min_side)
    small = [Kind((min(kind.size[0], side), min(kind.size[1], side), 1), kind.tiles) for kind in kinds[:1]]
    for kind in [*small, *kinds[len(kinds) // 2 :][:1], *kinds[-1:]]:
        if known and time.monotonic() + _STEPS * completed([kind], known)[kind.size].step > deadline:
            break
        if known and _bytes_of_step(module, worker, kind.size) > worker.memory:
            break
        if kind not in known:
            known[kind] = _seconds_a_step(module, worker, kind)


def _seconds_a_step(module: ImageOptimization, worker: Worker, kind: Kind) -> float:
    sizing, ends = module.sizing, []
    height, width, count = kind.size
    image = torch.rand(count, 3, height, width, device=worker.device)
    evaluator = sizing.whole(module.problem.compile) if kind.tiles is None else sizing.tiled(kind.tiles.tile)
    evaluate = sizing.trial(worker, evaluator, image)
    with true_float32(worker.device):
        steps = sizing.optimised(torch.rand_like(image), evaluate, aged=True)
        for _ in range(_STEPS):
            next(steps)
            if worker.device.type != "cpu":
                torch.accelerator.synchronize(worker.device)
            ends.append(time.monotonic())
    return (ends[-1] - ends[0]) / (_STEPS - 1)


def duration(text: str) -> float:
    """Returns the seconds in a text such as `90`, `90s`, `30m`, `1h` or `1h30m`; refuses others, and none at all."""
    found = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?", text.replace(" ", ""))
    hours, minutes, seconds = (0, 0, 0) if found is None else (int(part or 0) for part in found.groups())
    if not (total := 3600 * hours + 60 * minutes + seconds):
        raise InputError(f"within must be a time above 0, as 90s, 30m or 1h30m, got {text!r}")
    return float(total)


def span(seconds: float) -> str:
    """Returns a time in words, e.g. `3.4 s`, `12 min 05 s` or `2 h 10 min`."""
    if seconds < 59.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    (whole, part), units = divmod(round(seconds), 60), ("min", "s")
    if whole >= 60:
        (whole, part), units = divmod(round(seconds / 60), 60), ("h", "min")
    return f"{whole} {units[0]}" + (f" {part:02d} {units[1]}" if part else "")


def text(
    estimate: Estimate,
    worker: Worker,
    world_size: int,
    pictures: str,
    within: float | None = None,
    paper: Paper | None = None,
) -> str:
    """Returns facts, a table and times, with the devices that it takes to be done `within` so many seconds if given."""
    if not estimate.rows:
        return "nothing left to do"
    names = [name for batch in estimate.batches for name in batch.names]
    strategy = "" if world_size == 1 else ", tile_parallel" if estimate.deals_tiles else ", pair_parallel"
    alike = Counter((len(batch.pairs), batch.output_size(batch.stages[-1])) for batch in estimate.batches)
    sizes = [f"{number} of {_many(pairs, 'pair')} ({size[1]}x{size[0]} px)" for (pairs, size), number in alike.items()]
    lines = [
        f"pairs      {len(names)}" + (f" ({names[0]})" if len(names) == 1 else ""),
        f"batches    {len(estimate.batches)}: {', '.join(sizes)}",
        f"steps      {sum(steps * number for (_, _, steps), number in estimate.rows.items())}",
        f"processes  {world_size}{strategy}, on {worker.device.type}",
        f"memory     {_bytes(available(worker.device))} free; a process plans with {_bytes(worker.memory)}",
        f"pictures   {pictures}",
        *([] if paper is None else (f"print      {size[1]}x{size[0]} px, {paper.told(*size)}" for _, size in alike)),
        *("", *_table(estimate, worker.memory), ""),
        f"time on 1 process  {span(estimate.total)}",
    ]
    if world_size > 1:
        shared = " at best, without what they exchange" if estimate.deals_tiles else ""
        lines.append(f"time on {world_size} processes  {span(estimate.on(world_size))}{shared}")
    if within is not None:
        lines.append(f"within {span(within)}  {_devices(estimate, within)}")
    lines.append("Starting up, and writing pictures and films, are not counted; processes on one CPU share its cores.")
    return "\n".join(lines)


def _devices(estimate: Estimate, within: float) -> str:
    ranks = estimate.ranks_within(within)
    if ranks is None:
        longest = max(estimate.units, key=estimate.units.__getitem__)
        alone = f"{', '.join(longest.names)} alone takes {span(estimate.units[longest])}"
        help = "fewer steps, a smaller size, or --strategy tile_parallel with --tile auto would help"
        return f"not with whole pairs on any number of devices: {alone}; {help}"
    how = " at best" if estimate.deals_tiles else " with --strategy pair_parallel" if ranks > 1 else ""
    return f"{_many(ranks, 'device')}{how} ({span(estimate.on(ranks))})"


def _table(estimate: Estimate, free: int) -> Iterator[str]:
    cells = [_HEADS, *(_cells(estimate, *row, number, free) for row, number in estimate.rows.items())]
    columns = [column for column in zip(*cells, strict=True) if not {"off", "-"} >= {*column[1:]}]
    widths = [max(map(len, column)) for column in columns]
    for line in zip(*columns, strict=True):
        yield "  ".join(f"{cell:>{width}}" for cell, width in zip(line, widths, strict=True))
    costs = [estimate.costs[size] for _, size, _ in estimate.rows]
    origins = dict.fromkeys(cost.measured_at for cost in costs if cost.measured_at != cost.kind.size)
    if origins:
        sizes = ", ".join(f"{_many(count, 'image')} of {width}x{height} px" for height, width, count in origins)
        yield f"* not measured, but by the number of pixels from {sizes}"
    if any(estimate.memory(size) > free for size in estimate.costs):
        yield "! takes more memory than a process plans with: a smaller size, or --tile auto, would help"


def _cells(estimate: Estimate, stage: int, size: Size, steps: int, number: int, free: int) -> tuple[str, ...]:
    height, width, count = size
    cost, taken = estimate.costs[size], estimate.memory(size)
    tiles = cost.kind.tiles
    cut = "off", "-", "-"
    if tiles is not None:
        cut = f"{tiles.tile} px", f"{tiles.before}+{tiles.after} px", f"{tiles.overhead(height, width):.2f}"
    share = f"{100 * taken / max(1, free):.0f} %" + ("!" if taken > free else "")
    step = f"{cost.step:.3g}" + ("*" if cost.measured_at != size else "")
    spent = span(number * steps * cost.step)
    return str(stage), f"{width}x{height}", f"{number} x {count}", str(steps), *cut, _bytes(taken), share, step, spent


def _many(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def _bytes(number: int) -> str:
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{number / 1e6:.0f} MB"
