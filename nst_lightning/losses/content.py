"""The content loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import FunctionCtx, once_differentiable

from nst_lightning.losses.base import Features, Pointwise, Source, Statistic, Target, full_precision


class Content(Pointwise):
    """Mean squared difference of features, Gatys et al. (2016), equation 1."""

    source: ClassVar[Source | None] = "content"

    def maps(self, features: Sequence[Features]) -> Target:
        """Returns the features of one layer, (N, C, H, W)."""
        (layer,) = features
        return (full_precision(layer.values.detach()),)

    def size(self, target: Target) -> Tensor:
        """Returns the mean square of the features, (N,)."""
        return full_precision(target[0]).square().mean(dim=(1, 2, 3))

    def statistic(self, features: Sequence[Features], maps: Sequence[Features], draw: int) -> Statistic:
        """Returns the squared differences summed over positions, by channel: (N, C)."""
        (layer,), (source,) = features, maps
        weights = layer.own_weights
        target = source.values if weights is None else source.values * weights.sqrt()
        squared = _SquaredDifferences.apply(full_precision(layer.weighted), full_precision(target))
        return Statistic({"squares": squared}, layer.weight)

    def compare(self, statistic: Statistic) -> Tensor:
        """Returns the mean squared difference, (N,)."""
        # Departs from equation 1, which halves the sum: the mean keeps a weight's meaning at every image size.
        return statistic.sums["squares"].mean(dim=1) / statistic.weight


class ScaledContent(Content):
    """Summed squared difference of features divided by the summed absolute one, as `ScaledGram`."""

    def size(self, target: Target) -> Tensor:
        """Returns the features' sum of squares divided by their sum of absolute values, (N,)."""
        values = full_precision(target[0]).flatten(1)
        return values.square().sum(dim=1) / (values.abs().sum(dim=1) + 1e-8)

    def statistic(self, features: Sequence[Features], maps: Sequence[Features], draw: int) -> Statistic:
        """Returns the squared and the absolute differences summed over positions, by channel: (N, C) each."""
        (layer,), (source,) = features, maps
        apart = full_precision(layer.values) - full_precision(source.values)
        weighted = apart if layer.own_weights is None else apart * layer.own_weights
        sums = {"squares": (weighted * apart).sum(dim=(2, 3)), "sizes": weighted.abs().sum(dim=(2, 3))}
        return Statistic(sums, layer.weight)

    def compare(self, statistic: Statistic) -> Tensor:
        """Returns the scaled difference, (N,)."""
        return statistic.sums["squares"].sum(dim=1) / (statistic.sums["sizes"].sum(dim=1) + 1e-8)


class _SquaredDifferences(Function):
    """Squared differences of two (N, C, H, W) summed over positions, (N, C); keeps nothing beside the two."""

    @staticmethod
    def forward(ctx: FunctionCtx, feature: Tensor, target: Tensor) -> Tensor:
        ctx.save_for_backward(feature, target)
        return (feature - target).square_().sum(dim=(2, 3))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401 - torch names no type with saved_tensors
        feature, target = ctx.saved_tensors
        return (feature - target).mul_(2 * gradient[..., None, None]), None
