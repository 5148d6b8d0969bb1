"""How much of the style's palette an output has: the colours and their areas, wherever in the picture they are.

The sliced Wasserstein distance (Rabin et al., 2011; Bonneel et al., 2015) between the pixels' colours in CIELAB: the
earth mover's distance of the pixels projected on a direction, averaged over directions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from nst_lightning.metrics.base import Score, Seen, Sources
from nst_lightning.metrics.distributions import progress, quantiles

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


def palette_distance_score(output: Tensor, style: Tensor) -> Tensor:
    """Returns how far palettes of `palette_of` are apart, (N,), in Delta E (CIE 1976), at least 0.

    Twice the sliced Wasserstein distance, because a difference projected on a random direction is half as long on
    average: so it is Delta E, d for images whose colours differ by a shift of d (exactly if in L, within 7 % in any
    other direction of CIELAB), and, but for those 7 %, never more than the earth mover's distance in CIELAB.
    """
    return 2 * (output - style).abs().mean(dim=(1, 2))


class PaletteDistance(Score):
    """The mean of `palette_distance_score` over images, in Delta E, at least 0; of several styles the mean."""

    name = "palette_distance"
    asked = "palette"
    order = 21
    headline = False
    higher_is_better = False
    plot_upper_bound = None

    def reference(self, sources: Sources) -> list[Tensor]:
        """Returns the palette of every style."""
        return [style.once(palette_of) for style in sources.styles]

    def values(self, output: Seen, reference: Sequence[Tensor]) -> dict[str, Tensor]:
        """Returns `palette_distance`."""
        return {self.name: _mean_distance(output.once(palette_of), reference)}


class Palette(Score):
    """The mean over images of the `progress` to the style's palette: 0 for the content's, 1 for the style's.

    NaN where content and style are less than `PALETTE_FLOOR` apart. The content may have any size.
    """

    name = "palette"
    asked = "palette"
    order = 20
    higher_is_better = True
    plot_lower_bound = None

    def reference(self, sources: Sources) -> tuple[list[Tensor], Tensor]:
        """Returns the palette of every style, and the content's distance from them."""
        styles = [style.once(palette_of) for style in sources.styles]
        return styles, _mean_distance(sources.content.once(palette_of), styles)

    def values(self, output: Seen, reference: tuple[Sequence[Tensor], Tensor]) -> dict[str, Tensor]:
        """Returns `palette`."""
        styles, baseline = reference
        return {self.name: progress(_mean_distance(output.once(palette_of), styles), baseline, PALETTE_FLOOR)}


def _mean_distance(palette: Tensor, styles: Sequence[Tensor]) -> Tensor:
    return torch.stack([palette_distance_score(palette, style) for style in styles]).mean(0)
