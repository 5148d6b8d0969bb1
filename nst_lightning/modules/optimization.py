"""Optimises the pixels of images: one LightningModule for every job."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.plugins.precision.amp import MixedPrecision
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from nst_lightning import footprint, images, initializers, memory, optim
from nst_lightning.backbones import Backbone
from nst_lightning.batches import Saved, Step, Style
from nst_lightning.data import data_of, is_writer, memory_for
from nst_lightning.errors import InputError
from nst_lightning.footprint import Footprint
from nst_lightning.losses import Objective
from nst_lightning.strategies import TileParallel, check_world
from nst_lightning.tiling import ALONE, Evaluator, Share, Tiled, Whole

Tile = int | Literal["off", "auto"]

_STYLES_KEPT = 64  # about 1.4 MB each for VGG's five layers
_PRECISIONS = ("32-true", "64-true", "bf16-mixed", "16-mixed")
_LOOK_EVERY = 50
_MAPS_SHARE = 1 / 8  # of the free memory, above which content targets are kept in half the bytes


class ImageOptimization(L.LightningModule):
    """Optimises the pixels of images so that their features meet an objective.

    The only parameter is `image`, float32 (N, 3, H, W), sRGB in [0, 1] but not held there while it is
    optimised. A run is one epoch over the steps of a `data.Timeline`; where a step belongs to another batch or
    stage than the image does, the image, its optimiser and its targets are made anew.

    Args:
        backbone: The frozen network.
        objective: The weighted losses; their layers are the backbone's.
        optimizer: Makes the optimiser of a list with the one parameter.
        init: What the first stage starts from: `content`, `style`, `gaussian` or `uniform`.
        seed: The seed of the noise.
        tile: Side of the tiles that the network sees one at a time, in pixels, `auto` or `off`, see `tiling`.

    Attributes:
        losses: What the images as they are were found to give, by name, (N,) each: `total` and its weighted
            parts `content`, `style`, `tv`; and the unweighted score of every term, e.g. `style/relu3_1`.
        targets: What the losses compare with, by the term's name, (N, ...) each; of the current batch and stage.
        settings: What the run was asked for, for the pictures' metadata and TensorBoard.
    """

    def __init__(
        self,
        backbone: Backbone,
        objective: Objective,
        optimizer: OptimizerCallable,
        init: str = "content",
        seed: int = 0,
        tile: Tile = "off",
    ) -> None:
        super().__init__()
        if isinstance(tile, int) and tile < 1:
            msg = f"tile must be off, auto or a number of pixels from 1, got {tile}"
            raise InputError(msg)
        if init not in initializers.INITIALIZERS:
            msg = f"unknown init {init!r}; known are {', '.join(initializers.INITIALIZERS)}"
            raise InputError(msg)
        if not 0 <= seed < 2**63:
            msg = f"seed must be a whole number from 0 to 2**63 - 1, got {seed}"
            raise InputError(msg)
        self.backbone = backbone
        self.objective = objective
        self.make_optimizer = optimizer
        self.init = init
        self.seed = seed
        self.image = nn.Parameter(torch.zeros(1, 3, 1, 1))  # of no meaning before the first step
        self.losses: dict[str, Tensor] = {}
        self.settings: dict[str, str | int | float] = {}
        self._position: tuple[int, int] | None = None
        self.targets: dict[str, Tensor] = {}
        self._targets_position: tuple[int, int] | None = None
        self.tile = tile
        self._evaluator: Evaluator = Whole(backbone, objective)
        self._step: Step | None = None
        self._factors: dict[str, Tensor] = {}
        self._together = 1
        self._footprint: Footprint | None = None
        self._styles: OrderedDict[Hashable, dict[str, Tensor]] = OrderedDict()

    @property
    def result(self) -> Tensor:
        """The output images (N, 3, H, W), clamped to [0, 1], detached."""
        return self.image.detach().clamp(0, 1)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Makes the optimiser of the current image.

        Raises:
            InputError: If a batch would share the curvature of one L-BFGS, or its gradients would be scaled.
        """
        optimizer = self.make_optimizer([self.image])
        if isinstance(optimizer, torch.optim.LBFGS) and len(self.image) > 1:
            msg = "torch.optim.LBFGS couples the images of a batch: use nst_lightning.optim.LBFGS or batch_size 1"
            raise InputError(msg)
        scales = isinstance(plugin := self.trainer.precision_plugin, MixedPrecision) and plugin.scaler is not None
        if scales and isinstance(optimizer, (torch.optim.LBFGS, optim.LBFGS)):
            msg = (
                "precision 16-mixed scales the gradients, which an L-BFGS cannot work with: "
                "use bf16-mixed, or --optimizer adam"
            )
            raise InputError(msg)
        return optimizer

    def setup(self, stage: str) -> None:
        """Forgets an earlier run of the same module, but for its image."""
        self._position = self._targets_position = None
        self.losses = {}

    def on_fit_start(self) -> None:
        """Checks the trainer, see `check_trainer`, and the pairs' own settings.

        Raises:
            InputError: If a pair weighs a loss that the run leaves out.
        """
        check_trainer(self.trainer)
        if self.tile == "off" and isinstance(self.trainer.strategy, TileParallel):
            msg = "trainer.strategy tile_parallel deals out tiles: set model.tile to auto or a number of pixels"
            raise InputError(msg)
        weights = self.objective.weights
        for pair in data_of(self.trainer).pairs:
            missing = [group for group, weight in pair.weights.items() if weight > 0 and group not in weights]
            if missing:
                msg = f"pair {pair.name} has a {missing[0]}_weight of its own, but the run leaves {missing[0]} out"
                raise InputError(msg)

    def on_train_batch_start(self, batch: Step, batch_idx: int) -> None:
        """Moves on to the next batch or stage where the step belongs to one."""
        self._step = batch
        if batch.position != self._position:
            self._begin(batch)
        if batch.position != self._targets_position:  # also after a resume in the middle of a stage
            self._check_size(batch)
            self._evaluator = self._evaluator_of(batch)
            self.targets = self._targets_of(batch)
            self._factors = self._factors_of(batch)
            self._targets_position = batch.position

    def training_step(self, batch: Step, batch_idx: int) -> Tensor:
        """Returns the losses of the images, (N,)."""
        scores = self._scores()
        total = self.objective.total(scores, self._factors)
        found = {name: score.detach() for name, score in scores.items()}
        self.losses = {**found, **self.objective.contributions(found, self._factors)}
        return total

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Calls backward on the sum over images, so that each one's gradient is that of its own loss."""
        torch.autograd.backward(loss.sum())

    def bytes_of_step(self, pixels: int) -> int:
        """Returns the bytes that a step on one image of so many pixels takes on the trainer's device, as measured."""
        tile = self.tile_of(pixels, 1)
        return self.footprint().of_step(pixels, None if tile is None else min(pixels, self._tiled(tile).plan.crop ** 2))

    def tile_of(self, pixels: int, count: int) -> int | None:
        """Returns the side of the tiles that images are evaluated in, None where they are evaluated whole.

        Args:
            pixels: Of each image.
            count: The number of images that are optimised together.
        """
        if self.tile == "off":
            return None
        if self.tile != "auto":
            return self.tile
        shared = isinstance(self.trainer.strategy, TileParallel)
        free = memory_for(self.trainer)
        if not shared and count * self.footprint().of_step(pixels) <= free:
            return None
        kept = self.footprint().state.at(pixels) + self.footprint().maps.at(pixels)
        crop = math.isqrt(max(0, self.footprint().evaluation.pixels_within(free // count - kept)))
        plan = self._tiled(1).plan
        tile = max(1, crop - plan.before - plan.after)
        if shared:  # a tile for every process, the same size in all
            tile = self.trainer.strategy.broadcast(min(tile, math.isqrt(pixels // self.trainer.world_size)))
        return tile

    def footprint(self) -> Footprint:
        """Returns what a step takes in memory on the trainer's device, measured on small images at the first call."""
        if self._footprint is None:
            self.backbone.to(self.trainer.strategy.root_device)
            context = self.trainer.precision_plugin.forward_context
            self._footprint = footprint.measure(self.backbone, self.objective, self.make_optimizer, context)
        return self._footprint

    def optimizer_step(
        self,
        epoch: int,
        batch_idx: int,
        optimizer: torch.optim.Optimizer | LightningOptimizer,
        optimizer_closure: Callable[[], Any] | None = None,
    ) -> None:
        """Takes a step, and keeps the losses of the images that the optimiser took back with the images.

        Raises:
            InputError: If a stage begins with a loss that is not finite, which no optimiser could lower, or the images
                are not finite any more.
        """
        before = self.losses
        try:
            super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        except (RuntimeError, MemoryError) as error:
            if not memory.is_out_of_memory(error):
                raise
            self._evaluate_fewer_at_once()
            self.losses = before
            self.optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
            return
        self._check_image()
        inner = optimizer.optimizer if isinstance(optimizer, LightningOptimizer) else optimizer
        if not before:
            self._check_finite()
        elif isinstance(inner, optim.LBFGS):
            self.losses = {
                name: torch.where(inner.accepted, value, before[name]) for name, value in self.losses.items()
            }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Saves which batch and stage the image belongs to, by place for Lightning, by name for `batches.Saved`."""
        checkpoint["position"] = self._position
        step = data_of(self.trainer).last_step()
        if step is not None and self._position is not None and step.batch_index == self._position[0]:
            checkpoint["batch"] = {
                "names": list(step.batch.names),
                "stages": [[stage.size, stage.steps] for stage in step.stages],
                "stage_index": self._position[1],
                "taken": step.index + 1,
            }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Gives the parameter its shape before its values and its optimiser's state are loaded.

        Raises:
            InputError: If several processes have pairs of their own, which one checkpoint cannot hold.
        """
        if self.trainer.world_size > 1 and is_writer(self.trainer) and not self.trainer.is_global_zero:
            msg = "a checkpoint is of one process's pairs: resume with --resume and the run's folder"
            raise InputError(msg)
        self.image = nn.Parameter(torch.empty_like(checkpoint["state_dict"]["image"]))
        position = checkpoint["position"]
        self._position = None if position is None else tuple(position)
        self._together = len(self.image)

    def _check_image(self) -> None:
        """Looks at the pixels once in a while, for a GPU has to wait for it, and before they are written."""
        step = self._step
        assert step is not None
        if (step.is_last or step.index % _LOOK_EVERY == 0) and not bool(self.image.isfinite().all()):
            msg = (
                f"{', '.join(step.batch.names)}: pixels that are not finite after step {step.index + 1}: "
                f"take a smaller learning rate, or another precision than {self.trainer.precision}"
            )
            raise InputError(msg)

    def _check_finite(self) -> None:
        wrong = [name for name, value in self.losses.items() if not bool(value.isfinite().all())]
        if wrong:
            msg = (
                f"the loss is not finite when a stage begins ({', '.join(wrong[:3])}): "
                "are the weights, or is the learning rate, far too large?"
            )
            raise InputError(msg)

    def _check_order(self, step: Step) -> None:
        if self._position is None:
            return
        batch_index, stage_index = self._position
        if step.position not in {(batch_index, stage_index + 1), (batch_index + 1, 0)}:
            msg = (
                f"the checkpoint is from stage {stage_index + 1} of batch {batch_index + 1}, this run would go on with "
                f"stage {step.stage_index + 1} of batch {step.batch_index + 1}: resume with the settings of that run"
            )
            raise InputError(msg)

    def _check_size(self, step: Step) -> None:
        expected = (len(step.batch.pairs), *step.batch.output_size(step.stage))
        count, _, height, width = self.image.shape
        if (count, height, width) != expected:
            msg = (
                f"the checkpoint holds {count} images of {width}x{height} px, this run asks for {expected[0]} of "
                f"{expected[2]}x{expected[1]} px: resume with the settings of that run"
            )
            raise InputError(msg)

    def _scores(self) -> dict[str, Tensor]:
        if self._together >= len(self.image):
            return self._evaluator.scores(self.image, self.targets)
        parts = [
            # Not kept: the features, which are computed again for the gradient.
            checkpoint(
                self._evaluator.scores,
                self.image[first : first + self._together],
                {name: target[first : first + self._together] for name, target in self.targets.items()},
                use_reentrant=False,
            )
            for first in range(0, len(self.image), self._together)
        ]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def _evaluate_fewer_at_once(self) -> None:
        """Halves the number of images that are evaluated together, after the memory did not hold them.

        Raises:
            InputError: If it was one already.
        """
        height, width = self.image.shape[-2:]
        if self._together == 1:
            msg = f"out of memory at {width}x{height} px: take a smaller size, or --model.tile auto"
            raise InputError(msg)
        self._together = math.ceil(self._together / 2)
        self.zero_grad(set_to_none=True)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        rank_zero_warn(
            f"out of memory with {len(self.image)} images of {width}x{height} px: {self._together} at a time from here"
        )

    def _begin(self, step: Step) -> None:
        """Makes the image and its optimiser for a batch or stage that begins, or that goes on from a checkpoint."""
        batch_index, stage_index = step.position
        if step.batch.saved is not None and (self._position is None or self._position[0] != batch_index):
            self._restore(step, step.batch.saved)
            if self._position == step.position:
                return
        self._check_order(step)
        size = step.batch.output_size(step.stage)
        if self._position == (batch_index, stage_index - 1):
            (optimizer,) = self.trainer.optimizers
            within_range = partial(nn.functional.interpolate, size=size, mode="bilinear", antialias=True)
            state = optim.carried_state(optimizer.state[self.image], self.image.shape, within_range)
            image = images.resize(self.image.detach(), size)
        else:
            state = None
            image = self._initial_image(step).to(self.device)
        self._place(image, step.position)
        if state is not None:
            self.trainer.optimizers[0].state[self.image] = state

    def _restore(self, step: Step, saved: Saved) -> None:
        """Takes image and optimiser from a checkpoint, which may be of the end of the stage before."""
        checkpoint = torch.load(saved.path, map_location=self.device, weights_only=True)
        self._place(checkpoint["state_dict"]["image"], (step.batch_index, saved.stage_index))
        self.trainer.optimizers[0].load_state_dict(checkpoint["optimizer_states"][0])
        plugin = self.trainer.precision_plugin
        plugin.load_state_dict(checkpoint.get(type(plugin).__qualname__, {}))

    def _place(self, image: Tensor, position: tuple[int, int]) -> None:
        if self._position is None or self._position[0] != position[0]:
            self._together = len(image)  # what was too much at one stage is at the next
        self.image = nn.Parameter(image)
        self.losses = {}
        self._position = position
        self.trainer.strategy.setup_optimizers(self.trainer)

    def _initial_image(self, step: Step) -> Tensor:
        contents, styles = step.batch.contents(step.stage), step.batch.styles(step.stage)
        return torch.cat(
            [
                initializers.initial_image(
                    self.init if pair.init is None else pair.init,
                    content[None],
                    of_pair[0].image(),
                    self.seed if pair.seed is None else pair.seed,
                )
                for pair, content, of_pair in zip(step.batch.pairs, contents, styles, strict=True)
            ]
        )

    def _factors_of(self, step: Step) -> dict[str, Tensor]:
        """Returns what the weights of pairs that have their own are multiplied by, by group, (N,) each."""
        own = {group for pair in step.batch.pairs for group in pair.weights}
        return {
            group: torch.tensor(
                [pair.weights.get(group, weight) / weight for pair in step.batch.pairs], device=self.device
            )
            for group, weight in self.objective.weights.items()
            if group in own
        }

    def _evaluator_of(self, step: Step) -> Evaluator:
        count = len(step.batch.pairs)
        pixels = step.batch.pixels(step.stage) // count
        tile = self.tile_of(pixels, count)
        if tile is None:
            return Whole(self.backbone, self.objective)
        large = count * self.footprint().maps.at(pixels) > _MAPS_SHARE * memory_for(self.trainer)
        if self.trainer.strategy.broadcast(large):
            rank_zero_warn("for the memory, content targets are kept in bfloat16, which rounds them by up to 0.2 %")
            return self._tiled(tile, torch.bfloat16)
        return self._tiled(tile)

    def _tiled(self, tile: int, map_dtype: torch.dtype | None = None) -> Tiled:
        shared = isinstance(self.trainer.strategy, TileParallel)
        return Tiled(self.backbone, self.objective, tile, Share.of_processes() if shared else ALONE, map_dtype)

    @torch.no_grad()
    def _targets_of(self, step: Step) -> dict[str, Tensor]:
        # In the precision of training, so that the content loss of the content image is 0.
        with self.trainer.precision_plugin.forward_context():
            targets = {}
            if "content" in self.objective.sources:
                # One by one, as the styles are, for the memory of a step need not hold a batch's features.
                of_contents = [
                    self._evaluator.targets("content", content[None].to(self.device))
                    for content in step.batch.contents(step.stage)
                ]
                targets.update({name: torch.cat([each[name] for each in of_contents]) for name in of_contents[0]})
            if "style" in self.objective.sources:
                of_pairs = [_mean([self._of_style(style) for style in of]) for of in step.batch.styles(step.stage)]
                targets.update({name: torch.cat([of_pair[name] for of_pair in of_pairs]) for name in of_pairs[0]})
        return targets

    def _of_style(self, style: Style) -> dict[str, Tensor]:
        """Returns a style image's targets, computed once for all pairs that are painted in it."""
        # Rounding differs between tiles and the whole, and no result may depend on what was painted before.
        key = style.key, self._evaluator.plan if isinstance(self._evaluator, Tiled) else None
        if key not in self._styles:
            self._styles[key] = self._evaluator.targets("style", style.image().to(self.device))
            if len(self._styles) > _STYLES_KEPT:
                self._styles.popitem(last=False)
        self._styles.move_to_end(key)
        return self._styles[key]


def check_trainer(trainer: L.Trainer) -> None:
    """Refuses settings under which a step would not be one evaluation of one image.

    Raises:
        InputError: If the trainer accumulates gradients, has another number of epochs than 1, a precision in which
            the image or the losses would be less than float32, or processes that would get in each other's way,
            see `strategies.check_world`.
    """
    for name, value in (
        ("accumulate_grad_batches", trainer.accumulate_grad_batches),
        ("max_epochs", trainer.max_epochs),
    ):
        if value != 1:
            msg = f"trainer.{name} must be 1, got {value}: a run is one epoch (see data.steps)"
            raise InputError(msg)
    if trainer.precision not in _PRECISIONS:
        msg = f"trainer.precision must be one of {', '.join(_PRECISIONS)}, got {trainer.precision}"
        raise InputError(msg)
    check_world(trainer)


def _mean(targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([each[name] for each in targets]).mean(dim=0) for name in targets[0]}
