"""Style losses by sorted values: of random projections, and of single channels."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize

from nst_lightning.losses.base import Additive, Features, Source, Statistic, Target, moved


class Histogram(Additive):
    """Mean squared distance of each channel to itself with the style's histogram, Risser et al. (2017), equation 9.

    *Stable and Controllable Neural Texture Synthesis and Style Transfer Using Histogram Losses*. The match is exact, by
    sorting, Zhang et al. (2022), *Exact Feature Distribution Matching*, equation 5.
    """

    # Departs from the papers, which sort all positions, where a map has more than these.
    positions: ClassVar[int] = 2048
    source: ClassVar[Source | None] = "style"
    layers: ClassVar[tuple[str, ...]] = ("relu1_1", "relu4_1")

    def statistic(self, features: Sequence[Features], draw: int) -> Statistic:
        """Returns one layer's features on a grid of positions, as many of every image, (N, C, K)."""
        (layer,) = features
        return Statistic({}, layer.weight, {"features": layer.shuffled(self.positions, draw)})

    def target(self, statistic: Statistic) -> Target:
        """Returns the style's features, (N, C, K)."""
        return (statistic.samples["features"],)

    def size(self, target: Target) -> Tensor:
        """Returns the mean square of the style's features, (N,)."""
        return target[0].square().mean(dim=(1, 2))

    def compare(self, statistic: Statistic, target: Target, draw: int) -> Tensor:
        """Returns the mean squared difference of what is equal in rank, (N,)."""
        pairs = zip(statistic.samples["features"], target[0], strict=True)  # one by one: products may round otherwise
        return torch.stack([_apart(*self._projected(own, other, draw)) for own, other in pairs])

    def _projected(self, own: Tensor, other: Tensor, draw: int) -> tuple[Tensor, Tensor]:
        """Returns values (D, K) whose distributions are compared, of features (C, K) each."""
        return own, other


class Sliced(Histogram):
    """Sliced Wasserstein-2 distance, Heitz et al. (2021), equation 5, on as many directions as there are channels.

    *A Sliced Wasserstein Loss for Neural Texture Synthesis*.
    """

    layers: ClassVar[tuple[str, ...]] = ()

    def _projected(self, own: Tensor, other: Tensor, draw: int) -> tuple[Tensor, Tensor]:
        directions = moved(_directions(len(own), draw, own.dtype), own.device)
        return directions @ own, directions @ other


@lru_cache(maxsize=16)  # a quasi-Newton method asks for the same ones again and again
def _directions(channels: int, draw: int, dtype: torch.dtype) -> Tensor:
    generator = torch.Generator().manual_seed(draw)
    drawn = torch.randn(channels, channels, generator=generator, dtype=torch.float64)
    return normalize(drawn, dim=1).to(dtype)


def _apart(own: Tensor, other: Tensor) -> Tensor:
    return (own.sort(dim=1).values - other.sort(dim=1).values).square().mean()
