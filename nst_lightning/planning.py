"""What a run would take, known before it begins: its memory, and its time from a few steps that are really taken."""

from __future__ import annotations

import math
import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import lightning as L
import torch

from nst_lightning import memory
from nst_lightning.batches import Batch, Step, deal
from nst_lightning.data import PairDataModule, data_of, memory_for
from nst_lightning.errors import InputError
from nst_lightning.modules import ImageOptimization
from nst_lightning.schedule import Stage
from nst_lightning.strategies import TileParallel
from nst_lightning.tiling import Plan, Tiled

BUDGET = 45.0
"""Seconds that measuring may take; what would go beyond is not measured."""

_STEPS = 4  # of each kind: one that also makes the targets, three that are timed
_SMALL = 256**2  # px that are measured first where every output has more, to know how long a larger one would take
_TILED = 1.5  # forward twice and backward once, instead of once each
_LIKE_FIT = (
    *("accelerator", "precision", "plugins", "benchmark", "deterministic", "detect_anomaly"),
    *("gradient_clip_val", "gradient_clip_algorithm"),
)


@dataclass(frozen=True)
class Kind:
    """What the cost of a step depends on.

    Attributes:
        height: Of the outputs in pixels.
        width: Of the outputs in pixels.
        count: The number of pairs that are optimised together.
    """

    height: int
    width: int
    count: int

    @classmethod
    def of(cls, batch: Batch, stage: Stage) -> Kind:
        """Returns the kind of a batch's steps at a stage."""
        return cls(*batch.output_size(stage), len(batch.pairs))


@dataclass(frozen=True)
class Needs:
    """What a step takes.

    Attributes:
        tiles: How the outputs are cut, None where they are evaluated whole.
        network: Bytes of the features and their gradient.
        state: Bytes of the images, their optimiser and, with tiles, the targets that grow with the image.
    """

    tiles: Plan | None
    network: int
    state: int

    def work(self, kind: Kind) -> float:
        """Returns the pixels that the network sees in a step, which its time grows with."""
        pixels = float(kind.height * kind.width * kind.count)
        return pixels if self.tiles is None else pixels * self.tiles.overhead(kind.height, kind.width) * _TILED


@dataclass(frozen=True)
class Cost:
    """How long steps take.

    Attributes:
        begin: Seconds that the first of a stage takes longer than the others, >= 0.
        step: Seconds a step, > 0.
        measured_on: Where steps were timed: the kind itself, or the one that its pixels were compared with.
    """

    begin: float
    step: float
    measured_on: Kind

    def seconds(self, steps: int) -> float:
        """Returns how long so many steps of one stage take."""
        return self.begin + steps * self.step

    def scaled(self, factor: float) -> Cost:
        """Returns the cost of steps of that many times the work."""
        return Cost(self.begin * factor, self.step * factor, self.measured_on)


def completed(needs: Mapping[Kind, Needs], measured: Mapping[Kind, Cost]) -> dict[Kind, Cost]:
    """Returns the costs of all kinds; those not measured by their work, from the largest that was.

    Args:
        needs: What the steps take, measured or not.
        measured: The costs that were measured, at least one.
    """
    largest = max(measured, key=lambda kind: needs[kind].work(kind))
    work = needs[largest].work(largest)
    return {
        kind: measured[kind] if kind in measured else measured[largest].scaled(of.work(kind) / work)
        for kind, of in needs.items()
    }


@dataclass(frozen=True)
class Row:
    """Batches that are alike at a stage.

    Attributes:
        stage: Its place in the schedule, from 1.
        kind: Their kind.
        steps: The steps that each has left of the stage, >= 1.
        batches: How many they are.
        needs: What one of their steps takes.
        cost: How long they take.
    """

    stage: int
    kind: Kind
    steps: int
    batches: int
    needs: Needs
    cost: Cost

    @property
    def seconds(self) -> float:
        """How long all of them take, one after the other."""
        return self.batches * self.cost.seconds(self.steps)


@dataclass(frozen=True)
class Estimate:
    """What a run would take.

    Attributes:
        batches: The batches of one process.
        rows: Their stages, in order.
        seconds: By a pair's name its share of the time of its batch.
        units: What is dealt out to several processes: single pairs, and batches that go on from a checkpoint.
    """

    batches: tuple[Batch, ...]
    rows: tuple[Row, ...]
    seconds: Mapping[str, float]
    units: tuple[Batch, ...]

    @property
    def total(self) -> float:
        """Seconds on one process."""
        return sum(row.seconds for row in self.rows)

    def of(self, batch: Batch) -> float:
        """Returns how many seconds the pairs of a batch take."""
        return sum(self.seconds[name] for name in batch.names)

    def on(self, ranks: int) -> float:
        """Returns how many seconds several processes take until the last has finished, each with pairs of its own."""
        return max(sum(map(self.of, share)) for share in deal(self.units, ranks))

    def ranks_within(self, seconds: float) -> int | None:
        """Returns the fewest processes that take no longer, None where even one a pair do."""
        if self.longest is None:
            return 1
        if self.of(self.longest) > seconds:
            return None
        fewest = max(1, math.ceil(self.total / seconds * (1 - 1e-9)))  # what is divided evenly rounds either way
        return next((ranks for ranks in range(fewest, len(self.units)) if self.on(ranks) <= seconds), len(self.units))

    @property
    def longest(self) -> Batch | None:
        """What takes longest of all that can be dealt out."""
        return max(self.units, key=self.of, default=None)


def plan(batches: Sequence[Batch], needs: Mapping[Kind, Needs], costs: Mapping[Kind, Cost]) -> Estimate:
    """Returns what a run would take.

    Args:
        batches: The batches of one process.
        needs: What a step takes, for every kind in the batches.
        costs: How long it takes, likewise.
    """
    alike: Counter[tuple[int, Kind, int]] = Counter()
    seconds: dict[str, float] = {}
    for batch in batches:
        parts = list(_parts(batch))
        alike.update(parts)
        spent = sum(costs[kind].seconds(steps) for _, kind, steps in parts)
        seconds.update(dict.fromkeys(batch.names, spent / len(batch.names)))
    rows = [Row(place, kind, steps, number, needs[kind], costs[kind]) for (place, kind, steps), number in alike.items()]
    units = tuple(unit for batch in batches for unit in _units(batch))
    return Estimate(tuple(batches), tuple(sorted(rows, key=lambda row: row.stage)), seconds, units)


def _parts(batch: Batch) -> Iterator[tuple[int, Kind, int]]:
    """Yields the stages that a batch has steps left of: the place from 1, the kind and the number of steps."""
    for place, (stage, first, last) in enumerate(batch.stretches(), start=1):
        if first < last:
            yield place, Kind.of(batch, stage), last - first


def _units(batch: Batch) -> Iterator[Batch]:
    if batch.saved is not None:
        yield batch
        return
    for pair in batch.pairs:
        yield Batch([pair], batch.source_size, batch.stages, batch.style_scale, batch.upscale, batch.gallery)


# ---- measuring ----


def measure(
    module: ImageOptimization,
    data: PairDataModule,
    asked: L.Trainer,
    settings: Mapping[str, Any],
    budget: float = BUDGET,
) -> Estimate:
    """Takes a few steps of every kind, as far as the budget goes, and estimates the run; writes nothing.

    Args:
        module: What would be fitted.
        data: What it would be fitted on.
        asked: The trainer that would do it; it is not run.
        settings: The arguments of that trainer.
        budget: Seconds for measuring; the smallest kind is measured in any case.

    Raises:
        InputError: If the run would refuse what it was given.
    """
    probing = _Probing(asked, budget)
    root = asked.strategy.root_device
    trainer = L.Trainer(
        **{name: settings[name] for name in _LIKE_FIT if name in settings},
        devices=[root.index] if root.type == "cuda" else 1,
        max_epochs=1,
        logger=False,
        callbacks=[probing],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, datamodule=data)
    return plan(probing.batches, probing.needs, completed(probing.needs, probing.costs) if probing.costs else {})


class _Probing(L.Callback):
    """Puts a few steps of each kind in the place of the run's, from the least work to the most, and times them.

    Args:
        asked: The trainer of the run.
        budget: Seconds after which no other kind is begun.

    Attributes:
        batches: Those of the run, in one process.
        needs: What a step takes, by kind.
        costs: How long it takes, by the kinds that were measured.
    """

    def __init__(self, asked: L.Trainer, budget: float) -> None:
        self.asked = asked
        self.batches: tuple[Batch, ...] = ()
        self.needs: dict[Kind, Needs] = {}
        self.costs: dict[Kind, Cost] = {}
        self._probes: tuple[Kind, ...] = ()
        self._deadline = time.monotonic() + budget
        self._began = 0.0
        self._taken: list[float] = []

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Notes what the run would do, and plans the steps to take instead."""
        assert isinstance(pl_module, ImageOptimization)
        data = data_of(trainer)
        self.batches = data.batches
        probes: dict[Kind, Batch] = {}
        for batch in self.batches:
            for place, kind, _ in _parts(batch):
                if kind not in probes:
                    probes[kind] = _probe(batch, batch.stages[place - 1].size)
                    self.needs[kind] = self._needs_of(pl_module, trainer, kind)
        order = sorted(probes, key=lambda kind: self.needs[kind].work(kind))
        if order:
            first = _reduced(probes[order[0]], order[0], pl_module.backbone.min_side) or probes[order[0]]
            kind = Kind.of(first, first.stages[0])
            # A reduced one is no part of the run; a step that needs more than there is might end this process.
            self.needs.setdefault(kind, replace(self.needs[order[0]], network=0, state=0))
            free = memory_for(self.asked)
            fitting = [kind for kind in order if self.needs[kind].network + self.needs[kind].state <= free]
            # The smallest comes first in any case, and once more where it counts: a device's first step starts it up.
            self._probes = (kind, *fitting)
            data.batches = (first, *(probes[kind] for kind in fitting))

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Step, batch_idx: int
    ) -> None:
        """Starts the clock, and sees to it that the tiles are those of the run."""
        assert isinstance(pl_module, ImageOptimization)
        tiles = self.needs[self._probes[batch.batch_index]].tiles
        pl_module.evaluation.tile = "off" if tiles is None else tiles.tile
        self._began = time.monotonic()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: Step, batch_idx: int
    ) -> None:
        """Notes the time, and stops where the next kind would take longer than there is time for."""
        _synchronize(pl_module.device)
        self._taken.append(time.monotonic() - self._began)
        if not batch.is_last:
            return
        kind = self._probes[batch.batch_index]
        first, *others = self._taken
        step = sum(others) / len(others)
        self.costs[kind] = Cost(max(0.0, first - step), step, kind)
        self._taken = []
        left = self._probes[batch.batch_index + 1 :]
        if left:
            expected = completed(self.needs, self.costs)[left[0]].seconds(_STEPS)
            trainer.should_stop = time.monotonic() + expected > self._deadline

    def _needs_of(self, module: ImageOptimization, trainer: L.Trainer, kind: Kind) -> Needs:
        pixels = kind.height * kind.width
        shared = isinstance(self.asked.strategy, TileParallel)
        asked = trainer if shared else self.asked  # whose processes share the memory
        evaluation = module.evaluation
        tile = evaluation.tile_of(asked, pixels, kind.count)
        evaluation.check(self.asked)
        if shared and evaluation.tile == "auto":
            each = math.isqrt(pixels // self.asked.world_size)
            tile = max(1, each if tile is None else min(tile, each))
        footprint = evaluation.footprint(asked)
        if tile is None:
            return Needs(None, kind.count * footprint.evaluation.at(pixels), kind.count * footprint.state.at(pixels))
        tiles = Tiled(module.backbone, module.objective, tile).plan
        network = footprint.evaluation.at(min(pixels, tiles.crop**2))
        return Needs(tiles, kind.count * network, kind.count * (footprint.state.at(pixels) + footprint.maps.at(pixels)))


def _probe(batch: Batch, size: int) -> Batch:
    stage = Stage(size, _STEPS)
    return Batch(batch.pairs, batch.source_size, [stage], batch.style_scale, batch.upscale, batch.gallery)


def _reduced(batch: Batch, kind: Kind, least: int) -> Batch | None:
    """Returns a batch of fewer pixels, None where it has few or its narrow side allows no fewer.

    Args:
        batch: A batch of one stage.
        kind: Its kind.
        least: The side of the smallest image that the network takes, in pixels.
    """
    pixels = kind.height * kind.width
    factor = max(math.sqrt(_SMALL / pixels), least / min(kind.height, kind.width))
    if pixels * kind.count <= _SMALL or factor >= 1:
        return None
    size = math.ceil(max(kind.height, kind.width) * factor)
    pair = batch.pairs[0]
    # Styled by itself: a painting of another shape might become smaller than the network takes.
    alone = Batch([replace(pair, styles=(pair.content,))], batch.source_size, [], 1.0, batch.upscale, batch.gallery)
    return _probe(alone, size)


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


# ---- telling ----


def duration(text: str) -> float:
    """Returns the seconds in a text such as `90`, `90s`, `30m`, `1h` or `1h30m`.

    Raises:
        InputError: If it is no such text, or nothing at all.
    """
    found = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?", text.strip().replace(" ", ""))
    hours, minutes, seconds = (int(part or 0) for part in found.groups()) if found else (0, 0, 0)
    total = 3600 * hours + 60 * minutes + seconds
    if total == 0:
        msg = f"within must be a time above 0, as 90s, 30m or 1h30m, got {text!r}"
        raise InputError(msg)
    return float(total)


def text(estimate: Estimate, asked: L.Trainer, pictures: str, within: float | None = None) -> str:
    """Returns an estimate in words and a table.

    Args:
        estimate: The estimate.
        asked: The trainer of the run.
        pictures: Where the pictures would go.
        within: A wish in seconds that a number of devices is looked for to meet; None for no wish.
    """
    if not estimate.rows:
        return "nothing left to do"
    ranks, shared = asked.world_size, isinstance(asked.strategy, TileParallel)
    root = asked.strategy.root_device
    lines = [*_facts(estimate, asked, pictures), "", *_table(estimate.rows, memory_for(asked)), ""]
    times = {"time on 1 process": span(estimate.total)}
    if ranks > 1 and shared:
        times[f"time on {ranks} processes"] = f"{span(estimate.total / ranks)} at best, without what they exchange"
    elif ranks > 1:
        times[f"time on {ranks} processes"] = span(estimate.on(ranks))
    if within is not None:
        times[f"within {span(within)}"] = _shared(estimate, within) if shared else _dealt(estimate, within)
    lines += _aligned(times)
    lines.append("Starting up, and writing pictures and films, are not counted.")
    if root.type == "cpu" and (ranks > 1 or within is not None):
        threads = torch.get_num_threads()
        lines.append(f"Processes on one CPU share its cores; these times take {_many(threads, 'core')} for each.")
    return "\n".join(lines)


def span(seconds: float) -> str:
    """Returns a time in words, e.g. `3.4 s`, `12 min 05 s` or `2 h 10 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    (whole, part), units = divmod(round(seconds), 60), ("min", "s")
    if whole >= 60:
        (whole, part), units = divmod(round(seconds / 60), 60), ("h", "min")
    return f"{whole} {units[0]}" + (f" {part:02d} {units[1]}" if part else "")


def _facts(estimate: Estimate, asked: L.Trainer, pictures: str) -> list[str]:
    root = asked.strategy.root_device
    names = list(estimate.seconds)
    strategy = "tile_parallel" if isinstance(asked.strategy, TileParallel) else "pair_parallel"
    facts = {
        "pairs": f"{len(names)}" if len(names) > 1 else f"1 ({names[0]})",
        "batches": _batches(estimate.batches),
        "steps": f"{sum(row.batches * row.steps for row in estimate.rows)}",
        "processes": f"{asked.world_size}{f', {strategy}' if asked.world_size > 1 else ''}, on {root.type}",
        "memory": f"{_bytes(memory.available(root))} free; a process plans with {_bytes(memory_for(asked))}",
        "pictures": pictures,
    }
    return _aligned(facts)


def _batches(batches: Sequence[Batch]) -> str:
    alike = Counter((len(batch.pairs), batch.output_size(batch.stages[-1])) for batch in batches)
    kinds = [f"{number} of {_many(pairs, 'pair')} ({size[1]}x{size[0]} px)" for (pairs, size), number in alike.items()]
    hidden = [f"{len(kinds) - _KINDS_TOLD} more sizes"] if len(kinds) > _KINDS_TOLD else []
    return f"{len(batches)}: {', '.join(kinds[:_KINDS_TOLD] + hidden)}"


_KINDS_TOLD = 4  # on one line; the table has them all
_HEADS = (
    *("stage", "size", "batches x pairs", "steps", "tile", "halo", "overhead"),
    *("network", "state", "memory", "of free", "s/step", "time"),
)


def _table(rows: Sequence[Row], free: int) -> list[str]:
    """Returns the lines of the table, and what has to be said of it.

    Args:
        rows: The rows.
        free: The bytes that a process plans with.
    """
    cells = [_HEADS, *(_cells(row, free) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(f"{cell:>{width}}" for cell, width in zip(line, widths, strict=True)) for line in cells]
    origins = {row.cost.measured_on: None for row in rows if row.cost.measured_on != row.kind}
    if origins:
        of = ", ".join(f"{_many(kind.count, 'image')} of {kind.width}x{kind.height} px" for kind in origins)
        lines.append(f"* not measured, but by the number of pixels from {of}")
    if any(row.needs.network + row.needs.state > free for row in rows):
        lines.append("! takes more memory than a process plans with: a smaller size, or --tile auto, would help")
    return lines


def _cells(row: Row, free: int) -> tuple[str, ...]:
    kind, needs = row.kind, row.needs
    taken = needs.network + needs.state
    if needs.tiles is None:
        tile, halo, overhead = "off", "-", "-"
    else:
        # Of the last of a row or column only one side counts, so the halo is that between two tiles.
        tile, halo = f"{needs.tiles.tile} px", f"{needs.tiles.before}+{needs.tiles.after} px"
        overhead = f"{needs.tiles.overhead(kind.height, kind.width):.2f}"
    return (
        str(row.stage),
        f"{kind.width}x{kind.height}",
        f"{row.batches} x {kind.count}",
        str(row.steps),
        *(tile, halo, overhead),
        *(_bytes(needs.network), _bytes(needs.state), _bytes(taken)),
        f"{100 * taken / max(1, free):.0f} %" + ("!" if taken > free else ""),
        f"{row.cost.step:.3g}" + ("*" if row.cost.measured_on != kind else ""),
        span(row.seconds),
    )


def _dealt(estimate: Estimate, within: float) -> str:
    ranks = estimate.ranks_within(within)
    longest = estimate.longest
    if ranks is None and longest is not None:
        alone = f"{', '.join(longest.names)} alone takes {span(estimate.of(longest))}"
        help = "fewer steps, a smaller size, or --strategy tile_parallel with --tile auto would help"
        return f"not with whole pairs on any number of devices: {alone}; {help}"
    assert ranks is not None
    how = " with --strategy pair_parallel" if ranks > 1 else ""
    return f"{_many(ranks, 'device')}{how} ({span(estimate.on(ranks))})"


def _shared(estimate: Estimate, within: float) -> str:
    ranks = max(1, math.ceil(estimate.total / within))
    return f"{_many(ranks, 'device')} at best ({span(estimate.total / ranks)})"


def _aligned(facts: Mapping[str, str]) -> list[str]:
    width = max(map(len, facts)) + 2
    return [f"{name:<{width}}{fact}" for name, fact in facts.items()]


def _many(number: int, thing: str) -> str:
    return f"{number} {thing}" + ("" if number == 1 else "s")


def _bytes(number: int) -> str:
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{number / 1e6:.0f} MB"
