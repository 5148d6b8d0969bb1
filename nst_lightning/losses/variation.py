"""Smoothness of the image itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor
from torch.nn.functional import pad

from nst_lightning.losses.base import Features, Global, Source, Target, full_precision


class TotalVariation(Global):
    """Sum of absolute differences of neighbouring pixels on the 0-255 scale (anisotropic total variation).

    Not in Gatys et al.; the form of Mahendran and Vedaldi (2015), section 3.2, with exponent beta = 1 taken
    along each axis. It asks for no other image.
    """

    source: ClassVar[Source | None] = None

    def target(self, features: Sequence[Features]) -> Target:
        """Returns nothing."""
        return ()

    def compare(self, features: Sequence[Features], target: Target) -> Tensor:
        """Returns the total variation of images (N, 3, H, W) in [0, 1], on the 0-255 scale, (N,)."""
        image = full_precision(features[0].values)
        across = (image[..., :, 1:] - image[..., :, :-1]).abs().sum(dim=(1, 2, 3))
        down = (image[..., 1:, :] - image[..., :-1, :]).abs().sum(dim=(1, 2, 3))
        return 255 * (across + down)


class MeanVariation(TotalVariation):
    """Mean absolute difference of neighbouring pixels on the 0-1 scale: the same for an image of any size."""

    def compare(self, features: Sequence[Features], target: Target) -> Tensor:
        """Returns the sum of both axes' mean differences of images (N, 3, H, W) in [0, 1], (N,)."""
        return super().compare(features, target) / (255 * features[0].values[0].numel())


class SquaredVariation(TotalVariation):
    """Half the summed squares of differences to the pixels on the right and below, on the 0-255 scale.

    That whose gradient jcjohnson's neural-style adds: the last row and column have no differences of their own.
    """

    def compare(self, features: Sequence[Features], target: Target) -> Tensor:
        """Returns the half sum of images (N, 3, H, W) in [0, 1], (N,)."""
        image = 255 * full_precision(features[0].values)
        here = image[..., :-1, :-1]
        squares = (image[..., :-1, 1:] - here).square() + (image[..., 1:, :-1] - here).square()
        return squares.sum(dim=(1, 2, 3)) / 2


class NinePointVariation(TotalVariation):
    """Mean squared differences of pixels in [0, 1] to their eight neighbours: crowsonkb's style-transfer-pytorch."""

    def compare(self, features: Sequence[Features], target: Target) -> Tensor:
        """Returns twice the weighted sum over the four directions, of images whose border is replicated, (N,)."""
        image = pad(full_precision(features[0].values), (1, 1, 1, 1), "replicate")
        inner = slice(1, -1)
        along = (image[..., inner, 2:] - image[..., inner, 1:-1], image[..., 2:, inner] - image[..., 1:-1, inner])
        across = (image[..., 1:, 1:] - image[..., :-1, :-1], image[..., 1:, :-1] - image[..., :-1, 1:])
        means = [[each.square().mean(dim=(1, 2, 3)) for each in both] for both in (along, across)]
        return 2 * ((means[0][0] + means[0][1]) / 3 + (means[1][0] + means[1][1]) / 12)
