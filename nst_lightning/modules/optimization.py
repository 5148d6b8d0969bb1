"""Optimises the pixels of images: one LightningModule for every job."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import lightning as L
import torch
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.plugins.precision.amp import MixedPrecision
from torch import Tensor, nn

from nst_lightning import images, initializers, memory, optim
from nst_lightning.backbones import Backbone
from nst_lightning.batches import Saved, Step
from nst_lightning.cgroups import cores
from nst_lightning.data import data_of
from nst_lightning.errors import InputError
from nst_lightning.losses import Objective
from nst_lightning.modules.checks import check_trainer
from nst_lightning.modules.convergence import Convergence, at
from nst_lightning.modules.evaluation import Evaluation, Tile, tensor_core_products
from nst_lightning.pairs import Pair
from nst_lightning.parallel import PairParallel
from nst_lightning.schedule import described

_LOOK_EVERY = 50


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
        tolerance: An image whose loss fell by less than this part in twenty steps rests until the stage ends, see
            `Convergence`; 0 lets nobody rest.
        compile: Whether torch.compile makes the evaluation of whole images, anew for every size.

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
        tolerance: float = 0.0,
        compile: bool = False,
    ) -> None:
        super().__init__()
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
        self.evaluation = Evaluation(backbone, objective, optimizer, tile, compile)
        self._convergence = Convergence(tolerance)
        self._step: Step | None = None
        self._factors: dict[str, Tensor] = {}

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
        self.evaluation.forget()

    def on_fit_start(self) -> None:
        """Checks the trainer, see `check_trainer`, and the pairs' own settings.

        Raises:
            InputError: If a pair weighs a loss that the run leaves out.
        """
        check_trainer(self.trainer)
        self.evaluation.check(self.trainer)
        if self.device.type == "cpu":
            memory.reuse_freed()
            if "OMP_NUM_THREADS" not in os.environ:  # a thread more than the container has cores for stops them all
                torch.set_num_threads(min(torch.get_num_threads(), cores()))
        weights = self.objective.weights
        for pair in data_of(self.trainer).pairs:
            missing = [group for group, weight in pair.weights.items() if weight > 0 and group not in weights]
            if missing:
                msg = f"pair {pair.name} has a {missing[0]}_weight of its own, but the run leaves {missing[0]} out"
                raise InputError(msg)

    def on_fit_end(self) -> None:
        """Leaves the process's memory as it was."""
        memory.give_back()

    def on_train_batch_start(self, batch: Step, batch_idx: int) -> None:
        """Moves on to the next batch or stage where the step belongs to one."""
        self._step = batch
        if batch.position != self._position:
            self._begin(batch)
        if batch.position != self._targets_position:  # also after a resume in the middle of a stage
            self._check_size(batch)
            self.targets = self.evaluation.begin(self.trainer, batch)
            self._factors = self._factors_of(batch)
            self._targets_position = batch.position

    def training_step(self, batch: Step, batch_idx: int) -> Tensor:
        """Returns the losses of the images, (N,); those of images that rest are as they were."""
        awake, before = self._awake, self.losses
        if awake is not None and len(awake) == 0:
            return before["total"]
        factors = at(awake, self._factors)
        scores = self.evaluation.scores(self.image if awake is None else self.image[awake], at(awake, self.targets))
        total = self.objective.total(scores, factors)
        found = {name: score.detach() for name, score in scores.items()}
        self.losses = {**found, **self.objective.contributions(found, factors)}
        if awake is None:
            return total
        self.losses = {name: before[name].index_copy(0, awake, value) for name, value in self.losses.items()}
        return before["total"].index_copy(0, awake, total)

    @property
    def _awake(self) -> Tensor | None:
        """The places of the images that are evaluated, (n,), None for all: also where no losses are known yet."""
        return self._convergence.awake if self.losses else None

    def validation_step(self, batch: Step, batch_idx: int) -> None:
        """Checks that the image is the one of a step, for the callbacks to look at.

        Raises:
            InputError: If it is not.
        """
        self._check_size(batch)

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Calls backward on the sum over images, so that each one's gradient is that of its own loss."""
        if loss.requires_grad:  # not where all images rest
            torch.autograd.backward(loss.sum())

    def settings_of(self, step: Step, pair: Pair) -> dict[str, str | int | float]:
        """Returns what was asked for one pair of the run: the data's settings, the module's, and the pair's own."""
        of_run = {**data_of(self.trainer).settings, **self.settings}
        return {**of_run, **pair.settings, "stages": described(step.stages)}

    def bytes_of_step(self, pixels: int) -> int:
        """Returns the bytes that a step on one image of so many pixels takes on the trainer's device, as measured."""
        return self.evaluation.bytes_of_step(self.trainer, pixels)

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
        if self._awake is not None and len(self._awake) == 0:
            assert optimizer_closure is not None
            optimizer_closure()  # Lightning asks for its result
            return
        before, awake = self.losses, self._convergence.awake
        resting = None if awake is None else self.image.detach().clone()
        try:
            with tensor_core_products(self.device, str(self.trainer.precision)):
                super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        except (RuntimeError, MemoryError) as error:
            if not memory.is_out_of_memory(error):
                raise
            self.evaluation.take_fewer(self.trainer, self.image)
            self.zero_grad(set_to_none=True)
            self.losses = before
            self.optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
            return
        if awake is not None and resting is not None:
            self.image.data.copy_(resting.index_copy(0, awake, self.image.detach()[awake]))
        self._check_image()
        inner = optimizer.optimizer if isinstance(optimizer, LightningOptimizer) else optimizer
        if not before:
            self._check_finite()
        elif isinstance(inner, optim.LBFGS):
            self.losses = {
                name: torch.where(inner.accepted, value, before[name]) for name, value in self.losses.items()
            }
        self._convergence.look(self.losses["total"])

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Saves which batch and stage the image belongs to, by place for Lightning, by name for `batches.Saved`."""
        checkpoint["position"] = self._position
        checkpoint["convergence"] = self._convergence.state_dict()
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
            InputError: If several processes have pairs of their own, which one checkpoint cannot hold, or it is of an
                earlier version.
        """
        if self.trainer.world_size > 1 and isinstance(self.trainer.strategy, PairParallel):
            msg = "a checkpoint is of one process's pairs: resume with --resume and the run's folder"
            raise InputError(msg)
        if "convergence" not in checkpoint:
            msg = "the checkpoint is of an earlier version, whose optimiser remembered otherwise: begin the run anew"
            raise InputError(msg)
        self.image = nn.Parameter(torch.empty_like(checkpoint["state_dict"]["image"]))
        position = checkpoint["position"]
        self._position = None if position is None else tuple(position)
        self._convergence.load_state_dict(checkpoint["convergence"])

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
        self._convergence.load_state_dict(checkpoint["convergence"])
        self.trainer.optimizers[0].load_state_dict(checkpoint["optimizer_states"][0])
        plugin = self.trainer.precision_plugin
        plugin.load_state_dict(checkpoint.get(type(plugin).__qualname__, {}))

    def _place(self, image: Tensor, position: tuple[int, int]) -> None:
        self.image = nn.Parameter(image)
        self.losses = {}
        self._convergence.begin()
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
