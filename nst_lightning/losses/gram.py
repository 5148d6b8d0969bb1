"""The style loss of Gatys et al. (2016): Gram matrices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import grad

from nst_lightning.losses.base import Additive, Features, Source, Statistic, Target, full_precision

# Asked once: torch.compile would break its graph at the question.
_ONEDNN = bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call, unused-ignore]
_WIDENS = torch.__version__ >= "2.8"  # whether products of halves can be summed up and returned in float32


class Gram(Additive):
    """Summed squared difference of Gram matrices, Gatys et al. (2016), equations 3 and 4."""

    source: ClassVar[Source | None] = "style"

    def statistic(self, features: Sequence[Features], draw: int) -> Statistic:
        """Returns the outer products of one layer's feature vectors, summed over positions: (N, C, C)."""
        (layer,) = features
        return Statistic({"products": outer_products(layer)}, layer.weight)

    def target(self, statistic: Statistic) -> Target:
        """Returns the normalised Gram matrix, (N, C, C)."""
        return (self._normalised(statistic),)

    def size(self, target: Target) -> Tensor:
        """Returns the sum of squares of the target's Gram matrix, (N,)."""
        return target[0].square().sum(dim=(1, 2))

    def compare(self, statistic: Statistic, target: Target, draw: int) -> Tensor:
        """Returns the sum of squared differences of the two Gram matrices, (N,)."""
        return (self._normalised(statistic) - target[0]).square().sum(dim=(1, 2))

    @staticmethod
    def _normalised(statistic: Statistic) -> Tensor:
        # Departs from equation 4, which divides the squared difference by 4 (C H W)^2: dividing the Gram by
        # C H W is gordicaleksa's convention, and frees the target from the size of the style image.
        products = statistic.sums["products"]
        return products / (products.shape[1] * statistic.weight)[:, None, None]


class ScaledGram(Gram):
    """Summed squared difference of Gram matrices divided by the summed absolute one: its slopes add up to about 1.

    crowsonkb's style-transfer-pytorch before its Wasserstein distance.
    """

    def size(self, target: Target) -> Tensor:
        """Returns the target's sum of squares divided by its sum of absolute values, (N,)."""
        return _scaled(target[0])

    def compare(self, statistic: Statistic, target: Target, draw: int) -> Tensor:
        """Returns the scaled difference of the two Gram matrices, (N,)."""
        return _scaled(self._normalised(statistic) - target[0])


def _scaled(difference: Tensor) -> Tensor:
    return difference.square().sum(dim=(1, 2)) / (difference.abs().sum(dim=(1, 2)) + 1e-8)


def outer_products(features: Features) -> Tensor:
    """Returns F F^T of features, weighted and summed over positions, (N, C, C), float32 or float64."""
    with torch.autocast(features.values.device.type, enabled=False):
        products: Tensor = _OuterProducts.apply(features.weighted)
    return products


class _OuterProducts(Function):
    """F F^T of (N, C, H, W) over positions, (N, C, C), whose backward is one product and in the features' layout.

    The products are summed in full precision. The gradient of bfloat16 features is a product in bfloat16, rounded like
    those that it is added to: half the time of one in float32, and no copy of the features in float32 is kept.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, feature: Tensor) -> Tensor:
        ctx.save_for_backward(feature)
        if _WIDENS and feature.device.type == "cuda" and feature.dtype in (torch.bfloat16, torch.float16):
            flat = feature.flatten(2)
            return torch.bmm(flat, flat.transpose(1, 2), out_dtype=torch.float32)  # each product exact, on tensor cores
        whole = full_precision(feature)
        if _convolves(whole):
            size = (whole.shape[1], whole.shape[1], 1, 1)
            images = [
                grad.conv2d_weight(image, size, image)  # type: ignore[no-untyped-call, unused-ignore]
                for image in torch.split(whole, 1)
            ]
            return torch.cat(images).view(len(images), *size[:2])
        flat = whole.flatten(2)
        return flat @ flat.transpose(1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # noqa: ANN401 - torch names no type with saved_tensors
        feature: Tensor = ctx.saved_tensors[0]
        # Not float16, in whose range the gradient of a Gram matrix does not fit.
        factor = feature if feature.dtype == torch.bfloat16 else full_precision(feature)
        symmetric = (gradient + gradient.transpose(1, 2)).to(factor.dtype)
        if _convolves(factor):
            pairs = zip(torch.split(factor, 1), symmetric[..., None, None], strict=True)
            images = [nn.functional.conv2d(image, kernel) for image, kernel in pairs]
            product = images[0] if len(images) == 1 else torch.cat(images)
        else:
            # A view of channels-last features, and so again.
            by_position = factor.flatten(2).transpose(1, 2) @ symmetric
            product = by_position.transpose(1, 2).view(feature.shape)
        return product.to(feature.dtype)


def _convolves(feature: Tensor) -> bool:
    """Whether products over positions are computed as 1x1 convolutions, one image at a time.

    By oneDNN that takes half the time of a matrix product by MKL on AMD's processors, and the sums of a float32 Gram
    matrix are closer to the exact ones (see tests/benchmarks).
    """
    on_cpu = feature.device.type == "cpu" and feature.dtype != torch.float64 and feature.numel() > 0
    return on_cpu and _ONEDNN
