"""The objective of crowsonkb/style-transfer-pytorch in this project's protocol, to race it on its own ground.

Its style loss is the squared Wasserstein-2 distance between Gaussians of the features' means and covariances (Olkin and
Pukelsheim, 1982), divided by the channels. Means and second moments are sums over pixels, so it is a statistic and a
score as any other loss here.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from nst_lightning.losses import IMAGE, Content, Gram, Objective, Source, Statistic, Term

_EPSILON = 1e-4  # added to the covariances
_ITERATIONS = 12
_SHARES = {"relu1_1": 256, "relu2_1": 64, "relu3_1": 16, "relu4_1": 4, "relu5_1": 1}


def objective() -> Objective:
    """Returns the package's default objective on VGG16's layers of the same names."""
    total = sum(_SHARES.values())
    return Objective(
        [
            Term("content", "relu4_2", Content(), 0.015),
            *(Term("style", layer, Wasserstein(), share / total) for layer, share in _SHARES.items()),
            Term("tv", IMAGE, SmoothVariation(), 2.0),
        ]
    )


class Wasserstein:
    """Squared Wasserstein-2 distance of Gaussian feature distributions, a channel."""

    source: Source = "style"
    spatial: bool = False

    def target(self, feature: Tensor) -> Tensor:
        """Returns mean, covariance and its square root side by side, (N, C, 2C + 1)."""
        mean, covariance = _moments(self._sum(feature.detach()))
        with _in_float32(feature):
            root, _ = square_roots(covariance)
        return torch.cat([mean[..., None], covariance, root], dim=2)

    def statistic(self, feature: Tensor, target: Tensor) -> Statistic:
        """Returns the outer products and the features summed over pixels, (N, C, C + 1)."""
        return self._sum(feature)

    def score(self, statistic: Statistic, target: Tensor) -> Tensor:
        """Returns the distance, (N,)."""
        channels = target.shape[1]
        of_mean, of_covariance, root = target[..., 0], target[..., 1 : channels + 1], target[..., channels + 1 :]
        mean, covariance = _moments(statistic)
        with _in_float32(target):
            of_root: Tensor = _TraceOfRoot.apply(root @ covariance @ root)
        traces = _trace(of_covariance) + _trace(covariance) - 2 * of_root
        return (mean - of_mean).square().mean(dim=1) + traces / channels

    @staticmethod
    def _sum(feature: Tensor) -> Statistic:
        products = Gram().statistic(feature, feature)
        return Statistic(
            torch.cat([products.total, feature.float().sum(dim=(2, 3))[..., None]], dim=2), products.pixels
        )


def _in_float32(tensor: Tensor) -> torch.autocast:
    """Autocast would make products in bfloat16 of the iteration, which then gives other roots."""
    return torch.autocast(tensor.device.type, enabled=False)


def _moments(statistic: Statistic) -> tuple[Tensor, Tensor]:
    """Returns mean (N, C) and covariance (N, C, C)."""
    second, mean = statistic.total[..., :-1] / statistic.pixels, statistic.total[..., -1] / statistic.pixels
    eye = torch.eye(mean.shape[1], device=mean.device)
    return mean, second - mean[:, :, None] * mean[:, None, :] + _EPSILON * eye


def _trace(matrices: Tensor) -> Tensor:
    return matrices.diagonal(dim1=1, dim2=2).sum(dim=1)


def square_roots(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the square roots of positive definite matrices (N, C, C) and what comes of their inverses.

    Newton and Schulz's coupled iteration, Higham, *Functions of Matrices* (2008), equation 6.35, as often as the
    package goes through it: where the condition is bad it has not converged then, in either program.
    """
    norm = matrices.flatten(1).norm(dim=1)[:, None, None]
    eye = torch.eye(matrices.shape[1], device=matrices.device, dtype=matrices.dtype)
    root, inverse = matrices / norm, eye.expand_as(matrices)
    for _ in range(_ITERATIONS):
        factor = (3 * eye - inverse @ root) / 2
        root, inverse = root @ factor, factor @ inverse
    return root * norm.sqrt(), inverse / norm.sqrt()


class _TraceOfRoot(torch.autograd.Function):
    """Trace of the square root, (N,), whose gradient is half the inverse root: no equation has to be solved for it."""

    @staticmethod
    def forward(ctx: FunctionCtx, matrices: Tensor) -> Tensor:
        root, inverse = square_roots(matrices)
        ctx.save_for_backward(inverse)
        return _trace(root)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # noqa: ANN401 - torch names no type with saved_tensors
        inverse: Tensor = ctx.saved_tensors[0]
        return gradient[:, None, None] * inverse / 2


class SmoothVariation:
    """Squared differences to all eight neighbours, for whole images only."""

    source: Source = "content"
    spatial: bool = False

    def target(self, feature: Tensor) -> Tensor:
        """Returns zeros, (N,)."""
        return feature.new_zeros(len(feature), dtype=torch.float32)

    def statistic(self, feature: Tensor, target: Tensor) -> Statistic:
        """Returns the weighted squares, summed, (N,)."""
        height, width = feature.shape[-2:]
        straight = feature.diff(dim=2).square().sum(dim=(1, 2, 3)) + feature.diff(dim=3).square().sum(dim=(1, 2, 3))
        # The package repeats the border once on every side, so that there is a diagonal more than pixels each way.
        wide = torch.nn.functional.pad(feature, (1, 1, 1, 1), "replicate")
        falling, rising = wide[..., 1:, 1:] - wide[..., :-1, :-1], wide[..., 1:, :-1] - wide[..., :-1, 1:]
        diagonal = falling.square().sum(dim=(1, 2, 3)) + rising.square().sum(dim=(1, 2, 3))
        pixels = height * width
        return Statistic(straight / 3 + diagonal / 12 * (pixels / ((height + 1) * (width + 1))), pixels)

    def score(self, statistic: Statistic, target: Tensor) -> Tensor:
        """Returns the variation, (N,)."""
        return 2 * statistic.total / (3 * statistic.pixels) - target
