"""What a run would take, from what single steps take: pure arithmetic."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from nst_lightning.batches import Batch, deal
from nst_lightning.schedule import Stage
from nst_lightning.tiling import Plan

_TILED = 1.5  # forward twice and backward once, instead of once each


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
        taken = list(parts(batch))
        alike.update(taken)
        spent = sum(costs[kind].seconds(steps) for _, kind, steps in taken)
        seconds.update(dict.fromkeys(batch.names, spent / len(batch.names)))
    rows = [Row(place, kind, steps, number, needs[kind], costs[kind]) for (place, kind, steps), number in alike.items()]
    units = tuple(unit for batch in batches for unit in _units(batch))
    return Estimate(tuple(batches), tuple(sorted(rows, key=lambda row: row.stage)), seconds, units)


def parts(batch: Batch) -> Iterator[tuple[int, Kind, int]]:
    """Yields the stages that a batch has steps left of: the place from 1, the kind and the number of steps."""
    for place, (stage, first, last) in enumerate(batch.stretches(), start=1):
        if first < last:
            yield place, Kind.of(batch, stage), last - first


def _units(batch: Batch) -> Iterator[Batch]:
    if batch.saved is not None:
        yield batch
        return
    for pair in batch.pairs:
        yield batch.like([pair], batch.stages)
