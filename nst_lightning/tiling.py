"""Two ways to evaluate an objective: on the whole image, or exactly but tile by tile.

A tile is a *core*, whose features count, and a *halo* of pixels that those features see besides. Cores begin at
multiples of the network's stride and crops end early only at the image's own border, so that zeros are padded where
they would be for the whole image. Losses need sums over pixels only (see `losses`): a first pass over the tiles
sums the statistics, a second one brings each tile's part of the gradient. What the network keeps for its backward
pass then depends on the tile and not on the image.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, distributed
from torch.autograd.function import once_differentiable
from torch.func import functional_call

from nst_lightning.backbones import Backbone
from nst_lightning.backbones.anatomy import View, views
from nst_lightning.errors import InputError
from nst_lightning.losses import IMAGE, Objective, Source, Statistic, Term


class Evaluator(Protocol):
    """What finds the scores of images."""

    def targets(self, source: Source, image: Tensor) -> dict[str, Tensor]:
        """Returns the targets of the terms that compare with one source image, without a graph.

        Args:
            source: `content` or `style`.
            image: The source images (N, 3, H, W), sRGB in [0, 1].

        Returns:
            A target of shape (N, ...) by the term's name.

        Raises:
            InputError: If the image is smaller than the network can halve.
        """
        ...

    def scores(self, image: Tensor, targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns every term's unweighted score, (N,) each, differentiable with respect to the image.

        Args:
            image: The output images (N, 3, H, W), sRGB in [0, 1].
            targets: Those of both sources, by the term's name.

        Raises:
            InputError: If the image is smaller than the network can halve.
        """
        ...


class Whole:
    """Evaluates an objective on the whole image at once, see `Evaluator`.

    Args:
        backbone: The frozen network.
        objective: The weighted losses, on layers of the backbone and on the image.
        compiled: Whether torch.compile makes the scores and their gradient, anew for every size; on a GPU as
            CUDA graphs.
    """

    def __init__(self, backbone: Backbone, objective: Objective, compiled: bool = False) -> None:
        self._backbone = backbone
        self._objective = objective
        self._compiled = torch.compile(self._scores, dynamic=False, mode="reduce-overhead") if compiled else None

    @torch.no_grad()
    def targets(self, source: Source, image: Tensor) -> dict[str, Tensor]:
        """Returns the targets of one source, see `Evaluator.targets`."""
        return self._objective.targets(source, self._features(image))

    def scores(self, image: Tensor, targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns every term's score, see `Evaluator.scores`.

        Raises:
            InputError: If torch.compile cannot work here, as without a C++ compiler.
        """
        if self._compiled is None:
            return self._scores(image, targets)
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call, unused-ignore]
        try:
            # Copies, for the next replay of a graph writes to the same memory, and the losses of a step are kept.
            return {name: score.clone() for name, score in self._compiled(image, targets).items()}
        except torch._dynamo.exc.TorchDynamoException as error:
            msg = f"torch.compile failed ({' '.join(str(error).split())[:200]}): leave out compile"
            raise InputError(msg) from error

    def _scores(self, image: Tensor, targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return self._objective.scores(self._objective.statistics(self._features(image), targets), targets)

    def _features(self, image: Tensor) -> dict[str, Tensor]:
        return {IMAGE: image, **self._backbone(image)}


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
    """Evaluates an objective tile by tile, with the whole image's scores and gradient; see `Evaluator`.

    Only what is as large as the image grows with it: the image, its gradient, and the content targets. Terms on the
    image itself are evaluated on the whole of it.

    Args:
        backbone: The frozen network, of operations on windows only.
        objective: The weighted losses, on layers of the backbone and on the image.
        tile: The side of a tile in pixels, from 1; rounded down to a multiple of the deepest layer's stride, but at
            least that. The halo comes on top, see `plan`.
        share: This process's part of the tiles; scores, targets and gradient are the same in all processes.
        map_dtype: What targets that are maps are kept in, to save memory; None for what the loss made them.

    Attributes:
        plan: How images are cut.

    Raises:
        InputError: If the tile is smaller than 1 px, or an operation of the network sees more than a window.
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
        self._on_layers = Objective(term for term in objective.terms if term.layer != IMAGE)
        self._on_image = tuple(term for term in objective.terms if term.layer == IMAGE)
        self._share = share
        self._map_dtype = map_dtype
        self._known_sizes: dict[torch.Size, dict[str, torch.Size]] = {}
        seen = views(backbone.network)
        self._views = {layer: seen[layer] for layer in self._on_layers.layers}
        self.plan = Plan.of(tile, self._views.values(), backbone.min_side)

    @torch.no_grad()
    def targets(self, source: Source, image: Tensor) -> dict[str, Tensor]:
        """Returns the targets of one source, see `Evaluator.targets`."""
        sizes = self._sizes(image)
        terms = [term for term in self._on_layers.terms if term.loss.source == source]
        of_nothing = self._on_layers.targets(source, _nothing(image, sizes))
        found = {term.name: self._blank(term, of_nothing[term.name], sizes[term.layer]) for term in terms}
        for tile in self._tiles(image):
            features = self._core(tile, self._crop(tile, image))
            parts = self._on_layers.targets(source, features)
            for term in terms:
                if term.loss.spatial:
                    self._of_tile(tile, term, found[term.name]).copy_(parts[term.name])
                elif pixels := math.prod(features[term.layer].shape[2:]):
                    found[term.name] += parts[term.name] * (pixels / math.prod(sizes[term.layer][2:]))
        self._share.all_reduce(found.values())
        return found | {term.name: term.loss.target(image) for term in self._on_image if term.loss.source == source}

    def scores(self, image: Tensor, targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns every term's score, see `Evaluator.scores`."""
        of_layers = _Scores.apply(image, targets, self._on_layers, self.statistics, self.gradient)
        names = [term.name for term in self._on_layers.terms]
        return dict(zip(names, of_layers.unbind(), strict=True)) | {
            term.name: term.loss.score(term.loss.statistic(image, targets[term.name]), targets[term.name])
            for term in self._on_image
        }

    @torch.no_grad()
    def statistics(self, image: Tensor, targets: Mapping[str, Tensor]) -> dict[str, Statistic]:
        """Returns the whole image's statistics of all terms on layers, by their names, without a graph."""
        sizes = self._sizes(image)
        totals = {name: nothing.total for name, nothing in self._statistics_of_nothing(image, targets, sizes).items()}
        for tile in self._tiles(image):
            for name, part in self._statistics_of_tile(tile, self._crop(tile, image), targets).items():
                totals[name] += part.total
        self._share.all_reduce(totals.values())
        pixels = {term.name: math.prod(sizes[term.layer][2:]) for term in self._on_layers.terms}
        return {name: Statistic(total, pixels[name]) for name, total in totals.items()}

    def gradient(
        self, image: Tensor, targets: Mapping[str, Tensor], of_totals: Mapping[str, Tensor], precision: torch.autocast
    ) -> Tensor:
        """Returns the gradient with respect to the image, (N, 3, H, W), of what depends on its statistics.

        Args:
            image: The images (N, 3, H, W).
            targets: What they were compared with, by the term's name.
            of_totals: The gradient with respect to every statistic's total, by the term's name.
            precision: The context of the forward passes.
        """
        found = torch.zeros_like(image, memory_format=torch.contiguous_format)
        for tile in self._tiles(image):
            crop = self._crop(tile, image.detach()).requires_grad_()
            with torch.enable_grad(), precision:
                parts = self._statistics_of_tile(tile, crop, targets)
            totals = [part.total for part in parts.values()]
            (of_crop,) = torch.autograd.grad(totals, crop, [of_totals[name] for name in parts])
            self._crop(tile, found).add_(of_crop)
        self._share.all_reduce([found])
        return found

    def _sizes(self, image: Tensor) -> dict[str, torch.Size]:
        """Returns the shape of every layer's features of the whole image; asks the network itself, without data."""
        if image.shape not in self._known_sizes:  # every step asks
            buffers = {name: buffer.to("meta") for name, buffer in self._backbone.named_buffers()}
            with torch.no_grad():
                features = functional_call(self._backbone, buffers, (torch.empty_like(image, device="meta"),))
            self._known_sizes[image.shape] = {layer: features[layer].shape for layer in self._on_layers.layers}
        return self._known_sizes[image.shape]

    def _tiles(self, image: Tensor) -> list[_Tile]:
        """Returns the tiles that are this process's."""
        return self.plan.tiles(*image.shape[-2:])[self._share.rank :: self._share.world]

    @staticmethod
    def _crop(tile: _Tile, image: Tensor) -> Tensor:
        rows, columns = tile
        return image[..., rows.crop, columns.crop]

    def _core(self, tile: _Tile, crop: Tensor) -> dict[str, Tensor]:
        """Returns the features of a tile's core by layer."""
        rows, columns = tile
        features = self._backbone(crop)
        return {
            layer: features[layer][..., rows.in_crop(down.stride), columns.in_crop(across.stride)]
            for layer, (down, across) in self._views.items()
        }

    def _of_tile(self, tile: _Tile, term: Term, target: Tensor) -> Tensor:
        """Returns a view of what of a target a tile is compared with."""
        if not term.loss.spatial:
            return target
        (rows, columns), (down, across) = tile, self._views[term.layer]
        return target[..., rows.in_map(down.stride), columns.in_map(across.stride)]

    def _statistics_of_tile(self, tile: _Tile, crop: Tensor, targets: Mapping[str, Tensor]) -> dict[str, Statistic]:
        return self._on_layers.statistics(self._core(tile, crop), self._targets_of_tile(tile, crop, targets))

    def _statistics_of_nothing(
        self, image: Tensor, targets: Mapping[str, Tensor], sizes: Mapping[str, torch.Size]
    ) -> dict[str, Statistic]:
        """Returns the statistics of no pixels: zeros, in the shapes that a process without a tile has to know."""
        return self._on_layers.statistics(_nothing(image, sizes), self._targets_of_tile(_NOWHERE, image, targets))

    def _targets_of_tile(self, tile: _Tile, image: Tensor, targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        precision = torch.promote_types(image.dtype, torch.float32)  # maps may be kept in less
        return {
            term.name: self._of_tile(tile, term, targets[term.name]).to(precision) for term in self._on_layers.terms
        }

    def _blank(self, term: Term, of_nothing: Tensor, size: torch.Size) -> Tensor:
        """Returns zeros of the whole image's target, given that of no pixels."""
        if not term.loss.spatial:
            return torch.zeros_like(of_nothing)
        return of_nothing.new_zeros((*of_nothing.shape[:-2], *size[2:]), dtype=self._map_dtype)


def _nothing(image: Tensor, sizes: Mapping[str, torch.Size]) -> dict[str, Tensor]:
    """Returns features of no pixels by layer, (N, C, 0, 0)."""
    return {layer: image.new_empty((*size[:2], 0, 0)) for layer, size in sizes.items()}


class _Scores(torch.autograd.Function):
    """The scores of an image's tiles together, (terms, N), whose backward goes over the tiles a second time."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch names no type that takes attributes
        image: Tensor,
        targets: Mapping[str, Tensor],
        objective: Objective,
        statistics: Callable[[Tensor, Mapping[str, Tensor]], dict[str, Statistic]],
        gradient: Callable[[Tensor, Mapping[str, Tensor], Mapping[str, Tensor], torch.autocast], Tensor],
    ) -> Tensor:
        found = statistics(image, targets)
        ctx.save_for_backward(image)
        ctx.targets, ctx.objective, ctx.statistics, ctx.gradient = targets, objective, found, gradient
        # Backward is called outside of the context that training's forward pass runs in.
        kind = image.device.type
        ctx.precision = torch.autocast(
            kind, dtype=torch.get_autocast_dtype(kind), enabled=torch.is_autocast_enabled(kind)
        )
        return torch.stack(list(objective.scores(found, targets).values()))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_scores: Tensor) -> tuple[Tensor, None, None, None, None]:  # noqa: ANN401 - see forward
        (image,) = ctx.saved_tensors
        totals = {name: each.total.detach().requires_grad_() for name, each in ctx.statistics.items()}
        with torch.enable_grad(), ctx.precision:
            statistics = {name: Statistic(total, ctx.statistics[name].pixels) for name, total in totals.items()}
            scores = torch.stack(list(ctx.objective.scores(statistics, ctx.targets).values()))
        of_totals = torch.autograd.grad(scores, list(totals.values()), of_scores)
        of_image = ctx.gradient(image, ctx.targets, dict(zip(totals, of_totals, strict=True)), ctx.precision)
        return of_image, None, None, None, None
