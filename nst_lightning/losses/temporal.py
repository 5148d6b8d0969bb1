"""The temporal loss of films."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from nst_lightning.losses.base import Features, Pointwise, Source, Statistic, Target, full_precision


class Temporal(Pointwise):
    """Mean over pixels of c (x - w)^2, Ruder et al. (2016), *Artistic Style Transfer for Videos*, section 4.2.

    w is the frame before, carried along the motion, c its weight: 0 where it shows nothing that is still to be seen.
    """

    source: ClassVar[Source | None] = "before"

    def maps(self, features: Sequence[Features]) -> Target:
        """Returns the frame before with its weights as a fourth channel, (N, 4, H, W)."""
        (image,) = features
        values = full_precision(image.values.detach())
        weights = torch.ones_like(values[:, :1]) if image.weights is None else image.weights.to(values)
        return (torch.cat([values, weights.expand(len(values), -1, -1, -1)], dim=1),)

    def statistic(self, features: Sequence[Features], maps: Sequence[Features], draw: int) -> Statistic:
        """Returns the weighted squared differences summed over positions, by channel: (N, 3)."""
        (image,), (before,) = features, maps
        counted = before.values[:, 3:] if image.weights is None else before.values[:, 3:] * image.weights
        apart = full_precision(image.values) - full_precision(before.values[:, :3])
        return Statistic({"squares": (full_precision(counted) * apart.square()).sum(dim=(2, 3))}, image.weight)

    def compare(self, statistic: Statistic) -> Tensor:
        """Returns the mean over all pixels, those of weight 0 too, (N,)."""
        return statistic.sums["squares"].mean(dim=1) / statistic.weight
