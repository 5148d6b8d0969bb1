"""The objective of crowsonkb/style-transfer-pytorch as its code has it, to race it on its own ground.

Its style loss is this package's `Wasserstein` but for the roots of matrices, which an iteration leaves unfinished where
covariances are close to singular. A root taken exactly would be another objective.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from nst_lightning.losses import (
    IMAGE,
    Content,
    Features,
    Global,
    Objective,
    Source,
    Statistic,
    Target,
    Term,
    Wasserstein,
)
from nst_lightning.losses.base import full_precision
from nst_lightning.losses.wasserstein import EPSILON

WEIGHTS: Mapping[str, float] = {"content": 0.015, "style": 1.0, "tv": 2.0}
"""The package's weights, by group."""
_ITERATIONS = 12
_SHARES = {"relu1_1": 256, "relu2_1": 64, "relu3_1": 16, "relu4_1": 4, "relu5_1": 1}


def objective() -> Objective:
    """Returns the package's default objective on VGG16's layers of the same names."""
    total = sum(_SHARES.values())
    return Objective(
        [
            Term("content", ("relu4_2",), Content(), 1.0),
            *(Term("style", (layer,), UnfinishedWasserstein(), share / total) for layer, share in _SHARES.items()),
            Term("tv", (IMAGE,), SmoothVariation(), 1.0),
        ]
    )


class UnfinishedWasserstein(Wasserstein):
    """The distance with moments and roots in float32, the roots after twelve iterations."""

    def target(self, statistic: Statistic) -> Target:
        """Returns mean (N, C), covariance and its root, (N, C, C) each."""
        mean, covariance = _moments(statistic)
        with _without_autocast(covariance):
            root, _ = square_roots(covariance)
        return mean, covariance, root

    def compare(self, statistic: Statistic, target: Target, draw: int) -> Tensor:
        """Returns the distance, (N,)."""
        of_mean, of_covariance, root = target
        mean, covariance = _moments(statistic)
        with _without_autocast(root):
            of_root: Tensor = _TraceOfRoot.apply(root @ covariance @ root)
        traces = _trace(of_covariance) + _trace(covariance) - 2 * of_root
        return (mean - of_mean).square().mean(dim=1) + traces / mean.shape[1]


def _moments(statistic: Statistic) -> tuple[Tensor, Tensor]:
    """Returns mean (N, C) and covariance (N, C, C)."""
    mean = statistic.mean("features")
    identity = torch.eye(mean.shape[1], device=mean.device)
    return mean, statistic.mean("products") - mean[:, :, None] * mean[:, None, :] + EPSILON * identity


def _trace(matrices: Tensor) -> Tensor:
    return matrices.diagonal(dim1=1, dim2=2).sum(dim=1)


def _without_autocast(tensor: Tensor) -> torch.autocast:
    """Products in bfloat16 would make other roots of the iteration."""
    return torch.autocast(tensor.device.type, enabled=False)


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


class SmoothVariation(Global):
    """Mean squared difference to all eight neighbours."""

    source: ClassVar[Source | None] = None

    def target(self, features: Sequence[Features]) -> Target:
        """Returns nothing."""
        return ()

    def compare(self, features: Sequence[Features], target: Target) -> Tensor:
        """Returns the variation of images (N, 3, H, W), (N,)."""
        image = full_precision(features[0].values)
        height, width = image.shape[-2:]
        # The package repeats the border once on every side, so that there is a diagonal more than pixels each way.
        wide = nn.functional.pad(image, (1, 1, 1, 1), "replicate")
        straight = _squares(image.diff(dim=2)) + _squares(image.diff(dim=3))
        diagonal = _squares(wide[..., 1:, 1:] - wide[..., :-1, :-1]) + _squares(wide[..., 1:, :-1] - wide[..., :-1, 1:])
        return 2 / 3 * (straight / 3 / (height * width) + diagonal / 12 / ((height + 1) * (width + 1)))


def _squares(images: Tensor) -> Tensor:
    summed: Tensor = images.square().sum(dim=(1, 2, 3))
    return summed
