"""How an image is cut into tiles, and which of them are a process's."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor, distributed

from nst_lightning.backbones.anatomy import View
from nst_lightning.errors import InputError


@dataclass(frozen=True)
class Share:
    """The part of an image's tiles that one of several processes evaluates; all have to make the same calls."""

    rank: int = 0
    world: int = 1

    @classmethod
    def of_processes(cls) -> Share:
        """Returns this process's share in the default group of `torch.distributed`."""
        return cls(distributed.get_rank(), distributed.get_world_size())

    def all_reduce(self, tensors: Iterable[Tensor]) -> None:
        """Replaces each tensor by its sum over all processes; does nothing in a single one."""
        if self.world > 1:
            for work in [distributed.all_reduce(tensor, async_op=True) for tensor in tensors]:
                work.wait()


ALONE = Share()
"""The one process that evaluates all tiles."""


@dataclass(frozen=True)
class Span:
    """A tile along one axis, in pixels."""

    start: int  # of the core, a multiple of the alignment
    stop: int | None  # its end; None for the image's
    crop: slice  # what the network is fed

    def in_map(self, stride: int) -> slice:
        """Returns the core's positions in the whole image's feature map."""
        return slice(self.start // stride, None if self.stop is None else self.stop // stride)

    def in_crop(self, stride: int) -> slice:
        """Returns the core's positions in the crop's feature map."""
        left_out = self.crop.start // stride
        whole = self.in_map(stride)
        return slice(whole.start - left_out, None if whole.stop is None else whole.stop - left_out)


Tile: TypeAlias = tuple[Span, Span]
"""A tile's rows and columns."""
NOWHERE: Tile = (Span(0, 0, slice(0, 0)), Span(0, 0, slice(0, 0)))
"""A tile of no pixels."""


@dataclass(frozen=True)
class Plan:
    """How images of any size are cut into tiles; in pixels, all but the last multiples of the alignment."""

    tile: int  # the side of a core
    alignment: int  # the stride of the deepest layer
    before: int  # the halo above and to the left
    after: int  # the halo below and to the right
    least: int  # the side of the smallest crop that the network takes

    @classmethod
    def of(cls, tile: int, seen: Iterable[tuple[View, View]], least: int) -> Plan:
        """Returns the plan for tiles of a size, rounded down to the alignment but one alignment at least."""
        if tile < 1:
            raise InputError(f"tile must be a whole number of pixels from 1, got {tile}")
        axes = [view for of_layer in seen for view in of_layer]
        alignment = math.lcm(*(view.stride for view in axes))
        before, after = (
            math.ceil(max(halo) / alignment) * alignment
            for halo in ([view.before for view in axes], [view.after for view in axes])
        )
        return cls(max(alignment, tile // alignment * alignment), alignment, before, after, least)

    @property
    def crop(self) -> int:
        """The side in pixels of a tile with its halo, away from the borders; the last of a row may be larger."""
        return self.before + self.tile + self.after

    def spans(self, size: int) -> list[Span]:
        """Returns the tiles along one axis of so many pixels; the last one takes what is too small for its own."""
        cuts = list(range(0, size, self.tile))
        while len(cuts) > 1 and size - cuts[-1] < max(self.alignment, self.least - self.before):
            cuts.pop()
        ends = [*(min(size, cut + self.after) for cut in cuts[1:]), size]
        crops = [slice(max(0, start - self.before), end) for start, end in zip(cuts, ends, strict=True)]
        return [Span(*span) for span in zip(cuts, [*cuts[1:], None], crops, strict=True)]

    def tiles(self, height: int, width: int) -> list[Tile]:
        """Returns the tiles of an image, rows first."""
        return [(rows, columns) for rows in self.spans(height) for columns in self.spans(width)]

    def overhead(self, height: int, width: int) -> float:
        """Returns how many times as many pixels the crops of an image have together as the image itself."""
        crops = [[span.crop for span in self.spans(size)] for size in (height, width)]
        down, across = (sum(int(crop.stop - crop.start) for crop in axis) for axis in crops)
        return (down * across) / (height * width)
