"""How much of the content's outlines an output keeps: whether there are edges where it has them, and how clear."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from nst_lightning.metrics.base import Comparison

TOLERANCE = 0.0075
"""How far an edge may move, as a part of the image's diagonal; that of the benchmark of Martin et al. (2004)."""
STRONGEST = 0.02
"""The part of an image's pixels that are taken for edges at most."""
FAINTEST = 1.0
"""The lowest step that is taken for an edge, in units of CIELAB: about what an eye can see."""

_COARSE = 2.0  # px, at which edges are found: texture of a pixel or two is none
_FINE = 1.0  # px, at which an edge is sharp or blurred
_TRUNCATE = 4  # standard deviations that a kernel reaches
_DIAGONAL_ABOVE = math.tan(math.pi / 8)


class Gradients(NamedTuple):
    """What the scores need of an output: gradients in units of CIELAB per pixel, (N, H, W) each."""

    near: Tensor  # the longest at 2 px within the tolerance of each pixel
    fine: Tensor  # the same at 1 px


class Outlines(NamedTuple):
    """What is kept of a reference image, (N, H, W) each."""

    edges: Tensor  # whether a pixel is on an edge
    far: Tensor  # whether a pixel is so far from every edge that nothing of it is within the tolerance
    fine: Tensor  # as of `Gradients`


def gradients(seen: Tensor) -> Gradients:
    """Returns the gradients of images (N, 3, H, W) in CIELAB."""
    return Gradients(_nearby(seen, _COARSE), _nearby(seen, _FINE))


def outlines(seen: Tensor) -> Outlines:
    """Returns the edges of images (N, 3, H, W) in CIELAB, and where there are none.

    Edges are maxima along the gradient as of Canny (1986), of the channel where it is the longest.
    """
    derivatives = _derivatives(seen, _COARSE)
    channel = derivatives.square().sum(dim=2).argmax(dim=1)[:, None, None]
    across, down = derivatives.take_along_dim(channel, dim=1).squeeze(1).unbind(dim=1)
    edges = _strongest(_thinned(_length(derivatives), across, down))
    return Outlines(edges, ~_largest(edges.float(), 2).bool(), _nearby(seen, _FINE))


def edge_auc(output: Gradients, outlines: Outlines) -> Tensor:
    """Returns how likely the output's gradient is stronger at an edge than far from any, (N,), in [0, 1].

    That is the area under the ROC curve: 0.5 is chance; equal gradients count half. NaN where the reference image
    has no edge, or no pixel far from one.
    """
    images = zip(output.near, outlines.edges, outlines.far, strict=True)
    return torch.stack([_area(near[edges], near[far]) for near, edges, far in images])


def clarity(output: Gradients, outlines: Outlines) -> Tensor:
    """Returns how steep the reference image's edges are in the output, (N,), from 0, gone, to 1, as they were.

    The mean over edge pixels of the ratio of the gradients, no more than 1 each. NaN where there is no edge.
    """
    # Not a clamped ratio, which has no value where both are 0.
    kept = torch.where(output.fine < outlines.fine, output.fine / outlines.fine, 1)
    return kept.where(outlines.edges, 0).sum(dim=(1, 2)) / outlines.edges.sum(dim=(1, 2))


def above_chance(auc: Tensor) -> Tensor:
    """Returns what an area under the ROC curve has above chance, in [0, 1]."""
    return (2 * auc - 1).clamp(min=0)


class Outline(Comparison):
    """How much of the content's outlines an output keeps, from 0, none, to 1, as clear as they were.

    The area under the ROC curve, from chance at 0, times the clarity; NaN where either is.
    """

    name = "outline"
    asked = "outline"
    order = 10
    higher_is_better = True
    against = "content"
    sample = staticmethod(gradients)
    source_sample = staticmethod(outlines)

    def compare(self, output: Gradients, source: Outlines) -> Tensor:
        """Returns how much of the outlines is kept, (N,)."""
        return above_chance(edge_auc(output, source)) * clarity(output, source)


def _nearby(seen: Tensor, sigma: float) -> Tensor:
    """The longest gradient within the tolerance: an edge that moved by so much is as clear as it was."""
    return _largest(_length(_derivatives(seen, sigma)))


def _derivatives(image: Tensor, sigma: float) -> Tensor:
    """The derivatives along width and height of images smoothed by a Gaussian: (N, C, 2, H, W) of (N, C, H, W)."""
    along = [_smoothed(_smoothed(image.detach(), dim, sigma, derive=True), -3 - dim, sigma) for dim in (-1, -2)]
    return torch.stack(along, dim=2)


def _smoothed(image: Tensor, dim: int, sigma: float, derive: bool = False) -> Tensor:
    """Images convolved along one dimension with a Gaussian, or its derivative."""
    # Not a convolution, which GPUs round to TF32 and autocast to 16 bits, nor would a flat image's derivative be 0.
    length, reach = image.shape[dim], round(_TRUNCATE * sigma)
    weights = [math.exp(-0.5 * (step / sigma) ** 2) for step in range(reach + 1)]
    total = weights[0] + 2 * math.fsum(weights[1:])
    # Mirrored at the border: the outermost pixels repeated would make the gradients of noise 1.5 times as long there.
    places = torch.arange(-reach, length + reach, device=image.device) % (2 * length)
    padded = torch.cat([image, image.flip(dim)], dim).index_select(dim, places)
    found = torch.zeros_like(image) if derive else image * (weights[0] / total)
    for step, weight in enumerate(weights[1:], start=1):
        ahead, behind = (padded.narrow(dim, reach + by, length) for by in (step, -step))
        factor = step / sigma**2 if derive else 1
        found.add_(ahead - behind if derive else ahead + behind, alpha=weight / total * factor)
    return found


def _length(derivatives: Tensor) -> Tensor:
    """The length of the longest gradient of all channels, (N, H, W) of (N, C, 2, H, W)."""
    return derivatives.square().sum(dim=2).amax(dim=1).sqrt()


def _thinned(length: Tensor, across: Tensor, down: Tensor) -> Tensor:
    """The length of gradients, (N, H, W), where it is a maximum along the gradient, in steps of 45 degrees; else 0."""
    height, width = length.shape[-2:]
    padded = F.pad(length, (1, 1, 1, 1)).flatten(1)
    places = torch.arange(padded.shape[1], device=length.device).reshape(height + 2, width + 2)[1:-1, 1:-1]
    step = across.sign() * (across.abs() > _DIAGONAL_ABOVE * down.abs())
    step += down.sign() * (down.abs() > _DIAGONAL_ABOVE * across.abs()) * (width + 2)
    ahead, behind = (padded.gather(1, (places + by * step.long()).flatten(1)).view_as(length) for by in (1, -1))
    # Of two that are equal, the one ahead.
    return length.where((length > ahead) & (length >= behind), 0)


def _strongest(length: Tensor) -> Tensor:
    """Where the longest of thinned gradients are, (N, H, W), no more than the wanted part of the pixels."""
    flat = length.flatten(1)
    count = max(1, round(STRONGEST * flat.shape[1]))
    weakest = flat.topk(count).values[:, -1, None, None]
    # What a step of 1 has at its steepest, smoothed.
    return (length >= weakest) & (length >= FAINTEST / (_COARSE * math.sqrt(2 * math.pi)))


def _largest(image: Tensor, times: int = 1) -> Tensor:
    """The largest value in the square of so many times the tolerance to each side, (N, H, W)."""
    reach = times * max(1, round(TOLERANCE * math.hypot(*image.shape[-2:])))
    rows = F.max_pool2d(image, (1, 2 * reach + 1), stride=1, padding=(0, reach))
    return F.max_pool2d(rows, (2 * reach + 1, 1), stride=1, padding=(reach, 0))


def _area(positive: Tensor, negative: Tensor) -> Tensor:
    """How likely one of the first is above one of the second, a scalar; by ranks (Mann and Whitney, 1947)."""
    if not (len(positive) and len(negative)):
        return positive.new_full((), math.nan)
    ordered = positive.sort().values
    below, not_above = (torch.searchsorted(ordered, negative, right=right) for right in (False, True))
    return 1 - (below + not_above).sum().to(positive) / (2 * len(positive) * len(negative))
