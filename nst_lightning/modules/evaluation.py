"""How a run evaluates its images: whole or in tiles, all at once or a few at a time, and against which targets."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

import lightning as L
import torch
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from nst_lightning import footprint
from nst_lightning.backbones import Backbone
from nst_lightning.batches import Step, Style
from nst_lightning.data import memory_for
from nst_lightning.errors import InputError
from nst_lightning.footprint import Footprint
from nst_lightning.losses import Objective
from nst_lightning.parallel import TileParallel
from nst_lightning.tiling import ALONE, Evaluator, Share, Tiled, Whole

Tile = int | Literal["off", "auto"]

_STYLES_KEPT = 64  # about 1.4 MB each for VGG's five layers
_MAPS_SHARE = 1 / 8  # of the memory that may be planned with, above which content targets are kept in half the bytes


class Evaluation:
    """Finds targets and scores of the batch that is optimised, within the memory there is.

    Args:
        backbone: The frozen network.
        objective: The weighted losses.
        make_optimizer: Makes the optimiser of a list with the one parameter; its memory counts.
        tile: Side of the tiles that the network sees one at a time, in pixels from 1; `auto` for the largest that fits,
            and none where the whole image does; `off` for the whole image.
        compile: Whether torch.compile makes the evaluation of whole images.

    Raises:
        InputError: If the tile is smaller than 1 px, or tiles are to be compiled.
    """

    def __init__(
        self,
        backbone: Backbone,
        objective: Objective,
        make_optimizer: OptimizerCallable,
        tile: Tile,
        compile: bool = False,
    ) -> None:
        if isinstance(tile, int) and tile < 1:
            msg = f"tile must be off, auto or a number of pixels from 1, got {tile}"
            raise InputError(msg)
        if compile and tile != "off":
            msg = f"compile works on whole images only: set tile to off, got {tile}"
            raise InputError(msg)
        self.tile = tile
        self._compile = compile
        self._backbone = backbone
        self._objective = objective
        self._make_optimizer = make_optimizer
        self._evaluator: Evaluator = Whole(backbone, objective)
        self._batch_index: int | None = None
        self._together = 1
        self._footprint: Footprint | None = None
        self._styles: OrderedDict[Hashable, dict[str, Tensor]] = OrderedDict()

    def forget(self) -> None:
        """Forgets what was measured and computed in an earlier run."""
        self._batch_index = self._footprint = None
        self._styles.clear()

    def check(self, trainer: L.Trainer) -> None:
        """Refuses to deal out tiles where there are none.

        Raises:
            InputError: If the strategy is tile_parallel and the tile is off.
        """
        if self.tile == "off" and isinstance(trainer.strategy, TileParallel):
            msg = "trainer.strategy tile_parallel deals out tiles: set model.tile to auto or a number of pixels"
            raise InputError(msg)

    def bytes_of_step(self, trainer: L.Trainer, pixels: int) -> int:
        """Returns the bytes that a step on one image of so many pixels takes on the trainer's device, as measured."""
        tile = self.tile_of(trainer, pixels, 1)
        at_once = None if tile is None else min(pixels, self._tiled(trainer, tile).plan.crop ** 2)
        return self.footprint(trainer).of_step(pixels, at_once)

    def tile_of(self, trainer: L.Trainer, pixels: int, count: int) -> int | None:
        """Returns the side of the tiles that images are evaluated in, None where they are evaluated whole.

        Args:
            trainer: Whose device and processes they are.
            pixels: Of each image.
            count: The number of images that are optimised together.
        """
        if self.tile == "off":
            return None
        if self.tile != "auto":
            return self.tile
        shared = isinstance(trainer.strategy, TileParallel)
        free, needed = memory_for(trainer), self.footprint(trainer)
        if not shared and count * needed.of_step(pixels) <= free:
            return None
        kept = needed.state.at(pixels) + needed.maps.at(pixels)
        crop = math.isqrt(max(0, needed.evaluation.pixels_within(free // count - kept)))
        plan = self._tiled(trainer, 1).plan
        tile = max(1, crop - plan.before - plan.after)
        if shared:  # a tile for every process, the same size in all
            tile = trainer.strategy.broadcast(max(1, min(tile, math.isqrt(pixels // trainer.world_size))))
        return tile

    def footprint(self, trainer: L.Trainer) -> Footprint:
        """Returns what a step takes in memory on the trainer's device, measured on small images at the first call."""
        if self._footprint is None:
            self._backbone.to(trainer.strategy.root_device)
            context = trainer.precision_plugin.forward_context
            self._footprint = footprint.measure(self._backbone, self._objective, self._make_optimizer, context)
        return self._footprint

    def begin(self, trainer: L.Trainer, step: Step) -> dict[str, Tensor]:
        """Returns the targets of the batch and stage of a step, and evaluates for them from here on."""
        if step.batch_index != self._batch_index:  # what was too much at one stage is at the next
            self._batch_index, self._together = step.batch_index, len(step.batch.pairs)
        self._evaluator = self._evaluator_of(trainer, step)
        # In the precision of training, so that the content loss of the content image is 0.
        with torch.no_grad(), trainer.precision_plugin.forward_context():
            return self._targets_of(trainer.strategy.root_device, step)

    def scores(self, image: Tensor, targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns every term's unweighted score, (N,) each, of images (N, 3, H, W) in [0, 1]."""
        if self._together >= len(image):
            return self._evaluator.scores(image, targets)
        parts = [
            # Not kept: the features, which are computed again for the gradient.
            checkpoint(
                self._evaluator.scores,
                image[first : first + self._together],
                {name: target[first : first + self._together] for name, target in targets.items()},
                use_reentrant=False,
            )
            for first in range(0, len(image), self._together)
        ]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def take_fewer(self, trainer: L.Trainer, image: Tensor) -> None:
        """Halves the number of images that are evaluated at once, after the memory did not hold them.

        Raises:
            InputError: If it was one already, or other processes would have to do the same.
        """
        height, width = image.shape[-2:]
        if self._together == 1 or isinstance(trainer.strategy, TileParallel):
            msg = f"out of memory at {width}x{height} px: take a smaller size, or --model.tile auto or a smaller one"
            raise InputError(msg)
        self._together = math.ceil(self._together / 2)
        if image.device.type == "cuda":
            torch.cuda.empty_cache()
        rank_zero_warn(
            f"out of memory with {len(image)} images of {width}x{height} px: {self._together} at a time from here"
        )

    def _evaluator_of(self, trainer: L.Trainer, step: Step) -> Evaluator:
        count = len(step.batch.pairs)
        pixels = step.batch.pixels(step.stage) // count
        tile = self.tile_of(trainer, pixels, count)
        if tile is None:
            return Whole(self._backbone, self._objective, self._compile)
        large = count * self.footprint(trainer).maps.at(pixels) > _MAPS_SHARE * memory_for(trainer)
        if trainer.strategy.broadcast(large):
            rank_zero_warn("for the memory, content targets are kept in bfloat16, which rounds them by up to 0.2 %")
            return self._tiled(trainer, tile, torch.bfloat16)
        return self._tiled(trainer, tile)

    def _tiled(self, trainer: L.Trainer, tile: int, map_dtype: torch.dtype | None = None) -> Tiled:
        share = Share.of_processes() if isinstance(trainer.strategy, TileParallel) else ALONE
        return Tiled(self._backbone, self._objective, tile, share, map_dtype)

    def _targets_of(self, device: torch.device, step: Step) -> dict[str, Tensor]:
        targets = {}
        if "content" in self._objective.sources:
            # One by one, as the styles are: the memory need not hold a batch's features.
            of_contents = [
                self._evaluator.targets("content", content[None].to(device))
                for content in step.batch.contents(step.stage)
            ]
            targets.update({name: torch.cat([each[name] for each in of_contents]) for name in of_contents[0]})
        if "style" in self._objective.sources:
            of_pairs = [_mean([self._of_style(device, style) for style in of]) for of in step.batch.styles(step.stage)]
            targets.update({name: torch.cat([of_pair[name] for of_pair in of_pairs]) for name in of_pairs[0]})
        return targets

    def _of_style(self, device: torch.device, style: Style) -> dict[str, Tensor]:
        """Returns a style image's targets, computed once for all pairs that are painted in it."""
        # Rounding differs between tiles and the whole, and no result may depend on what was painted before.
        key = style.key, self._evaluator.plan if isinstance(self._evaluator, Tiled) else None
        if key not in self._styles:
            self._styles[key] = self._evaluator.targets("style", style.image().to(device))
            if len(self._styles) > _STYLES_KEPT:
                self._styles.popitem(last=False)
        self._styles.move_to_end(key)
        return self._styles[key]


@contextmanager
def tensor_core_products(device: torch.device, precision: str) -> Iterator[None]:
    """Lets a GPU multiply float32 matrices in TF32 where the features are of half precision, which TF32 holds exactly.

    The Gram matrices of such features are float32 sums of exact products then as before, at seven times the rate on
    paper (NVIDIA's data sheet of the H100: 495 TFLOP/s of TF32, 67 of float32). Elsewhere nothing changes.

    Args:
        device: What is computed on.
        precision: The trainer's.
    """
    if device.type != "cuda" or precision not in {"bf16-mixed", "16-mixed"}:
        yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _mean(targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([each[name] for each in targets]).mean(dim=0) for name in targets[0]}
