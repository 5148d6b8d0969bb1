"""Two ways to evaluate an objective: on the whole image, or exactly but tile by tile.

A tile is a *core*, whose features count, and a *halo* of pixels that those features see besides. Cores begin at
multiples of the network's stride and crops end early only at the image's own border, so that zeros are padded where
they would be for the whole image. Losses that add up over positions (see `losses.base`) need no more: a first pass
over the tiles sums the statistics, a second one brings each tile's part of the gradient. What the network keeps for
its backward pass then depends on the tile and not on the image.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, distributed
from torch.autograd.function import once_differentiable
from torch.func import functional_call

from nst_lightning.backbones import Backbone
from nst_lightning.backbones.anatomy import View, views
from nst_lightning.errors import InputError
from nst_lightning.losses import IMAGE, Features, Global, Objective, Pointwise, Source, Statistic, Target, Term
from nst_lightning.losses.objective import Kept

Targets = Mapping[str, Target]


class Evaluator(Protocol):
    """What finds the values of an objective's terms."""

    def targets(
        self, source: Source, images: Sequence[Tensor], weights: Sequence[float], draw: int
    ) -> dict[str, Target]:
        """Returns the targets of the terms that compare with one source, without a graph.

        Args:
            source: `content` or `style`.
            images: The source images (N, 3, H, W), sRGB in [0, 1], of any sizes; several are merged.
            weights: Their weights, >= 0, with a sum above 0.
            draw: What random positions follow from.

        Returns:
            A target by the term's name.

        Raises:
            InputError: If an image is smaller than the network can halve.
        """
        ...

    def values(self, image: Tensor, targets: Targets, draw: int) -> dict[str, Tensor]:
        """Returns every term's value, not weighted, (N,) each, differentiable with respect to the image.

        Args:
            image: The output images (N, 3, H, W), sRGB in [0, 1].
            targets: Those of both sources, by the term's name.
            draw: As in `targets`.

        Raises:
            InputError: If the image is smaller than the network can halve.
        """
        ...


class Whole:
    """Evaluates an objective on the whole image at once, see `Evaluator`.

    Args:
        backbone: The frozen network.
        objective: The losses, on layers of the backbone and on the image.
        compiled: Whether torch.compile makes the values and their gradient, anew for every size; on a GPU as
            CUDA graphs.
    """

    def __init__(self, backbone: Backbone, objective: Objective, compiled: bool = False) -> None:
        self._backbone = backbone
        self._objective = objective
        self._compiled = torch.compile(self._values, dynamic=False, mode="reduce-overhead") if compiled else None

    @torch.no_grad()
    def targets(
        self, source: Source, images: Sequence[Tensor], weights: Sequence[float], draw: int
    ) -> dict[str, Target]:
        """Returns the targets of one source, see `Evaluator.targets`."""
        kept = [self._objective.kept(source, self._features(image), draw) for image in images]
        return self._objective.targets(kept, weights)

    def values(self, image: Tensor, targets: Targets, draw: int) -> dict[str, Tensor]:
        """Returns every term's value, see `Evaluator.values`.

        Raises:
            InputError: If torch.compile cannot work here, as without a C++ compiler.
        """
        if self._compiled is None:
            return self._values(image, targets, draw)
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call, unused-ignore]
        try:
            # Copies, for the next replay of a graph writes to the same memory, and the losses of a step are kept.
            return {name: value.clone() for name, value in self._compiled(image, targets, draw).items()}
        except torch._dynamo.exc.TorchDynamoException as error:
            msg = f"torch.compile failed ({' '.join(str(error).split())[:200]}): leave out compile"
            raise InputError(msg) from error

    def _values(self, image: Tensor, targets: Targets, draw: int) -> dict[str, Tensor]:
        return self._objective.values(self._features(image), targets, draw)

    def _features(self, image: Tensor) -> dict[str, Features]:
        layers = self._objective.layers
        found = self._backbone(image, layers) if layers else {}
        return {name: Features.whole(values) for name, values in {IMAGE: image, **found}.items()}


@dataclass(frozen=True)
class Share:
    """The part of an image's tiles that one of several processes evaluates.

    Attributes:
        rank: The process's number, from 0.
        world: The number of processes; each has to make the same calls on the same images in the same order.
    """

    rank: int = 0
    world: int = 1

    @classmethod
    def of_processes(cls) -> Share:
        """Returns this process's share in `torch.distributed`'s default group, which has to be initialised."""
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
    """A tile along one axis, in pixels.

    Attributes:
        start: Where the core begins, a multiple of the alignment.
        stop: Where it ends, or None for the image's end.
        crop: The pixels that the network is fed.
    """

    start: int
    stop: int | None
    crop: slice

    def in_map(self, stride: int) -> slice:
        """Returns the core's positions in the whole image's feature map."""
        return slice(self.start // stride, None if self.stop is None else self.stop // stride)

    def in_crop(self, stride: int) -> slice:
        """Returns the core's positions in the crop's feature map."""
        left_out = self.crop.start // stride
        whole = self.in_map(stride)
        return slice(whole.start - left_out, None if whole.stop is None else whole.stop - left_out)


_Tile = tuple[Span, Span]  # rows and columns
_NOWHERE: _Tile = (Span(0, 0, slice(0, 0)), Span(0, 0, slice(0, 0)))


@dataclass(frozen=True)
class Plan:
    """How images of any size are cut into tiles.

    Attributes:
        tile: The side of a core in pixels, a multiple of `alignment`.
        alignment: What cores and crops begin at multiples of: the stride of the deepest layer.
        before: The halo above and to the left, in pixels, a multiple of `alignment`.
        after: The halo below and to the right, in pixels, a multiple of `alignment`.
        least: The side of the smallest crop that the network takes, in pixels.
    """

    tile: int
    alignment: int
    before: int
    after: int
    least: int

    @classmethod
    def of(cls, tile: int, seen: Iterable[tuple[View, View]], least: int) -> Plan:
        """Returns the plan for tiles of a size, rounded down to the alignment but one alignment at least.

        Raises:
            InputError: If the tile is smaller than 1 px.
        """
        if tile < 1:
            msg = f"tile must be a whole number of pixels from 1, got {tile}"
            raise InputError(msg)
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
        spans = []
        for start, stop in zip(cuts, [*cuts[1:], None], strict=True):
            end = size if stop is None else min(size, stop + self.after)
            spans.append(Span(start, stop, slice(max(0, start - self.before), end)))
        return spans

    def tiles(self, height: int, width: int) -> list[_Tile]:
        """Returns the tiles of an image, rows first."""
        return [(rows, columns) for rows in self.spans(height) for columns in self.spans(width)]

    def overhead(self, height: int, width: int) -> float:
        """Returns how many times as many pixels the crops of an image have together as the image itself."""
        down, across = (sum(_length(span) for span in self.spans(size)) for size in (height, width))
        return (down * across) / (height * width)


def _length(span: Span) -> int:
    return int(span.crop.stop - span.crop.start)


class Tiled:
    """Evaluates an objective tile by tile, with the whole image's values and gradient; see `Evaluator`.

    Only what is as large as the image grows with it: the image, its gradient, and the content targets. Losses that
    read the image alone are evaluated on the whole of it.

    Args:
        backbone: The frozen network, of operations on windows only.
        objective: The losses, on layers of the backbone and on the image.
        tile: The side of a tile in pixels, from 1; rounded down to a multiple of the deepest layer's stride, but at
            least that. The halo comes on top, see `plan`.
        share: This process's part of the tiles; values, targets and gradient are the same in all processes.
        map_dtype: What targets that are maps are kept in, to save memory; None for what the loss made them.

    Attributes:
        plan: How images are cut.

    Raises:
        InputError: If the tile is smaller than 1 px, an operation of the network sees more than a window, or a loss on
            layers does not add up over positions.
    """

    def __init__(
        self,
        backbone: Backbone,
        objective: Objective,
        tile: int,
        share: Share = ALONE,
        map_dtype: torch.dtype | None = None,
    ) -> None:
        self._backbone = backbone
        self._objective = objective
        alone = [term for term in objective.terms if _reads_the_image_alone(term)]
        self._on_image = Objective(alone) if alone else None
        self._on_layers = Objective(term for term in objective.terms if not _reads_the_image_alone(term))
        for term in self._on_layers.terms:
            if isinstance(term.loss, Global):
                msg = f"{term.name}: {type(term.loss).__name__} needs the whole image at once: set tile to off"
                raise InputError(msg)
        self._share = share
        self._map_dtype = map_dtype
        self._known_sizes: dict[torch.Size, dict[str, torch.Size]] = {}
        seen = views(backbone.network)
        self._views = {layer: seen[layer] for layer in self._on_layers.layers} | {IMAGE: (View(), View())}
        self.plan = Plan.of(tile, self._views.values(), backbone.min_side)

    @torch.no_grad()
    def targets(
        self, source: Source, images: Sequence[Tensor], weights: Sequence[float], draw: int
    ) -> dict[str, Target]:
        """Returns the targets of one source, see `Evaluator.targets`."""
        kept = [self._kept(source, image, draw) for image in images]
        if self._on_image is not None:
            kept = [
                of_layers | self._on_image.kept(source, {IMAGE: Features.whole(image)}, draw)
                for of_layers, image in zip(kept, images, strict=True)
            ]
        return self._objective.targets(kept, weights)

    def values(self, image: Tensor, targets: Targets, draw: int) -> dict[str, Tensor]:
        """Returns every term's value, see `Evaluator.values`."""
        of_layers = _Values.apply(image, targets, draw, self._on_layers, self.statistics, self.gradient)
        found = dict(zip([term.name for term in self._on_layers.terms], of_layers.unbind(), strict=True))
        if self._on_image is not None:
            found |= self._on_image.values({IMAGE: Features.whole(image)}, targets, draw)
        return found

    @torch.no_grad()
    def statistics(self, image: Tensor, targets: Targets, draw: int) -> dict[str, Statistic]:
        """Returns the whole image's statistics of all terms on layers, by their names, without a graph."""
        found = self._on_layers.statistics(self._nothing(image), self._targets_of(_NOWHERE, targets), draw)
        for tile in self._tiles(image):
            parts = self._statistics_of(tile, image, self._crop(tile, image), targets, draw)
            found = {name: total + parts[name] for name, total in found.items()}
        self._share.all_reduce(tensor for each in found.values() for tensor in each.tensors)
        return found

    def gradient(
        self,
        image: Tensor,
        targets: Targets,
        draw: int,
        of_sums: Mapping[str, Mapping[str, Tensor]],
        precision: torch.autocast,
    ) -> Tensor:
        """Returns the gradient with respect to the image, (N, 3, H, W), of what depends on its statistics.

        Args:
            image: The images (N, 3, H, W).
            targets: What they were compared with, by the term's name.
            draw: What random positions follow from.
            of_sums: The gradient with respect to every statistic's sums, by the term's name and theirs.
            precision: The context of the forward passes.
        """
        found = torch.zeros_like(image, memory_format=torch.contiguous_format)
        for tile in self._tiles(image):
            crop = self._crop(tile, image.detach()).requires_grad_()
            with torch.enable_grad(), precision:
                parts = self._statistics_of(tile, image, crop, targets, draw)
            sums = [(total, of_sums[term][name]) for term, part in parts.items() for name, total in part.sums.items()]
            reached = [(total, slope) for total, slope in sums if total.requires_grad]
            (of_crop,) = torch.autograd.grad([total for total, _ in reached], crop, [slope for _, slope in reached])
            self._crop(tile, found).add_(of_crop)
        self._share.all_reduce([found])
        return found

    def _kept(self, source: Source, image: Tensor, draw: int) -> dict[str, Kept]:
        """Returns what the terms on layers keep of one source image: the tiles' sums, and maps put together."""
        found = self._on_layers.kept(source, self._nothing(image), draw)
        terms = {term.name: term for term in self._on_layers.terms if term.name in found}
        found = {name: self._blank(image, term, found[name]) for name, term in terms.items()}
        for tile in self._tiles(image):
            parts = self._on_layers.kept(source, self._core(tile, image, self._crop(tile, image)), draw)
            found = {name: self._joined(tile, term, found[name], parts[name]) for name, term in terms.items()}
        for kept in found.values():
            self._share.all_reduce(kept.tensors if isinstance(kept, Statistic) else kept)
        return found

    def _blank(self, image: Tensor, term: Term, kept: Kept) -> Kept:
        """Returns what is kept of no tile yet: a statistic of no positions, or zeros of the whole image's maps."""
        if isinstance(kept, Statistic):
            return kept
        sizes = [self._sizes(image)[layer][2:] for layer in term.layers]
        pairs = zip(kept, sizes, strict=True)
        return tuple(each.new_zeros((*each.shape[:-2], *size), dtype=self._map_dtype) for each, size in pairs)

    def _joined(self, tile: _Tile, term: Term, whole: Kept, part: Kept) -> Kept:
        """Returns what is kept of the image with that of one more tile."""
        if isinstance(whole, Statistic) and isinstance(part, Statistic):
            return whole + part
        assert isinstance(whole, tuple)
        assert isinstance(part, tuple)
        for view, values in zip(self._maps_of(tile, term, whole), part, strict=True):
            view.copy_(values)
        return whole

    def _sizes(self, image: Tensor) -> dict[str, torch.Size]:
        """Returns the shape of every layer's features of the whole image; asks the network itself, without data."""
        if image.shape not in self._known_sizes:  # every step asks
            buffers = {name: buffer.to("meta") for name, buffer in self._backbone.named_buffers()}
            blank = torch.empty_like(image, device="meta")
            with torch.no_grad():
                features = functional_call(self._backbone, buffers, (blank, self._on_layers.layers))
            self._known_sizes[image.shape] = {layer: each.shape for layer, each in {**features, IMAGE: blank}.items()}
        return self._known_sizes[image.shape]

    def _tiles(self, image: Tensor) -> list[_Tile]:
        """Returns the tiles that are this process's."""
        return self.plan.tiles(*image.shape[-2:])[self._share.rank :: self._share.world]

    @staticmethod
    def _crop(tile: _Tile, image: Tensor) -> Tensor:
        rows, columns = tile
        return image[..., rows.crop, columns.crop]

    def _core(self, tile: _Tile, image: Tensor, crop: Tensor) -> dict[str, Features]:
        """Returns the features of a tile's core by layer."""
        rows, columns = tile
        sizes = self._sizes(image)
        found = {**self._backbone(crop, self._on_layers.layers), IMAGE: crop}
        return {
            layer: Features(
                found[layer][..., rows.in_crop(down.stride), columns.in_crop(across.stride)],
                (sizes[layer][2], sizes[layer][3]),
                (rows.start // down.stride, columns.start // across.stride),
            )
            for layer, (down, across) in self._views.items()
        }

    def _nothing(self, image: Tensor) -> dict[str, Features]:
        """Returns features of no positions by layer, whose statistics are zeros: a process may have no tile."""
        return {
            layer: Features(image.new_empty((*size[:2], 0, 0)), (size[2], size[3]))
            for layer, size in self._sizes(image).items()
        }

    def _statistics_of(
        self, tile: _Tile, image: Tensor, crop: Tensor, targets: Targets, draw: int
    ) -> dict[str, Statistic]:
        return self._on_layers.statistics(self._core(tile, image, crop), self._targets_of(tile, targets), draw)

    def _targets_of(self, tile: _Tile, targets: Targets) -> dict[str, Target]:
        """Returns the targets that a tile is compared with: of maps its part."""
        return {
            term.name: self._maps_of(tile, term, targets[term.name])
            if isinstance(term.loss, Pointwise)
            else targets[term.name]
            for term in self._on_layers.terms
        }

    def _maps_of(self, tile: _Tile, term: Term, maps: Target) -> Target:
        """Returns views of a tile's part of maps, one a layer of a term."""
        rows, columns = tile
        seen = [self._views[layer] for layer in term.layers]
        return tuple(
            each[..., rows.in_map(down.stride), columns.in_map(across.stride)]
            for each, (down, across) in zip(maps, seen, strict=True)
        )


def _reads_the_image_alone(term: Term) -> bool:
    return isinstance(term.loss, Global) and term.layers == (IMAGE,)


class _Values(torch.autograd.Function):
    """The values of an image's tiles together, (terms, N), whose backward goes over the tiles a second time."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch names no type that takes attributes
        image: Tensor,
        targets: Targets,
        draw: int,
        objective: Objective,
        statistics: Callable[[Tensor, Targets, int], dict[str, Statistic]],
        gradient: Callable[..., Tensor],
    ) -> Tensor:
        ctx.save_for_backward(image)
        ctx.targets, ctx.draw, ctx.objective, ctx.gradient = targets, draw, objective, gradient
        ctx.statistics = statistics(image, targets, draw)
        # Backward is called outside of the context that training's forward pass runs in.
        kind = image.device.type
        ctx.precision = torch.autocast(
            kind, dtype=torch.get_autocast_dtype(kind), enabled=torch.is_autocast_enabled(kind)
        )
        return torch.stack(list(objective.compared(ctx.statistics, targets).values()))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_values: Tensor) -> tuple[Tensor, None, None, None, None, None]:  # noqa: ANN401 - see forward
        (image,) = ctx.saved_tensors
        leaves = {
            term: {name: total.detach().requires_grad_() for name, total in each.sums.items()}
            for term, each in ctx.statistics.items()
        }
        with torch.enable_grad(), ctx.precision:
            statistics = {term: Statistic(sums, ctx.statistics[term].weight) for term, sums in leaves.items()}
            values = torch.stack(list(ctx.objective.compared(statistics, ctx.targets).values()))
        flat = [total for sums in leaves.values() for total in sums.values()]
        slopes = iter(torch.autograd.grad(values, flat, of_values, materialize_grads=True))
        of_sums = {term: {name: next(slopes) for name in sums} for term, sums in leaves.items()}
        return ctx.gradient(image, ctx.targets, ctx.draw, of_sums, ctx.precision), None, None, None, None, None
