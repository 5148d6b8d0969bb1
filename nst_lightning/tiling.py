"""Two ways to evaluate an objective: on the whole image, or exactly but tile by tile.

A tile is a *core*, whose features count, and a *halo* of pixels that those features see besides. Cores begin at
multiples of the network's stride and crops end early only at the image's own border, so that zeros are padded where
they would be for the whole image. Losses that add up over positions (see `losses.base`) need no more: a first pass
over the tiles sums the statistics, a second one brings each tile's part of the gradient. What the network keeps for
its backward pass then depends on the tile and not on the image.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeAlias

import torch
from torch import Tensor, distributed
from torch.autograd.function import once_differentiable

from nst_lightning.backbones import Backbone
from nst_lightning.backbones.anatomy import View, views
from nst_lightning.errors import InputError, in_one_line
from nst_lightning.losses import IMAGE, Features, Global, Objective, Pointwise, Source, Statistic, Target, Term
from nst_lightning.losses.objective import Kept


@dataclass(frozen=True)
class Share:
    """The part of an image's tiles that one of several processes evaluates; all have to make the same calls."""

    rank: int = 0
    world: int = 1

    def all_reduce(self, tensors: Iterable[Tensor]) -> None:
        """Replaces each tensor by its sum over all processes; does nothing in a single one."""
        if self.world > 1:
            for work in [distributed.all_reduce(tensor, async_op=True) for tensor in tensors]:
                work.wait()


ALONE = Share()  # the one process that evaluates all tiles


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


Tile: TypeAlias = tuple[Span, Span]  # a tile's rows and columns
NOWHERE: Tile = (Span(0, 0, slice(0, 0)), Span(0, 0, slice(0, 0)))  # a tile of no pixels


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


_SIZES = 64  # at how many sizes the evaluation is compiled; beyond, and by default beyond 8, torch gives up unsaid

Targets: TypeAlias = Mapping[str, Target]  # those of both sources, by the term's name
Weights: TypeAlias = Mapping[str, Tensor]
"""How much positions count, by layer: (N, 1 + regions, H, W) of whole maps, the content's first; none where all do."""
EVERYWHERE: Weights = {}


class Evaluator(ABC):
    """What finds the values of an objective's terms, on a frozen network, differentiable with respect to the image."""

    def __init__(self, backbone: Backbone, objective: Objective) -> None:
        self._backbone = backbone
        self._objective = objective

    @torch.no_grad()
    def targets(
        self,
        source: Source,
        images: Sequence[Tensor],
        weights: Sequence[float],
        draw: int,
        where: Sequence[Weights] | None = None,
    ) -> dict[str, Target]:
        """Returns the targets of the terms that compare with one source, by their names, without a graph.

        Images (N, 3, H, W), sRGB in [0, 1], of any sizes, are merged by their weights, >= 0 with a sum above 0; each
        counts where its weights of positions say. An InputError if one is smaller than the network can halve, or a loss
        cannot merge several.
        """
        pairs = zip(images, [EVERYWHERE] * len(images) if where is None else where, strict=True)
        return self._objective.targets([self.kept(source, image, draw, counts) for image, counts in pairs], weights)

    @abstractmethod
    def values(self, image: Tensor, targets: Targets, draw: int, where: Weights = EVERYWHERE) -> dict[str, Tensor]:
        """Returns every term's value, not weighted, (N,) each, of images (N, 3, H, W), sRGB in [0, 1]."""

    @abstractmethod
    def kept(self, source: Source, image: Tensor, draw: int, where: Weights = EVERYWHERE) -> dict[str, Kept]:
        """Returns what the terms keep of one source image, by their names, to be finished by the objective."""


class Whole(Evaluator):
    """Evaluates an objective on the whole image at once; `compiled`, the network by torch.compile, for every size."""

    def __init__(self, backbone: Backbone, objective: Objective, compiled: bool = False) -> None:
        super().__init__(backbone, objective)
        self._network = torch.compile(backbone, dynamic=False) if compiled else backbone
        if compiled:
            torch._dynamo.config.cache_size_limit = max(torch._dynamo.config.cache_size_limit, _SIZES)

    def values(self, image: Tensor, targets: Targets, draw: int, where: Weights = EVERYWHERE) -> dict[str, Tensor]:
        """Returns every term's value, see `Evaluator.values`; an InputError where torch.compile fails."""
        try:
            features = self._features(self._network, image, where)
        except torch._dynamo.exc.TorchDynamoException as error:
            raise InputError(f"torch.compile failed ({in_one_line(error)[:200]}): leave out compile") from error
        return self._objective.values(features, targets, draw)

    def kept(self, source: Source, image: Tensor, draw: int, where: Weights = EVERYWHERE) -> dict[str, Kept]:
        """Returns what the terms keep of one source image, see `Evaluator.kept`."""
        return self._objective.kept(source, self._features(self._backbone, image, where), draw)

    def _features(
        self, network: Callable[..., dict[str, Tensor]], image: Tensor, where: Weights
    ) -> dict[str, Features]:
        layers = self._objective.layers
        found = {IMAGE: image, **(network(image, layers, filtered=True) if layers else {})}
        return {name: Features.whole(values, where.get(name)) for name, values in found.items()}


class Tiled(Evaluator):
    """Evaluates an objective tile by tile, with the whole image's values and gradient.

    Only what is as large as the image grows with it: the image, its gradient, and the content targets. Losses that
    read the image alone are evaluated on the whole of it; others that do not add up over positions are an InputError,
    as are a tile below 1 px and an operation of the network that sees more than a window.

    Args:
        backbone, objective: The frozen network, and the losses, at least one of them on layers.
        tile: The side of a tile in pixels without its halo, see `Plan.of`.
        share: This process's part of the tiles; values, targets and gradient are the same in all processes.
        map_dtype: What targets that are maps are kept in, to save memory; None for what the loss made them.
    """

    def __init__(
        self,
        backbone: Backbone,
        objective: Objective,
        tile: int,
        share: Share = ALONE,
        map_dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(backbone, objective)
        self._in_tiles = Objective(term for term in objective.terms if not isinstance(term.loss, Global))
        self._rest = Objective(term for term in objective.terms if isinstance(term.loss, Global))
        for term in self._rest.terms:
            if term.layers != (IMAGE,):
                msg = f"{type(term.loss).__name__} needs the whole image at once: set tile to off"
                raise InputError(f"{term.name}: {msg}")
        self._share = share
        self._map_dtype = map_dtype
        self._known_shapes: dict[torch.Size, dict[str, torch.Size]] = {}
        seen = views(backbone.network)
        self._views = {layer: seen[layer] for layer in self._in_tiles.layers} | {IMAGE: (View(), View())}
        self.plan = Plan.of(tile, self._views.values(), backbone.min_side)

    def values(self, image: Tensor, targets: Targets, draw: int, where: Weights = EVERYWHERE) -> dict[str, Tensor]:
        """Returns every term's value, see `Evaluator.values`."""
        nothing = self._in_tiles.statistics(self._nothing(image, where), self._targets_of(NOWHERE, targets), draw)

        def summed(tile: Tile, crop: Tensor) -> list[Tensor]:
            features = self._core(tile, image, crop, where)
            return _flat(self._in_tiles.statistics(features, self._targets_of(tile, targets), draw))

        sums = iter(_Sums.apply(image, self._tiles(image), self._share, summed, _flat(nothing)))
        statistics = {name: each.of(islice(sums, len(each.tensors))) for name, each in nothing.items()}
        rest = self._rest.values({IMAGE: Features.whole(image)}, targets, draw)
        return self._in_tiles.compared(statistics, targets, draw) | rest

    def kept(self, source: Source, image: Tensor, draw: int, where: Weights = EVERYWHERE) -> dict[str, Kept]:
        """Returns what the terms keep of one source image: the tiles' sums, and maps put together."""
        found = self._in_tiles.kept(source, self._nothing(image, where), draw)
        terms = self._in_tiles.terms_of(found)
        found = {name: self._blank(image, term, found[name]) for name, term in terms.items()}
        for tile in self._tiles(image):
            parts = self._in_tiles.kept(source, self._core(tile, image, _crop(tile, image), where), draw)
            found = {name: self._joined(tile, term, found[name], parts[name]) for name, term in terms.items()}
        for kept in found.values():
            self._share.all_reduce(kept.tensors if isinstance(kept, Statistic) else kept)
        return found | self._rest.kept(source, {IMAGE: Features.whole(image)}, draw)

    def _blank(self, image: Tensor, term: Term, kept: Kept) -> Kept:
        """Returns what is kept of no tile yet: a statistic of no positions, or zeros for the whole image's maps."""
        if isinstance(kept, Statistic):
            return kept
        sizes = [self._shapes(image)[layer][2:] for layer in term.layers]
        pairs = zip(kept, sizes, strict=True)
        return tuple(each.new_zeros((*each.shape[:-2], *size), dtype=self._map_dtype) for each, size in pairs)

    def _joined(self, tile: Tile, term: Term, whole: Kept, part: Kept) -> Kept:
        """Returns what is kept of the image with that of one more tile."""
        if isinstance(whole, Statistic) and isinstance(part, Statistic):
            return whole + part
        assert isinstance(whole, tuple) and isinstance(part, tuple)
        for view, values in zip(self._maps_of(tile, term, whole), part, strict=True):
            view.copy_(values)
        return whole

    def _shapes(self, image: Tensor) -> dict[str, torch.Size]:
        """Returns the shape of every layer's features of the whole image."""
        if image.shape not in self._known_shapes:  # every step asks
            of_layers = self._backbone.shapes(image.shape, self._in_tiles.layers)
            self._known_shapes[image.shape] = {**of_layers, IMAGE: image.shape}
        return self._known_shapes[image.shape]

    def _tiles(self, image: Tensor) -> list[Tile]:
        """Returns the tiles that are this process's."""
        return self.plan.tiles(*image.shape[-2:])[self._share.rank :: self._share.world]

    def _core(self, tile: Tile, image: Tensor, crop: Tensor, where: Weights) -> dict[str, Features]:
        """Returns the features of a tile's core by layer."""
        rows, columns = tile
        sizes = self._shapes(image)
        found = {**self._backbone(crop, self._in_tiles.layers), IMAGE: crop}
        return {
            layer: Features(
                found[layer][..., rows.in_crop(down.stride), columns.in_crop(across.stride)],
                (sizes[layer][2], sizes[layer][3]),
                (rows.start // down.stride, columns.start // across.stride),
                where.get(layer),
            )
            for layer, (down, across) in self._views.items()
        }

    def _nothing(self, image: Tensor, where: Weights) -> dict[str, Features]:
        """Returns features of no positions by layer, whose statistics are zeros: a process may have no tile."""
        return {
            layer: Features(image.new_empty((*size[:2], 0, 0)), (size[2], size[3]), weights=where.get(layer))
            for layer, size in self._shapes(image).items()
        }

    def _targets_of(self, tile: Tile, targets: Targets) -> dict[str, Target]:
        """Returns the targets that a tile is compared with: of maps its part."""
        spatial = [term for term in self._in_tiles.terms if isinstance(term.loss, Pointwise)]
        return {term.name: self._maps_of(tile, term, targets[term.name]) for term in spatial}

    def _maps_of(self, tile: Tile, term: Term, maps: Target) -> Target:
        """Returns views of a tile's part of maps, one a layer of a term."""
        rows, columns = tile
        strides = [[view.stride for view in self._views[layer]] for layer in term.layers]
        pairs = zip(maps, strides, strict=True)
        return tuple(each[..., rows.in_map(down), columns.in_map(across)] for each, (down, across) in pairs)


def _crop(tile: Tile, image: Tensor) -> Tensor:
    return image[..., tile[0].crop, tile[1].crop]


def _flat(statistics: Mapping[str, Statistic]) -> list[Tensor]:
    return [tensor for each in statistics.values() for tensor in each.tensors]


class _Sums(torch.autograd.Function):
    """The sums of all tiles' statistics, whose backward goes over the tiles a second time."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch names no type that takes attributes
        image: Tensor,
        tiles: Sequence[Tile],
        share: Share,
        summed: Callable[[Tile, Tensor], list[Tensor]],
        nothing: list[Tensor],
    ) -> tuple[Tensor, ...]:
        ctx.save_for_backward(image)
        ctx.tiles, ctx.share, ctx.summed = tiles, share, summed
        # Backward is called outside of the context that training's forward pass runs in.
        kind = image.device.type
        ctx.precision = torch.autocast(kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind))
        totals = [total.detach().clone() for total in nothing]
        for tile in tiles:
            for total, part in zip(totals, summed(tile, _crop(tile, image)), strict=True):
                total += part
        share.all_reduce(totals)
        return tuple(totals)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, None, None, None, None]:  # noqa: ANN401 - see forward
        (image,) = ctx.saved_tensors
        found = torch.zeros_like(image, memory_format=torch.contiguous_format)
        for tile in ctx.tiles:
            crop = _crop(tile, image.detach()).requires_grad_()
            with torch.enable_grad(), ctx.precision:
                parts = zip(ctx.summed(tile, crop), slopes, strict=True)
                reached = [(part, slope) for part, slope in parts if part.requires_grad]  # not the weights
            (of_crop,) = torch.autograd.grad([part for part, _ in reached], crop, [slope for _, slope in reached])
            _crop(tile, found).add_(of_crop)
        ctx.share.all_reduce([found])
        return found, None, None, None, None
