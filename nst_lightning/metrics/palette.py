"""How much of the style's palette an output has: the colours and their areas, wherever in the picture they are."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nst_lightning.metrics.base import Comparison
from nst_lightning.metrics.distributions import Progress, quantiles

DIRECTIONS = 16
"""How many directions the colours are projected on: distances are off by 1.6 % on average, against 512 directions."""
PALETTE_FLOOR = 1.0
"""The distance from content to style, in Delta E, below which there is no progress: about what an eye can see."""


def directions() -> Tensor:
    """Returns the unit vectors in (L, a, b) that colours are projected on, (16, 3), float64.

    A Fibonacci lattice on the half of the sphere where L > 0: a direction and its opposite give the same distance.
    """
    number = torch.arange(DIRECTIONS, dtype=torch.float64)
    along = (number + 0.5) / DIRECTIONS
    radius = (1 - along.square()).sqrt()
    angle = number * math.pi * (3 - math.sqrt(5))  # golden
    return torch.stack([along, radius * angle.cos(), radius * angle.sin()], dim=1)


def palette_of(seen: Tensor) -> Tensor:
    """Returns the quantiles of the colours along each direction, (N, 16, 512), of images (N, 3, H, W) in CIELAB."""
    vectors = directions().float().to(seen)[:, :, None]
    lightness, a, b = seen.detach().flatten(2)[:, :, None].unbind(dim=1)
    # Not a matrix product, which autocast rounds to 16 bits and some devices to TF32.
    return quantiles(vectors[:, 0] * lightness + vectors[:, 1] * a + vectors[:, 2] * b)


class PaletteDistance(Comparison):
    """How far an output's palette is from the style's, in Delta E (CIE 1976), at least 0; of several styles the mean.

    Twice the sliced Wasserstein distance (Rabin et al., 2011) of colours in CIELAB: d for images that differ by a shift
    of d, exactly if in L, within 7 % in any other direction, because projected it is half as long on average.
    """

    name = "palette_distance"
    asked = "palette"
    order = 21
    headline = False
    higher_is_better = False
    plot_upper_bound = None
    sample = staticmethod(palette_of)

    def compare(self, output: Tensor, source: Tensor) -> Tensor:
        """Returns the distance of two palettes, (N,)."""
        return 2 * (output - source).abs().mean(dim=(1, 2))


class Palette(Progress):
    """The progress to the style's palette: 0 for the content's, 1 for the style's; NaN below `PALETTE_FLOOR`."""

    name = "palette"
    asked = "palette"
    order = 20
    distance = PaletteDistance
    floor = PALETTE_FLOOR
