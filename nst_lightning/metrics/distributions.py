"""How two samples of different sizes are compared, and how a distance says what was transferred."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from nst_lightning.metrics.base import Comparison, Score, Seen, Sources
from nst_lightning.metrics.lab import SHORT_SIDE

QUANTILES = 512
"""How many quantiles stand for a sample."""


def quantiles(sample: Tensor, number: int = QUANTILES) -> Tensor:
    """Returns the quantiles at (1/2, 3/2, ...) / number of samples (..., count), (..., number); without graph.

    Linear between order statistics, of which the i-th of n is the quantile at (i - 1/2) / n (Hazen's rule). The mean
    absolute difference of two samples' quantiles is their Wasserstein-1 distance by the midpoint rule.
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

    The distance is that from output to style, the baseline that from content to style, (N,) each. Below 0 is further
    from the style than the content was. NaN where the baseline is below the floor: there was no way to go.
    """
    return (1 - distance / baseline).where(baseline >= floor, torch.nan)


class Progress(Score):
    """The mean of `progress` over images, on the levels that output and content have; the content may have any size.

    Attributes:
        distance: The score that is the distance.
        floor: The distance from content to style below which there is no progress.
    """

    distance: ClassVar[type[Comparison]]
    floor: ClassVar[float]
    higher_is_better = True
    plot_lower_bound = None

    def __init__(self, short_side: int | None = SHORT_SIDE, **kwargs: Any) -> None:
        super().__init__(short_side, **kwargs)
        self._distance = self.distance(short_side=short_side)

    def reference(self, sources: Sources) -> tuple[list[Any], Tensor]:
        """Returns what the distance keeps of every style, and the content's distances from them, (N, levels)."""
        styles = self._distance.reference(sources)
        return styles, self._distance.levels(sources.of("content")[0], styles)

    def values(self, output: Seen, reference: tuple[Sequence[Any], Tensor]) -> dict[str, Tensor]:
        """Returns the progress."""
        styles, baseline = reference
        distance = self._distance.levels(output, styles)
        shared = (distance + baseline).isfinite()
        gone, way = (each.where(shared, torch.nan).nanmean(1) for each in (distance, baseline))
        return {self.name: progress(gone, way, self.floor)}
