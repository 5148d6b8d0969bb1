"""What a painter is trained on: crops of photographs, numbered without end, and the photographs that it is shown."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import lightning as L
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from nst_lightning import files, images
from nst_lightning.errors import InputError
from nst_lightning.image_files import ImageError, opened
from nst_lightning.terminal import say

_LARGEST = 2.0  # times the crop's side: the short side that a photograph has at most before it is cut
_KEPT = 64  # photographs that a process keeps decoded


class Crops(Dataset[tuple[Tensor, int]]):
    """Squares of photographs, each of which follows from the seed and its number.

    The number draws the photograph, its short side, from the crop's own to twice that, the place and whether it is
    mirrored. A photograph that turns out to be damaged is told of once, and the one after it taken.
    """

    def __init__(self, photographs: Sequence[Path], side: int, seed: int) -> None:
        self.photographs, self.side, self.seed = photographs, side, seed
        self._damaged: set[int] = set()

    def __getitem__(self, number: int) -> tuple[Tensor, int]:
        """Returns the crop, (3, side, side) in [0, 1], and its number."""
        draw = np.random.default_rng([self.seed, number])
        first, scale, mirrored = int(draw.integers(len(self.photographs))), draw.random(), draw.random() < 0.5
        down, across = draw.random(2)
        photograph = self._from(first)
        height, width = photograph.shape[-2:]
        shortest = min(height, width)
        # Not made larger, unless too small.
        factor = max(self.side, min(shortest, self.side * _LARGEST**scale)) / shortest
        size = max(self.side, round(height * factor)), max(self.side, round(width * factor))
        large = images.resize(photograph.float().div(255), size).clamp(0, 1)
        top, left = (int(part * (whole - self.side + 1)) for part, whole in zip((down, across), size, strict=True))
        crop = large[0, :, top : top + self.side, left : left + self.side]
        return (crop.flip(2) if mirrored else crop).contiguous(), number

    def _from(self, first: int) -> Tensor:
        """Returns the first photograph from a place on that can be read, (1, 3, H, W) uint8."""
        count = len(self.photographs)
        for place in (each % count for each in range(first, first + count)):
            if place in self._damaged:
                continue
            try:
                return _decoded(self.photographs[place], round(4 * _LARGEST * self.side))
            except ImageError as error:
                self._damaged.add(place)
                say(f"nst: skipped: {error}")
        raise InputError(f"none of the {count} photographs can be read")


@lru_cache(_KEPT)
def _decoded(photograph: Path, side: int) -> Tensor:
    rgb = images.read(photograph, side).rgb
    small = images.resize(rgb, images.fit(rgb.shape[2], rgb.shape[3], side)).clamp(0, 1)  # a panorama stays sharp
    return small.mul(255).round().to(torch.uint8)


class Endless(Sampler[int]):
    """The numbers of the crops of one process of several, from a number on."""

    def __init__(self, first: int, rank: int, world: int) -> None:
        self.first, self.rank, self.world = first, rank, world

    def __iter__(self) -> Iterator[int]:
        return itertools.count(self.first + self.rank, self.world)


class CropDataModule(L.LightningDataModule):
    """Crops of photographs to train on, and photographs to look at on the way.

    Args:
        photographs: A folder of photographs, a pattern such as `photos/**/*.jpg`, or a list of such.
        held_out: Photographs that are painted as it trains, likewise. By default none.
        crop: The side of the crops in pixels, >= 16.
        batch_size: The crops of a step, of each process.
        workers: Processes that decode ahead; 0 decodes between the steps.
        seed: That of the crops.

    Raises:
        InputError: If there is no photograph that can be read, or a number is out of range.
    """

    def __init__(
        self,
        photographs: str | list[str],
        held_out: str | list[str] | None = None,
        crop: int = 256,
        batch_size: int = 4,
        workers: int = 2,
        seed: int = 0,
    ) -> None:
        super().__init__()
        for name, value, least in (
            ("crop", crop, images.MIN_SIDE),
            ("batch_size", batch_size, 1),
            ("workers", workers, 0),
        ):
            if value < least:
                raise InputError(f"{name} must be a whole number from {least}, got {value}")
        found = [Path(str(each)) for each in files.find("photographs", photographs, files.CONTENT_FOLDER)]
        readable = [each for each in found if _opens(each)]
        if len(readable) < len(found):
            say(f"nst: {len(found) - len(readable)} of {len(found)} photographs cannot be read and are skipped")
        if not readable:
            raise InputError(f"none of the {len(found)} photographs can be read")
        self.crops = Crops(readable, crop, seed)
        self.held_out = [] if held_out is None else files.find("held_out", held_out, files.CONTENT_FOLDER)
        self.batch_size, self.workers = batch_size, workers

    def train_dataloader(self) -> DataLoader[tuple[Tensor, int]]:
        """Returns the batches from the step on that the trainer is at."""
        assert self.trainer is not None
        world = self.trainer.world_size
        first = self.trainer.global_step * self.trainer.accumulate_grad_batches * self.batch_size * world
        sampler = Endless(first, self.trainer.global_rank, world)
        return DataLoader(self.crops, self.batch_size, sampler=sampler, num_workers=self.workers)

    def val_dataloader(self) -> DataLoader[tuple[str, Tensor]]:
        """Returns the names of the photographs that are held out, and these, (1, 3, H, W), of two crops' sides."""
        shown = []
        for each in self.held_out:
            picture = images.read(each)
            size = images.fit(*picture.size, 2 * self.crops.side)
            shown.append((picture.name, images.resize(picture.rgb, size).clamp(0, 1)))
        return DataLoader(shown, batch_size=None)  # type: ignore[arg-type] # a list does for a data set


def _opens(photograph: Path) -> bool:
    try:
        with opened(photograph, str(photograph)) as image:
            return math.prod(image.size) > 0
    except ImageError:
        return False
