"""Convolutions 3x3 on a CPU by minimal filtering: a quarter of the products, hardly less exact."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

_TILE = 4  # the side of the squares of output that are computed together, from inputs of _TILE + 2
_POSITIONS = 256  # about so many squares are in work at once: their temporaries stay in a processor's cache
# Where polynomials are evaluated: at 0, +-_NEAR, +-_FAR and infinity. For they are each other's inverses, rounding is
# half that of the usual 1 and 2, and filters turned by 180 degrees are the same ones in the other order.
_NEAR, _FAR = 2 / 3, 3 / 2
_SCALE = _NEAR**2 / (2 * (_NEAR**4 - 1))  # leaves `_synthesise` the fewest operations
_FILTERS = [[1, 0, 0], *([_SCALE / at, _SCALE, _SCALE * at] for at in (_NEAR, -_NEAR, _FAR, -_FAR)), [0, 0, 1]]
_FORWARDS, _TURNED = (0, 1, 2, 3, 4, 5), (5, 3, 4, 1, 2, 0)
# From how many input times output channels, and positions of a map, it is faster (`tests.benchmarks.winograd`): the
# transforms grow with the former's sum, and the filters, which are four times as many, have to be read for the latter.
_CHANNELS, _AREA = 128 * 256, 16 * 16


class WinogradConvolution(nn.Module):
    """A convolution 3x3 of stride 1, of float32 images on a CPU by Winograd's minimal filtering F(4x4, 3x3).

    Lavin and Gray (2016), *Fast Algorithms for Convolutional Neural Networks*, section 4.1; departs from it in where
    polynomials are evaluated. Elsewhere, of small maps, and under autocast, it is the convolution `like` itself, with
    which it shares the weights. The way follows from the map's size alone, and images are convolved one by one, so that
    no result depends on a machine's load or an image's companions.
    """

    def __init__(self, like: nn.Conv2d) -> None:
        super().__init__()
        self.like = like
        self._known: tuple[Tensor, Tensor] | None = None  # weights, and these transformed

    @staticmethod
    def suits(like: nn.Conv2d) -> bool:
        """Whether it may stand in place of a convolution, and is faster."""
        plain = like.kernel_size == (3, 3) and like.padding in {(0, 0), (1, 1)} and like.padding_mode == "zeros"
        single = like.stride == like.dilation == (1, 1) and like.groups == 1
        return plain and single and like.in_channels * like.out_channels >= _CHANNELS

    def forward(self, input: Tensor) -> Tensor:
        """Returns the convolution of images (N, C, H, W)."""
        kind, like = input.device.type, self.like
        elsewhere = kind != "cpu" or input.dtype != torch.float32 or torch.is_autocast_enabled(kind)
        if elsewhere or torch.compiler.is_compiling() or input.shape[2] * input.shape[3] < _AREA:
            found: Tensor = like(input)
            return found
        if self._known is None or self._known[0] is not like.weight:  # which `.to()` replaces
            self._known = like.weight, transformed(like.weight)
        convolved: Tensor = Filtering.apply(input, self._known[1], like.bias, like.padding[0])
        return convolved


def transformed(weight: Tensor) -> Tensor:
    """Returns filters (O, C, 3, 3) as `Filtering` takes them, (6, 6, C, O)."""
    points = torch.tensor(_FILTERS, dtype=torch.float64)
    both = torch.kron(points, points).to(weight.dtype)
    outputs, inputs = weight.shape[:2]
    return (both @ weight.transpose(0, 1).reshape(-1, 9).T).view(6, 6, inputs, outputs)


class Filtering(torch.autograd.Function):
    """The convolution of images (N, C, H, W) with `transformed` filters, a bias (O,) or None, and a border of zeros.

    It has a gradient to the images only, which is their convolution with the filters turned.
    """

    @staticmethod
    def forward(ctx: Any, image: Tensor, filters: Tensor, bias: Tensor | None, border: int) -> Tensor:  # noqa: ANN401
        """Returns the convolution, channels-last."""
        ctx.filters, ctx.border = filters, border
        return _convolved(image, filters, bias, border, _FORWARDS)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator, unused-ignore]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:  # noqa: ANN401
        """Returns the gradient to the images."""
        turned = _convolved(gradient, ctx.filters.transpose(2, 3), None, 2 - ctx.border, _TURNED)
        return turned, None, None, None


def _convolved(image: Tensor, filters: Tensor, bias: Tensor | None, border: int, order: Sequence[int]) -> Tensor:
    height, width = (side + 2 * border - 2 for side in image.shape[2:])
    shape = len(image), filters.shape[3], height, width
    output = torch.empty(shape, dtype=image.dtype, memory_format=torch.channels_last)
    rows, columns = -(-height // _TILE), -(-width // _TILE)
    most = max(1, _POSITIONS // columns)
    for pixels, found in zip(image.permute(0, 2, 3, 1), output.permute(0, 2, 3, 1), strict=True):
        for first in range(0, rows, most):
            strip = found[_TILE * first : _TILE * (first + most)]
            size = min(most, rows - first), columns
            values = _strip(_bordered(pixels, _TILE * first, border, size), filters, order)
            values = values.flatten(2, 3).flatten(0, 1)[: len(strip), :width]
            if bias is None:
                strip.copy_(values)
            else:
                torch.add(values, bias, out=strip)
    return output


def _bordered(pixels: Tensor, top: int, border: int, size: tuple[int, int]) -> Tensor:
    """Returns what some rows and columns of squares need from row `top` on of an image (H, W, C) with a border."""
    rows, columns = (_TILE * count + 2 for count in size)
    found = pixels.new_zeros(rows, columns, pixels.shape[2])
    begin, end = max(top - border, 0), min(top - border + rows, len(pixels))
    found[begin - top + border : end - top + border, border : border + pixels.shape[1]] = pixels[begin:end]
    return found


def _strip(pixels: Tensor, filters: Tensor, order: Sequence[int]) -> Tensor:
    """Convolves (4 h + 2, 4 w + 2, C) to h times w squares, (h, 4, w, 4, O)."""
    (height, width), (channels, wanted) = ((side - 2 for side in pixels.shape[:2]), filters.shape[2:])
    rows, columns = height // _TILE, width // _TILE
    down = pixels.new_empty(6, rows, width + 2, channels)
    places = [slice(place, place + height - 3, _TILE) for place in range(6)]
    _analyse([pixels[rows_] for rows_ in places], [down[point] for point in order])
    across = pixels.new_empty(6, 6, rows, columns, channels)
    places = [slice(place, place + width - 3, _TILE) for place in range(6)]
    _analyse([down[:, :, columns_] for columns_ in places], [across[:, point] for point in order])
    products = torch.bmm(across.view(36, rows * columns, channels), filters.flatten(0, 1))
    products = products.view(6, 6, rows, columns, wanted)
    back = pixels.new_empty(_TILE, 6, rows, columns, wanted)
    _synthesise([products[point] for point in order], list(back))
    squares = pixels.new_empty(rows, _TILE, columns, _TILE, wanted)
    _synthesise([back[:, point] for point in order], list(squares.permute(3, 1, 0, 2, 4)))
    return squares


def _analyse(inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
    """Evaluates at the six points what has six inputs for the coefficients of its dual: the paper's B^T."""
    zero, near, minus_near, far, minus_far, infinity = outputs
    a, b = _NEAR**2, _FAR**2
    even, odd = torch.add(inputs[4], inputs[2], alpha=-a), torch.add(inputs[3], inputs[1], alpha=-a)
    torch.add(even, odd, alpha=_FAR, out=far)
    torch.add(even, odd, alpha=-_FAR, out=minus_far)
    torch.add(inputs[4], inputs[2], alpha=-b, out=even)
    torch.add(inputs[3], inputs[1], alpha=-b, out=odd)
    torch.add(even, odd, alpha=_NEAR, out=near)
    torch.add(even, odd, alpha=-_NEAR, out=minus_near)
    torch.add(inputs[2], inputs[0], alpha=-b, out=zero)
    torch.add(even, zero, alpha=-a, out=zero)
    torch.add(inputs[5], inputs[3], alpha=-b, out=infinity)
    torch.add(infinity, odd, alpha=-a, out=infinity)


def _synthesise(values: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
    """Finds four outputs from the products at the six points: the paper's A^T."""
    zero, near, minus_near, far, minus_far, infinity = values
    sums, differences = torch.add(near, minus_near), torch.sub(near, minus_near)
    far_sums, far_differences = torch.add(far, minus_far), torch.sub(far, minus_far)
    torch.add(zero, differences, alpha=_FAR, out=outputs[0])
    torch.add(outputs[0], far_differences, alpha=-_NEAR, out=outputs[0])
    torch.sub(sums, far_sums, out=outputs[1])
    torch.add(differences.mul_(_NEAR), far_differences, alpha=-_FAR, out=outputs[2])
    torch.add(infinity, sums, alpha=_NEAR**2, out=outputs[3])
    torch.add(outputs[3], far_sums, alpha=-(_FAR**2), out=outputs[3])
