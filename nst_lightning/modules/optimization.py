"""Optimises the pixels of images: one LightningModule for every job."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.plugins.precision.amp import MixedPrecision
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn

from nst_lightning import images, initializers, memory, optim
from nst_lightning.backbones import Backbone
from nst_lightning.batches import Step, Timeline
from nst_lightning.data import Worker, data_of
from nst_lightning.errors import InputError
from nst_lightning.losses import Objective, Values
from nst_lightning.memory import cores
from nst_lightning.modules.checks import check_trainer
from nst_lightning.modules.evaluation import Evaluation, Evaluations, tensor_core_products
from nst_lightning.modules.sizing import Sizing, Tile
from nst_lightning.pairs import Pair
from nst_lightning.parallel import PairParallel
from nst_lightning.progress import FORMAT, Saved, note_of
from nst_lightning.schedule import described

_LOOK_EVERY = 50  # steps between two looks at the pixels, for which a GPU has to wait


class ImageOptimization(L.LightningModule):
    """Optimises the pixels of images so that their features meet an objective.

    The only parameter is `image`, float32 (N, 3, H, W), sRGB in [0, 1] but not held there while it is
    optimised. A run is one epoch over the steps of a `batches.Timeline`; where a step begins a batch or stage, the
    image, its optimiser and its targets are made anew.

    Args:
        backbone: The frozen network.
        objective: The losses; their layers are the backbone's.
        weights: The weight of each group of losses, finite, >= 0; pairs may have their own.
        optimizer: As for `StyleTransfer`, as are those that follow.
        init: As above.
        seed: As above.
        tile: As above.
        compile: As above.

    Attributes:
        losses: What the images as they are were found to give, by name, (N,) each: `total` and its weighted
            parts `content`, `style`, `tv`; and the unweighted value of every term, e.g. `style/relu3_1`.
        settings: What the run was asked for, for the pictures' metadata and TensorBoard.
        sizing: Chooses how images are evaluated within the memory.
        evaluation: The current batch and stage's targets and weights; None before the first step.

    Raises:
        InputError: If an argument is out of range.
    """

    def __init__(
        self,
        backbone: Backbone,
        objective: Objective,
        weights: Mapping[str, float],
        optimizer: OptimizerCallable,
        init: str = "content",
        seed: int = 0,
        tile: Tile = "off",
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
        self.evaluation: Evaluation | None = None
        weighed = objective.only([group for group in objective.groups if weights[group] > 0])
        self.sizing = Sizing(backbone, weighed, optimizer, tile)
        self._evaluations = Evaluations(backbone, objective, weights, self.sizing, compile, seed)

    @property
    def result(self) -> Tensor:
        """The output images (N, 3, H, W), clamped to [0, 1], detached."""
        return self.image.detach().clamp(0, 1)

    def settings_of(self, step: Step, pair: Pair) -> dict[str, str | int | float]:
        """Returns what was asked for one pair of the run: the data's settings, the module's, and the pair's own."""
        of_run = {**data_of(self.trainer).settings, **self.settings, "precision": str(self.trainer.precision)}
        return {**of_run, **pair.settings, "stages": described(step.stages)}

    def bytes_of_step(self, worker: Worker, pixels: int) -> int:
        """Returns the bytes that a step on one image of so many pixels takes, as measured."""
        return self.sizing.bytes_of_step(worker, pixels)

    def check(self, worker: Worker, pairs: Sequence[Pair]) -> None:
        """Refuses pairs that would be left as they begin, and to deal out tiles where there are none.

        Raises:
            InputError: If there is such a pair or setting.
        """
        self.sizing.check(worker)
        self._evaluations.check(pairs)

    # ---- Lightning's hooks, in the order of a run ----

    def setup(self, stage: str) -> None:
        """Forgets an earlier run of the same module, and refuses a trainer or pairs that cannot work.

        Raises:
            InputError: If there is such a setting.
        """
        self.evaluation = None
        self.losses = {}
        if stage == "fit":
            check_trainer(self.trainer)
            self.check(Worker.of(self.trainer), data_of(self.trainer).pairs)

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

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Gives the parameter its shape before its values and its optimiser's state are loaded.

        Raises:
            InputError: If the run cannot go on from this checkpoint.
        """
        if self.trainer.world_size > 1 and isinstance(self.trainer.strategy, PairParallel):
            msg = "a checkpoint is of one process's pairs: resume with --resume and the run's folder"
            raise InputError(msg)
        note = checkpoint.get("batch")
        if note is None or note.get("format") != FORMAT:
            msg = "the checkpoint is of an earlier version, whose optimiser remembered otherwise: begin the run anew"
            raise InputError(msg)
        if self.trainer.state.fn == TrainerFn.FITTING:  # what is validated is one batch of a run, not all of its steps
            self._check_batch(Saved.of(Path(), note), checkpoint["global_step"])
        self.image = nn.Parameter(torch.empty_like(checkpoint["state_dict"]["image"]))

    def on_fit_start(self) -> None:
        """Has memory kept for the next step, and takes no more threads than the container has cores for."""
        if self.device.type == "cpu":
            memory.reuse_freed()
            if "OMP_NUM_THREADS" not in os.environ:  # a thread more than there are cores stops them all
                torch.set_num_threads(min(torch.get_num_threads(), cores()))

    def on_train_batch_start(self, batch: Step, batch_idx: int) -> None:
        """Moves on to the next batch or stage where the step begins one, or a run goes on."""
        if self.evaluation is None or batch.is_first or batch.starts_stage:
            self._begin(batch)

    def training_step(self, batch: Step, batch_idx: int) -> Tensor:
        """Returns the losses of the images, (N,)."""
        assert self.evaluation is not None
        values = self.evaluation.values(self.image, (self.seed + batch.index) % 2**63)
        self._note_losses(values)
        return self.evaluation.objective.total(values, self.evaluation.weights)

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Calls backward on the sum over images, so that each one's gradient is that of its own loss."""
        torch.autograd.backward(loss.sum())

    def optimizer_step(
        self,
        epoch: int,
        batch_idx: int,
        optimizer: torch.optim.Optimizer | LightningOptimizer,
        optimizer_closure: Callable[[], Any] | None = None,
    ) -> None:
        """Takes a step, of fewer images at once where the memory does not hold them all.

        Raises:
            InputError: If a stage begins with a loss that is not finite, which no optimiser could lower, or the images
                are not finite any more.
        """
        before = self.losses
        while True:
            try:
                with tensor_core_products(self.device, str(self.trainer.precision)):
                    super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
                break
            except (RuntimeError, MemoryError) as error:
                if not memory.is_out_of_memory(error):
                    raise
            # Behind the clause, whose traceback keeps the graph that did not fit.
            self._forget_step(before)
        self._settle(batch_idx, before, optimizer)

    def validation_step(self, batch: Step, batch_idx: int) -> None:
        """Shows the image of a checkpoint, for the callbacks to look at."""
        assert batch.batch.saved is not None
        self.image = nn.Parameter(self._loaded(batch.batch.saved)["state_dict"]["image"])

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Saves where the run is, as `progress.Saved` reads it."""
        step = data_of(self.trainer).last_step()
        if step is not None:
            checkpoint["batch"] = note_of(step.batch.names, step.stages, step.index + 1)

    def on_fit_end(self) -> None:
        """Leaves the process's memory as it was."""
        memory.give_back()

    # ---- what they call ----

    def _begin(self, step: Step) -> None:
        """Makes the image, its optimiser and its evaluation for a batch or stage that begins or goes on."""
        if step.is_first and step.batch.saved is not None:
            self._restore(step.batch.saved)
        before = step.before
        if before is None:
            self._place(self._initial_image(step).to(self.device))
        elif step.starts_stage:
            self._enlarge(step.batch.output_size(step.stage))
        # What was too much at one stage is at the next.
        goes_on = before is not None and self.evaluation is not None
        together = self.evaluation.together if goes_on else len(step.batch.pairs)  # type: ignore[union-attr]
        self.losses = {}
        self.evaluation = self._evaluations.begin(Worker.of(self.trainer), step, together)

    def _restore(self, saved: Saved) -> None:
        """Takes image and optimiser from a checkpoint, which may be of the end of the stage before."""
        checkpoint = self._loaded(saved)
        self._place(checkpoint["state_dict"]["image"])
        self.trainer.optimizers[0].load_state_dict(checkpoint["optimizer_states"][0])
        plugin = self.trainer.precision_plugin
        plugin.load_state_dict(checkpoint.get(type(plugin).__qualname__, {}))

    def _loaded(self, saved: Saved) -> dict[str, Any]:
        checkpoint: dict[str, Any] = torch.load(saved.path, map_location=self.device, weights_only=True)
        return checkpoint

    def _enlarge(self, size: tuple[int, int]) -> None:
        """Brings the image and what its optimiser remembers to a size (H, W) in pixels."""
        (optimizer,) = self.trainer.optimizers
        within_range = partial(nn.functional.interpolate, size=size, mode="bilinear", antialias=True)
        state = optim.carried_state(optimizer.state[self.image], self.image.shape, within_range)
        self._place(images.resize(self.image.detach(), size))
        if state is not None:
            self.trainer.optimizers[0].state[self.image] = state

    def _place(self, image: Tensor) -> None:
        self.image = nn.Parameter(image)
        self.trainer.strategy.setup_optimizers(self.trainer)

    def _initial_image(self, step: Step) -> Tensor:
        contents, styles = step.batch.contents(step.stage), step.batch.styles(step.stage)
        starts = [
            initializers.initial_image(
                self.init if pair.init is None else pair.init,
                content[None],
                style[0].image(),
                self.seed if pair.seed is None else pair.seed,
            )
            for pair, content, style in zip(step.batch.pairs, contents, styles, strict=True)
        ]
        return torch.cat(starts)

    def _note_losses(self, values: Values) -> None:
        assert self.evaluation is not None
        found = {name: value.detach() for name, value in values.items()}
        self.losses = {**found, **self.evaluation.objective.contributions(found, self.evaluation.weights)}

    def _forget_step(self, losses: dict[str, Tensor]) -> None:
        """Makes ready to take a step again that the memory did not hold."""
        assert self.evaluation is not None
        self.evaluation.take_fewer(self.image)
        self.zero_grad(set_to_none=True)
        self.losses = losses

    def _settle(
        self, number: int, before: dict[str, Tensor], optimizer: torch.optim.Optimizer | LightningOptimizer
    ) -> None:
        """Checks what a step made, and keeps the losses of the images that the optimiser took back with the images."""
        self._check_image(number)
        inner = optimizer.optimizer if isinstance(optimizer, LightningOptimizer) else optimizer
        if not before:
            self._check_losses()
        elif isinstance(inner, optim.LBFGS):
            taken = inner.accepted
            self.losses = {name: torch.where(taken, value, before[name]) for name, value in self.losses.items()}

    def _check_image(self, number: int) -> None:
        """Looks at the pixels once in a while, and before they are written."""
        timeline = self.trainer.train_dataloader
        assert isinstance(timeline, Timeline)
        step = timeline.step(number)
        if (step.is_last or step.index % _LOOK_EVERY == 0) and not bool(self.image.isfinite().all()):
            msg = (
                f"{', '.join(step.batch.names)}: pixels that are not finite after step {step.index + 1}: "
                f"take a smaller learning rate, or another precision than {self.trainer.precision}"
            )
            raise InputError(msg)

    def _check_losses(self) -> None:
        wrong = [name for name, value in self.losses.items() if not bool(value.isfinite().all())]
        if wrong:
            msg = (
                f"the loss is not finite when a stage begins ({', '.join(wrong[:3])}): "
                "are the weights, or is the learning rate, far too large?"
            )
            raise InputError(msg)

    def _check_batch(self, saved: Saved, taken: int) -> None:
        """Refuses a checkpoint, after so many steps of the run, of a batch that this run would not go on with."""
        timeline = Timeline(data_of(self.trainer).batches)
        batch = timeline.step(taken - 1).batch if 0 < taken <= len(timeline) else None
        if batch is not None and saved.taken < batch.steps and not batch.continues(saved):
            msg = (
                f"the checkpoint is of {', '.join(saved.names)}, {described(saved.stages)}, this run would go on with "
                f"{', '.join(batch.names)}, {described(batch.stages)}: resume with the settings of that run"
            )
            raise InputError(msg)
