"""The first passes of NNST: hypercolumns towards those of the style that the content's are most like."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize

from nst_lightning.losses.base import IMAGE, Features, Matched, Source, Statistic, Target, resampled, stride_of
from nst_lightning.losses.nearest import nearest

_EVERY = 4  # pixels from one hypercolumn to the next


class MatchedColumns(Matched):
    """Mean cosine distance of hypercolumns to those of the style nearest to the content's at the same positions.

    Kolkin et al. (2022), *Neural Neighbor Style Transfer*, section 3.2: which are nearest is found once, about both
    images' means. It is free of the features' scale.
    """

    source: ClassVar[Source | None] = "style"
    # Departs from the code, which asks with a quarter of the output so far but at the first scale.
    query: ClassVar[Source] = "content"
    # Departs from the code, which has all from relu1_1 to relu4_3, see the preset: of layers with closer positions than
    # the grid's, an L-BFGS shows the grid.
    layers: ClassVar[tuple[str, ...]] = (IMAGE, "relu3_1", "relu4_1")
    joint: ClassVar[bool] = True
    positions: ClassVar[int] = 128**2  # departs from the code, which takes all, also of images of more than 512 px

    def statistic(self, features: Sequence[Features], draw: int) -> Statistic:
        """Returns hypercolumns on a grid, (N, C, K), the same ones in every draw."""
        image, *layers = features  # of the image, only the size is asked for
        grid = self._grid(*image.size)
        columns = torch.cat([layer.resized(*grid) / layer.values.shape[1] for layer in layers], dim=1)
        counts = image.own_weights
        weights = {} if counts is None else {"weights": Features(counts, image.size, image.corner).resized(*grid)}
        return Statistic({}, image.weight, {"columns": columns, **weights})

    def asked(self, features: Sequence[Features], draw: int) -> Statistic:
        """Returns those of the content, with their sum, (N, C)."""
        found = self.statistic(features, draw)
        columns, image = found.samples["columns"], features[0]
        # As the weight, of all pixels.
        if image.weights is None:
            of_all = columns.sum(dim=2) * (math.prod(image.size) / columns.shape[2])
        else:
            counts = self._counts(image)
            all_pixels = image.weights.sum(dim=(2, 3)).to(counts)
            of_all = (columns * counts).sum(dim=2) * all_pixels / _positive(counts.sum(dim=2))
        return Statistic({"columns": of_all}, found.weight, found.samples)

    def kept(self, features: Sequence[Features], draw: int) -> Statistic:
        """Returns those of the style in no order, as many for images of any size, with the sum of all."""
        found = self.asked(features, draw)
        columns = found.samples["columns"]
        order = torch.randperm(self.positions, generator=torch.Generator().manual_seed(0))
        if features[0].weights is None:
            return Statistic(
                found.sums, found.weight, {"columns": columns[..., order.to(columns.device) % columns.shape[2]]}
            )
        counts = self._counts(features[0]).cpu().expand(len(columns), -1, -1)
        images = zip(columns, (resampled(each[0], self.positions)[order] for each in counts), strict=True)
        return Statistic(
            found.sums, found.weight, {"columns": torch.stack([one[:, taken.to(one.device)] for one, taken in images])}
        )

    def target(self, statistic: Statistic) -> Target:
        """Returns the hypercolumns, (N, C, K), and the mean of all, (N, C, 1)."""
        return statistic.samples["columns"], statistic.mean("columns")[..., None]

    def matched(self, query: Target, target: Target) -> Target:
        """Returns the directions of the style's hypercolumns that the content's are nearest to, (N, C, K)."""
        return (torch.stack([self._nearest(*each) for each in zip(*query, *target, strict=True)]),)

    def compare(self, statistic: Statistic, target: Target, draw: int) -> Tensor:
        """Returns the mean distance, (N,), 0 to 2."""
        pairs = zip(normalize(statistic.samples["columns"], dim=1), target[0], strict=True)
        alike = [(own * other).sum(dim=0) for own, other in pairs]
        if (weights := statistic.samples.get("weights")) is None:
            return torch.stack([1 - each.mean() for each in alike])
        counted = zip(alike, weights[:, 0].expand(len(alike), -1), strict=True)
        return torch.stack([1 - (each * own).sum() / _positive(own.sum()) for each, own in counted])

    def _counts(self, image: Features) -> Tensor:
        """Returns how much each of the grid's positions in the whole image counts, (N or 1, 1, K)."""
        assert image.weights is not None
        return Features.whole(image.weights).resized(*self._grid(*image.size))

    def _grid(self, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Returns the rows and the columns of a grid over an image of so many pixels, see `Features.resized`."""
        sizes = max(1, height // _EVERY), max(1, width // _EVERY)
        stride = stride_of(sizes, self.positions)
        rows, columns = (torch.arange(0, size, stride, dtype=torch.float64) / max(1, size - 1) for size in sizes)
        return rows, columns

    @staticmethod
    def _nearest(query: Tensor, mean: Tensor, style: Tensor, of_style: Tensor) -> Tensor:
        found = nearest(normalize(query - mean, dim=0), normalize(style - of_style, dim=0))
        return normalize(style[:, found], dim=0)


def _positive(total: Tensor) -> Tensor:
    """Returns a sum of weights that may be divided by."""
    return total.clamp(min=torch.finfo(total.dtype).tiny)
