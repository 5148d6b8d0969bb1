"""What a user chooses by names, numbers and weights, as terms of an objective and as words."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import nn

from nst_lightning.backbones import Spec
from nst_lightning.errors import InputError
from nst_lightning.losses import STYLE_LOSSES, Content, Loss, Objective, Term

Layers = int | list[str] | dict[str, float] | str | None


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


def terms(group: str, loss: Loss, layers: Mapping[str, float]) -> list[Term]:
    """Returns a term for each layer, whose shares of the group's weight are in proportion to the given weights."""
    total = sum(layers.values())
    if not layers or not all(math.isfinite(weight) and weight > 0 for weight in layers.values()):
        raise InputError(f"{group}_layers must name at least one layer, with weights above 0, got {dict(layers)}")
    return [Term(group, (layer,), loss, weight / total) for layer, weight in layers.items()]


def loss_of(source: str, style_loss: str) -> Loss:
    """Returns the loss that compares with a source: that of content, or the style loss of a known name."""
    if source == "content":
        return Content()
    if style_loss not in STYLE_LOSSES:
        raise InputError(f"unknown style_loss {style_loss!r}; known are {', '.join(STYLE_LOSSES)}")
    return STYLE_LOSSES[style_loss]()


def check_weights(weights: Mapping[str, float]) -> Mapping[str, float]:
    """Returns weights by group, none of which may be infinite or below 0."""
    for group, weight in weights.items():
        if not (math.isfinite(weight) and weight >= 0):
            raise InputError(f"{group}_weight must be a finite number, 0 or above, got {weight}")
    return weights


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
