"""Batches of pairs of equal size, who optimises which, and the order of the steps."""

from __future__ import annotations

import heapq
import os
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Hashable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import accumulate

from torch import Tensor, cat

from nst_lightning import images
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

    def prefetch(self, sources: Sequence[images.Source]) -> None:
        """Begins to decode files that will be asked for."""
        for key in (os.fspath(source) for source in sources if isinstance(source, (str, os.PathLike))):
            if key not in self._kept and key not in self._coming:
                self._coming[key] = self._thread.submit(images.read, key, self._side)


def _bytes(image: images.Picture) -> int:
    return image.rgb.nbytes + (0 if image.alpha is None else image.alpha.nbytes)


@dataclass(frozen=True, eq=False)
class Batch:
    """Pairs whose outputs are of one size at every stage; optimised together, from the beginning or a checkpoint."""

    pairs: Sequence[Pair]
    source_size: tuple[int, int]  # height and width in pixels of one of their content images
    stages: tuple[Stage, ...]
    style_scale: float  # the style's long side as a multiple of the output's, of pairs that have none of their own
    upscale: bool  # whether images may be made larger than their files
    gallery: Gallery  # where images are read
    saved: Saved | None = None  # where to go on from

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
        """The images of the pairs."""
        return tuple(source for pair in self.pairs for source in (pair.content, *pair.styles))

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
        return cat([images.resize(self.gallery.read(pair.content).rgb, size).clamp(0, 1) for pair in self.pairs])

    def styles(self, stage: Stage) -> list[list[Style]]:
        """Returns each pair's style images at a stage's size; without those that weigh nothing."""
        return [list(self._styles(pair, stage)) for pair in self.pairs]

    def _styles(self, pair: Pair, stage: Stage) -> Iterator[Style]:
        weights = pair.style_weights or (1.0,) * len(pair.styles)
        scales = pair.style_scales or (self.style_scale,) * len(pair.styles)
        for source, weight, scale in zip(pair.styles, weights, scales, strict=True):
            if weight > 0:
                yield Style(source, max(1, round(stage.size * scale)), self.upscale, self.gallery, weight)

    def alphas(self, stage: Stage) -> list[Tensor | None]:
        """Returns the content images' alpha at a stage's size, (1, 1, H, W) in [0, 1], None where opaque."""
        size = self.output_size(stage)
        alphas = [self.gallery.read(pair.content).alpha for pair in self.pairs]
        return [None if alpha is None else images.resize(alpha, size).clamp(0, 1) for alpha in alphas]


@dataclass(frozen=True, eq=False)
class Style:
    """A style image at the size of a stage."""

    source: images.Source
    side: int  # the long one in pixels; less where the file is smaller and must not be made larger
    upscale: bool
    gallery: Gallery
    weight: float = 1.0  # beside the pair's other styles, > 0

    @property
    def key(self) -> Hashable:
        """What is equal for equal images, so that targets need not be computed twice."""
        name = os.fspath(self.source) if isinstance(self.source, (str, os.PathLike)) else id(self.source)
        return name, self.side, self.upscale

    @property
    def size(self) -> tuple[int, int]:
        """Its height and width in pixels."""
        return images.fit(*self.gallery.size(self.source), self.side, upscale=self.upscale)

    def image(self) -> Tensor:
        """Returns the image, (1, 3, h, w) in [0, 1]."""
        return images.resize(self.gallery.read(self.source).rgb, self.size).clamp(0, 1)


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

    The longest go first, each to the process that has least to do: Graham (1969), *Bounds on Multiprocessing Timing
    Anomalies*, whose bound is 4/3 of the best. Every process keeps its batches in the order given.
    """
    loads = [(0, rank) for rank in range(ranks)]
    owner = {}
    for index in sorted(range(len(batches)), key=lambda index: -batches[index].cost):
        load, rank = heapq.heappop(loads)
        owner[index] = rank
        heapq.heappush(loads, (load + batches[index].cost, rank))
    return tuple(tuple(batches[index] for index in sorted(owner) if owner[index] == rank) for rank in range(ranks))
