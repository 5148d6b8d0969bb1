"""Defects of finished pictures that neither the content nor the style has: 0 is none, and more than a limit is told."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from itertools import product
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from nst_lightning.metrics.base import Score, Seen, Sources

SHORTEST = 64  # px: the shortest side with enough patches for a spectrum, and with an inside
PATCH = 32  # px: the window whose spectrum keeps 1/8 cycles a pixel apart from what is lowest
RINGS = 16  # px: how far into the picture the border is looked for
CELLS = 6  # along the short side: their size is that of blotches

_MOST_PATCHES = 32  # along a side: more of them change no mean, and take memory
_ROUNDING = 1 / 255
_JUST_SEEN = 2.0  # Delta E
_BINS = [(y % PATCH, x) for y, x in product((-8, -4, 0, 4, 8, 16), (0, 4, 8, 16)) if (y, x) != (0, 0)]
_DIRECTIONS = ((0, 1), (1, 0), (1, 1), (1, -1))


class Defect(Score):
    """How much of a defect outputs have beyond their sources, in [0, 1]; NaN where a side is below `SHORTEST`.

    It is looked for at the pictures' full size, for the working size has other pixels.
    """

    asked = "defects"
    headline = False
    higher_is_better = False
    against: ClassVar[Sequence[str]] = ("content", "style")  # the kinds of images that may have it too

    @abstractmethod
    def describe(self, image: Seen) -> Tensor:
        """Returns what images have, before any comparison: (N, ...)."""

    @abstractmethod
    def excess(self, output: Tensor, sources: Tensor) -> Tensor:
        """Returns the defect of outputs beyond what their sources have, (N,)."""

    def merge(self, described: Sequence[Tensor]) -> Tensor:
        """Returns what several sources have, together."""
        return torch.stack(list(described)).amax(0)

    def reference(self, sources: Sources) -> Tensor:
        """Returns what the sources have that are large enough; the content is, if the output is."""
        images = [image for kind in self.against for image in sources.of(kind, in_place=kind == "content")]
        large = [self.describe(image) for image in images if min(image.whole.shape[-2:]) >= SHORTEST]
        return self.merge(large) if large else torch.empty(0)

    def values(self, output: Seen, reference: Tensor) -> dict[str, Tensor]:
        """Returns the excess."""
        if min(output.whole.shape[-2:]) < SHORTEST:
            return {self.name: output.whole.new_full((len(output.whole),), torch.nan)}
        return {self.name: self.excess(self.describe(output), reference)}


class Grid(Defect):
    """The share of a pattern's power that stands out from what is near, of the worst of those of 2, 4 and 8 px.

    The power spectrum of the luma (Welch, 1967), but with the mean over patches of its logarithm: a pattern that is
    everywhere counts, a strong texture in one place does not. A peak is compared with the frequencies 2 and 3 bins
    away, in that of four directions which has the most, for edges make ridges.
    """

    name = "grid"
    order = 95
    limit = 0.55
    remedy = "--pooling l2 or avg, or a little more --tv_weight"

    def describe(self, image: Seen) -> Tensor:
        """Returns how far peaks stand out, as logarithms of power, (N, 23)."""
        patches = luma(image.whole)
        for dim, side in enumerate(image.whole.shape[-2:], start=1):
            patches = patches.unfold(dim, PATCH, max(PATCH // 2, side // _MOST_PATCHES))
        window = torch.hann_window(PATCH, dtype=patches.dtype, device=patches.device)
        window = window[:, None] * window
        patches = patches.flatten(1, 2)
        power = torch.fft.fft2((patches - patches.mean((-2, -1), keepdim=True)) * window).abs().square()
        # Below the noise of rounding, of variance 1/12, nothing is to be seen.
        level = (power / window.square().sum() + _ROUNDING**2 / 12).log().mean(1)
        around = [
            torch.stack([level.roll((far * y, far * x), (1, 2)) for far in (-3, -2, 2, 3)]).mean(0)
            for y, x in _DIRECTIONS
        ]
        standing = level - torch.stack(around).amax(0)
        return torch.stack([standing[:, y, x] for y, x in _BINS], dim=1)

    def excess(self, output: Tensor, sources: Tensor) -> Tensor:
        """Returns the share of power that neither the neighbours nor the sources' own peaks account for, (N,)."""
        return 1 - (-(output - sources.clamp(min=0)).amax(1).clamp(min=0)).exp()


class Border(Defect):
    """The share of the detail in the worst ring along the border that neither the inside nor the content has.

    Detail is the length of the luma's gradient; a ring is 1 px wide, and lies within 16 px of the border.
    """

    name = "border"
    order = 96
    limit = 0.4
    remedy = "--border replicate"
    against = ("content",)

    def describe(self, image: Seen) -> Tensor:
        """Returns the detail of every ring in that of the inside, (N, 16)."""
        seen = luma(image.whole)
        detail = torch.hypot(seen[:, 1:, :-1] - seen[:, :-1, :-1], seen[:, :-1, 1:] - seen[:, :-1, :-1])
        far = [torch.arange(side, device=seen.device) for side in detail.shape[1:]]
        rows, columns = (torch.minimum(each, each.flip(0)) for each in far)
        ring = torch.minimum(rows[:, None], columns).clamp(max=RINGS).flatten()
        sums = detail.new_zeros(len(seen), RINGS + 1).index_add(1, ring, detail.flatten(1))
        counts = ring.new_zeros(RINGS + 1).index_add(0, ring, torch.ones_like(ring))  # for bincount a GPU has to wait
        means = sums / counts + _ROUNDING
        return means[:, :RINGS] / means[:, RINGS:]

    def excess(self, output: Tensor, sources: Tensor) -> Tensor:
        """Returns the share of the worst ring, (N,)."""
        return 1 - 1 / (output / sources.clamp(min=1)).amax(1).clamp(min=1)


class Clipped(Defect):
    """The share of the values of red, green and blue that are 0 or 1, beyond the larger one of content and style."""

    name = "clipped"
    order = 97
    limit = 0.03
    remedy = "more --tv_weight or less --style_weight"

    def describe(self, image: Seen) -> Tensor:
        """Returns the share, (N,)."""
        return ((image.whole <= 0) | (image.whole >= 1)).float().mean((1, 2, 3))

    def excess(self, output: Tensor, sources: Tensor) -> Tensor:
        """Returns the difference, (N,)."""
        return (output - sources).clamp(min=0)


class Blotches(Defect):
    """The share of the colours' contrast at the size of blotches that content and style do not explain at its place.

    Contrast is the mean CIELAB of cells, 6 along the short side, less that of the 5 x 5 around. What is linear in the
    content's and the stretched styles' is explained, so that other colours and another contrast are no blotches.
    """

    name = "blotches"
    order = 98
    limit = 0.6
    remedy = "more --content_weight or fewer --stages"
    against = ("content", "stretched style")

    def describe(self, image: Seen) -> Tensor:
        """Returns the contrast of every cell, (N, cells, 3), float64 and so on the CPU: not every device has it."""
        height, width = image.lab.shape[-2:]
        rows, columns = (round(side * CELLS / min(height, width)) for side in (height, width))
        cells = F.adaptive_avg_pool2d(image.lab, (rows, columns)).double().cpu()
        return (cells - F.avg_pool2d(F.pad(cells, (2, 2, 2, 2), "replicate"), 5, 1)).flatten(2).mT

    def merge(self, described: Sequence[Tensor]) -> Tensor:
        """Returns the contrast of all sources side by side, (N, cells, 3 of each)."""
        return torch.cat(list(described), dim=2)

    def excess(self, output: Tensor, sources: Tensor) -> Tensor:
        """Returns the share of the squares that is left by least squares, (N,)."""
        # A ridge of 1 Delta E, for sources without contrast.
        square = sources.mT @ sources + torch.eye(sources.shape[2], dtype=sources.dtype)
        rest = output - sources @ torch.linalg.solve(square, sources.mT @ output)
        share: Tensor = rest.square().sum((1, 2)) / (output.square().sum((1, 2)) + output.shape[1] * _JUST_SEEN**2)
        return share.float()


def luma(rgb: Tensor) -> Tensor:
    """Returns the brightness of sRGB images (N, 3, H, W) as it is coded (ITU-R BT.709), (N, H, W), in [0, 1]."""
    red, green, blue = rgb.unbind(1)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
