"""The losses of Gatys et al. (2016), each an additive statistic and a score, and their weighted sum.

A *statistic* is a sum over pixels, so the statistics of two halves of an image add up to that of the whole; a
*score* turns the statistic of the whole image into one number per image. Nothing here mixes two images of a
batch. Statistics and scores are float32 (float64 for float64 features) whatever the backbone's precision: a
Gram matrix overflows float16.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import grad

from nst_lightning.errors import InputError

IMAGE = "image"
"""The name under which the image itself stands among its features."""

Source = Literal["content", "style"]
Factors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Statistic:
    """A sum over pixels, and the number of pixels that it is over.

    Attributes:
        total: The sum, of shape (N, ...).
        pixels: The number of positions of the feature map that were summed.
    """

    total: Tensor
    pixels: int

    def __add__(self, other: Statistic) -> Statistic:
        return Statistic(self.total + other.total, self.pixels + other.pixels)


class Loss(Protocol):
    """What compares one layer of the output with the same layer of a source image.

    Attributes:
        source: The image that the target is taken from.
        spatial: Whether the target is a map, of which a tile is what the same tile of the output is compared with.
            If not, the target of an image is the mean of its tiles' targets, weighted by their pixels.
    """

    source: Source
    spatial: bool

    def target(self, feature: Tensor) -> Tensor:
        """Returns what is kept of a source image's features (N, C, H, W), of shape (N, ...)."""
        ...

    def statistic(self, feature: Tensor, target: Tensor) -> Statistic:
        """Returns the sum over pixels that `score` needs of the output's features (N, C, H, W)."""
        ...

    def score(self, statistic: Statistic, target: Tensor) -> Tensor:
        """Returns the distance to the target, one number an image, of shape (N,)."""
        ...


def _full_precision(feature: Tensor) -> Tensor:
    return feature if feature.dtype == torch.float64 else feature.float()


class Content:
    """Mean squared difference of features, Gatys et al. (2016), equation 1.

    The target is the feature map itself, so a tile of the output is compared with the same tile of the target.
    """

    source: Source = "content"
    spatial: bool = True

    def target(self, feature: Tensor) -> Tensor:
        """Returns the feature map, (N, C, H, W)."""
        return _full_precision(feature.detach())

    def statistic(self, feature: Tensor, target: Tensor) -> Statistic:
        """Returns the squared differences summed over pixels, per channel: (N, C)."""
        squared = _SquaredDifferences.apply(_full_precision(feature), target)
        return Statistic(squared, feature.shape[2] * feature.shape[3])

    def score(self, statistic: Statistic, target: Tensor) -> Tensor:
        """Returns the mean squared difference, (N,)."""
        # Departs from equation 1, which halves the sum: the mean keeps a weight's meaning at every image size.
        return statistic.total.mean(dim=1) / statistic.pixels


class _SquaredDifferences(torch.autograd.Function):
    """Squared differences of two (N, C, H, W) summed over positions, (N, C); keeps nothing beside the two."""

    @staticmethod
    def forward(ctx: FunctionCtx, feature: Tensor, target: Tensor) -> Tensor:
        ctx.save_for_backward(feature, target)
        return (feature - target).square_().sum(dim=(2, 3))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401 - torch names no type with saved_tensors
        feature, target = ctx.saved_tensors
        return (feature - target).mul_(2 * gradient[..., None, None]), None


class Gram:
    """Summed squared difference of Gram matrices, Gatys et al. (2016), equations 3 and 4."""

    source: Source = "style"
    spatial: bool = False

    def target(self, feature: Tensor) -> Tensor:
        """Returns the normalised Gram matrix, (N, C, C)."""
        return self._normalise(self._sum(feature.detach()))

    def statistic(self, feature: Tensor, target: Tensor) -> Statistic:
        """Returns the outer products of the feature vectors summed over pixels: (N, C, C)."""
        return self._sum(feature)

    def score(self, statistic: Statistic, target: Tensor) -> Tensor:
        """Returns the sum of squared differences of the two Gram matrices, (N,)."""
        return (self._normalise(statistic) - target).square().sum(dim=(1, 2))

    @staticmethod
    def _sum(feature: Tensor) -> Statistic:
        with torch.autocast(feature.device.type, enabled=False):
            return Statistic(_OuterProducts.apply(feature), feature.shape[2] * feature.shape[3])

    @staticmethod
    def _normalise(statistic: Statistic) -> Tensor:
        # Departs from equation 4, which divides the squared difference by 4 (C H W)^2: dividing the Gram by
        # C H W is gordicaleksa's convention, and frees the target from the size of the style image.
        return statistic.total / (statistic.total.shape[1] * statistic.pixels)


class _OuterProducts(torch.autograd.Function):
    """F F^T of (N, C, H, W) over positions, (N, C, C), whose backward is one product and in the features' layout.

    The products are summed in full precision. The gradient of bfloat16 features is a product in bfloat16, rounded like
    those that it is added to: half the time of one in float32, and no copy of the features in float32 is kept.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, feature: Tensor) -> Tensor:
        ctx.save_for_backward(feature)
        whole = _full_precision(feature)
        if _convolves(whole):
            size = (whole.shape[1], whole.shape[1], 1, 1)
            of_images = [
                grad.conv2d_weight(of, size, of)  # type: ignore[no-untyped-call, unused-ignore]
                for of in torch.split(whole, 1)
            ]
            return torch.cat(of_images).view(len(of_images), *size[:2])
        flat = whole.flatten(2)
        return flat @ flat.transpose(1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # noqa: ANN401 - torch names no type with saved_tensors
        feature: Tensor = ctx.saved_tensors[0]
        # Not float16, in whose range the gradient of a Gram matrix does not fit.
        factor = feature if feature.dtype == torch.bfloat16 else _full_precision(feature)
        symmetric = (gradient + gradient.transpose(1, 2)).to(factor.dtype)
        if _convolves(factor):
            each = zip(torch.split(factor, 1), symmetric[..., None, None], strict=True)
            of_images = [nn.functional.conv2d(image, kernel) for image, kernel in each]
            product = of_images[0] if len(of_images) == 1 else torch.cat(of_images)
        else:
            # A view of channels-last features, and so again.
            by_position = factor.flatten(2).transpose(1, 2) @ symmetric
            product = by_position.transpose(1, 2).view(feature.shape)
        return product.to(feature.dtype)


def _convolves(feature: Tensor) -> bool:
    """Whether products over positions are computed as 1x1 convolutions, one image at a time.

    Where torch has oneDNN, as on x86, that takes half the time of a matrix product by MKL on AMD's processors, and the
    sums of a float32 Gram matrix are closer to the exact ones (see tests/benchmarks).
    """
    on_cpu = feature.device.type == "cpu" and feature.dtype != torch.float64 and feature.numel() > 0
    return on_cpu and bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call, unused-ignore]


class TotalVariation:
    """Sum of absolute differences of neighbouring pixels on the 0-255 scale (anisotropic total variation).

    Not in Gatys et al.; the form of Mahendran and Vedaldi (2015), section 3.2, with exponent beta = 1 taken
    along each axis. It asks for no reference: its target is the variation of a flat image, 0.
    """

    source: Source = "content"
    spatial: bool = False

    def target(self, feature: Tensor) -> Tensor:
        """Returns zeros, (N,)."""
        return _full_precision(feature).new_zeros(feature.shape[0])

    def statistic(self, feature: Tensor, target: Tensor) -> Statistic:
        """Returns the absolute differences of an image (N, 3, H, W) in [0, 1], summed: (N,)."""
        image = _full_precision(feature)
        across = (image[..., :, 1:] - image[..., :, :-1]).abs().sum(dim=(1, 2, 3))
        down = (image[..., 1:, :] - image[..., :-1, :]).abs().sum(dim=(1, 2, 3))
        return Statistic(across + down, feature.shape[2] * feature.shape[3])

    def score(self, statistic: Statistic, target: Tensor) -> Tensor:
        """Returns the total variation on the 0-255 scale, (N,)."""
        return 255 * statistic.total - target


@dataclass(frozen=True)
class Term:
    """One weighted loss on one layer.

    Attributes:
        group: What the term counts towards in the curves: `content`, `style` or `tv`.
        layer: The layer's name, or `image` for the pixels.
        loss: The loss.
        weight: Its factor in the sum, finite and > 0.

    Raises:
        InputError: If the weight is not a finite number above 0.
    """

    group: str
    layer: str
    loss: Loss
    weight: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.weight) and self.weight > 0):
            msg = f"the weight of {self.name} must be a finite number above 0, got {self.weight}"
            raise InputError(msg)

    @property
    def name(self) -> str:
        """The term's name in curves and targets, e.g. `style/relu3_1`."""
        return f"{self.group}/{self.layer}"


class Objective:
    """The weighted sum of terms: what the optimiser brings down, Gatys et al. (2016), equation 7.

    Args:
        terms: The weighted losses, each of another name.

    Raises:
        InputError: If there is no term, or two have one name.
    """

    def __init__(self, terms: Iterable[Term]) -> None:
        self.terms: Sequence[Term] = tuple(terms)
        names = [term.name for term in self.terms]
        if not names:
            msg = "nothing to optimise: every weight is 0"
            raise InputError(msg)
        if len(set(names)) != len(names):
            msg = f"a layer stands twice among the terms: {', '.join(names)}"
            raise InputError(msg)

    @property
    def layers(self) -> tuple[str, ...]:
        """The backbone's layers that the terms read, in the order of their first use."""
        return tuple(dict.fromkeys(term.layer for term in self.terms if term.layer != IMAGE))

    @property
    def weights(self) -> dict[str, float]:
        """The sum of the terms' weights by group."""
        groups = dict.fromkeys(term.group for term in self.terms)
        return {group: math.fsum(term.weight for term in self.terms if term.group == group) for group in groups}

    @property
    def sources(self) -> set[Source]:
        """The images that the terms compare with."""
        return {term.loss.source for term in self.terms}

    def targets(self, source: Source, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns the targets of the terms that compare with one source image.

        Args:
            source: `content` or `style`.
            features: That image's features by layer, (N, C, H, W) each, with the image itself as `image`.

        Returns:
            A target of shape (N, ...) by the term's name.
        """
        return {term.name: term.loss.target(features[term.layer]) for term in self.terms if term.loss.source == source}

    def statistics(self, features: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> dict[str, Statistic]:
        """Returns every term's statistic of the output's features (or of a tile's, with the targets' tile)."""
        return {term.name: term.loss.statistic(features[term.layer], targets[term.name]) for term in self.terms}

    def scores(self, statistics: Mapping[str, Statistic], targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns every term's unweighted score of the whole image, (N,) each."""
        return {term.name: term.loss.score(statistics[term.name], targets[term.name]) for term in self.terms}

    def total(self, scores: Mapping[str, Tensor], factors: Factors | None = None) -> Tensor:
        """Returns the weighted sum, (N,): the loss of each image.

        Args:
            scores: Every term's score, (N,) each.
            factors: What each image's weights are multiplied by, by group, (N,) each; 1 where a group is missing.
        """
        return torch.stack([self._weighted(term, scores, factors) for term in self.terms]).sum(dim=0)

    def contributions(self, scores: Mapping[str, Tensor], factors: Factors | None = None) -> dict[str, Tensor]:
        """Returns the weighted scores summed by group and in `total`, (N,) each, for curves; arguments as there."""
        groups = dict.fromkeys(term.group for term in self.terms)
        sums = {
            group: torch.stack(
                [self._weighted(term, scores, factors) for term in self.terms if term.group == group]
            ).sum(dim=0)
            for group in groups
        }
        return {"total": self.total(scores, factors), **sums}

    @staticmethod
    def _weighted(term: Term, scores: Mapping[str, Tensor], factors: Factors | None) -> Tensor:
        weighted = term.weight * scores[term.name]
        return weighted * factors[term.group] if factors is not None and term.group in factors else weighted
