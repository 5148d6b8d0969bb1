"""The network that turns photographs into paintings, whole or strip by strip."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

BLOCKS = 5
STRIP = 2**24  # values of the widest map that are held at once
_STRIDE = 4
Moments: TypeAlias = tuple[Tensor, Tensor]  # mean and variance over positions, (N, C, 1, 1) each


class Norm(nn.Module):
    """Conditional instance normalisation, Dumoulin et al. (2017), *A Learned Representation for Artistic Style*.

    Each style has its own scale and shift, (styles, C); images have mixtures of them.
    """

    def __init__(self, styles: int, channels: int, scale: float = 1.0, shift: float = 0.0, epsilon: float = 1e-5):  # noqa: ANN204
        super().__init__()
        self.scale = nn.Parameter(torch.full((styles, channels), scale))
        self.shift = nn.Parameter(torch.full((styles, channels), shift))
        self.epsilon = epsilon

    def forward(self, maps: Tensor, mix: Tensor, moments: Moments | None = None) -> Tensor:
        """Returns maps (N, C, H, W) normalised, by their own moments unless those of the whole image are given."""
        full = maps if maps.dtype == torch.float64 else maps.float()
        with torch.autocast(maps.device.type, enabled=False):
            scale, shift = ((mix.to(each) @ each).to(full)[..., None, None] for each in (self.scale, self.shift))
        if moments is None and torch.onnx.is_in_onnx_export():  # which knows no batch_norm of any number of channels
            variance, mean = torch.var_mean(full, dim=(2, 3), keepdim=True, correction=0)
            moments = mean, variance
        if moments is not None:
            mean, variance = (each.to(full) for each in moments)
            rate = scale * (variance + self.epsilon).rsqrt()
            return torch.addcmul(shift - mean * rate, full, rate)
        # All channels of all images as those of one: a single operation, with scale and shift. A view of one image
        # would forget that its channels lie last.
        together = full if len(full) == 1 else full.reshape(1, -1, *full.shape[2:])
        normalised = F.batch_norm(together, None, None, scale.flatten(), shift.flatten(), True, eps=self.epsilon)
        return normalised if len(full) == 1 else normalised.view(full.shape)


class Unit(nn.Module):
    """A convolution of a map whose borders are reflected, enlarged before where asked for; a norm and a ReLU after it.

    Nearest neighbours and a convolution in place of a transposed one, which leaves grids: Odena et al. (2016).
    """

    def __init__(self, channels: tuple[int, int], side: int, styles: int, stride: int = 1, enlarged: int = 1) -> None:
        super().__init__()
        self.stride, self.enlarged, self.reach = stride, enlarged, side // 2
        self.convolution = nn.Conv2d(*channels, side, stride, bias=styles == 0)  # which a norm would take away again
        self.norm = Norm(styles, channels[1]) if styles > 0 else None

    def convolved(self, maps: Tensor, top: int, bottom: int) -> Tensor:
        """Returns the convolution of rows, so many of which at the ends are missing and made up by reflection."""
        if self.enlarged == 1:
            return self.convolution(F.pad(maps, (self.reach, self.reach, top, bottom), "reflect"))  # type: ignore[no-any-return]
        # Each place of a map enlarged twofold is seen by 3x3 weights, so each of the map itself by their sums by twos,
        # and what the enlarged one reflects at its border is the row that borders there.
        sums = 4 * F.avg_pool2d(self.convolution.weight.flip(2, 3), 2, stride=1, padding=1)
        last = maps.is_contiguous(memory_format=torch.channels_last)
        sums = sums.transpose(0, 1).contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
        return F.conv_transpose2d(F.pad(maps, (1, 1, top, bottom), "replicate"), sums, None, 2, 3)

    def finished(self, maps: Tensor, mix: Tensor, moments: Moments | None = None) -> Tensor:
        """Returns what a convolution gave, normalised and without what is negative."""
        if self.norm is None:
            return maps
        return F.relu(self.norm(maps, mix, moments), inplace=not torch.is_grad_enabled())

    def forward(self, maps: Tensor, mix: Tensor) -> Tensor:
        """Returns the unit's output for whole maps (N, C, H, W)."""
        return self.finished(self.convolved(maps, self.reach, self.reach), mix)


class Block(nn.Module):
    """A residual block, He et al. (2016), without a ReLU after the sum, as Johnson et al. (2016)."""

    def __init__(self, channels: int, styles: int) -> None:
        super().__init__()
        self.first, self.second = (Unit((channels, channels), 3, styles) for _ in range(2))

    def forward(self, maps: Tensor, mix: Tensor) -> Tensor:
        """Returns the block's output for whole maps."""
        inner = self.second.convolved(self.first(maps, mix), 1, 1)
        assert self.second.norm is not None
        summed: Tensor = maps + self.second.norm(inner, mix)
        return summed


class PainterNetwork(nn.Module):
    """A painter in several styles, Johnson et al. (2016), *Perceptual Losses for Real-Time Style Transfer*.

    Departs from it: borders are reflected, maps enlarged by neighbours, and the photograph itself, normalised, is added
    to what the last convolution gives, so that training begins at it and not at noise. That convolution is of 5x5, for
    on a CPU one of 9x9 took as long as all others.

    Args:
        styles: How many it paints in, >= 1.
        width: The channels of the first map, which the others have multiples of, >= 1.
    """

    def __init__(self, styles: int, width: int) -> None:
        super().__init__()
        self.styles, self.width = styles, width
        one, two, four = width, 2 * width, 4 * width
        head = [((3, one), 9, 1), ((one, two), 3, 2), ((two, four), 3, 2)]
        self.head = nn.ModuleList(Unit(channels, side, styles, stride) for channels, side, stride in head)
        self.body = nn.ModuleList(Block(four, styles) for _ in range(BLOCKS))
        tail = [Unit((four, two), 3, styles, enlarged=2), Unit((two, one), 3, styles, enlarged=2), Unit((one, 3), 5, 0)]
        self.tail = nn.ModuleList(tail)
        self.photograph = Norm(styles, 3, 0.15, 0.5, 0.01)  # noise is not raised above a contrast of 0.1
        with torch.no_grad():
            tail[-1].convolution.weight.mul_(0.1)

    def forward(self, photographs: Tensor, mix: Tensor) -> Tensor:
        """Returns the paintings, sRGB in about [0, 1], of photographs (N, 3, H, W) in [0, 1], 16 px a side at least.

        `mix` are the weights of the styles, (N, styles).
        """
        maps = padded = _padded(photographs)
        for layer in (*self.head, *self.body, *self.tail):
            maps = layer(maps, mix)
        painted: Tensor = maps + self.photograph(padded, mix)
        return painted[..., : photographs.shape[-2], : photographs.shape[-1]]

    def begin_as(self, other: PainterNetwork) -> None:
        """Takes the weights of a network of the same width, of whose styles the first where their numbers differ."""
        own = self.state_dict()
        taken = {name: each if each.shape == own[name].shape else each[:1] for name, each in other.state_dict().items()}
        self.load_state_dict({name: each.expand(own[name].shape) for name, each in taken.items()})

    @torch.no_grad()
    def in_strips(self, photographs: Tensor, mix: Tensor, values: int = STRIP) -> Tensor:
        """Returns what `forward` does, of maps as large as the photographs at most so many values at once.

        Rows are asked of the last unit, which asks the one before it for those that it sees; a norm's moments are
        summed over all strips first, in float64. Only what is a quarter of the photographs' size is computed whole.
        """
        count, _, height, width = photographs.shape
        rows = max(1, values // (count * self.width * width))
        if rows >= height:
            return self.forward(photographs, mix)
        padded = _padded(photographs)
        maps = torch.cat([*_streamed(self.head, padded, mix, max(1, rows // _STRIDE))], dim=2)
        for block in self.body:
            maps = block(maps, mix)
        moments = _moments(lambda first, last: padded[:, :, first:last], padded.shape[2], rows)
        painted, first = torch.empty_like(photographs), 0
        for strip in _streamed(self.tail, maps, mix, rows):
            last = min(height, first + strip.shape[2])
            own = strip + self.photograph(padded[:, :, first : first + strip.shape[2]], mix, moments)
            painted[:, :, first:last] = own[:, :, : last - first, :width]
            first = last
        return painted


def _padded(photographs: Tensor) -> Tensor:
    """Returns photographs whose sides are multiples of what the network halves them by."""
    height, width = photographs.shape[-2:]
    return F.pad(photographs, (0, -width % _STRIDE, 0, -height % _STRIDE), "reflect")


def _streamed(chain: Iterable[nn.Module], source: Tensor, mix: Tensor, rows: int) -> Iterator[Tensor]:
    """Yields the output of a chain of units for whole maps, so many rows at once."""
    units = [unit for unit in chain if isinstance(unit, Unit)]
    heights = [source.shape[2]]
    for unit in units:
        heights.append(heights[-1] * unit.enlarged // unit.stride)
    moments: list[Moments | None] = []

    def finished(depth: int, first: int, last: int) -> Tensor:
        """Returns the rows that a unit gives, the first of which has the number 1; number 0 is the source."""
        if depth == 0:
            return source[:, :, first:last]
        return units[depth - 1].finished(convolved(depth, first, last), mix, moments[depth - 1])

    def convolved(depth: int, first: int, last: int) -> Tensor:
        unit, height = units[depth - 1], heights[depth - 1]
        begin, end = first // unit.enlarged, -(-last // unit.enlarged)  # an enlarged map's rows come by twos
        low, high = begin * unit.stride - unit.reach, (end - 1) * unit.stride + unit.reach + 1
        start, stop = max(0, low), min(height, high)
        found = unit.convolved(finished(depth - 1, start, stop), start - low, high - stop)
        return found[:, :, first - begin * unit.enlarged : last - begin * unit.enlarged]

    for depth, unit in enumerate(units, start=1):
        of_unit = rows * heights[depth] // heights[-1] or 1
        known = None if unit.norm is None else _moments(partial(convolved, depth), heights[depth], of_unit)
        moments.append(known)
    for first in range(0, heights[-1], rows):
        yield finished(len(units), first, min(heights[-1], first + rows))


def _moments(strip: Callable[[int, int], Tensor], height: int, rows: int) -> Moments:
    """Returns the moments of a map whose strips from one row to another are asked for."""
    total = squares = torch.zeros((), dtype=torch.float64)
    count = 0
    for first in range(0, height, rows):
        own = strip(first, min(height, first + rows)).double()
        total, squares = (
            total.to(own.device) + own.sum(dim=(2, 3), keepdim=True),
            squares.to(own.device) + own.square().sum(dim=(2, 3), keepdim=True),
        )
        count += own.shape[2] * own.shape[3]
    mean = total / count
    return mean, (squares / count - mean.square()).clamp(min=0)
