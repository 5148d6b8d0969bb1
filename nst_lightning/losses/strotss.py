"""The losses of STROTSS on hypercolumns: relaxed optimal transport for the style, self-similarity for the content."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize

from nst_lightning.losses.base import IMAGE, Additive, Features, Source, Statistic, Target, moved

_LAYERS = ("relu1_1", "relu1_2", "relu2_1", "relu2_2", "relu3_1", "relu3_2", "relu3_3", "relu4_3", "relu5_3")
_POSITIONS = 1024  # of the output, and of the content beside them
_SETS = 8  # of positions of the content, one of which is compared at a step
# Red, green and blue to the colour space in which STROTSS compares palettes: grey first.
_OPPONENT = ((0.577350, 0.577350, 0.577350), (-0.577350, 0.788675, -0.211325), (-0.577350, -0.211325, 0.788675))


class _Hypercolumns(Additive):
    """A loss on the image and several layers together, at drawn positions; the image is the first of them."""

    layers: ClassVar[tuple[str, ...]] = (IMAGE, *_LAYERS)
    joint: ClassVar[bool] = True

    def _at(self, features: Sequence[Features], places: Tensor) -> Statistic:
        return Statistic({}, features[0].weight, {"columns": hypercolumns(features, places, self.unit)})


class Strotss(_Hypercolumns):
    """Relaxed earth mover's distance, moments and palette of hypercolumns, Kolkin et al. (2019), equations 5 to 9.

    *Style Transfer by Relaxed Optimal Transport and Self-Similarity*. The sum of the three, by the weights that its
    code has where the content weighs no more than the style.
    """

    source: ClassVar[Source | None] = "style"
    bank: ClassVar[int] = 5000  # positions of the style

    def statistic(self, features: Sequence[Features], draw: int) -> Statistic:
        """Returns hypercolumns at drawn positions, (N, C, K)."""
        # Departs from the code, which takes a grid with a random offset and draws anew every ten steps.
        return self._at(features, features[0].placed(_POSITIONS, draw))

    def kept(self, features: Sequence[Features], draw: int) -> Statistic:
        """Returns the style's hypercolumns at more positions."""
        return self._at(features, features[0].placed(self.bank, draw))

    def target(self, statistic: Statistic) -> Target:
        """Returns hypercolumns (N, C, K), their mean (N, C, 1) and covariance (N, C, C)."""
        columns = statistic.samples["columns"]
        return columns, *_moments(columns)

    def compare(self, statistic: Statistic, target: Target, draw: int) -> Tensor:
        """Returns the sum of the three, (N,)."""
        images = zip(statistic.samples["columns"], *target, strict=True)
        return torch.stack([self._distance(*each) for each in images])

    @staticmethod
    def _distance(own: Tensor, style: Tensor, mean: Tensor, covariance: Tensor) -> Tensor:
        transport = relaxed(own, style, colours=False)
        of_mean, of_covariance = _moments(own[None])
        moments = (of_mean[0] - mean).abs().mean() + (of_covariance[0] - covariance).abs().mean()
        turn = moved(torch.tensor(_OPPONENT, dtype=own.dtype), own.device)
        return transport + moments + relaxed(turn @ own[:3], turn @ style[:3], colours=True)


class SelfSimilarity(_Hypercolumns):
    """Difference of the normalised cosine distances between positions, Kolkin et al. (2019), equation 4."""

    source: ClassVar[Source | None] = "content"

    def statistic(self, features: Sequence[Features], draw: int) -> Statistic:
        """Returns hypercolumns at the positions of a draw, (N, C, K)."""
        return self._at(features, _content_places(features)[..., _set(draw), :])

    def kept(self, features: Sequence[Features], draw: int) -> Statistic:
        """Returns the content's hypercolumns at the positions of all draws."""
        return self._at(features, _content_places(features))

    def target(self, statistic: Statistic) -> Target:
        """Returns the hypercolumns, (N, C, K)."""
        return (statistic.samples["columns"],)

    def compare(self, statistic: Statistic, target: Target, draw: int) -> Tensor:
        """Returns the mean over positions of the summed differences, (N,)."""
        pairs = zip(statistic.samples["columns"], target[0][..., _set(draw)], strict=True)
        return torch.stack([(_similarity(own) - _similarity(other)).abs().sum(dim=0).mean() for own, other in pairs])


def hypercolumns(features: Sequence[Features], places: Tensor, unit: float) -> Tensor:
    """Returns the image's colours and all layers' features at places, (N, 3 + C, K), the latter divided by a unit."""
    image, *layers = features
    return torch.cat([image.between(places), *(layer.between(places) / unit for layer in layers)], dim=1)


def relaxed(own: Tensor, other: Tensor, colours: bool) -> Tensor:
    """Returns the relaxed earth mover's distance of (C, K) and (C, L) by cosines, of colours by their distance too."""
    with torch.no_grad():
        costs = 1 - normalize(own, dim=0).T @ normalize(other, dim=0)
        if colours:
            costs += _apart(own[:, :, None], other[:, None, :])
        nearest, nearest_own = costs.argmin(dim=1), costs.argmin(dim=0)
    # The gradient of a minimum is that of the one that is least: the matrix need not be kept.
    return torch.maximum(
        _cost(own, other[:, nearest], colours).mean(), _cost(own[:, nearest_own], other, colours).mean()
    )


def _cost(own: Tensor, other: Tensor, colours: bool) -> Tensor:
    cosine = 1 - (normalize(own, dim=0) * normalize(other, dim=0)).sum(dim=0)
    return cosine + _apart(own, other) if colours else cosine


def _apart(own: Tensor, other: Tensor) -> Tensor:
    return ((own - other).square().sum(dim=0).clamp(1e-5, 1e5) / 3).sqrt()


def _moments(columns: Tensor) -> tuple[Tensor, Tensor]:
    mean = columns.mean(dim=2, keepdim=True)
    centred = columns - mean
    return mean, torch.stack([each @ each.T / (each.shape[1] - 1) for each in centred])


def _similarity(columns: Tensor) -> Tensor:
    unit = normalize(columns, dim=0)
    distances = 1 - unit.T @ unit
    return distances / distances.sum(dim=0, keepdim=True)


def _content_places(features: Sequence[Features]) -> Tensor:
    return features[0].placed(_POSITIONS * _SETS, 0)


def _set(draw: int) -> slice:
    first = draw % _SETS * _POSITIONS
    return slice(first, first + _POSITIONS)
