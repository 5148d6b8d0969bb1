"""The training of a painter: a network brings down, for all photographs at once, what is brought down for each."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from nst_lightning import files
from nst_lightning.batches import Gallery, Style
from nst_lightning.cards import Card, is_card
from nst_lightning.data import Worker
from nst_lightning.errors import InputError
from nst_lightning.losses import Target
from nst_lightning.modules.evaluation import Evaluations, Sizing
from nst_lightning.modules.optimization import tag_of
from nst_lightning.modules.problem import Problem
from nst_lightning.painters import PainterNetwork, Trained, load
from nst_lightning.painters.files import KEY
from nst_lightning.tiling import Whole

_LAST = 0.01  # of the learning rate, at the end


class Painter(L.LightningModule):
    """Trains a network to paint any photograph as the optimiser would, Johnson et al. (2016).

    Each crop is painted in one style, which follows from its number. A step's loss is the mean of the crops' own, so
    that processes which average gradients share a batch.

    Args:
        problem: The network whose features are compared, the losses and their weights.
        styles: Paintings or style cards, as `files.find` takes them, each a style of its own by its file's name.
        style_size: Long side in pixels at which paintings are seen: the size of the strokes.
        width: Channels of the painter's first map; the file grows with its square.
        init: A painter of the same width to train on from, so that a new style takes fewer steps, Dumoulin et al.
            (2017), section 3.2: its file, or `bundled`. By default random weights.
        lr: The learning rate of Adam.
        decay: Whether it falls along a cosine to a hundredth at the last of `trainer.max_steps`.
        seed: That of the first weights and of what losses draw.

    Raises:
        InputError: If a style cannot be used, or a number is out of range.
    """

    def __init__(
        self,
        problem: Problem,
        styles: str | list[str],
        style_size: int = 256,
        width: int = 32,
        init: str | None = None,
        lr: float = 1e-3,
        decay: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__()
        for name, value in (("style_size", style_size), ("width", width)):
            if value < 1:
                raise InputError(f"{name} must be a whole number from 1, got {value}")
        if not 0 < lr < math.inf:
            raise InputError(f"lr must be a finite number above 0, got {lr}")
        found = files.find("styles", styles, files.STYLE_FOLDER)
        self.names = [Path(each).stem if isinstance(each, (str, os.PathLike)) else "image" for each in found]
        if len({*self.names}) < len(found):
            raise InputError(f"styles must differ in the names of their files, got {', '.join(self.names)}")
        self.problem, self.objective = problem, problem.weighed  # not a submodule: it is frozen and in no checkpoint
        for card in (each for each in found if is_card(each)):
            Card.read(card).check(problem.backbone, self.objective.only(["style"]).terms, problem.style_rotations)
        self._styles = [Style(each, style_size, False, Gallery()) for each in found]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = PainterNetwork(len(found), width)
        if init is not None:
            other = load(init).network
            if other.width != width:
                raise InputError(f"width must be that of the painter in init, {other.width}, got {width}")
            self.network.begin_as(other)
        self._lr, self._decay, self._seed = lr, decay, seed
        self._whole = Whole(problem.backbone, self.objective)
        self._targets: Mapping[str, Target] = {}  # of all styles
        self.settings: dict[str, Any] = {}  # for the file

    @property
    def trained(self) -> Trained:
        """The painter as it is."""
        return Trained(self.network, self.names, self.settings)

    def losses(self, painted: Tensor, photographs: Tensor, styles: Tensor) -> dict[str, Tensor]:
        """Returns the weighted values by group and in `total`, (N,) each, of paintings of photographs (N, 3, H, W).

        `styles` are the places of the styles that they were painted in, (N,).
        """
        draw = (self._seed + self.global_step) % 2**63
        with torch.no_grad():
            targets = {name: tuple(each[styles] for each in target) for name, target in self._targets.items()}
            if "content" in self.objective.sources:
                targets |= self._whole.targets("content", [photographs], [1.0], self.problem.seed)
            targets = self.objective.matched(targets)
            of_groups = {
                each: photographs.new_full((len(styles),), self.problem.weights[each]) for each in self.objective.groups
            }
            weights = self.objective.weights(targets, of_groups)
        return self.objective.contributions(self._whole.values(painted, targets, draw), weights)

    def painted(self, photographs: Tensor, styles: Tensor) -> Tensor:
        """Returns paintings of photographs (N, 3, H, W), each in one style by its place."""
        return self.network(photographs, nn.functional.one_hot(styles, len(self.names)).to(photographs))  # type: ignore[no-any-return]

    def look_at_styles(self, worker: Worker) -> None:
        """Finds what the styles are compared by, which `losses` needs, where the painter is and in its precision."""
        evaluations = Evaluations(self.problem, Sizing(self.problem))
        self.problem.backbone.to(self.device, self.network.photograph.scale.dtype)
        found = []
        with torch.no_grad(), worker.context():
            for style in self._styles if "style" in self.objective.sources else []:
                kept = evaluations.kept_of(self.device, style, self.objective, self._whole)
                found.append(self.objective.targets(kept, [1.0 / len(kept)] * len(kept)))
        names = found[0] if found else {}
        self._targets = {
            name: tuple(map(torch.cat, zip(*(each[name] for each in found), strict=True))) for name in names
        }

    # ---- Lightning's hooks, in the order of a run ----

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Returns Adam with its schedule."""
        optimizer, steps = torch.optim.Adam(self.network.parameters(), self._lr), self.trainer.max_steps

        def factor(step: int) -> float:
            way = min(1.0, step / steps) if self._decay and steps > 0 else 0.0
            return _LAST + (1 - _LAST) * (1 + math.cos(math.pi * way)) / 2

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuses a checkpoint of another architecture."""
        own, found = (
            {name: each.shape for name, each in state.items()}
            for state in (self.state_dict(), checkpoint["state_dict"])
        )
        if KEY not in checkpoint or own != found:
            ours = f"{self.network.width} channels and {len(self.names)} styles"
            raise InputError(f"the checkpoint is no painter's of {ours}: resume with the settings of its run")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Has a checkpoint say what `painters.load` asks for."""
        checkpoint[KEY] = self.trained.told

    def on_fit_start(self) -> None:
        """Finds what the styles are compared by."""
        self.look_at_styles(Worker.of(self.trainer))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Returns the mean loss of crops (N, 3, S, S) with their numbers (N,)."""
        crops, numbers = batch
        styles = numbers % len(self.names)
        means = {name: value.mean() for name, value in self.losses(self.painted(crops, styles), crops, styles).items()}
        self.log_dict({tag_of(name): value.detach() for name, value in means.items()}, batch_size=len(crops))
        if not bool(means["total"].isfinite()):
            raise InputError(f"the loss is not finite at step {self.global_step}: take a smaller lr, or more precision")
        return means["total"]

    def validation_step(self, batch: tuple[str, Tensor], batch_idx: int) -> None:
        """Shows a photograph that is held out beside its paintings in all styles, and logs their mean loss."""
        name, photograph = batch
        styles = torch.arange(len(self.names), device=self.device)
        photographs = photograph.expand(len(styles), -1, -1, -1)
        painted = self.painted(photographs, styles)
        total = self.losses(painted, photographs, styles)["total"].mean()
        self.log("held_out/total", total, batch_size=1, sync_dist=True, prog_bar=True)
        if isinstance(self.logger, TensorBoardLogger) and self.trainer.is_global_zero:
            row = torch.cat([photograph[0], *painted.clamp(0, 1)], dim=2)
            self.logger.experiment.add_image(f"held_out/{name}", row, self.global_step)
