"""A few steps of every kind, really taken."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import lightning as L
import torch

from nst_lightning.batches import Batch, Step
from nst_lightning.data import PairDataModule, data_of, memory_for
from nst_lightning.modules import ImageOptimization
from nst_lightning.parallel import TileParallel
from nst_lightning.planning.estimate import Cost, Estimate, Kind, Needs, completed, parts, plan
from nst_lightning.schedule import Stage
from nst_lightning.tiling import Tiled

BUDGET = 45.0
"""Seconds that measuring may take; what would go beyond is not measured."""

_STEPS = 4  # of each kind: one that also makes the targets, three that are timed
_SMALL = 256**2  # px that are measured first where every output has more, to know how long a larger one would take
_LIKE_FIT = (
    *("accelerator", "precision", "plugins", "benchmark", "deterministic", "detect_anomaly"),
    *("gradient_clip_val", "gradient_clip_algorithm"),
)


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
            for place, kind, _ in parts(batch):
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
    return batch.like(batch.pairs, [Stage(size, _STEPS)])


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
