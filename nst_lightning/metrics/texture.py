"""How much of the style's texture an output has: how its lightness varies within 8, 16 and 32 px.

Responses of filters are compared as distributions (Heeger and Bergen, 1995), by the Wasserstein distance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from nst_lightning.metrics.base import Comparison, Seen
from nst_lightning.metrics.distributions import QUANTILES, Progress, quantiles

WINDOW = 8
"""The side of a filter in pixels of its level."""
STRIDES = (3, 3, 1)
"""How many of its pixels apart each level is filtered; odd, so that the places fall on every phase of JPEG's grid."""
TEXTURE_FLOOR = 0.05
"""The distance from content to style below which there is no progress: that of two pictures of the same noise."""

_NO_RESPONSE = 0.01  # of L: a sixth of what rounding to 8 bits alone gives


def texture_of(seen: Tensor) -> Tensor:
    """Returns the quantiles of the absolute response of each filter, (N, levels, 63, 512), finest level first.

    The filters are the 8 x 8 cosine transform (DCT-II, orthonormal) without the mean, on L of images (N, 3, H, W) in
    CIELAB; each level is the means of 2 x 2 pixels of the one before. A level of less than 8 px is NaN.
    """
    level, found = seen.detach()[:, 0], []
    for stride in STRIDES:
        if min(level.shape[-2:]) < WINDOW:
            found.append(level.new_full((len(level), WINDOW**2 - 1, QUANTILES), torch.nan))
            continue
        responses = _cosines(_cosines(level, -2, stride), -1, stride)  # (N, 8 across, 8 down, rows, columns)
        found.append(quantiles(responses.flatten(3).flatten(1, 2)[:, 1:].abs()))
        level = F.avg_pool2d(level, 2)
    return torch.stack(found, dim=1)


class TextureDistance(Comparison):
    """How far an output's texture is from the style's, the mean over levels and styles, in [0, 2].

    Per filter, the Wasserstein-1 distance of its absolute responses, divided by the mean of both means: 0 for the same
    distribution, 2 where one has no response. The mean over filters, but for those without response in the style.
    """

    name = "texture_distance"
    asked = "texture"
    order = 31
    headline = False
    higher_is_better = False
    plot_upper_bound = 2.0
    sample = staticmethod(texture_of)

    def compare(self, output: Tensor, source: Tensor) -> Tensor:
        """Returns the distance of two textures at each level, (N, levels); NaN where either does not have it."""
        scale = source.mean(dim=3)
        # Divided by both: a little noise has many times the style's finest response.
        ratio = 2 * (output - source).abs().mean(dim=3) / (output.mean(dim=3) + scale)
        return ratio.where(scale >= _NO_RESPONSE, torch.nan).nanmean(dim=2)

    def values(self, output: Seen, reference: Sequence[Tensor]) -> dict[str, Tensor]:
        """Returns `texture_distance`, and `texture_distance_1` and so on of the levels, finest first."""
        levels = enumerate(self.levels(output, reference).unbind(1), start=1)
        return super().values(output, reference) | {f"{self.name}_{number}": level for number, level in levels}


class Texture(Progress):
    """The progress to the style's texture: 0 for the content's, 1 for the style's; NaN below `TEXTURE_FLOOR`."""

    name = "texture"
    asked = "texture"
    order = 30
    distance = TextureDistance
    floor = TEXTURE_FLOOR


def _cosines(image: Tensor, dim: int, stride: int) -> Tensor:
    """The 8 coefficients of the cosine transform along one dimension at every stride-th place: (N, 8, ...)."""
    frequency, place = torch.meshgrid(*[torch.arange(WINDOW, dtype=torch.float64)] * 2, indexing="ij")
    basis = (math.pi * (place + 0.5) * frequency / WINDOW).cos() * math.sqrt(2 / WINDOW)
    basis[0] /= math.sqrt(2)
    weights = basis.float().to(image).reshape(WINDOW, WINDOW, *[1] * (image.ndim - 1))
    windows = image.unfold(dim, WINDOW, stride)[:, None]
    # Sums of weighted images, not a convolution: that is rounded to TF32 on a GPU, and to 16 bits under autocast.
    found = weights[:, 0] * windows[..., 0]
    for step in range(1, WINDOW):
        found += weights[:, step] * windows[..., step]
    return found
