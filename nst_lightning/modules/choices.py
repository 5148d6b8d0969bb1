"""What a user chooses by names, numbers and weights, as terms of an objective and as words."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import nn

from nst_lightning.backbones import Spec
from nst_lightning.errors import InputError
from nst_lightning.losses import Content, Gram, Objective, Term, TotalVariation

Layers = int | list[str] | dict[str, float] | str | None

_LOSSES: Mapping[str, type[Content] | type[Gram] | type[TotalVariation]] = {
    "content": Content,
    "style": Gram,
    "tv": TotalVariation,
}


def layer_weights(group: str, given: Layers, spec: Spec) -> Mapping[str, float]:
    """Returns the layers that were chosen by name or by their place in the study's table, with relative weights."""
    if given is None:
        given = list(spec.content_layers if group == "content" else spec.style_layers)
    if isinstance(given, Mapping):
        return given
    if isinstance(given, str):
        given = int(given) if given.isdecimal() else given.replace(" ", "").split(",")
    if isinstance(given, int):
        given = list(spec.content_at(given) if group == "content" else spec.style_up_to(given))
    return dict.fromkeys(given, 1.0)


def weighted_terms(group: str, weight: float, layers: Mapping[str, float]) -> list[Term]:
    """Returns the terms of a group, whose weights sum to the group's; none where that is 0."""
    if not (math.isfinite(weight) and weight >= 0):
        msg = f"{group}_weight must be a finite number, 0 or above, got {weight}"
        raise InputError(msg)
    total = sum(layers.values())
    if weight == 0:
        return []
    if not layers or not (math.isfinite(total) and total > 0):
        msg = f"{group}_layers must name at least one layer, with weights above 0, got {dict(layers)}"
        raise InputError(msg)
    return [Term(group, layer, _LOSSES[group](), weight * share / total) for layer, share in layers.items()]


def listed(objective: Objective, group: str) -> str:
    """Returns the layers of a group's terms between commas."""
    return ",".join(term.layer for term in objective.terms if term.group == group)


def described(make_optimizer: OptimizerCallable) -> str:
    """Names an optimiser with the settings it makes of its defaults."""
    optimizer = make_optimizer([nn.Parameter(torch.zeros(1, 3, 1, 1))])
    settings = ", ".join(
        f"{name}={value}" for name, value in optimizer.defaults.items() if isinstance(value, (int, float, tuple))
    )
    return f"{type(optimizer).__name__}({settings})"
