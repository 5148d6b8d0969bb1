"""Smoothness of the image itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

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
