"""Style losses by moments of single channels: mean and standard deviation, and central moments of squashed features."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb, sqrt
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import FunctionCtx, once_differentiable

from nst_lightning.losses.base import Additive, Features, Source, Statistic, Target, full_precision

_ORDERS = 5
_LEAST = 1e-18  # of a variance or a squared distance, so that the slope of its root is finite


class Moments(Additive):
    """Mean squared difference of the channels' means and of their standard deviations.

    The term that Galerne et al. (2023), *Scaling Painting Style Transfer*, section 3.2, put beside Gram matrices.
    """

    source: ClassVar[Source | None] = "style"

    def statistic(self, features: Sequence[Features], draw: int) -> Statistic:
        """Returns one layer's features and their squares summed over positions, (N, C) each."""
        (layer,) = features
        return _powers(layer, full_precision(layer.values), 2)

    def target(self, statistic: Statistic) -> Target:
        """Returns means and standard deviations, (N, C) each."""
        return self._moments(statistic)

    def size(self, target: Target) -> Tensor:
        """Returns the mean square of means and deviations, (N,)."""
        mean, deviation = target
        return mean.square().mean(dim=1) + deviation.square().mean(dim=1)

    def compare(self, statistic: Statistic, target: Target, draw: int) -> Tensor:
        """Returns the sum of the two mean squared differences, (N,)."""
        (mean, deviation), (of_mean, of_deviation) = self._moments(statistic), target
        return (mean - of_mean).square().mean(dim=1) + (deviation - of_deviation).square().mean(dim=1)

    @staticmethod
    def _moments(statistic: Statistic) -> tuple[Tensor, Tensor]:
        mean, variance = _central(statistic, 2)
        kind = statistic.sums["1"].dtype
        return mean.to(kind), variance.clamp(min=_LEAST).sqrt().to(kind)


class Cmd(Additive):
    """Central moment discrepancy of squashed features up to the fifth, Kalischek et al. (2021), equations 5 and 6.

    *In the Light of Feature Distributions: Moment Matching for Neural Style Transfer*. Sigmoids make it free of scale.
    """

    source: ClassVar[Source | None] = "style"
    layers: ClassVar[tuple[str, ...]] = tuple(f"conv{block}_1" for block in range(1, 6))  # before the ReLUs

    def statistic(self, features: Sequence[Features], draw: int) -> Statistic:
        """Returns the powers of one layer's squashed features summed over positions, (N, C) each."""
        (layer,) = features
        # About a half, where their powers cancel least.
        return _powers(layer, torch.sigmoid(full_precision(layer.values) / self.unit) - 0.5, _ORDERS)

    def target(self, statistic: Statistic) -> Target:
        """Returns the mean and the central moments, (N, C) each."""
        return tuple(_central(statistic, _ORDERS))

    def compare(self, statistic: Statistic, target: Target, draw: int) -> Tensor:
        """Returns the sum of the moments' distances, divided by the root of the number of channels, (N,)."""
        # Departs from its code in the weights of layers, 1e3 / C^2, which only --style_layers can have.
        pairs = zip(_central(statistic, _ORDERS), target, strict=True)
        apart = [((own - other).square().sum(dim=1) + _LEAST).sqrt() - _LEAST**0.5 for own, other in pairs]
        total = torch.stack(apart).sum(dim=0)
        return (total / sqrt(target[0].shape[1])).to(statistic.weight.dtype)


def _powers(layer: Features, values: Tensor, orders: int) -> Statistic:
    """Returns the sums of the first powers over weighted positions, by order, (N, C) each."""
    own = layer.own_weights
    weights = torch.ones_like(values[:1, :1]) if own is None else own
    sums: Tensor = _PowerSums.apply(values, weights, orders)
    return Statistic({str(order): each for order, each in enumerate(sums.unbind(), start=1)}, layer.weight)


class _PowerSums(Function):
    """The sums of the first powers of (N, C, H, W), (orders, N, C), in float64, for float32 would cancel in moments.

    Neither the powers nor anything in float64 is kept for the gradient.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, values: Tensor, weights: Tensor, orders: int) -> Tensor:
        ctx.save_for_backward(values, weights)
        exact = values.double()
        powers, sums = exact * weights, []
        for order in range(orders):
            powers = powers if order == 0 else powers.mul_(exact)
            sums.append(powers.sum(dim=(2, 3)))
        return torch.stack(sums)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401 - torch names no type with saved_tensors
        values, weights = ctx.saved_tensors
        factors = gradient.to(values.dtype)[..., None, None]
        slope = torch.zeros_like(values)
        for order in range(len(factors), 0, -1):  # Horner's scheme
            slope.mul_(values).add_(order * factors[order - 1])
        return slope.mul_(weights), None, None


def _central(statistic: Statistic, orders: int) -> list[Tensor]:
    """Returns the mean and the central moments from the second on, (N, C) each, float64."""
    exact = Statistic({name: total.double() for name, total in statistic.sums.items()}, statistic.weight.double())
    raw = [torch.ones_like(exact.sums["1"]), *(exact.mean(str(order)) for order in range(1, orders + 1))]
    mean = raw[1]
    return [
        mean,
        *(
            torch.stack([comb(order, k) * raw[k] * (-mean) ** (order - k) for k in range(order + 1)]).sum(dim=0)
            for order in range(2, orders + 1)
        ),
    ]
