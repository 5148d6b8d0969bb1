"""What a module is asked for: the network, the losses with their weights, and how they are optimised."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import nn

from nst_lightning.backbones import Backbone, Spec
from nst_lightning.data import Worker
from nst_lightning.errors import InputError
from nst_lightning.initializers import INITIALIZERS
from nst_lightning.losses import IMAGE, STYLE_LOSSES, Content, Objective, Term, TotalVariation
from nst_lightning.pairs import Pair

Layers = int | list[str] | dict[str, float] | str | None
Tile = int | Literal["off", "auto"]
"""The side of the tiles in pixels; `auto` for the largest that fits, and none where the whole image does; or `off`."""

SMOOTHNESS = Term("tv", (IMAGE,), TotalVariation(), 1.0)


@dataclass(frozen=True, eq=False)
class Problem:
    """What images are optimised for, and how; an InputError where that is out of range. See `StyleTransfer`."""

    backbone: Backbone
    objective: Objective  # whose layers are the backbone's
    weights: Mapping[str, float]  # by group of losses, finite, >= 0; pairs may have their own
    make_optimizer: OptimizerCallable
    init: str = "content"
    seed: int = 0
    tile: Tile = "off"
    compile: bool = False

    def __post_init__(self) -> None:
        tile = self.tile
        for group, weight in self.weights.items():
            if not (math.isfinite(weight) and weight >= 0):
                raise InputError(f"{group}_weight must be a finite number, 0 or above, got {weight}")
        if self.init not in INITIALIZERS:
            raise InputError(f"unknown init {self.init!r}; known are {', '.join(INITIALIZERS)}")
        if not 0 <= self.seed < 2**63:
            raise InputError(f"seed must be a whole number from 0 to 2**63 - 1, got {self.seed}")
        if (isinstance(tile, int) and tile < 1) or (isinstance(tile, str) and tile not in {"off", "auto"}):
            raise InputError(f"tile must be off, auto or a number of pixels from 1, got {tile}")
        if self.compile and tile != "off":
            raise InputError(f"compile works on whole images only: set tile to off, got {tile}")

    @property
    def settings(self) -> dict[str, str | int | float]:
        """What was chosen, in words: the weights of the network, and the optimiser."""
        return {"weights": self.backbone.origin, "optimizer": described(self.make_optimizer)}

    @property
    def weighed(self) -> Objective:
        """The objective of the groups that the run weighs; of all where it leaves that to the pairs."""
        weighed = self.objective.only([group for group in self.objective.groups if self.weights[group] > 0])
        return weighed if weighed.terms else self.objective

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


def representation(group: str, given: Layers, spec: Spec, style_loss: str) -> list[Term]:
    """Returns a term for each layer chosen by name or by its place in the study's table, see `StyleTransfer`."""
    if given is None:
        given = list(spec.content_layers if group == "content" else spec.style_layers)
    if isinstance(given, str):
        given = int(given) if given.isdecimal() else given.replace(" ", "").split(",")
    if isinstance(given, int):
        given = list(spec.content_at(given) if group == "content" else spec.style_up_to(given))
    layers = given if isinstance(given, Mapping) else dict.fromkeys(given, 1.0)
    if not layers or not all(math.isfinite(weight) and weight > 0 for weight in layers.values()):
        raise InputError(f"{group}_layers must name at least one layer, with weights above 0, got {dict(layers)}")
    if group == "style" and style_loss not in STYLE_LOSSES:
        raise InputError(f"unknown style_loss {style_loss!r}; known are {', '.join(STYLE_LOSSES)}")
    loss = Content() if group == "content" else STYLE_LOSSES[style_loss]()
    total = sum(layers.values())
    return [Term(group, (layer,), loss, weight / total) for layer, weight in layers.items()]


def listed(objective: Objective, group: str) -> str:
    """Returns the layers of a group's terms between commas, with their shares where these differ."""
    own = [term for term in objective.terms if term.group == group]
    alike = len({term.share for term in own}) == 1
    return ",".join(term.layers[0] if alike else f"{term.layers[0]}:{term.share:g}" for term in own)


def described(make_optimizer: OptimizerCallable) -> str:
    """Names an optimiser with the settings it makes of its defaults."""
    optimizer = make_optimizer([nn.Parameter(torch.zeros(1, 3, 1, 1))])
    settings = ", ".join(
        f"{name}={value}" for name, value in optimizer.defaults.items() if isinstance(value, (int, float, tuple))
    )
    return f"{type(optimizer).__name__}({settings})"
