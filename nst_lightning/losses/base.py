"""The protocol of losses: what one sums over positions, what it is compared with, and where positions stand."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from itertools import accumulate, pairwise
from typing import ClassVar, Literal, TypeAlias
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

IMAGE = "image"  # the name under which the image itself stands among its features

_LEAST = 1e-20  # the weight of what has none, beside which any other is all, where otherwise nothing would count

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
    # How much each position of the whole map counts, >= 0, (N or 1, 1, *size), or before a term chose its own, see
    # `in_region`, (N or 1, 1 + regions, *size); None where each counts 1.
    weights: Tensor | None = None

    @classmethod
    def whole(cls, values: Tensor, weights: Tensor | None = None) -> Features:
        """Returns the features of a whole image."""
        return cls(values, (values.shape[2], values.shape[3]), (0, 0), weights)

    def in_region(self, number: int) -> Features:
        """Returns the features with the weights of one region alone; number 0 is how much the content counts."""
        return self if self.weights is None else replace(self, weights=self.weights.narrow(1, number, 1))

    @property
    def own_weights(self) -> Tensor | None:
        """The weights of its own positions, (N or 1, 1, H, W)."""
        if self.weights is None:
            return None
        (top, left), (height, width) = self.corner, self.values.shape[2:]
        return self.weights[..., top : top + height, left : left + width]

    @property
    def weight(self) -> Tensor:
        """The sum of the positions' weights, (N,)."""
        count, _, height, width = self.values.shape
        exact = torch.promote_types(self.values.dtype, torch.float32)
        weights = self.own_weights
        if weights is None:
            return self.values.new_full((count,), height * width, dtype=exact)
        return weights.to(exact).sum(dim=(1, 2, 3)).expand(count).clone()

    @property
    def weighted(self) -> Tensor:
        """The features times the square roots of the weights: their products are weighted as the positions are."""
        weights = self.own_weights
        return self.values if weights is None else full_precision(self.values) * weights.sqrt()

    @property
    def total(self) -> Tensor:
        """The features summed over weighted positions, (N, C)."""
        weights = self.own_weights
        values = self.values if weights is None else self.values * weights
        return full_precision(values).sum(dim=(2, 3))

    def at(self, places: Tensor) -> Tensor:
        """Returns the features of the positions that places as of `drawn` fall on, (N, C, K).

        They are zeros at those of another tile, so that the samples of all tiles add up to those of the whole image.
        """
        rows, columns = (places[:, axis] * self.size[axis] for axis in (0, 1))
        return self._taken(rows.long(), columns.long())

    def placed(self, count: int, draw: int) -> Tensor:
        """Returns so many places as of `drawn`, (count, 2); with weights as dense as these in each image, (N, ...)."""
        places = drawn(count, draw)
        if self.weights is None:
            return places
        return torch.stack([_warped(places, each.double()) for each in self._weights_by_image()])

    def between(self, places: Tensor) -> Tensor:
        """Returns the features interpolated bilinearly at places, (N, C, K), whose parts in all tiles add up.

        Those are of `placed`. Positions of no weight have no part in it where others around have.
        """
        if self.weights is None:
            return self._between(places, None)
        images = zip(torch.split(self.values, 1), places, self._weights_by_image(), strict=True)
        return torch.cat([replace(self, values=one)._between(each, weights) for one, each, weights in images])

    def _between(self, places: Tensor, weights: Tensor | None) -> Tensor:
        # Position 0 of every layer stands at the image's corner, as in STROTSS' code, not at its own window's centre.
        points = places * places.new_tensor(self.size)
        low = points.floor()
        steps = low.new_tensor([[0, 0], [0, 1], [1, 0], [1, 1]])[:, None]  # to the four positions around, of K each
        around = (low + steps).minimum(low.new_tensor(self.size) - 1).long()
        shares = torch.where(steps == 1, points - low, 1 - (points - low)).prod(dim=2)
        if weights is not None:
            shares = shares * (weights[around[..., 0], around[..., 1]] + _LEAST)
            shares = shares / shares.sum(dim=0)
        found = self._taken(around[..., 0].flatten(), around[..., 1].flatten())
        weighted = found.view(*found.shape[:2], *shares.shape) * moved(shares.to(found.dtype), found.device)
        return weighted.sum(dim=2)

    def resized(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Returns the features interpolated bilinearly on a grid, (N, C, H * W), whose parts in all tiles add up.

        Its H rows and W columns are fractions of the way from the first position to the last.
        """
        own = self.own_weights
        if self.weights is not None and own is not None:  # as in `between`
            counted = full_precision(self.values) * (own + _LEAST)
            parts = replace(self, values=counted, weights=None).resized(rows, columns)
            return parts / Features.whole(self.weights + _LEAST).resized(rows, columns)
        values = full_precision(self.values)
        hats = [self._hats(points, axis).to(values.dtype) for axis, points in enumerate((rows, columns))]
        down, across = (moved(each, values.device) for each in hats)
        # As products of matrices, for indices are slow to gather, and slower to scatter for the gradient.
        with torch.autocast(values.device.type, enabled=False):
            return (down @ (values @ across.T)).flatten(2)

    def _hats(self, fractions: Tensor, axis: int) -> Tensor:
        """Returns the shares that positions along an axis have in what is interpolated, (points, positions)."""
        positions = self.corner[axis] + torch.arange(self.values.shape[2 + axis], dtype=fractions.dtype)
        return (1 - (fractions[:, None] * (self.size[axis] - 1) - positions).abs()).clamp(min=0)

    def sampled(self, count: int, draw: int) -> Tensor:
        """Returns the features of the most positions, up to `count`, on a square grid whose corner is drawn, (N, C, K).

        A grid and not places drawn one by one, which leave gaps where an optimiser that keeps them never looks. With
        weights, as many of each image, those of weight alone and the more often the more they weigh.
        """
        rows, columns = self._grid(count, draw)
        return (
            self._taken(rows, columns)
            if self.weights is None
            else self._resampled(count, draw, torch.arange(len(rows)))
        )

    def shuffled(self, count: int, draw: int) -> Tensor:
        """Returns the features of `sampled` in no order, some twice, so that they are exactly so many, (N, C, count).

        Those of images of unlike sizes stack then, and any part of them is of everywhere.
        """
        order = torch.randperm(count, generator=torch.Generator().manual_seed(0))  # the same ones twice in every draw
        if self.weights is not None:
            return self._resampled(count, draw, order)
        rows, columns = self._grid(count, draw)
        index = (order * len(rows)).div(count, rounding_mode="floor")
        return self._taken(rows[index], columns[index])

    def _resampled(self, count: int, draw: int, order: Tensor) -> Tensor:
        """Returns the features of as many positions of each image as are in an order of numbers from 0, (N, C, K).

        They are on a grid with about `count` positions that have weight, each as often as it weighs.
        """
        found = []
        for values, weights in zip(torch.split(self.values, 1), self._weights_by_image(), strict=True):
            weights = weights.double()
            room = count * weights.numel() // max(1, int((weights > 0).sum()))
            rows, columns = self._grid(room, draw)
            if not bool(weights[rows, columns].any()):  # a region as thin as a line
                rows, columns = self._grid(weights.numel(), draw)
            index = resampled(weights[rows, columns], len(order))[order]
            found.append(replace(self, values=values)._taken(rows[index], columns[index]))
        return torch.cat(found)

    def _weights_by_image(self) -> Sequence[Tensor]:
        """Returns the weights of the whole map of each image, (H, W), on the CPU."""
        assert self.weights is not None
        return [*_at_hand(self.weights)[:, 0].expand(len(self.values), -1, -1)]

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


_COPIES: WeakKeyDictionary[torch.UntypedStorage, Tensor] = WeakKeyDictionary()


def _at_hand(weights: Tensor) -> Tensor:
    """Returns weights, which are not written to, on the CPU: copied once for all their views, for a GPU has to wait."""
    if weights.device.type == "cpu":
        return weights
    storage = weights.untyped_storage()
    if storage not in _COPIES:
        _COPIES[storage] = weights.as_strided((storage.nbytes() // weights.element_size(),), (1,), 0).cpu()
    return _COPIES[storage].as_strided(weights.size(), weights.stride(), weights.storage_offset())


def moved(values: Tensor, device: torch.device) -> Tensor:
    """Returns what was made on the CPU on a device, without waiting for a GPU."""
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values.to(device)


def stride_of(size: tuple[int, int], count: int) -> int:
    """Returns the least stride at which a grid over so many rows and columns has at most `count` positions."""
    stride = 1
    while math.prod(math.ceil(side / stride) for side in size) > count:
        stride += 1
    return stride


def resampled(weights: Tensor, count: int) -> Tensor:
    """Returns so many places in weights (K,), each as often as is its share, rounded: in order and never one of 0.

    Systematic resampling, Carpenter, Clifford and Fearnhead (1999); of equal weights, places at equal distances.
    """
    ends = weights.double().cumsum(dim=0)
    points = torch.arange(count, dtype=torch.float64, device=weights.device) * ends[-1] / count
    return torch.searchsorted(ends, points, right=True).clamp(max=len(weights) - 1)


def _warped(places: Tensor, weights: Tensor) -> Tensor:
    """Returns places (K, 2) moved to where weights (H, W) are: of equal ones, the places themselves.

    The inverse of the distribution of rows, then of that within a row, Rosenblatt (1952).
    """
    by_row, ends = weights.sum(dim=1), weights.flatten().cumsum(dim=0)
    row_ends = by_row.cumsum(dim=0)
    down = places[:, 0] * row_ends[-1]
    row = torch.searchsorted(row_ends, down, right=True).clamp(max=len(by_row) - 1)
    across = places[:, 1] * by_row[row]
    before = row_ends[row] - by_row[row]
    pixel = torch.searchsorted(ends, before + across, right=True).clamp(max=len(ends) - 1)
    column = pixel % weights.shape[1]
    within = (across - (ends[pixel] - weights.flatten()[pixel] - before)) / weights.flatten()[pixel]
    points = row + (down - before) / by_row[row], column + within.clamp(0, 1)
    return torch.stack([each / side for each, side in zip(points, weights.shape, strict=True)], dim=1)


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
        parts = zip(statistics, parts_of(weights), strict=True)
        return reduce(cls.beside, (each.part(*ends) for each, ends in parts))

    def part(self, first: float, last: float) -> Statistic:
        """Returns what the image brings where it is the part from `first` to `last`, in [0, 1], of several together."""
        sums = {name: (last - first) * self.mean(name) for name in self.sums}
        counts = {name: each.shape[2] for name, each in self.samples.items()}
        samples = {
            name: each[..., round(first * counts[name]) : round(last * counts[name])].clone()  # not all of it is kept
            for name, each in self.samples.items()
        }
        return Statistic(sums, torch.ones_like(self.weight), samples)

    def beside(self, other: Statistic) -> Statistic:
        """Returns a part with the one after it; all parts are the statistic of the images together."""
        sums = {name: total + other.sums[name] for name, total in self.sums.items()}
        samples = {name: torch.cat([each, other.samples[name]], dim=2) for name, each in self.samples.items()}
        return Statistic(sums, self.weight, samples)


def parts_of(weights: Sequence[float]) -> list[tuple[float, float]]:
    """Returns where the part of each weight, >= 0 with a sum above 0, begins and ends in [0, 1]."""
    return [*pairwise(accumulate((weight / sum(weights) for weight in weights), initial=0.0))]


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
