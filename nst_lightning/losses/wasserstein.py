"""The style loss of crowsonkb's style-transfer-pytorch: the distance of Gaussian feature distributions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import FunctionCtx, once_differentiable

from nst_lightning.losses.base import Additive, Features, Source, Statistic, Target
from nst_lightning.losses.gram import outer_products

EPSILON = 1e-4  # what is added to the diagonals of covariances, as crowsonkb does
ROUNDING = 1e-6  # the part of the second moments' trace that float32 sums can be off by, in any direction


class Wasserstein(Additive):
    """Squared Wasserstein-2 distance of the Gaussians with the features' means and covariances, by channel.

    |m - m'|^2 + tr(S + S' - 2 (S'^1/2 S S'^1/2)^1/2), Olkin and Pukelsheim (1982), equation 4, divided by the number of
    channels C.
    """

    source: ClassVar[Source | None] = "style"

    def statistic(self, features: Sequence[Features], draw: int) -> Statistic:
        """Returns one layer's features (N, C) and their outer products (N, C, C), summed over positions."""
        (layer,) = features
        return Statistic({"products": outer_products(layer), "features": layer.total}, layer.weight)

    def target(self, statistic: Statistic) -> Target:
        """Returns mean (N, C), trace of the covariance (N,), and its square root (N, C, C), in float64."""
        mean, covariance = _moments(statistic)
        values, vectors = torch.linalg.eigh(covariance)
        root = (vectors * values.clamp(min=0).sqrt()[:, None, :]) @ vectors.transpose(1, 2)
        return mean, _trace(covariance), root

    def size(self, target: Target) -> Tensor:
        """Returns the distance to features that are all 0, (N,): their mean square."""
        mean, trace, _ = target
        return ((mean.square().sum(dim=1) + trace) / mean.shape[1]).float()

    def compare(self, statistic: Statistic, target: Target, draw: int) -> Tensor:
        """Returns the distance, (N,)."""
        of_mean, of_trace, root = target
        mean, covariance = _moments(statistic)
        with torch.autocast(root.device.type, enabled=False):
            overlap: Tensor = _Overlap.apply(covariance, root)
        distance = (mean - of_mean).square().sum(dim=1) + of_trace + _trace(covariance) - 2 * overlap
        return (distance / mean.shape[1]).to(statistic.weight.dtype)


def _moments(statistic: Statistic) -> tuple[Tensor, Tensor]:
    """Returns mean (N, C) and covariance (N, C, C) in float64: of float32 moments little is left where they cancel."""
    exact = Statistic({name: total.double() for name, total in statistic.sums.items()}, statistic.weight.double())
    mean, second = exact.mean("features"), exact.mean("products")
    # Departs from crowsonkb in that large features, as on the 0-255 scale, are kept from singular covariances too.
    least = (EPSILON + ROUNDING * _trace(second))[:, None, None]
    identity = torch.eye(mean.shape[1], dtype=mean.dtype, device=mean.device)
    return mean, second - mean[:, :, None] * mean[:, None, :] + least * identity


def _trace(matrices: Tensor) -> Tensor:
    return matrices.diagonal(dim1=1, dim2=2).sum(dim=1)


class _Overlap(Function):
    """tr (R S R)^1/2 of covariances S and roots R (N, C, C), (N,), and its gradient with respect to S.

    It is the sum of the singular values of R L, where S = L L^T, and half of R U V^T L^-1 is its gradient; so nothing
    is squared of which a root is taken later, and no digits are lost where covariances are close to singular.
    """

    # Departs from crowsonkb, whose iteration for the root has not converged after its twelve steps there.

    @staticmethod
    def forward(ctx: FunctionCtx, covariance: Tensor, root: Tensor) -> Tensor:
        lower = torch.linalg.cholesky(covariance)
        left, values, right = torch.linalg.svd(root @ lower)
        ctx.save_for_backward(lower, root @ left @ right)
        overlap: Tensor = values.sum(dim=1)
        return overlap

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401 - torch names no type with saved_tensors
        lower, rotated = ctx.saved_tensors
        transport = torch.linalg.solve_triangular(lower, rotated, upper=False, left=False)
        return gradient[:, None, None] * (transport + transport.transpose(1, 2)) / 4, None
