"""The protocol of losses: what one sums over positions, what it is compared with, and where positions stand."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

import torch
from torch import Tensor

IMAGE = "image"
"""The name under which the image itself stands among its features."""

Source = Literal["content", "style"]
Target: TypeAlias = tuple[Tensor, ...]
"""What outputs are compared with: tensors (N, ...)."""


def full_precision(values: Tensor) -> Tensor:
    """Returns values in float32, float64 ones as they are: a Gram matrix overflows float16."""
    return values if values.dtype == torch.float64 else values.float()


@dataclass(frozen=True, eq=False)  # comparing tensors with == has no single truth value
class Features:
    """A layer's features of an image, or of one of its tiles, and where in the image's map they stand."""

    values: Tensor  # (N, C, H, W), of any floating-point precision
    size: tuple[int, int]  # height and width of the whole image's map
    corner: tuple[int, int] = (0, 0)  # row and column in that map of the first position
    weights: Tensor | None = None  # how much each position counts, >= 0, (N or 1, 1, H, W); None where each counts 1

    @classmethod
    def whole(cls, values: Tensor, weights: Tensor | None = None) -> Features:
        """Returns the features of a whole image."""
        return cls(values, (values.shape[2], values.shape[3]), (0, 0), weights)

    @property
    def weight(self) -> Tensor:
        """The sum of the positions' weights, (N,)."""
        count, _, height, width = self.values.shape
        exact = torch.promote_types(self.values.dtype, torch.float32)
        if self.weights is None:
            return self.values.new_full((count,), height * width, dtype=exact)
        return self.weights.to(exact).sum(dim=(1, 2, 3)).expand(count).clone()

    @property
    def weighted(self) -> Tensor:
        """The features times the square roots of the weights: their products are weighted as the positions are."""
        return self.values if self.weights is None else full_precision(self.values) * self.weights.sqrt()

    def at(self, places: Tensor) -> Tensor:
        """Returns the features at places as `drawn` returns them, (N, C, K); zeros at those of another tile.

        So the samples of all tiles add up to those of the whole image.
        """
        height, width = self.values.shape[2:]
        if height * width == 0:
            return full_precision(self.values).new_zeros((*self.values.shape[:2], len(places)))
        places = places.to(self.values.device)
        rows, columns = ((places[:, axis] * self.size[axis]).long() - self.corner[axis] for axis in (0, 1))
        here = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
        found = self.values[:, :, rows.clamp(0, height - 1), columns.clamp(0, width - 1)]
        return torch.where(here, full_precision(found), 0)


def drawn(count: int, draw: int) -> Tensor:
    """Returns random places, fractions of height and width in [0, 1), float64 (count, 2).

    They follow from the number `draw`: the same in every tile and process and after a resume.
    """
    return torch.rand(count, 2, generator=torch.Generator().manual_seed(draw), dtype=torch.float64)


@dataclass(frozen=True, eq=False)
class Statistic:
    """Sums over weighted positions, and the sum of the weights: those of two halves of an image add up."""

    sums: Mapping[str, Tensor]  # (N, ...) each, by name
    weight: Tensor  # (N,)

    def __add__(self, other: Statistic) -> Statistic:
        sums = {name: total + other.sums[name] for name, total in self.sums.items()}
        return Statistic(sums, self.weight + other.weight)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All that is added up: the sums and the weight."""
        return *self.sums.values(), self.weight

    def mean(self, name: str) -> Tensor:
        """Returns a sum divided by the weight: the mean over positions, (N, ...)."""
        total = self.sums[name]
        return total / self.weight.view(-1, *[1] * (total.dim() - 1))

    @classmethod
    def merged(cls, statistics: Sequence[Statistic], weights: Sequence[float]) -> Statistic:
        """Returns the statistic of several images together, each by its weight, >= 0, whatever its size."""
        if len(statistics) == 1:
            return statistics[0]
        shares = [weight / sum(weights) for weight in weights]
        pairs = list(zip(statistics, shares, strict=True))
        names = statistics[0].sums
        sums = {name: torch.stack([share * each.mean(name) for each, share in pairs]).sum(dim=0) for name in names}
        return cls(sums, torch.ones_like(statistics[0].weight))


class Loss(ABC):
    """What compares an output with a source image by the features of one or several layers, which it gets in order.

    One of three: `Additive`, `Pointwise` or `Global`. Nothing in a loss mixes two images of a batch. Where positions
    are drawn at random, they follow from the number `draw`, see `drawn`.
    """

    source: ClassVar[Source | None]
    """The image that is compared with; None for a loss that asks for no other image."""


class Additive(Loss):
    """A loss that needs sums over positions only, of the source as of the output; so it is exact in tiles."""

    @abstractmethod
    def statistic(self, features: Sequence[Features], draw: int) -> Statistic:
        """Returns the sums over the positions of any image, differentiable, float32 (float64 for float64 features)."""

    @abstractmethod
    def target(self, statistic: Statistic) -> Target:
        """Finishes the statistic of the source: once, after tiles, processes and weighted styles were merged."""

    @abstractmethod
    def compare(self, statistic: Statistic, target: Target) -> Tensor:
        """Returns the distance of the output's statistic to the target, (N,)."""


class Pointwise(Loss):
    """A loss that compares position by position: a tile with the same tile of its target, which is a map a layer."""

    @abstractmethod
    def maps(self, features: Sequence[Features]) -> Target:
        """Returns what is kept of the source at every position, (N, C, H, W) for each of the term's layers."""

    @abstractmethod
    def statistic(self, features: Sequence[Features], maps: Sequence[Features], draw: int) -> Statistic:
        """Returns the sums of what `compare` needs, given the output's features and the maps at the same positions."""

    @abstractmethod
    def compare(self, statistic: Statistic) -> Tensor:
        """Returns the distance, (N,)."""


class Global(Loss):
    """A loss that needs all of the features at once: it is no sum over positions, and is refused with tiles.

    One that reads the image alone is evaluated on the whole of it by every evaluator.
    """

    @abstractmethod
    def target(self, features: Sequence[Features]) -> Target:
        """Returns what is kept of the source."""

    @abstractmethod
    def compare(self, features: Sequence[Features], target: Target) -> Tensor:
        """Returns the distance of the output's features to the target, (N,)."""
