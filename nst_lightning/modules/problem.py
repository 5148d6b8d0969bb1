"""What a module was asked for: the network, the losses with their weights, and how they are optimised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from lightning.pytorch.cli import OptimizerCallable

from nst_lightning.backbones import Backbone
from nst_lightning.data import Worker
from nst_lightning.errors import InputError
from nst_lightning.initializers import INITIALIZERS
from nst_lightning.losses import Objective
from nst_lightning.pairs import Pair

Tile = int | Literal["off", "auto"]
"""The side of the tiles in pixels; `auto` for the largest that fits, and none where the whole image does; or `off`."""


@dataclass(frozen=True, eq=False)
class Problem:
    """What images are optimised for, and how.

    Attributes:
        backbone: The frozen network.
        objective: The losses; their layers are the backbone's.
        weights: The weight of each group of losses, finite, >= 0; pairs may have their own.
        make_optimizer: Makes the optimiser of a list with the one parameter.
        init: As for `StyleTransfer`, as are those that follow.

    Raises:
        InputError: If an argument is out of range.
    """

    backbone: Backbone
    objective: Objective
    weights: Mapping[str, float]
    make_optimizer: OptimizerCallable
    init: str = "content"
    seed: int = 0
    tile: Tile = "off"
    compile: bool = False

    def __post_init__(self) -> None:
        tile = self.tile
        if self.init not in INITIALIZERS:
            raise InputError(f"unknown init {self.init!r}; known are {', '.join(INITIALIZERS)}")
        if not 0 <= self.seed < 2**63:
            raise InputError(f"seed must be a whole number from 0 to 2**63 - 1, got {self.seed}")
        if (isinstance(tile, int) and tile < 1) or (isinstance(tile, str) and tile not in {"off", "auto"}):
            raise InputError(f"tile must be off, auto or a number of pixels from 1, got {tile}")
        if self.compile and tile != "off":
            raise InputError(f"compile works on whole images only: set tile to off, got {tile}")

    @property
    def weighed(self) -> Objective:
        """The objective of the groups that the run weighs."""
        return self.objective.only([group for group in self.objective.groups if self.weights[group] > 0])

    def weight(self, pair: Pair, group: str) -> float:
        """Returns a pair's weight of a group: its own, else the run's."""
        return pair.weights.get(group, self.weights[group])

    def active(self, pairs: Sequence[Pair]) -> Objective:
        """Returns the objective of the groups that any of some pairs weighs: what has no weight costs nothing."""
        groups = self.objective.groups
        return self.objective.only([group for group in groups if any(self.weight(pair, group) > 0 for pair in pairs)])

    def check(self, worker: Worker, pairs: Sequence[Pair]) -> None:
        """Raises an InputError for pairs that would be left as they begin, and where tiles are dealt but off."""
        if self.tile == "off" and worker.deals_tiles:
            msg = "trainer.strategy tile_parallel deals out tiles: set model.tile to auto or a number of pixels"
            raise InputError(msg)
        for pair in pairs:
            if not self.active([pair]).terms:
                raise InputError(f"pair {pair.name}: nothing to optimise: every weight is 0")
