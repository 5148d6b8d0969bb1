"""Batches of pairs of equal size, who optimises which, and the order of the steps."""

from __future__ import annotations

import heapq
import os
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Hashable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate

from torch import Tensor, cat, device, ones_like, split, zeros_like

from nst_lightning import flow, images, regions
from nst_lightning.cards import Card, is_card
from nst_lightning.colors import COLORS, Colors
from nst_lightning.pairs import Pair
from nst_lightning.progress import Saved
from nst_lightning.schedule import Stage, begun, stage_of


class Gallery:
    """Decoded images, the most recent kept in so many bytes, and the next ones decoded ahead in a thread.

    None is wanted with a longer side than `side` pixels, so that large ones may be reduced, see `images.read`.
    """

    def __init__(self, room: int = 2**29, side: int | None = None) -> None:
        self._room, self._side = room, side
        self._kept: OrderedDict[str, images.Picture] = OrderedDict()
        self._coming: dict[str, Future[images.Picture]] = {}
        self._sizes: dict[str, tuple[int, int]] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="decode")

    def read(self, source: images.Source) -> images.Picture:
        """Returns an image, or raises an ImageError."""
        if not isinstance(source, (str, os.PathLike)):
            return images.read(source, self._side)
        key = os.fspath(source)
        if key not in self._kept:
            coming = self._coming.pop(key, None)
            self._kept[key] = images.read(source, self._side) if coming is None else coming.result()
            self._sizes[key] = self._kept[key].size
        self._kept.move_to_end(key)
        while sum(_bytes(each) for each in self._kept.values()) > self._room and len(self._kept) > 1:
            self._kept.popitem(last=False)
        return self._kept[key]

    def size(self, source: images.Source) -> tuple[int, int]:
        """Returns height and width of an image in pixels; remembers those of files."""
        known = self._sizes.get(os.fspath(source)) if isinstance(source, (str, os.PathLike)) else None
        return self.read(source).size if known is None else known

    def resized(self, source: images.Source, size: tuple[int, int]) -> Tensor:
        """Returns an image at a size (H, W) in pixels, (1, 3, H, W) in [0, 1]."""
        return images.resize(self.read(source).rgb, size).clamp(0, 1)

    def prefetch(self, sources: Sequence[images.Source]) -> None:
        """Begins to decode files that will be asked for."""
        for key in (os.fspath(source) for source in sources if isinstance(source, (str, os.PathLike))):
            if key not in self._kept and key not in self._coming:
                self._coming[key] = self._thread.submit(images.read, key, self._side)


def _bytes(image: images.Picture) -> int:
    return image.rgb.nbytes + (0 if image.alpha is None else image.alpha.nbytes)


@dataclass(frozen=True, eq=False)
class Batch:
    """Pairs whose outputs are of one size at every stage; optimised together, from the beginning or a checkpoint.

    All have as many regions, or none.
    """

    pairs: Sequence[Pair]
    source_size: tuple[int, int]  # height and width in pixels of one of their content images
    stages: tuple[Stage, ...]
    style_scale: float  # the style's long side as a multiple of the output's, of pairs that have none of their own
    upscale: bool  # whether images may be made larger than their files
    gallery: Gallery  # where images are read
    saved: Saved | None = None  # where to go on from
    colors: str = "style"  # whose the pictures are in, one of `COLORS`; pairs may have their own
    keep_outside: bool = False  # whether what lies in no region stays the photograph

    def continues(self, saved: Saved) -> bool:
        """Whether the batch can go on from a checkpoint: its pairs and the stages so far are the same."""
        begun = saved.stage_index
        return (
            saved.names == self.names
            and 0 < saved.taken < self.steps
            and saved.stages[:begun] == self.stages[:begun]
            and stage_of(self.stages, saved.taken - 1) == begun
            and saved.stages[begun].size == self.stages[begun].size
        )

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the pairs."""
        return tuple(pair.name for pair in self.pairs)

    @property
    def steps(self) -> int:
        """The number of steps that the batch takes, all stages together."""
        return sum(stage.steps for stage in self.stages)

    @property
    def taken(self) -> int:
        """The number of steps that were taken before this run."""
        return 0 if self.saved is None else self.saved.taken

    @property
    def sources(self) -> tuple[images.Source, ...]:
        """The images of the pairs, masks too."""
        named = (source for pair in self.pairs for source in (pair.content, *pair.styles, *pair.mask_files))
        return tuple(source for source in named if not is_card(source))

    def output_size(self, stage: Stage) -> tuple[int, int]:
        """Returns the height and width of the output at a stage, in pixels."""
        return images.fit(*self.source_size, stage.size, upscale=self.upscale)

    def pixels(self, stage: Stage) -> int:
        """Returns the number of output pixels at a stage, which the time of a step grows with."""
        height, width = self.output_size(stage)
        return height * width * len(self.pairs)

    @property
    def cost(self) -> int:
        """The output pixels of all steps that are left."""
        return sum((last - first) * self.pixels(stage) for stage, first, last in self.stretches())

    def stretches(self) -> Iterator[tuple[Stage, int, int]]:
        """Yields each stage with the first step that is left of it and the one after its last, counted over all."""
        begin = 0
        for stage in self.stages:
            end = begin + stage.steps
            yield stage, min(max(begin, self.taken), end), end
            begin = end

    def contents(self, stage: Stage) -> Tensor:
        """Returns the content images at a stage's size, (N, 3, H, W) in [0, 1]."""
        size = self.output_size(stage)
        return cat([self.gallery.resized(pair.content, size) for pair in self.pairs])

    def befores(self, stage: Stage) -> tuple[Tensor, Tensor] | None:
        """Returns the frames before, moved to where things are now, (N, 3, H, W), and their weights, (N, 1, H, W).

        See `flow.carried`. The weights are 0 for a pair without a frame before; None where no pair has one.
        """
        if all(pair.before is None for pair in self.pairs):
            return None
        size, found = self.output_size(stage), []
        for pair, content in zip(self.pairs, self.contents(stage), strict=True):
            if pair.before is None:
                found.append((content[None], zeros_like(content[None, :1])))
            else:
                # Not kept, as the contents are: the picture may have been painted anew under its name.
                read = (images.read(pair.before[0]), self.gallery.read(pair.before[1]))
                picture, before = (images.resize(each.rgb, size).clamp(0, 1) for each in read)
                found.append(flow.carried(picture, before, content[None]))
        pictures, weights = zip(*found, strict=True)
        return cat(pictures), cat(weights)

    def styles(self, stage: Stage) -> list[list[Style]]:
        """Returns each pair's styles at a stage's size; without those that weigh nothing, but in regions."""
        return [list(self._styles(pair, stage)) for pair in self.pairs]

    def paintings(self, stage: Stage) -> list[list[Style]]:
        """Returns the styles of each pair to look at beside its picture: none where a card is among them."""
        return [[] if any(style.card is not None for style in each) else each for each in self.styles(stage)]

    def _styles(self, pair: Pair, stage: Stage) -> Iterator[Style]:
        weights = pair.style_weights or (1.0,) * len(pair.styles)
        scales = pair.style_scales or (self.style_scale,) * len(pair.styles)
        for (source, where), weight, scale in zip(pair.masked_styles, weights, scales, strict=True):
            if weight > 0 or self.regions > 0:
                side = max(1, round(stage.size * scale))
                yield Style(source, side, self.upscale, self.gallery, weight, where=where)

    @property
    def regions(self) -> int:
        """The number of regions that each pair has; 0 where styles count all over the picture."""
        return len(self.pairs[0].regions_of_content)

    def masks(self, stage: Stage) -> Tensor | None:
        """Returns how much each pixel counts at a stage's size, (N, 1 + regions, H, W); None without regions.

        That is for the content, >= 0, and then for the style of each region, in [0, 1].
        """
        if self.regions == 0:
            return None
        found = []
        for pair in self.pairs:
            masks = [mask.of(pair.content, self.gallery.read) for mask in pair.regions_of_content]
            parts = cat([regions.resized(mask, self.output_size(stage)) for mask in masks], dim=1)
            content = ones_like(parts[:, :1])
            for part, weight in zip(split(parts, 1, dim=1), pair.content_weights, strict=False):  # or none, for 1 each
                content = content + (weight - 1) * part
            found.append(cat([content.clamp(min=0), parts], dim=1))
        return cat(found)

    def outside(self, stage: Stage) -> Outside | None:
        """Returns what stays of the photographs at a stage's size, None where all is painted."""
        masks = self.masks(stage) if self.keep_outside else None
        if masks is None:
            return None
        return Outside(self.contents(stage), (1 - masks[:, 1:].sum(dim=1, keepdim=True)).clamp(0, 1))

    def prepared_contents(self, stage: Stage) -> Tensor:
        """Returns what is painted from instead of the content images, for the colours; likewise."""
        contents = zip(self.pairs, split(self.contents(stage), 1), strict=True)
        prepared = ((content, self._colors(pair).content) for pair, content in contents)
        return cat([content if prepare is None else prepare(content) for content, prepare in prepared])

    def prepared_styles(self, stage: Stage) -> list[list[Style]]:
        """Returns what is painted after instead of the style images, for the colours."""
        size, of_pairs = self.output_size(stage), zip(self.pairs, self.styles(stage), strict=True)
        return [
            styles
            if self._colors(pair).style is None
            else [replace(style, beside=Beside(self._named(pair), pair.content, size)) for style in styles]
            for pair, styles in of_pairs
        ]

    def pictures(self, image: Tensor, stage: Stage) -> Tensor:
        """Returns the pictures that optimised images are at a stage, in their colours, (N, 3, H, W) in [0, 1] both."""
        size, found = self.output_size(stage), []
        for pair, each in zip(self.pairs, split(image, 1), strict=True):
            finish = self._colors(pair).picture
            found.append(each if finish is None else finish(each, self.gallery.resized(pair.content, size).to(each)))
        return cat(found)

    def _named(self, pair: Pair) -> str:
        return self.colors if pair.colors is None else pair.colors

    def _colors(self, pair: Pair) -> Colors:
        return COLORS[self._named(pair)]

    def alphas(self, stage: Stage) -> list[Tensor | None]:
        """Returns the content images' alpha at a stage's size, (1, 1, H, W) in [0, 1], None where opaque."""
        size = self.output_size(stage)
        alphas = [self.gallery.read(pair.content).alpha for pair in self.pairs]
        return [None if alpha is None else images.resize(alpha, size).clamp(0, 1) for alpha in alphas]


@dataclass(frozen=True, eq=False)
class Beside:
    """What a style image's colours are prepared for."""

    colors: str  # one of `COLORS` that changes style images
    photograph: images.Source
    size: tuple[int, int]  # its height and width at the stage, in pixels


@dataclass(frozen=True, eq=False)
class Outside:
    """What lies in no region of photographs, and stays as it is."""

    photographs: Tensor  # (N, 3, H, W)
    share: Tensor  # how much of each pixel stays, (N, 1, H, W) in [0, 1]

    def to(self, device: device) -> Outside:
        """Returns it on a device."""
        return Outside(self.photographs.to(device), self.share.to(device))

    def around(self, image: Tensor) -> Tensor:
        """Returns images (N, 3, H, W) in the photographs, with soft edges where the regions have them."""
        return self.share * self.photographs + (1 - self.share) * image


@dataclass(frozen=True, eq=False)
class Style:
    """A style image, or a card, at the size of a stage."""

    source: images.Source
    side: int  # the long one in pixels; less where the file is smaller and must not be made larger
    upscale: bool
    gallery: Gallery
    weight: float = 1.0  # beside the pair's other styles, >= 0
    beside: Beside | None = None  # None leaves it as it is
    where: regions.Mask | None = None  # the part that is looked at; None for all of it

    @cached_property
    def card(self) -> Card | None:
        """The card, which is neither seen nor masked; None for an image."""
        return Card.read(self.source) if is_card(self.source) else None

    @property
    def key(self) -> Hashable:
        """What is equal for equal images, so that targets need not be computed twice."""
        own = _name(self.source), self.side, self.upscale, None if self.where is None else self.where.key
        return own if (it := self.beside) is None else (*own, it.colors, _name(it.photograph), it.size)

    @property
    def size(self) -> tuple[int, int]:
        """Its height and width in pixels."""
        return images.fit(*self.gallery.size(self.source), self.side, upscale=self.upscale)

    def image(self) -> Tensor:
        """Returns the image, (1, 3, h, w) in [0, 1]."""
        image = self.gallery.resized(self.source, self.size)
        if self.beside is None or (prepare := COLORS[self.beside.colors].style) is None:
            return image
        return prepare(image, self.gallery.resized(self.beside.photograph, self.beside.size))

    def mask(self) -> Tensor | None:
        """Returns how much each pixel counts, (1, 1, h, w) in [0, 1]; None where all do."""
        if self.where is None:
            return None
        return regions.resized(self.where.of(self.source, self.gallery.read), self.size)


def _name(source: images.Source) -> Hashable:
    return os.fspath(source) if isinstance(source, (str, os.PathLike)) else id(source)


class Step:
    """One optimiser step: where a run is. Not a dataclass, which Lightning would take apart in search of tensors."""

    def __init__(self, batch: Batch, batch_index: int, index: int) -> None:
        self.batch = batch
        self.batch_index = batch_index  # in the run, from 0
        self.index = index  # the steps that this batch has taken before, over all its stages
        self.stage_index = stage_of(batch.stages, index)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """All stages of the batch."""
        return self.batch.stages

    @property
    def stage(self) -> Stage:
        """The current stage."""
        return self.batch.stages[self.stage_index]

    @property
    def position(self) -> tuple[int, int]:
        """The batch's place in the run and the stage's in the batch, from 0."""
        return self.batch_index, self.stage_index

    @property
    def starts_stage(self) -> bool:
        """Whether it is the first step of its stage."""
        return self.index == 0 or stage_of(self.batch.stages, self.index - 1) != self.stage_index

    @property
    def is_first(self) -> bool:
        """Whether the batch begins, or goes on, with this step in this run."""
        return self.index == self.batch.taken

    @property
    def is_last(self) -> bool:
        """Whether the batch is finished after this step."""
        return self.index == self.batch.steps - 1


class Steps:
    """Some steps, to be looked at and not taken. Not a list: Lightning would take each of its items for a loader."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self._steps = tuple(steps)

    def __len__(self) -> int:
        return len(self._steps)

    def __iter__(self) -> Iterator[Step]:
        return iter(self._steps)


class Timeline:
    """Every step of a run in order: batch by batch, stage by stage. The train loader.

    Iteration begins at `start`, which is the number of steps that were completed before a resume; the length
    stays that of the whole run, as Lightning's counters ask for. As a batch begins, the images of the next are decoded.
    """

    def __init__(self, batches: Sequence[Batch], start: int = 0) -> None:
        self.start = self._next = start
        self._set(batches)

    def _set(self, batches: Sequence[Batch]) -> None:
        self.batches = tuple(batches)
        self._ends = list(accumulate(batch.steps - batch.taken for batch in self.batches))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __iter__(self) -> Iterator[Step]:
        self._next = self.start
        while self._next < len(self):
            step = self.step(self._next)
            self._next += 1
            if step.is_first and step.batch_index + 1 < len(self.batches):
                following = self.batches[step.batch_index + 1]
                following.gallery.prefetch(following.sources)
            yield step

    def step(self, number: int) -> Step:
        """Returns the step of a number in the run, from 0."""
        batch_index = bisect_right(self._ends, number)
        batch = self.batches[batch_index]
        return Step(batch, batch_index, number - self._ends[batch_index] + batch.steps)

    def exchange(self, step: Step, pairs: Sequence[Pair]) -> None:
        """Has the batch of a step be of other pairs, of the same names and images, from this step on."""
        step.batch = replace(step.batch, pairs=pairs)
        self._set([step.batch if index == step.batch_index else each for index, each in enumerate(self.batches)])

    def give_up(self, number: int) -> int:
        """Leaves out a batch's steps from that of a number on; of several pairs each then begins anew, by itself.

        Returns by how many steps the run is longer for it.
        """
        before, failed = len(self), self.step(number)
        index, batch = failed.batch_index, failed.batch
        kept = [] if failed.is_first else [replace(batch, stages=begun(batch.stages, failed.index))]
        singles = [replace(batch, pairs=[pair], saved=None) for pair in batch.pairs] if len(batch.pairs) > 1 else []
        self._set([*self.batches[:index], *kept, *singles, *self.batches[index + 1 :]])
        self._next = number
        return len(self) - before

    def cost(self, first: int, last: int) -> int:
        """Returns the output pixels of the steps from number `first` up to and without `last`."""
        cost = begin = 0
        for batch in self.batches:
            for stage, index, following in batch.stretches():
                end = begin + following - index
                cost += max(0, min(end, last) - max(begin, first)) * batch.pixels(stage)
                begin = end
        return cost

    def state_dict(self) -> dict[str, int]:
        """Returns nothing: the position is the trainer's `global_step`."""
        return {}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Takes nothing; that the method is there tells Lightning that the loader can be resumed."""


def deal(batches: Sequence[Batch], ranks: int) -> tuple[tuple[Batch, ...], ...]:
    """Returns the batches that each of some processes takes, so that they end as nearly together as may be.

    Frames that start from the one before stay together. The longest go first, each to the process that has least to do:
    Graham (1969), *Bounds on Multiprocessing Timing Anomalies*, whose bound is 4/3 of the best. Every process keeps its
    batches in the order given.
    """
    loads = [(0, rank) for rank in range(ranks)]
    chains: list[list[int]] = []
    for index, batch in enumerate(batches):
        if chains and batch.pairs[0].before is not None:
            chains[-1].append(index)
        else:
            chains.append([index])
    costs = [sum(batches[index].cost for index in chain) for chain in chains]
    owner: dict[int, int] = {}
    for place in sorted(range(len(chains)), key=lambda place: -costs[place]):
        load, rank = heapq.heappop(loads)
        owner |= dict.fromkeys(chains[place], rank)
        heapq.heappush(loads, (load + costs[place], rank))
    return tuple(tuple(batches[index] for index in sorted(owner) if owner[index] == rank) for rank in range(ranks))
