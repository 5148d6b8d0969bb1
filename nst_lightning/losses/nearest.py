"""Style losses by nearest neighbours: features of the output against the style feature most like each of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize

from nst_lightning.losses.base import Additive, Features, Source, Statistic, Target

_AT_ONCE = 2**24  # similarities that are held at a time, 64 MB of float32


class Nearest(Additive):
    """Mean cosine distance of features to their nearest style features, both about their own mean.

    The last pass of Kolkin et al. (2022), *Neural Neighbor Style Transfer*, section 3.3; without the means, the loss of
    Zhang et al. (2022), *ARF*, equation 2. It is free of the features' scale.
    """

    positions: ClassVar[int] = 64**2  # as in the paper, on a grid
    bank: ClassVar[int] = 4096  # departs from the paper, which takes as many of each of the style's four rotations
    source: ClassVar[Source | None] = "style"
    layers: ClassVar[tuple[str, ...]] = ("relu2_1", "relu3_1", "relu4_1", "relu5_1")

    def statistic(self, features: Sequence[Features], draw: int) -> Statistic:
        """Returns the sum of one layer's features, (N, C), and those on a grid of the output's positions, (N, C, K)."""
        (layer,) = features
        return self._summed(layer, layer.sampled(self.positions, draw))

    def kept(self, features: Sequence[Features], draw: int) -> Statistic:
        """Returns the sum of one layer's features, and those at positions of the style."""
        (layer,) = features
        return self._summed(layer, layer.shuffled(self.bank, draw))

    def target(self, statistic: Statistic) -> Target:
        """Returns the directions of the style's features from their mean, (N, C, K)."""
        return (self._directions(statistic),)

    def compare(self, statistic: Statistic, target: Target, draw: int) -> Tensor:
        """Returns the mean distance, (N,), 0 to 2."""
        own = self._directions(statistic)
        pairs = zip(own, target[0], strict=True)  # one by one, for a batched product may round otherwise
        return torch.stack([1 - (each * style[:, nearest(each, style)]).sum(dim=0).mean() for each, style in pairs])

    @staticmethod
    def _summed(layer: Features, samples: Tensor) -> Statistic:
        return Statistic({"features": layer.total}, layer.weight, {"features": samples})

    @staticmethod
    def _directions(statistic: Statistic) -> Tensor:
        """Returns the unit vectors from the mean of all features to the samples, (N, C, K)."""
        return normalize(statistic.samples["features"] - statistic.mean("features")[..., None], dim=1)


@torch.no_grad()
def nearest(own: Tensor, others: Tensor) -> Tensor:
    """Returns which of other unit vectors (C, L) each of own (C, K) is most like, (K,)."""
    rows = max(1, _AT_ONCE // others.shape[1])
    return torch.cat([(part.T @ others).argmax(dim=1) for part in torch.split(own, rows, dim=1)])
