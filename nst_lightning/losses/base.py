"""The protocol of losses: what one sums over positions, what it is compared with, and where positions stand."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import ClassVar, Literal, TypeAlias

import torch
from torch import Tensor

IMAGE = "image"  # the name under which the image itself stands among its features

Source = Literal["content", "style", "before"]  # the last of them is the frame before of a film
Target: TypeAlias = tuple[Tensor, ...]  # what outputs are compared with: tensors (N, ...)


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

    @property
    def total(self) -> Tensor:
        """The features summed over weighted positions, (N, C)."""
        values = self.values if self.weights is None else self.values * self.weights
        return full_precision(values).sum(dim=(2, 3))

    def at(self, places: Tensor) -> Tensor:
        """Returns the features of the positions that places as of `drawn` fall on, (N, C, K).

        They are zeros at those of another tile, so that the samples of all tiles add up to those of the whole image.
        """
        rows, columns = (places[:, axis] * self.size[axis] for axis in (0, 1))
        return self._taken(rows.long(), columns.long())

    def between(self, places: Tensor) -> Tensor:
        """Returns the features interpolated bilinearly at places, (N, C, K), whose parts in all tiles add up."""
        # Position 0 of every layer stands at the image's corner, as in STROTSS' code, not at its own window's centre.
        points = places * places.new_tensor(self.size)
        low = points.floor()
        steps = low.new_tensor([[0, 0], [0, 1], [1, 0], [1, 1]])[:, None]  # to the four positions around, of K each
        around = (low + steps).minimum(low.new_tensor(self.size) - 1).long()
        shares = torch.where(steps == 1, points - low, 1 - (points - low)).prod(dim=2)
        found = self._taken(around[..., 0].flatten(), around[..., 1].flatten())
        weighted = found.view(*found.shape[:2], *shares.shape) * moved(shares.to(found.dtype), found.device)
        return weighted.sum(dim=2)

    def resized(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Returns the features interpolated bilinearly on a grid, (N, C, H * W), whose parts in all tiles add up.

        Its H rows and W columns are fractions of the way from the first position to the last.
        """
        values = full_precision(self.values)
        down, across = (self._hats(points, axis).to(values) for axis, points in enumerate((rows, columns)))
        # As products of matrices, for indices are slow to gather, and slower to scatter for the gradient.
        with torch.autocast(values.device.type, enabled=False):
            return (down @ (values @ across.T)).flatten(2)

    def _hats(self, fractions: Tensor, axis: int) -> Tensor:
        """Returns the shares that positions along an axis have in what is interpolated, (points, positions)."""
        positions = self.corner[axis] + torch.arange(self.values.shape[2 + axis], dtype=fractions.dtype)
        return (1 - (fractions[:, None] * (self.size[axis] - 1) - positions).abs()).clamp(min=0)

    def sampled(self, count: int, draw: int) -> Tensor:
        """Returns the features of the most positions, up to `count`, on a square grid whose corner is drawn, (N, C, K).

        A grid and not places drawn one by one, which leave gaps where an optimiser that keeps them never looks.
        """
        return self._taken(*self._grid(count, draw))

    def shuffled(self, count: int, draw: int) -> Tensor:
        """Returns the features of `sampled` in no order, some twice, so that they are exactly so many, (N, C, count).

        Those of images of unlike sizes stack then, and any part of them is of everywhere.
        """
        rows, columns = self._grid(count, draw)
        order = torch.randperm(count, generator=torch.Generator().manual_seed(0))  # the same ones twice in every draw
        index = (order * len(rows)).div(count, rounding_mode="floor")
        return self._taken(rows[index], columns[index])

    def _grid(self, count: int, draw: int) -> tuple[Tensor, Tensor]:
        height, width = self.size
        stride = stride_of(self.size, count)
        row, column = (drawn(1, draw)[0] * stride).long().tolist()
        rows, columns = torch.arange(row, height, stride), torch.arange(column, width, stride)
        return rows.repeat_interleave(len(columns)), columns.repeat(len(rows))

    def _taken(self, rows: Tensor, columns: Tensor) -> Tensor:
        height, width = self.values.shape[2:]
        if height * width == 0:
            return full_precision(self.values).new_zeros((*self.values.shape[:2], len(rows)))
        rows, columns = rows - self.corner[0], columns - self.corner[1]
        flat = rows.clamp(0, height - 1) * width + columns.clamp(0, width - 1)
        device = self.values.device
        found = full_precision(self.values.flatten(2).index_select(2, moved(flat, device)))
        if (height, width) == self.size:
            return found
        here = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
        return torch.where(moved(here, device), found, 0)


def moved(values: Tensor, device: torch.device) -> Tensor:
    """Returns what was made on the CPU on a device, without waiting for a GPU."""
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values.to(device)


def stride_of(size: tuple[int, int], count: int) -> int:
    """Returns the least stride at which a grid over so many rows and columns has at most `count` positions."""
    stride = 1
    while math.prod(math.ceil(side / stride) for side in size) > count:
        stride += 1
    return stride


def drawn(count: int, draw: int) -> Tensor:
    """Returns random fractions of height and width in [0, 1), float64 (count, 2), which follow from `draw` alone."""
    return torch.rand(count, 2, generator=torch.Generator().manual_seed(draw), dtype=torch.float64)


@dataclass(frozen=True, eq=False)
class Statistic:
    """Sums over weighted positions, the sum of the weights, and samples: those of two halves of an image add up."""

    sums: Mapping[str, Tensor]  # (N, ...) each, by name
    weight: Tensor  # (N,)
    samples: Mapping[str, Tensor] = field(default_factory=dict)  # (N, C, K) each: zeros where another tile has them

    def __add__(self, other: Statistic) -> Statistic:
        return self.of(a + b for a, b in zip(self.tensors, other.tensors, strict=True))

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All that is added up: the sums, the samples and the weight."""
        return *self.sums.values(), *self.samples.values(), self.weight

    def of(self, tensors: Iterable[Tensor]) -> Statistic:
        """Returns the statistic of the same names whose `tensors` are the given ones."""
        given = iter(tensors)
        sums = {name: next(given) for name in self.sums}
        samples = {name: next(given) for name in self.samples}
        return Statistic(sums, next(given), samples)

    def mean(self, name: str) -> Tensor:
        """Returns a sum divided by the weight: the mean over positions, (N, ...)."""
        total = self.sums[name]
        return total / self.weight.view(-1, *[1] * (total.dim() - 1))

    @classmethod
    def merged(cls, statistics: Sequence[Statistic], weights: Sequence[float]) -> Statistic:
        """Returns the statistic of several images together, each by its weight, >= 0, whatever its size.

        Of the samples of each, which were drawn in no order, so many are taken as are its share of them.
        """
        if len(statistics) == 1:
            return statistics[0]
        shares = [weight / sum(weights) for weight in weights]
        pairs = list(zip(statistics, shares, strict=True))
        first = statistics[0]
        sums = {name: torch.stack([share * each.mean(name) for each, share in pairs]).sum(dim=0) for name in first.sums}
        samples = {}
        for name, one in first.samples.items():
            ends = [round(share * one.shape[2]) for share in accumulate(shares, initial=0)]
            parts = zip(statistics, pairwise(ends), strict=True)
            samples[name] = torch.cat([each.samples[name][..., first:last] for each, (first, last) in parts], dim=2)
        return cls(sums, torch.ones_like(first.weight), samples)


class Loss(ABC):
    """What compares an output with a source image by the features of one or several layers, which it gets in order.

    One of three: `Additive` (which may be `Matched`), `Pointwise` or `Global`. Nothing in a loss mixes two images of a
    batch. Where positions are drawn at random, they follow from the number `draw`, see `drawn`.
    """

    source: ClassVar[Source | None]  # the image that is compared with; None for a loss that asks for no other image
    layers: ClassVar[tuple[str, ...]] = ()  # what it reads by default where the backbone has them; else the backbone's
    joint: ClassVar[bool] = False  # whether one term reads all layers together, else there is one for each layer

    def __init__(self, unit: float = 1.0) -> None:
        self.unit = (
            unit  # how many times larger the features are than those of a network fed ImageNet's normalised images
        )

    def size(self, target: Target) -> Tensor | None:
        """Returns what features that are all 0 would be compared as, (N,): the size of the target.

        A relative comparison is divided by it; None where it is free of the features' scale by itself.
        """
        return None


class Additive(Loss):
    """A loss that needs sums over positions only, of the source as of the output; so it is exact in tiles."""

    @abstractmethod
    def statistic(self, features: Sequence[Features], draw: int) -> Statistic:
        """Returns the sums over the positions of any image, differentiable, float32 (float64 for float64 features)."""

    def kept(self, features: Sequence[Features], draw: int) -> Statistic:
        """Returns the statistic of the source, where it is another than the output's."""
        return self.statistic(features, draw)

    @abstractmethod
    def target(self, statistic: Statistic) -> Target:
        """Finishes the statistic of the source: once, after tiles, processes and weighted styles were merged."""

    @abstractmethod
    def compare(self, statistic: Statistic, target: Target, draw: int) -> Tensor:
        """Returns the distance of the output's statistic, of the same draw, to the target, (N,)."""


class Matched(Additive):
    """A loss whose target is matched to what a second image looks like, once, before the output is compared."""

    query: ClassVar[Source]  # that image

    @abstractmethod
    def asked(self, features: Sequence[Features], draw: int) -> Statistic:
        """Returns the statistic of the second image."""

    @abstractmethod
    def matched(self, query: Target, target: Target) -> Target:
        """Returns what outputs are compared with, given the targets that were made of both images' statistics."""


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
    """A loss that needs all features at once: refused with tiles, unless it reads the image alone."""

    @abstractmethod
    def target(self, features: Sequence[Features]) -> Target:
        """Returns what is kept of the source."""

    @abstractmethod
    def compare(self, features: Sequence[Features], target: Target) -> Tensor:
        """Returns the distance of the output's features to the target, (N,)."""
