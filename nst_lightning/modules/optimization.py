"""Optimises the pixels of images: one LightningModule for every job."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.plugins.precision.amp import MixedPrecision
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn

from nst_lightning import images, memory, optim
from nst_lightning.batches import Batch, Step, Timeline
from nst_lightning.data import Worker, data_of
from nst_lightning.errors import InputError, in_one_line, is_out_of_memory
from nst_lightning.initializers import initial_image
from nst_lightning.memory import cores
from nst_lightning.modules.evaluation import Evaluation, Evaluations, Sizing
from nst_lightning.modules.problem import Problem
from nst_lightning.modules.trainer import check_trainer, tell_of_precision
from nst_lightning.pairs import Pair
from nst_lightning.parallel import PairParallel
from nst_lightning.precision import true_float32
from nst_lightning.progress import FORMAT, Saved, loaded, note_of
from nst_lightning.schedule import described
from nst_lightning.terminal import say

_Optimizer = torch.optim.Optimizer | LightningOptimizer
_QUASI_NEWTON = (torch.optim.LBFGS, optim.LBFGS)
_LOOK_EVERY = 50  # steps between two looks at the pixels, for which a GPU has to wait
_TRIES = 3  # for how often, at a stage, an image goes back to where it was last whole


def tag_of(loss: str) -> str:
    """Returns the name of a loss's curve."""
    return f"term/{loss}" if "/" in loss else f"loss/{loss}"


class ImageOptimization(L.LightningModule):
    """Optimises the pixels of images so that their features meet an objective.

    The only parameter is `image`, float32 (N, 3, H, W), sRGB in [0, 1] but not held there while it is
    optimised. A run is one epoch over the steps of a `batches.Timeline`; where a step begins a batch or stage, the
    image, its optimiser and its targets are made anew.

    What the images as they are were found to give is in `losses`, by name, (N,) each: `total` and its weighted parts
    `content`, `style`, `tv`; and the unweighted value of every term, e.g. `style/relu3_1`.
    """

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        self.problem = problem
        self.backbone = problem.backbone
        self.objective = problem.objective
        self.image = nn.Parameter(torch.zeros(1, 3, 1, 1))  # of no meaning before the first step
        self.losses: dict[str, Tensor] = {}
        self.settings: dict[str, str | int | float] = {}  # for the pictures' metadata and TensorBoard
        self.evaluation: Evaluation | None = None  # of the current batch and stage; None before the first step
        self.stuck: Step | None = None  # the step that is taken, or that could not be
        self.shown: Step | None = None  # one of the batch and stage that the image is of
        self._graph: optim.StepGraph | None = None  # of a step at this stage, if asked for
        self._whole: Tensor | None = None  # the image as it was when it was last looked at, at this stage
        self._left = 0  # how often it may still go back there
        self.sizing = Sizing(problem)
        self._evaluations = Evaluations(problem, self.sizing)

    @property
    def result(self) -> Tensor:
        """The output pictures (N, 3, H, W), clamped to [0, 1], detached, in the colours that were asked for."""
        image = self.image.detach()
        image = (image if self.evaluation is None else self.evaluation.picture(image)).clamp(0, 1)
        return image if self.shown is None else self.shown.batch.pictures(image, self.shown.stage)

    def settings_of(self, step: Step, pair: Pair) -> dict[str, str | int | float]:
        """Returns what was asked for one pair of the run: the data's settings, the module's, and the pair's own."""
        of_run = {**data_of(self.trainer).settings, **self.settings, "precision": str(self.trainer.precision)}
        return {**of_run, **pair.settings, "stages": described(step.stages)}

    def bytes_of_step(self, worker: Worker, pixels: int) -> int:
        """Returns the bytes that a step on one image of so many pixels takes, see `data.Measured`."""
        return self.sizing.bytes_of_step(worker, pixels)

    # ---- Lightning's hooks, in the order of a run ----

    def setup(self, stage: str) -> None:
        """Forgets an earlier run of the same module; raises an InputError for a trainer or pairs that cannot work."""
        self.evaluation = self.shown = self._graph = None
        self.losses = {}
        if stage == "fit":
            if torch.is_inference_mode_enabled():
                raise InputError("nothing can be optimised under torch.inference_mode: leave it, or call stylize")
            check_trainer(self.trainer)
            tell_of_precision(self.trainer)
            data = data_of(self.trainer)
            self.problem.check(Worker.of(self.trainer), data.pairs, data.stages)
            data.look_at_cards()
            for each in data.batches:
                self._check_sizes(each)
            if len(data.batches) > 1 and len(self.trainer.early_stopping_callbacks) > 0:
                raise InputError("EarlyStopping would end the run, not its pair: paint one pair, or one batch of them")

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Makes the optimiser of the current image; an L-BFGS must not be a batch's, nor its gradients be scaled."""
        optimizer = self.problem.make_optimizer([self.image])
        if isinstance(optimizer, torch.optim.LBFGS) and len(self.image) > 1:
            msg = "torch.optim.LBFGS couples the images of a batch"
            raise InputError(f"{msg}: use nst_lightning.optim.LBFGS or batch_size 1")
        scales = isinstance(plugin := self.trainer.precision_plugin, MixedPrecision) and plugin.scaler is not None
        if scales and isinstance(optimizer, _QUASI_NEWTON):
            msg = "precision 16-mixed scales the gradients, which an L-BFGS cannot work with"
            raise InputError(f"{msg}: use bf16-mixed, or --optimizer adam")
        return optimizer

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuses what the run cannot go on from; shapes the parameter before its values and state are loaded."""
        note = checkpoint.get("batch")
        if note is None or note.get("format") != FORMAT:
            msg = "the checkpoint is of an earlier version, whose optimiser remembered otherwise: begin the run anew"
            raise InputError(msg)
        if self._trainer is not None:  # else it is load_from_checkpoint that calls
            if self.trainer.world_size > 1 and isinstance(self.trainer.strategy, PairParallel):
                raise InputError("a checkpoint is of one process's pairs: resume with --resume and the run's folder")
            if self.trainer.state.fn == TrainerFn.FITTING:  # what is validated is one batch, not all of its run's steps
                timeline, taken = Timeline(data_of(self.trainer).batches), checkpoint["global_step"]
                self._check_batch(Saved.of(Path(), note), timeline, taken)
                if taken < len(timeline):  # though its one epoch counts as over where max_steps broke it off
                    for counts in checkpoint["loops"]["fit_loop"]["epoch_progress"].values():
                        counts |= {"processed": 0, "completed": 0}
        self.image = nn.Parameter(torch.empty_like(checkpoint["state_dict"]["image"]))

    def on_fit_start(self) -> None:
        """Has memory kept for the next step, and takes no more threads than the container has cores for."""
        if self.device.type == "cpu":
            memory.reuse_freed()
            if "OMP_NUM_THREADS" not in os.environ:  # a thread more than there are cores stops them all
                torch.set_num_threads(min(torch.get_num_threads(), cores()))

    def on_train_batch_start(self, batch: Step, batch_idx: int) -> None:
        """Moves on to the next batch or stage where the step begins one, or a run goes on."""
        with self._taking(batch):
            if self.evaluation is None or batch.is_first or batch.starts_stage:
                self._begin(batch)

    def training_step(self, batch: Step, batch_idx: int) -> Tensor:
        """Returns the losses of the images, (N,)."""
        if self._graph is not None:
            self._graph.replay()  # of the whole step, of which Lightning is told the losses
            return self.losses["total"]
        assert self.evaluation is not None
        # Where positions are drawn, a quasi-Newton method needs the same ones from one step to the next.
        quasi_newton = isinstance(self.trainer.optimizers[0], _QUASI_NEWTON)
        number = batch.stage_index if quasi_newton else batch.index
        values = self.evaluation.values(self.image, (self.problem.seed + number) % 2**63)
        self.losses = self.evaluation.noted(values)
        return self.evaluation.objective.total(values, self.evaluation.weights)

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Calls backward on the sum over images, so that each one's gradient is that of its own loss."""
        if self._graph is None:
            torch.autograd.backward(loss.sum())

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: _Optimizer, optimizer_closure: Callable[[], Any] | None = None
    ) -> None:
        """Takes a step, by itself or as a replay of its graph."""
        timeline = self.trainer.train_dataloader
        assert isinstance(timeline, Timeline)
        with self._taking(step := timeline.step(self.trainer.global_step)):
            take = partial(self._take, partial(super().optimizer_step, epoch, batch_idx, optimizer, optimizer_closure))
            if self.problem.graph and self._graph is None and self._has_begun:
                self._graph = self._recorded(take)
            if self._graph is None:
                take()
            else:
                assert optimizer_closure is not None
                optimizer_closure()
            self._look_at_image(step)
        if self._is_logged(self.trainer.global_step + 1) or step.is_last:  # here, for callbacks look before the module
            means = {tag_of(name): value.mean() for name, value in self.losses.items()}
            self.log_dict(means, batch_size=len(self.image))

    def on_train_batch_end(self, outputs: object, batch: Step, batch_idx: int) -> None:
        """Has EarlyStopping look at the logged steps of the last stage, where losses compare: a run has no epochs."""
        if self._is_logged(self.trainer.global_step) and batch.stage_index == len(batch.stages) - 1:
            for each in self.trainer.early_stopping_callbacks:
                try:
                    each.on_train_epoch_end(self.trainer, self)  # either looks, as it was told
                    each.on_validation_end(self.trainer, self)
                except RuntimeError as error:
                    raise InputError(str(error)) from error

    def validation_step(self, batch: Step, batch_idx: int) -> None:
        """Shows the image of a checkpoint, or its own of a pair that was not begun, for the callbacks to look at."""
        if batch.batch.saved is not None:
            image = self._saved(batch.batch)["state_dict"]["image"]
            outside = batch.batch.outside(batch.stage)
            self.image = nn.Parameter(image if outside is None else outside.to(image.device).around(image))
        elif self.image.shape != (len(batch.batch.pairs), 3, *batch.batch.output_size(batch.stage)):
            raise InputError(f"there is no picture of {', '.join(batch.batch.names)} to validate: paint it first")
        self.shown = batch

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Saves where the run is, as `progress.Saved` reads it."""
        step = data_of(self.trainer).last_step()
        if step is not None:
            found = {each.name: each.weights["style"] for each in step.batch.pairs if each.strength is not None}
            checkpoint["batch"] = note_of(step.batch.names, step.stages, step.index + 1, found)

    def on_fit_end(self) -> None:
        """Leaves the process's memory as it was."""
        memory.give_back()

    # ---- what they call ----

    @contextmanager
    def _taking(self, step: Step) -> Iterator[None]:
        """Has a step be `stuck` where it fails, and be taken in the precision that was asked for."""
        self.stuck = step
        with true_float32(self.device):
            yield
        self.stuck = None

    def _is_logged(self, taken: int) -> bool:
        """Whether loggers look at the last of so many steps."""
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined] # set by a connector
        return every > 0 and taken % every == 0

    def _begin(self, step: Step) -> None:
        """Makes the image, its optimiser and its evaluation for a batch or stage that begins or goes on."""
        if step.is_first and step.batch.saved is not None:
            self._restore(step.batch)
        if step.index == 0:
            self._place(self._initial_image(step).to(self.device))
        elif step.starts_stage:
            self._enlarge(step.batch.output_size(step.stage))
        together = len(step.batch.pairs)
        if self.evaluation is not None and not step.is_first:  # what was too much at one stage is at the next
            together = self.evaluation.together
        self.losses, self.shown = {}, step
        self._whole, self._left = None, _TRIES
        self.evaluation = self._evaluations.begin(Worker.of(self.trainer), step, together)

    def _saved(self, batch: Batch) -> dict[str, Any]:
        """Returns the checkpoint that a batch goes on from; its photographs may have been exchanged since."""
        assert batch.saved is not None
        checkpoint = loaded(batch.saved.path, self.device)
        found = checkpoint["state_dict"]["image"].shape
        height, width = batch.output_size(batch.stages[batch.saved.stage_index])
        if found[2:] != (height, width):
            msg = f"{batch.saved.path}: the checkpoint holds {found[0]} images of {found[3]}x{found[2]} px"
            wanted = f"this run asks for {len(batch.pairs)} of {width}x{height} px"
            raise InputError(f"{msg}, {wanted}: resume with the settings of that run")
        return checkpoint

    def _restore(self, batch: Batch) -> None:
        """Takes image and optimiser from a checkpoint, which may be of the end of the stage before."""
        checkpoint = self._saved(batch)
        self._place(checkpoint["state_dict"]["image"])
        self.trainer.optimizers[0].load_state_dict(checkpoint["optimizer_states"][0])
        plugin = self.trainer.precision_plugin
        plugin.load_state_dict(checkpoint.get(type(plugin).__qualname__, {}))

    def _enlarge(self, size: tuple[int, int]) -> None:
        """Brings the image and what its optimiser remembers to a size (H, W) in pixels."""
        (optimizer,) = self.trainer.optimizers
        within_range = partial(nn.functional.interpolate, size=size, mode="bilinear", antialias=True)
        state = optim.carried_state(optimizer.state[self.image], self.image.shape, within_range)
        self._place(images.resize(self.image.detach(), size))
        if state is not None:
            self.trainer.optimizers[0].state[self.image] = state

    def _place(self, image: Tensor) -> None:
        self._graph = None
        self.image = nn.Parameter(image)
        self.trainer.strategy.setup_optimizers(self.trainer)

    def _initial_image(self, step: Step) -> Tensor:
        contents, styles = step.batch.prepared_contents(step.stage), step.batch.prepared_styles(step.stage)
        starts = []
        for pair, content, style in zip(step.batch.pairs, contents, styles, strict=True):
            init = self.problem.init if pair.init is None else pair.init
            seed = self.problem.seed if pair.seed is None else pair.seed
            first = style[0].image() if style[0].card is None else content[None]  # what needs a painting was refused
            starts.append(initial_image(init, content[None], first, seed))
        carried = step.batch.befores(step.stage)
        return torch.cat(starts) if carried is None else torch.lerp(torch.cat(starts), *carried)

    def _take(self, take: Callable[[], None]) -> None:
        """Takes a step, of fewer images at once where the memory does not hold them all.

        The losses of the images that the optimiser took back are kept with the images.
        """
        before = self.losses
        while True:
            try:
                take()
                break
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            # Behind the clause, whose traceback keeps the graph that did not fit.
            assert self.evaluation is not None
            self.evaluation.take_fewer(self.image)
            self.zero_grad(set_to_none=True)
            self.losses = before
        (optimizer,) = self.trainer.optimizers
        if not before:
            if wrong := [name for name, value in self.losses.items() if not bool(value.isfinite().all())]:
                msg = f"the loss is not finite when a stage begins ({', '.join(wrong[:3])})"
                raise InputError(f"{msg}: are the weights, or is the learning rate, far too large?")
        elif isinstance(optimizer, optim.LBFGS):
            taken = optimizer.accepted
            self.losses = {name: torch.where(taken, value, before[name]) for name, value in self.losses.items()}

    @property
    def _has_begun(self) -> bool:
        """Whether there is what a first step makes: the optimiser's state, and losses."""
        return len(self.losses) > 0 and len(self.trainer.optimizers[0].state[self.image]) > 0

    def _recorded(self, take: Callable[[], None]) -> optim.StepGraph:
        """Returns the graph of a step, which writes its losses where those of the step before are."""
        (optimizer,) = self.trainer.optimizers
        losses = dict(self.losses)

        def step() -> None:
            take()
            losses.update(self.losses)

        try:
            graph = optim.StepGraph(step, optimizer.state[self.image], losses)
        except RuntimeError as error:
            reason = in_one_line(error)[:200]
            raise InputError(f"the step cannot be had as a CUDA graph ({reason}): leave out graph") from error
        self.losses = losses
        return graph

    def _look_at_image(self, step: Step) -> None:
        """Looks at the pixels once in a while, and before they are written; sets back a single image that diverged."""
        if not step.is_last and step.index % _LOOK_EVERY != 0:
            return
        if bool(self.image.isfinite().all()):
            self._whole = self.image.detach().clone()
            return
        msg = f"pixels that are not finite after step {step.index + 1}"
        if self._whole is None or self._left == 0 or step.is_last or len(self.image) > 1:
            help = f"take a smaller learning rate, or another precision than {self.trainer.precision}"
            raise InputError(f"{msg}: {help}")
        self._left -= 1
        self._place(self._whole.clone())
        factor = 2.0 ** (self._left - _TRIES)
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] *= factor
        say(f"nst: {step.batch.names[0]}: {msg}: goes on from where it was whole with {factor} of the learning rate")

    def _check_sizes(self, batch: Batch) -> None:
        """Refuses, before the first step, what is too small for the network at any stage."""
        least = self.backbone.min_side if self.problem.active(batch.pairs).layers else 1
        for stage in batch.stages:
            for pair, styles in zip(batch.pairs, batch.styles(stage), strict=True):
                for what, (height, width) in (
                    ("image", batch.output_size(stage)),
                    *(("style", each.size) for each in styles if each.card is None),
                ):
                    if min(height, width) < least:
                        msg = f"pair {pair.name}: its {what} is of {width}x{height} px at the stage of {stage.size} px"
                        raise InputError(f"{msg}, too small for these layers: {least} px a side at least")

    def _check_batch(self, saved: Saved, timeline: Timeline, taken: int) -> None:
        """Refuses a checkpoint, after so many steps of the run, of a batch that this run would not go on with."""
        batch = timeline.step(taken - 1).batch if 0 < taken <= len(timeline) else None
        if batch is not None and saved.taken < batch.steps and not batch.continues(saved):
            found = f"{', '.join(saved.names)}, {described(saved.stages)}"
            wanted = f"{', '.join(batch.names)}, {described(batch.stages)}"
            msg = f"the checkpoint is of {found}, this run would go on with {wanted}"
            raise InputError(f"{msg}: resume with the settings of that run")
