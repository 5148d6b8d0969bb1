"""Pairs of content and style images, batches of equal size, and the order in which they are optimised."""

from __future__ import annotations

import math
import os
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, count, groupby
from pathlib import Path
from typing import TypeAlias

import lightning as L
from torch import Tensor, cat, device

from nst_lightning import images
from nst_lightning.errors import InputError
from nst_lightning.schedule import Stage, coarse_to_fine

Images: TypeAlias = images.Source | Sequence[images.Source] | None
"""What `find` takes: an image, several, or none, which it refuses."""

CONTENT_FOLDER = Path("data/content-images")
STYLE_FOLDER = Path("data/style-images")


@dataclass(frozen=True, eq=False)  # comparing tensors with == has no single truth value
class Pair:
    """One content image and the style images that it is painted in.

    Attributes:
        content: The content image: a file, a PIL image or a tensor, see `images.read`.
        styles: The style images, at least one; their targets are averaged.
        name: What the outputs are called.
    """

    content: images.Source
    styles: tuple[images.Source, ...]
    name: str


class Batch:
    """Pairs whose content images, and so outputs at every stage, are of one size; optimised together.

    Images are decoded when they are asked for.

    Args:
        pairs: The pairs.
        source_size: Height and width of their content images in pixels.
        style_scale: The style's long side as a multiple of the output's.
        upscale: Whether images may be made larger than their files.
    """

    def __init__(self, pairs: Sequence[Pair], source_size: tuple[int, int], style_scale: float, upscale: bool) -> None:
        self.pairs = tuple(pairs)
        self.source_size = source_size
        self.style_scale = style_scale
        self.upscale = upscale

    def output_size(self, stage: Stage) -> tuple[int, int]:
        """Returns the height and width of the output at a stage, in pixels."""
        return images.fit(*self.source_size, stage.size, upscale=self.upscale)

    def pixels(self, stage: Stage) -> int:
        """Returns the number of output pixels at a stage, which the time of a step grows with."""
        height, width = self.output_size(stage)
        return height * width * len(self.pairs)

    def contents(self, stage: Stage) -> Tensor:
        """Returns the content images at a stage's size, (N, 3, H, W) in [0, 1]."""
        size = self.output_size(stage)
        return cat([images.resize(images.read(pair.content).rgb, size).clamp(0, 1) for pair in self.pairs])

    def styles(self, stage: Stage) -> list[list[Tensor]]:
        """Returns each pair's style images at a stage's size, (1, 3, h, w) in [0, 1]."""
        side = max(1, round(stage.size * self.style_scale))
        return [[self._style(source, side) for source in pair.styles] for pair in self.pairs]

    def alphas(self, stage: Stage) -> list[Tensor | None]:
        """Returns the content images' alpha at a stage's size, (1, 1, H, W) in [0, 1], None where opaque."""
        size = self.output_size(stage)
        alphas = [images.read(pair.content).alpha for pair in self.pairs]
        return [None if alpha is None else images.resize(alpha, size).clamp(0, 1) for alpha in alphas]

    def _style(self, source: images.Source, side: int) -> Tensor:
        rgb = images.read(source).rgb
        height, width = rgb.shape[-2:]
        return images.resize(rgb, images.fit(height, width, side, upscale=self.upscale)).clamp(0, 1)


class Step:
    """One optimiser step: what the train loader yields.

    Not a dataclass: Lightning would take it apart in search of tensors.

    Args:
        batch: The pairs being optimised.
        batch_index: Its place in the run, from 0.
        stages: All stages of the run.
        stage_index: The place of the current one, from 0.
        index: The number of steps that this batch has taken before, over all its stages.
    """

    def __init__(self, batch: Batch, batch_index: int, stages: tuple[Stage, ...], stage_index: int, index: int) -> None:
        self.batch = batch
        self.batch_index = batch_index
        self.stages = stages
        self.stage_index = stage_index
        self.index = index

    @property
    def stage(self) -> Stage:
        """The current stage."""
        return self.stages[self.stage_index]

    @property
    def position(self) -> tuple[int, int]:
        """What the image belongs to: the batch's place and the stage's."""
        return self.batch_index, self.stage_index

    @property
    def is_last(self) -> bool:
        """Whether the batch is finished after this step."""
        return self.index == sum(stage.steps for stage in self.stages) - 1


class Timeline:
    """Every step of a run in order: batch by batch, stage by stage. The train loader.

    Iteration begins at `start`, which is the number of steps that were completed before a resume; the length
    stays that of the whole run, as Lightning's counters ask for.

    Args:
        batches: The batches.
        stages: The stages that each goes through.
        start: The number of steps to skip, >= 0.
    """

    def __init__(self, batches: Sequence[Batch], stages: Sequence[Stage], start: int = 0) -> None:
        self.batches = tuple(batches)
        self.stages = tuple(stages)
        self.start = start

    @property
    def steps_per_batch(self) -> int:
        """The number of steps that each batch takes."""
        return sum(stage.steps for stage in self.stages)

    def __len__(self) -> int:
        return len(self.batches) * self.steps_per_batch

    def __iter__(self) -> Iterator[Step]:
        return (self.step(number) for number in range(self.start, len(self)))

    def step(self, number: int) -> Step:
        """Returns the step of a number in the run, from 0."""
        batch_index, index = divmod(number, self.steps_per_batch)
        ends = list(accumulate(stage.steps for stage in self.stages))
        return Step(self.batches[batch_index], batch_index, self.stages, bisect_right(ends, index), index)

    def cost(self, first: int, last: int) -> int:
        """Returns the output pixels of the steps from number `first` up to and without `last`."""
        return sum(max(0, min(end, last) - max(begin, first)) * cost for begin, end, cost in self._stretches())

    def _stretches(self) -> Iterator[tuple[int, int, int]]:
        """Yields for every batch and stage its first step, the one after its last, and the cost of each."""
        begin = 0
        for batch in self.batches:
            for stage in self.stages:
                yield begin, begin + stage.steps, batch.pixels(stage)
                begin += stage.steps

    def state_dict(self) -> dict[str, int]:
        """Returns nothing: the position is the trainer's `global_step`."""
        return {}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Takes nothing; that the method is there tells Lightning that the loader can be resumed."""


class PairDataModule(L.LightningDataModule):
    """The pairs of a run and the schedule they are optimised by.

    The annotations say what a command line can give. In Python, `content` and `style` may be whatever `images.read`
    takes, PIL images and tensors too, and lists of that.

    Args:
        content: A content image, or a list of them. A name without a folder is looked up here and in
            `data/content-images`.
        style: A style image, or a list of as many as there are content images; one goes with all of them, and
            the other way round. A name without a folder is looked up here and in `data/style-images`.
        size: Long side of the output in pixels.
        steps: Number of optimiser steps, all stages together.
        stages: Number of coarse-to-fine stages, each twice as large as the one before; or a list of stages
            (size, steps), which `size` and `steps` then have no part in.
        style_scale: Long side of the style image as a multiple of the output's: smaller gives finer strokes.
        upscale: Whether an output may be larger than its content image's file.
        batch_size: How many pairs of equal size are optimised together.

    Attributes:
        pairs: The pairs, in the order given.
        stages: The stages that each goes through.
        batches: The pairs by batch, once `setup` has read their sizes.
        settings: What the run was asked for, for the pictures' metadata and TensorBoard.

    Raises:
        InputError: If an image is missing or an argument is out of range.
    """

    def __init__(
        self,
        content: list[str] | str | None = None,
        style: list[str] | str | None = None,
        size: int = 512,
        steps: int = 300,
        stages: int | list[Stage] = 2,
        style_scale: float = 1.0,
        upscale: bool = False,
        batch_size: int = 1,
    ) -> None:
        super().__init__()
        if not (style_scale > 0 and math.isfinite(style_scale)):
            msg = f"style_scale must be a finite number above 0, got {style_scale}"
            raise InputError(msg)
        if batch_size < 1:
            msg = f"batch_size must be at least 1, got {batch_size}"
            raise InputError(msg)
        self.stages = tuple(stages) if isinstance(stages, list) else coarse_to_fine(size, steps, stages)
        if not self.stages:
            msg = "stages is an empty list: there is nothing to do"
            raise InputError(msg)
        self.pairs = pair_up(find("content", content, CONTENT_FOLDER), find("style", style, STYLE_FOLDER))
        self.style_scale = style_scale
        self.upscale = upscale
        self.batch_size = batch_size
        self.batches: tuple[Batch, ...] = ()
        self.settings: dict[str, str | int | float] = {
            "stages": ", ".join(f"{stage.size} px x {stage.steps}" for stage in self.stages),
            "style_scale": style_scale,
        }

    def setup(self, stage: str) -> None:
        """Reads every image once, so that a bad one ends the run before it begins, and forms the batches."""
        sized = []
        for pair in self.pairs:
            for source in pair.styles:
                images.read(source)
            height, width = images.read(pair.content).rgb.shape[-2:]
            sized.append(((height, width), pair))
        self.batches = tuple(self._batches(sized))

    def transfer_batch_to_device(self, batch: Step, device: device, dataloader_idx: int) -> Step:
        """Leaves the step where it is: it holds no tensors."""
        return batch

    def train_dataloader(self) -> Timeline:
        """Returns the steps of the run, from the first that was not completed."""
        start = 0 if self.trainer is None else self.trainer.global_step
        return Timeline(self.batches, self.stages, start)

    def unfinished_step(self) -> Step | None:
        """Returns the last step taken by a run that stopped within a batch, None where none is unfinished."""
        timeline = self.train_dataloader()
        if not 0 < timeline.start < len(timeline):
            return None
        step = timeline.step(timeline.start - 1)
        return None if step.is_last else step

    def _batches(self, sized: Sequence[tuple[tuple[int, int], Pair]]) -> Iterator[Batch]:
        in_order = sorted(sized, key=lambda entry: entry[0]) if self.batch_size > 1 else sized
        for source_size, group in groupby(in_order, key=lambda entry: entry[0]):
            pairs = [pair for _, pair in group]
            for first in range(0, len(pairs), self.batch_size):
                members = pairs[first : first + self.batch_size]
                yield Batch(members, source_size, self.style_scale, self.upscale)


def data_of(trainer: L.Trainer) -> PairDataModule:
    """Returns the data module of a trainer, which has to be one of pairs."""
    data: object = trainer.datamodule  # type: ignore[attr-defined]
    assert isinstance(data, PairDataModule)
    return data


def find(argument: str, given: Images, folder: Path) -> list[images.Source]:
    """Returns the images that were named, files with their path.

    Args:
        argument: What an error calls the argument.
        given: An image or a list of them.
        folder: Where a name without a folder is looked up when it is not in the working directory; its suffix
            may be left out there.

    Raises:
        InputError: If nothing was named, or a name stands for no file.
    """
    sources: Sequence[images.Source | None] = given if isinstance(given, (list, tuple)) else [given]  # type: ignore[list-item]
    found = [_find_one(argument, source, folder) for source in sources]
    if not found:
        msg = f"{argument} is an empty list; name an image, or several"
        raise InputError(msg)
    return found


def _find_one(argument: str, source: images.Source | None, folder: Path) -> images.Source:
    if source is None:
        msg = f"no {argument} image was given; name a file with --{argument}, e.g. one of {folder}"
        raise InputError(msg)
    if not isinstance(source, (str, os.PathLike)):
        return source
    path = Path(source)
    # Not Path.is_file, which raises on a name that is too long. A folder of that name, a run's say, is no image.
    if os.path.isfile(path) or path.parent != Path():
        return path
    candidates = [folder / path, *sorted(entry for entry in folder.glob("*.*") if entry.stem == path.name)]
    for candidate in candidates:
        if os.path.isfile(candidate):
            return candidate
    if os.path.isdir(path):
        return path  # reading it says what is wrong
    known = sorted(entry.name for entry in folder.glob("*.*"))
    there = f"; there are {', '.join(known)}" if known else ""
    msg = f"{argument} image {source} is neither here nor in {folder}{there}"
    raise InputError(msg)


def pair_up(contents: Sequence[images.Source], styles: Sequence[images.Source]) -> tuple[Pair, ...]:
    """Returns one pair for each content image and the style image at its place; a single one goes with all.

    Raises:
        InputError: If there are several of both, and not equally many.
    """
    if len(contents) != len(styles) and 1 not in (len(contents), len(styles)):
        msg = f"{len(contents)} content images and {len(styles)} style images: as many of both, or one of either"
        raise InputError(msg)
    number = max(len(contents), len(styles))
    contents = list(contents) * (number if len(contents) == 1 else 1)
    styles = list(styles) * (number if len(styles) == 1 else 1)
    names = _unique([f"{_stem(content)}_{_stem(style)}" for content, style in zip(contents, styles, strict=True)])
    return tuple(Pair(content, (style,), name) for content, style, name in zip(contents, styles, names, strict=True))


def _stem(source: images.Source) -> str:
    return Path(source).stem if isinstance(source, (str, os.PathLike)) else "image"


def _unique(names: Sequence[str]) -> list[str]:
    """Numbers the names that occur more than once, without taking the name of another."""
    counts, taken = Counter(names), set(names)
    unique = []
    for name in names:
        if counts[name] > 1:
            name = next(free for number in count(1) if (free := f"{name}_{number}") not in taken)
            taken.add(name)
        unique.append(name)
    return unique
