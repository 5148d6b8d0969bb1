"""What a module is asked for: the network, the losses with their weights, and how they are optimised."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn

from nst_lightning import initializers, optim, regions
from nst_lightning.backbones import Backbone, Spec
from nst_lightning.cards import Card, is_card
from nst_lightning.data import Worker
from nst_lightning.errors import InputError
from nst_lightning.losses import IMAGE, TV_LOSSES, Global, Loss, Objective, Term
from nst_lightning.pairs import Pair
from nst_lightning.schedule import Stage

Layers = int | list[str] | dict[str, float] | str | None
Tile = int | Literal["off", "auto"]
"""The side of the tiles in pixels; `auto` for the largest that fits, and none where the whole image does; or `off`."""

Losses = str | dict[str, float | dict[str, float]]
"""Losses by their names between commas, or with the weight of each, or with those of its layers."""
Convention = Literal["relative", "absolute"]


def smoothness(tv_loss: str) -> Term:
    """Returns the term of a total variation by its name."""
    if tv_loss not in TV_LOSSES:
        raise InputError(f"unknown tv_loss {tv_loss!r}; known are {', '.join(TV_LOSSES)}")
    return Term("tv", (IMAGE,), TV_LOSSES[tv_loss](), 1.0)


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
    graph: bool = False
    style_rotations: bool = False
    mask_edge: regions.Edge = "even"

    def __post_init__(self) -> None:
        tile = self.tile
        for group, weight in self.weights.items():
            if not (math.isfinite(weight) and weight >= 0):
                raise InputError(f"{group}_weight must be a finite number, 0 or above, got {weight}")
        initializers.check(self.init)
        regions.check_edge(self.mask_edge)
        if not 0 <= self.seed < 2**63:
            raise InputError(f"seed must be a whole number from 0 to 2**63 - 1, got {self.seed}")
        if (isinstance(tile, int) and tile < 1) or (isinstance(tile, str) and tile not in {"off", "auto"}):
            raise InputError(f"tile must be off, auto or a number of pixels from 1, got {tile}")
        if self.compile and tile != "off":
            raise InputError(f"compile works on whole images only: set tile to off, got {tile}")
        optimizer = _stepped(self.make_optimizer)
        if self.graph and not isinstance(optimizer, optim.LBFGS):
            raise InputError(f"graph needs optimizer lbfgs, whose steps are all alike, got {type(optimizer).__name__}")

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
        """Returns a pair's weight of a group: its own, else the run's; nothing is temporal without a frame before."""
        if group == "temporal" and pair.before is None:
            return 0.0
        return pair.weights.get(group, self.weights[group])

    def active(self, pairs: Sequence[Pair]) -> Objective:
        """Returns the objective of the groups that any of some pairs weighs: what has no weight costs nothing."""
        groups = self.objective.groups
        return self.objective.only([group for group in groups if any(self.weight(pair, group) > 0 for pair in pairs)])

    def check(self, worker: Worker, pairs: Sequence[Pair], stages: Sequence[Stage]) -> None:
        """Raises an InputError for pairs that a stage would leave as they are, and where tiles are dealt but off."""
        if self.tile == "off" and worker.deals_tiles:
            msg = "trainer.strategy tile_parallel deals out tiles: set model.tile to auto or a number of pixels"
            raise InputError(msg)
        if worker.deals_tiles and any(pair.before is not None for pair in pairs):
            raise InputError("trainer.strategy must be pair_parallel for a film, whose chunks it deals out")
        if self.graph:
            _check_graph(worker)
        self._check_cards(pairs)
        known = dict.fromkeys(name for term in self.objective.terms for name in (term.group, term.label) if name)
        for stage in stages:
            if unknown := [name for name in stage.weights if name not in known]:
                raise InputError(f"a stage weighs {unknown[0]!r}; this run has {', '.join(known)}")
        for pair in pairs:
            weighs = [group in self.weights and self.weight(pair, group) > 0 for group in ("content", "style")]
            if pair.strength is not None and not all(weighs):
                raise InputError(f"pair {pair.name}: strength needs a content_weight and a style_weight above 0")
            if pair.weights.get("temporal", 0) > 0 and "temporal" not in self.objective.groups:
                raise InputError(f"pair {pair.name}: temporal_weight counts where the run's is above 0, as in nst film")
            active = self.active([pair])
            for term in active.terms if pair.masked else ():
                if isinstance(term.loss, Global) and term.loss.source is not None:
                    msg = f"{type(term.loss).__name__} needs the whole image at once: it does not work with masks"
                    raise InputError(f"pair {pair.name}: {term.name}: {msg}")
            if not all(active.at(stage.weights).terms for stage in stages):
                raise InputError(f"pair {pair.name}: nothing to optimise: every weight is 0")

    def _check_cards(self, pairs: Sequence[Pair]) -> None:
        """Refuses cards of another network or loss, and pairs that ask for the painting of one."""
        of_pairs = [(pair, [style for style in pair.styles if is_card(style)]) for pair in pairs]
        terms = self.objective.only(["style"]).terms
        for name in dict.fromkeys(os.fspath(card) for _, cards in of_pairs for card in cards):
            Card.read(name).check(self.backbone, terms, self.style_rotations)
        for pair in (pair for pair, cards in of_pairs if cards):
            init = self.init if pair.init is None else pair.init
            asked = f"init {init}" if init in initializers.OF_STYLE else "strength"
            if init in initializers.OF_STYLE or pair.strength is not None:
                raise InputError(f"pair {pair.name}: {asked} needs the painting, which a style card does not hold")


def representation(
    group: str, given: Layers, spec: Spec, losses: Losses, known: Mapping[str, type[Loss]], unit: float, relative: bool
) -> list[Term]:
    """Returns the terms of losses on layers chosen by name or by place in the study's table, see `StyleTransfer`."""
    chosen: Mapping[str, float | dict[str, float]]
    chosen = dict.fromkeys(losses.replace(" ", "").split(","), 1.0) if isinstance(losses, str) else losses
    terms = []
    for name, weight in chosen.items():
        if name not in known:
            raise InputError(f"unknown {group}_loss {name!r}; known are {', '.join(known)}")
        loss = known[name](unit)
        shares = weight if isinstance(weight, Mapping) else _shares(group, given, spec, loss, weight)
        if not shares or not all(math.isfinite(share) and share > 0 for share in shares.values()):
            allowed = "at least one layer, with weights above 0"
            raise InputError(f"{group}_layers must name {allowed}, got {dict(shares)} for {name}")
        label = name if loss.joint or len(chosen) > 1 else ""
        if loss.joint:  # hypercolumns begin with the image
            layers = tuple(dict.fromkeys((IMAGE, *shares)))
            terms.append(Term(group, layers, loss, sum(shares.values()), relative, label))
        else:
            terms += [Term(group, (layer,), loss, share, relative, label) for layer, share in shares.items()]
    return terms


def _shares(group: str, given: Layers, spec: Spec, loss: Loss, weight: float) -> Mapping[str, float]:
    """Returns the layers that a loss reads, with their parts of its weight."""
    if given is None and loss.layers != () and {*loss.layers} <= {IMAGE, *spec.layers}:
        given = list(loss.layers)
    if given is None:
        given = list(spec.content_layers if group == "content" else spec.style_layers)
    if isinstance(given, str):
        given = int(given) if given.isdecimal() else given.replace(" ", "").split(",")
    if isinstance(given, int):
        given = list(spec.content_at(given) if group == "content" else spec.style_up_to(given))
    layers = given if isinstance(given, Mapping) else dict.fromkeys(given, 1.0)
    total = sum(layers.values())
    return {layer: weight * share / total if total > 0 else share for layer, share in layers.items()}


def listed(objective: Objective, group: str) -> str:
    """Returns the layers of a group's terms between commas, with their shares where these differ."""
    of_group = [term for term in objective.terms if term.group == group]
    # Those of joint terms, which have one weight together, only where there are no others.
    terms = [term for term in of_group if not term.loss.joint] or of_group
    shares = {layer: term.share for term in terms for layer in term.layers if layer != IMAGE}
    alike = len(set(shares.values())) == 1
    return ",".join(layer if alike else f"{layer}:{share:g}" for layer, share in shares.items())


def _check_graph(worker: Worker) -> None:
    """Refuses steps as CUDA graphs where there can be none."""
    if worker.device.type != "cuda":
        raise InputError(f"graph needs a CUDA GPU: leave it out on {worker.device.type}")
    if worker.deals_tiles:
        raise InputError("graph does not work with trainer.strategy tile_parallel, whose processes wait for others")
    if torch.__version__ < "2.11":  # before, what is copied to the GPU may be lost by a graph
        raise InputError(f"graph needs torch 2.11 or newer, this is {torch.__version__}: leave it out")


def _stepped(make_optimizer: OptimizerCallable) -> torch.optim.Optimizer:
    """Returns an optimiser that took a step on a small image; an InputError where that is none of an image's."""
    image = nn.Parameter(torch.zeros(1, 3, 8, 8))

    def closure() -> Tensor:
        loss = image.square().sum(dim=(1, 2, 3))
        torch.autograd.backward(loss.sum())
        return loss.detach()

    try:
        optimizer = make_optimizer([image])
        optimizer.step(closure)  # type: ignore[arg-type] # torch wants a number
    except (RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"the optimizer cannot be used for images: {error}") from error
    return optimizer


def described(make_optimizer: OptimizerCallable) -> str:
    """Names an optimiser with the settings it makes of its defaults."""
    optimizer = make_optimizer([nn.Parameter(torch.zeros(1, 3, 1, 1))])
    settings = ", ".join(
        f"{name}={value}" for name, value in optimizer.defaults.items() if isinstance(value, (int, float, tuple))
    )
    return f"{type(optimizer).__name__}({settings})"
