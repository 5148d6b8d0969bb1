"""How two samples of different sizes are compared, and how a distance says what was transferred."""

from __future__ import annotations

import torch
from torch import Tensor

QUANTILES = 512
"""How many quantiles stand for a sample."""


def quantiles(sample: Tensor, number: int = QUANTILES) -> Tensor:
    """Returns the quantiles at (1/2, 3/2, ...) / number of samples (..., count), (..., number); without graph.

    Linear between order statistics, of which the i-th of n is the quantile at (i - 1/2) / n (Hazen's rule): so many
    values are their own quantiles. The mean absolute difference of the quantiles of two samples is their Wasserstein-1
    distance by the midpoint rule, whatever their sizes.
    """
    ordered = sample.detach().sort(dim=-1).values
    count = ordered.shape[-1]
    # Places in float64, which not every device has: in float32 they are off by a whole pixel from 2^24 pixels on.
    places = (torch.arange(number, dtype=torch.float64) + 0.5) / number * count - 0.5
    places = places.clamp(0, count - 1)
    below = places.long()
    above = (below + 1).clamp(max=count - 1)
    low, high = (ordered.index_select(-1, index.to(ordered.device)) for index in (below, above))
    return low.lerp(high, (places - below).float().to(ordered))


def progress(distance: Tensor, baseline: Tensor, floor: float) -> Tensor:
    """Returns how much of the way from content to style an output has gone: 1 - distance / baseline, (N,), at most 1.

    The distance is that from output to style, the baseline that from content to style, (N,) each. 0 is no better than
    the content, 1 is the style's own, below 0 is further from the style than the content was. NaN where the baseline is
    below the floor: there was no way to go.
    """
    return (1 - distance / baseline).where(baseline >= floor, torch.nan)
