"""The data module: the pairs of a run, dealt to the processes and put into batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn

from nst_lightning import memory
from nst_lightning.batches import Batch, Gallery, Step, Steps, Timeline, deal
from nst_lightning.cards import is_card
from nst_lightning.colors import COLORS
from nst_lightning.errors import InputError
from nst_lightning.images import MAX_SIDE
from nst_lightning.pairs import Pair, chosen
from nst_lightning.paper import Paper
from nst_lightning.parallel import TileParallel, agreed, alone
from nst_lightning.progress import Progress, Saved
from nst_lightning.runs import Run
from nst_lightning.schedule import Stage, described, scaled, scheduled
from nst_lightning.terminal import say
from nst_lightning.tiling import ALONE, Share

_SHARE = 0.8  # the part of the memory that is free which is planned with; the rest is for what cannot be measured


@dataclass(frozen=True)
class Worker:
    """What one process of a run computes on."""

    device: torch.device
    precision: str  # the trainer's, e.g. bf16-mixed
    context: Callable[[], AbstractContextManager[object]]  # enters the precision that features are computed in
    share: Share  # of an image's tiles
    deals_tiles: bool  # whether all processes work on the tiles of one image
    sharing: int  # how many processes share the device's memory
    agree: Callable[[Any], Any]  # returns what the first process was given, in every process

    @classmethod
    def of(cls, trainer: L.Trainer) -> Worker:
        """Returns what this process of a trainer computes on."""
        device = trainer.strategy.root_device
        deals = isinstance(trainer.strategy, TileParallel)
        return cls(
            device,
            str(trainer.precision),
            trainer.precision_plugin.forward_context,
            Share(trainer.global_rank, trainer.world_size) if deals else ALONE,
            deals,
            trainer.num_devices if device.type == "cpu" else 1,
            trainer.strategy.broadcast,
        )

    @property
    def memory(self) -> int:
        """The bytes that the process may plan with on its device."""
        return int(memory.available(self.device) * _SHARE / self.sharing)


Measure = Callable[[Worker, int], int]  # returns the bytes that a step on one image of so many pixels takes


class PairDataModule(L.LightningDataModule):
    """The pairs of a run and the schedule they are optimised by.

    The annotations say what a command line can give. In Python, `content` and `style` may be whatever `images.read`
    takes, PIL images and tensors too, and lists of that.

    Args:
        content: A content image, a folder of them, a pattern such as `photos/*.jpg`, or a list of such. A name
            without a folder is looked up here and in `data/content-images`.
        style: A style image, a folder of them, a pattern, or a list of such, or of style cards (`nst style`). A name
            without a folder is looked up here and in `data/style-images`.
        pairing: `zip` takes as many contents as styles, or one of either, which goes with all; `product` takes every
            content with every style.
        pairs: A CSV file of pairs instead of `content` and `style`, or a list of its rows, see `pairs.read_pairs`. In
            Python, a tuple of `pairs.Pair`, too.
        size: Long side of the output in pixels. By default 512, or that of a list of `stages`.
        print: The paper to fill instead of `size`: `60x40cm@300dpi`, `12x8in@300dpi` or `A2@200dpi`. A picture keeps
            its photograph's proportions and lies as that does; it is made larger than the photograph where needed.
        steps: Number of optimiser steps, all stages together. By default 240, or those of a list of `stages`.
        stages: Number of coarse-to-fine stages, each twice as large as the one before; or a list of stages
            (size, steps, and factors of the weights of groups or losses there), which `size` and `steps` scale,
            without those that come below 32 px.
        style_weights: How much each style counts in a picture that is painted in all of them; a number a style. Without
            them, each style has pictures of its own, see `pairing`. Of styles in regions, a factor in its own.
        style_scale: Long side of the style image as a multiple of the output's: smaller gives finer strokes. A number,
            or one a style.
        colors: Whose colours the picture is in: those of the `style`; those of the `content`, put back at the end;
            the style's, `matched` to the content's before; or `luminance`: light and dark alone are painted, the
            content's colours stay.
        upscale: Whether an output may be larger than its content image's file.
        strength: How far to go from the photograph, 0, to the painting, 1, the same for every pair: each finds the
            style weight for it with a few small pictures, see `modules.strength`, around the run's style weight.
        content_mask: Where each style counts in the photograph, so that all styles are painted into one picture: a grey
            image for each, white where it counts, or one image with a colour for each, see `regions`, or `alpha`.
        style_mask: Where each style is taken from, likewise, or `none` for all of it.
        regions: The colour of each style's region in masks that are in colours: names, or #rrggbb in quotes.
        content_weights: A factor of the content's weight in each region.
        keep_outside: Whether what lies in no region stays the photograph.
        batch_size: How many pairs of equal size are optimised together; `auto` takes as many as fit the memory, as
            measured on a small image.
        resume: The folder of a run, or one of its checkpoints, to go on from.

    Raises:
        InputError: If an image is missing or an argument is out of range.
    """

    def __init__(
        self,
        content: list[str] | str | None = None,
        style: list[str] | str | None = None,
        pairing: Literal["zip", "product"] = "zip",
        pairs: list[dict[str, Any]] | str | None = None,
        size: int | None = None,
        print: str | None = None,
        steps: int | None = None,
        stages: int | list[Stage] = 2,
        style_weights: float | list[float] | None = None,
        style_scale: float | list[float] = 1.0,
        colors: Literal["style", "content", "matched", "luminance"] = "style",
        upscale: bool = False,
        strength: float | None = None,
        content_mask: list[str] | str | None = None,
        style_mask: list[str] | str | None = None,
        regions: list[str] | str | None = None,
        content_weights: list[float] | None = None,
        keep_outside: bool = False,
        batch_size: int | Literal["auto"] = 1,
        resume: str | None = None,
    ) -> None:
        super().__init__()
        scales = style_scale if isinstance(style_scale, list) else [style_scale]
        if not scales or not all(scale > 0 and math.isfinite(scale) for scale in scales):
            raise InputError(f"style_scale must be a finite number above 0, got {style_scale}")
        weights = [style_weights] if isinstance(style_weights, (int, float)) else style_weights
        if batch_size != "auto" and batch_size < 1:
            raise InputError(f"batch_size must be at least 1, or auto, got {batch_size}")
        if colors not in COLORS:
            raise InputError(f"unknown colors {colors!r}; known are {', '.join(COLORS)}")
        self.paper = None if print is None else Paper.of(print)
        if self.paper is not None and size is not None:
            raise InputError(f"print {print} gives the size already: set size to null, got {size}")
        self.stages = scheduled(stages, size if self.paper is None else self.paper.side, steps)
        masks = {"content_mask": content_mask, "style_mask": style_mask, "regions": regions}
        of_styles = {"style_weights": weights, "style_scale": scales if len(scales) > 1 else None, **masks}
        own = chosen(content, style, pairing, pairs, {**of_styles, "content_weights": content_weights})
        self.pairs = own if strength is None else tuple(each.of_strength(strength) for each in own)
        if keep_outside and not all(pair.content_mask for pair in self.pairs):
            raise InputError("keep_outside: there are no regions to be outside of: name a content_mask")
        self.keep_outside = keep_outside
        self.is_film = any(pair.before is not None for pair in self.pairs)
        if self.is_film and batch_size != 1:
            raise InputError(f"batch_size must be 1 for frames that start from the one before, got {batch_size}")
        self.style_scale = scales[0]  # of pairs that have none of their own
        self.colors = colors
        self.upscale = upscale or self.paper is not None
        self.batch_size = batch_size
        self.progress = Progress() if resume is None else _agreed_progress(Path(resume))  # what was done before
        self.dealt: tuple[tuple[str, ...], ...] = ()  # names of unfinished pairs by the rank that takes them
        self.batches: tuple[Batch, ...] = ()  # of this process; both are set by `setup`
        self.failed: dict[str, tuple[str, int]] = {}  # pairs that were given up: why, and the exit code
        self.settings: dict[str, str | int | float] = {  # for the pictures' metadata and TensorBoard
            "stages": described(self.stages),
            "style_scale": self.style_scale,
            "colors": colors,
            "upscale": self.upscale,
            **({"keep_outside": True} if keep_outside else {}),
        }
        if print is not None:
            self.settings["print"] = print
        largest = 1.0
        for pair in self.pairs:  # refuses what it cannot do before an hour of work on the pairs before it
            if self.paper is not None and pair.size is not None:
                raise InputError(f"pair {pair.name}: print {print} gives the size already, got a size of {pair.size}")
            scale = max(1.0, *(pair.style_scales or (self.style_scale,)))
            named = pair.colors or colors
            if any(map(is_card, pair.styles)) and COLORS[named].style is not None:
                raise InputError(f"pair {pair.name}: colors {named} changes the painting, which a card does not hold")
            largest = max(largest, *(stage.size * scale for stage in self._scaled(pair, pair.size)))
            if self.upscale and largest > MAX_SIDE:
                raise InputError(f"pair {pair.name}: images of {largest:.0f} px were asked for, {MAX_SIDE} are allowed")
        self.gallery = Gallery(side=math.ceil(min(largest, MAX_SIDE)))
        self._timeline: Timeline | None = None  # that of the trainer, which may leave out what cannot be finished

    def setup(self, stage: str) -> None:
        """Reads every image once, so that a bad one ends the run before it begins, deals and forms the batches."""
        shard = None if self.trainer is None else self.trainer.distributed_sampler_kwargs
        ranks, rank = (1, 0) if shard is None else (shard["num_replicas"], shard["rank"])
        shares = deal(list(self._units()), ranks)
        self.dealt = tuple(tuple(name for batch in share for name in batch.names) for share in shares)
        self.batches = tuple(self._batches(shares[rank], self._together))
        self._timeline, self.failed = None, {}
        small = [batch for batch in self.batches if max(batch.output_size(batch.stages[-1])) < batch.stages[-1].size]
        if small:
            (height, width), side = small[0].output_size(small[0].stages[-1]), small[0].stages[-1].size
            others = sum(len(batch.pairs) for batch in small) - 1
            names = f"{small[0].names[0]}{f' and {others} more' if others > 0 else ''}"
            say(f"nst: {names}: as large as the photograph, {width}x{height} px instead of {side}: --upscale enlarges")

    def look_at_cards(self) -> None:
        """Says where a card is of another size than what is painted; refuses that where a scale was asked for."""
        lines: dict[str, None] = {}
        for batch, stage in ((each, stage) for each in self.batches for stage in each.stages):
            for style in (style for of_pair in batch.styles(stage) for style in of_pair):
                if style.card is None or style.card.is_near(style.side):
                    continue
                line = f"{style.source}: holds {style.card.listed_sizes}, and {style.side} px are asked for"
                if style.side != stage.size:
                    raise InputError(f"{line}: leave out style_scale, or learn it with --sizes {style.side}")
                if stage is batch.stages[-1]:
                    lines[f"nst: {line}: the nearest is taken"] = None
        for line in lines:
            say(line)

    def batches_alone(self, measure: Measure, worker: Worker) -> tuple[Batch, ...]:
        """Returns the batches of all that is left, as one process would take them; for estimates, nothing is noted."""
        return tuple(self._batches(list(self._units()), lambda single: _fitting(single, measure, worker)))

    def transfer_batch_to_device(self, batch: Step, device: torch.device, dataloader_idx: int) -> Step:
        """Leaves the step where it is: it holds no tensors."""
        return batch

    def train_dataloader(self) -> Timeline:
        """Returns the steps of the run, from the first that was not completed."""
        self._timeline = Timeline(self.batches, 0 if self.trainer is None else self.trainer.global_step)
        return self._timeline

    def val_dataloader(self) -> Steps | list[Steps]:
        """Returns the last step of what each checkpoint holds, without any that of the only batch.

        Nothing is validated while images are optimised.
        """
        if self.trainer is not None and self.trainer.state.fn == TrainerFn.FITTING:
            return []  # for Lightning, no loader
        if not self.progress.saved and len(self.batches) == 1:
            return Steps([Step(self.batches[0], 0, self.batches[0].steps - 1)])
        found = [(index, batch, batch.saved) for index, batch in enumerate(self.batches)]
        return Steps([Step(batch, index, each.taken - 1) for index, batch, each in found if each is not None])

    def last_step(self) -> Step | None:
        """Returns the last step that was completed, None before the first."""
        taken = 0 if self.trainer is None else self.trainer.global_step
        timeline = self.train_dataloader() if self._timeline is None else self._timeline
        return timeline.step(taken - 1) if 0 < taken <= len(timeline) else None

    def unfinished_step(self) -> Step | None:
        """Returns the last step taken by a run that stopped within a batch, None where none is unfinished."""
        step = self.last_step()
        return None if step is None or step.is_last else step

    def stages_of(self, pair: Pair) -> tuple[Stage, ...]:
        """Returns the stages that a pair goes through: the run's, scaled to its own size and steps, or to the paper.

        A frame that starts from the one before has the last only: at a coarse one it would be blurred.
        """
        paper = self.paper
        return self._scaled(pair, pair.size if paper is None else paper.long_side(*self.gallery.size(pair.content)))

    def _scaled(self, pair: Pair, size: int | None) -> tuple[Stage, ...]:
        stages = self.stages if pair.before is None else self.stages[-1:]
        try:
            return scaled(stages, size, pair.steps)
        except InputError as error:
            raise InputError(f"pair {pair.name}: {error}") from None

    def _units(self) -> Iterator[Batch]:
        """Yields what is dealt out: batches that go on from a checkpoint, and single pairs."""
        todo = {pair.name: pair for pair in self.pairs if pair.name not in self.progress.finished}
        begun: dict[str, Batch] = {}
        for saved in self.progress.saved:
            if set(saved.names) <= todo.keys() - begun.keys():
                batch = self._batch([todo[name] for name in saved.names], saved)
                if batch.continues(saved):
                    begun.update(dict.fromkeys(saved.names, batch))
                else:
                    rank_zero_warn(f"{saved.path}: is of other stages; {', '.join(saved.names)} will begin anew")
        last = frozenset() if self.is_film else self.progress.failed  # what is after a frame needs it
        for name, pair in sorted(todo.items(), key=lambda item: item[0] in last):
            if name not in begun:
                yield self._batch([pair])
            elif begun[name].names[0] == name:
                yield begun[name]

    def _batch(self, members: Sequence[Pair], saved: Saved | None = None) -> Batch:
        for source in (source for pair in members for source in (*pair.styles, pair.content) if not is_card(source)):
            size = self.gallery.read(source).size
        stages = self.stages_of(members[0])
        # Reads the masks too.
        for image, mask in (each for pair in members for each in pair.masked):
            mask.of(image, self.gallery.read)
        of_run = self.style_scale, self.upscale, self.gallery, saved, self.colors, self.keep_outside
        return Batch(members, size, stages, *of_run)

    def _batches(self, units: Sequence[Batch], most: Callable[[Batch], int]) -> Iterator[Batch]:
        """Joins single pairs that are alike at every stage, of an `auto` batch as many as `most` says for the first.

        Batches that go on from a checkpoint stay as they are, and where none are joined, the order.
        """

        def shape(batch: Batch) -> list[tuple[int, ...]]:
            # Outputs of one size may be of stages that differ, which the style's size follows.
            of_stages = [(*batch.output_size(stage), stage.size, stage.steps) for stage in batch.stages]
            return [(batch.regions,), *of_stages]

        yield from (unit for unit in units if unit.saved is not None)
        singles = [unit for unit in units if unit.saved is None]
        in_order = sorted(singles, key=shape) if self.batch_size != 1 else singles
        for _, group in groupby(in_order, key=shape):
            alike = list(group)
            together = most(alike[0]) if self.batch_size == "auto" else self.batch_size
            for first in range(0, len(alike), together):
                members = [pair for batch in alike[first : first + together] for pair in batch.pairs]
                yield replace(alike[first], pairs=members)

    def _together(self, single: Batch) -> int:
        assert self.trainer is not None
        measure: Measure = self.trainer.lightning_module.bytes_of_step  # type: ignore[assignment]
        return _fitting(single, measure, Worker.of(self.trainer))


def _fitting(single: Batch, measure: Measure, worker: Worker) -> int:
    """Returns how many pairs like a single one fit the memory together."""
    each = max(measure(worker, single.pixels(stage)) for stage in single.stages)
    return max(1, worker.memory // each)


def _agreed_progress(resume: Path) -> Progress:
    """Returns what was done before: in every process what the first one found, for others may have begun to work."""
    if resume.is_file() or alone():
        return Progress.of(resume)
    run = Run(resume)

    def write() -> str:
        Progress.of(resume).write(run)
        return str(run.progress)

    return Progress.from_json(Path(agreed("progress", write)).read_text(encoding="utf-8"))


def data_of(trainer: L.Trainer) -> PairDataModule:
    """Returns the data module of a trainer, which has to be one of pairs."""
    data: object = trainer.datamodule  # type: ignore[attr-defined]
    if not isinstance(data, PairDataModule):
        raise InputError("the data must be a PairDataModule, as in trainer.fit(module, datamodule=PairDataModule(...))")
    return data


def is_writer(trainer: L.Trainer) -> bool:
    """Whether this process is the one that writes the results of its batches: no other has the same."""
    shard = trainer.distributed_sampler_kwargs
    return trainer.is_global_zero or (shard is not None and shard["num_replicas"] == trainer.world_size)
