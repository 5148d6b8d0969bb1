"""How much of the style's texture an output has: how its lightness varies within 8, 16 and 32 px.

Not the Gram matrices, which the optimisation makes small. Images are filtered by a fixed bank at several scales and the
responses of each filter compared as distributions, as Heeger and Bergen (1995) describe a texture; by the Wasserstein
distance, as projected patches are by Elnekave and Weiss (2022, GPDM). Their filters are random, which see little but
the lowest frequencies; those of the cosine transform (Ahmed et al., 1974) have one frequency and orientation each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from nst_lightning.errors import InputError
from nst_lightning.metrics.base import ImageScore
from nst_lightning.metrics.distributions import check_as_many, closure, quantiles
from nst_lightning.metrics.lab import SHORT_SIDE, seen

WINDOW = 8
"""The side of a filter in pixels of its level."""
STRIDES = (3, 3, 1)
"""The levels of the pyramid, and how many of its own pixels apart the places are at which each is filtered.

Not a fourth level: its filters are 64 px wide, a quarter of the picture, which is composition rather than texture.

Places further apart sort faster. The strides are odd so that the places fall on every phase of a grid of 2, 4, 8 ...
px, which JPEG and pooling leave behind. Compared with every place, the distances of 32 pictures from their style
changed by 2 % at most, but for near copies of the style: 9 % of a distance of about 0.1.
"""
TEXTURE_FLOOR = 0.05
"""The distance from content to style below which there is no closure.

Two pictures of 256 x 171 px of the same noise differ by it; the halves of a sample painting by 0.07 to 0.17.
"""

_NO_RESPONSE = 0.01  # of L: a sixth of what rounding to 8 bits alone gives


def texture_of(seen: Tensor) -> list[Tensor]:
    """Returns the quantiles of the absolute response of each filter, (N, 63, 512) a level, finest first.

    The filters are the 8 x 8 cosine transform (DCT-II, orthonormal) without the mean, on L; each level of the pyramid
    is the means of 2 x 2 pixels of the one before. A level of less than 8 px has no windows: it and all after it are
    left out.

    Args:
        seen: (N, 3, H, W) in CIELAB.

    Raises:
        InputError: If the image has no window of 8 x 8 px.
    """
    height, width = seen.shape[-2:]
    if min(height, width) < WINDOW:
        msg = f"an image of {width}x{height} px has no texture to compare: must be at least {WINDOW}x{WINDOW} px"
        raise InputError(msg)
    level, found = seen.detach()[:, 0], []
    for stride in STRIDES:
        if min(level.shape[-2:]) < WINDOW:
            break
        responses = _cosines(_cosines(level, -2, stride), -1, stride)  # (N, 8 across, 8 down, rows, columns)
        # Absolute: the sign says on which side of the edge the light is, and a texture has no sides. It is the same as
        # to compare the responses together with their negatives.
        found.append(quantiles(responses.flatten(3).flatten(1, 2)[:, 1:].abs()))
        level = F.avg_pool2d(level, 2)
    return found


def texture_levels_score(output: Sequence[Tensor], style: Sequence[Tensor]) -> Tensor:
    """Returns how far the textures are apart at each level that both have, (N, levels), in [0, 2].

    Per filter, the Wasserstein-1 distance of its absolute responses, divided by the mean of both means: 0 for the same
    distribution, 2 where one has no response. The mean over filters, but for those without response in the style; NaN
    if that is all.

    Args:
        output: `texture_of` it.
        style: Likewise.

    Raises:
        InputError: If they differ in number.
    """
    check_as_many(output[0], style[0])
    levels = []
    for ours, theirs in zip(output, style, strict=False):
        scale = theirs.mean(dim=2)
        # Divided by both, not by the style's alone: a little noise has many times the style's finest response, and
        # would count for more than all other filters.
        ratio = 2 * (ours - theirs).abs().mean(dim=2) / (ours.mean(dim=2) + scale)
        levels.append(ratio.where(scale >= _NO_RESPONSE, torch.nan).nanmean(dim=1))
    return torch.stack(levels, dim=1)


def texture_distance_score(output: Sequence[Tensor], style: Sequence[Tensor]) -> Tensor:
    """Returns the mean of `texture_levels_score` over the levels where it is defined, (N,), in [0, 2]."""
    return texture_levels_score(output, style).nanmean(dim=1)


def texture_closure_score(distance: Tensor, baseline: Tensor) -> Tensor:
    """Returns the `closure` of `texture_distance_score`, (N,), at most 1.

    Args:
        distance: From output to style, (N,).
        baseline: From content to style, likewise, over the same levels; under `TEXTURE_FLOOR` there is no closure, NaN.
    """
    return closure(distance, baseline, TEXTURE_FLOOR)


def texture_levels(output: Tensor, style: Tensor, short_side: int | None = SHORT_SIDE) -> Tensor:
    """Returns `texture_levels_score` of images, (N, levels); arguments and errors as of `texture_distance`."""
    textures = [texture_of(each) for each in seen(output, style, short_side=short_side)]
    return texture_levels_score(*textures)


def texture_distance(output: Tensor, style: Tensor, short_side: int | None = SHORT_SIDE) -> Tensor:
    """Returns `texture_distance_score` of images, (N,), in [0, 2].

    Args:
        output: (N, 3, H, W), sRGB in [0, 1].
        style: (N, 3, h, w), likewise; of the size at which the output was to take its texture.
        short_side: What the output is reduced to before it is compared, in pixels, and the style with it; None for
            never.

    Raises:
        InputError: If the images differ in number, are none, or have less than 8 px.
    """
    return texture_levels(output, style, short_side).nanmean(dim=1)


def texture_closure(output: Tensor, style: Tensor, content: Tensor, short_side: int | None = SHORT_SIDE) -> Tensor:
    """Returns which part of the way from the content's texture to the style's an output has gone, (N,), at most 1.

    The `closure` of `texture_distance`, over the levels that all three have; NaN where content and style are less than
    `TEXTURE_FLOOR` apart.

    Args:
        output: (N, 3, H, W), sRGB in [0, 1].
        style: (N, 3, h, w), likewise; of the size at which the output was to take its texture.
        content: (N, 3, H, W), likewise; of any size.
        short_side: What the output is reduced to before it is compared, in pixels, and the others with it; None for
            never.

    Raises:
        InputError: If the images differ in number, are none, or have less than 8 px.
    """
    textures = [texture_of(each) for each in seen(output, style, content, short_side=short_side)]
    levels = min(len(each) for each in textures)
    of_output, of_style, of_content = (each[:levels] for each in textures)
    distance, baseline = (texture_distance_score(each, of_style) for each in (of_output, of_content))
    return texture_closure_score(distance, baseline)


class TextureDistance(ImageScore):
    """The mean of `texture_distance` over images, in [0, 2]; lower is better.

    Args:
        level: The only level of the pyramid to compare, 0 the finest; images too small to have it have no number.
            None for the mean over all.
        short_side: What the output is reduced to before it is compared, in pixels; None for never.
        kwargs: Further ones of `torchmetrics.Metric`.

    Raises:
        InputError: If there is no such level.

    Example:
        >>> import torch
        >>> style = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        >>> distance = TextureDistance()
        >>> distance(output=style.flip(-1), style=style) < 0.1  # mirrored
        tensor(True)
        >>> distance(output=torch.zeros(1, 3, 64, 64), style=style)  # flat
        tensor(2.)
    """

    higher_is_better = False
    plot_lower_bound = 0.0
    plot_upper_bound = 2.0

    def __init__(self, level: int | None = None, short_side: int | None = SHORT_SIDE, **kwargs: Any) -> None:
        if level is not None and level not in range(len(STRIDES)):
            msg = f"there is no level {level} of texture: must be 0 to {len(STRIDES) - 1}"
            raise InputError(msg)
        super().__init__(short_side, **kwargs)
        self.level = level

    def update(self, output: Tensor, style: Tensor) -> None:
        """Scores outputs (N, 3, H, W) against styles (N, 3, h, w), sRGB in [0, 1]; raises as `texture_distance`."""
        levels = texture_levels(output, style, self.short_side)
        if self.level is None:
            self.add(levels.nanmean(dim=1))
        elif self.level < levels.shape[1]:
            self.add(levels[:, self.level])
        else:
            self.add(levels.new_full((len(levels),), torch.nan))


class Texture(ImageScore):
    """The mean of `texture_closure` over images: 0 for the content's texture, 1 for the style's.

    Args:
        short_side: What the output is reduced to before it is compared, in pixels; None for never.
        kwargs: Further ones of `torchmetrics.Metric`.

    Example:
        >>> import torch
        >>> content = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        >>> style = content**3
        >>> texture = Texture()
        >>> texture(output=content, style=style, content=content)
        tensor(0.)
        >>> texture(output=style, style=style, content=content)
        tensor(1.)
    """

    higher_is_better = True
    plot_upper_bound = 1.0

    def update(self, output: Tensor, style: Tensor, content: Tensor) -> None:
        """Scores a batch of images, see `texture_closure`, which raises.

        Args:
            output: (N, 3, H, W), sRGB in [0, 1].
            style: (N, 3, h, w), likewise.
            content: (N, 3, H, W), likewise.
        """
        self.add(texture_closure(output, style, content, self.short_side))


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
