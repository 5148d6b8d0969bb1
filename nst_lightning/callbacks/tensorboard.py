"""Curves and pictures in TensorBoard, one run directory a pair."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from nst_lightning.batches import Step
from nst_lightning.callbacks.scores import Scores
from nst_lightning.data import data_of, is_writer
from nst_lightning.errors import InputError
from nst_lightning.inspection import feature_tiles, gram_heat_map, viridis
from nst_lightning.metrics.table import SUMMARY
from nst_lightning.modules import ImageOptimization


class TensorBoardWriter(Callback):
    """Writes every pair's losses, pictures and settings to `<root>/tensorboard/<pair>`.

    Beside them, `_run` has the curve of the pairs that were finished a minute (one for each process, where there are
    several). The root is the trainer's `default_root_dir`. Tags are alike for every pair, so that the curves of many
    runs overlay in a handful of charts: `loss/total` and its weighted parts, `term/<group>/<layer>` unweighted,
    `score/outline` and the other scores, `picture/output`, `source/content`, `source/style`, `lpips/map` (bright where
    the picture differs most from the content), and where asked for `features/<layer>` and `gram/<layer>`.

    Args:
        scalars_every: Steps between two points of a curve, >= 1.
        images_every: Steps between two pictures, >= 1.
        representations: The layers whose feature maps and Gram matrices, `inspection`'s pictures of them, go with
            every picture of the output; of those that the losses read.
        scores: The callback that scores the pictures, which has to stand before this one; None writes no scores.

    Raises:
        InputError: If an interval is below 1.
    """

    def __init__(
        self,
        scalars_every: int = 10,
        images_every: int = 50,
        representations: Sequence[str] = (),
        scores: Scores | None = None,
    ) -> None:
        for name, value in (("scalars_every", scalars_every), ("images_every", images_every)):
            if value < 1:
                msg = f"{name} must be at least 1, got {value}"
                raise InputError(msg)
        self.scalars_every = scalars_every
        self.images_every = images_every
        self.representations = tuple(representations)
        self.scores = scores
        self._writers: dict[str, SummaryWriter] = {}
        self._run: SummaryWriter | None = None
        self._began = 0.0
        self._finished = 0

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Checks that the layers to be shown are read in this run.

        Raises:
            InputError: If one is not; lists those that are.
        """
        assert isinstance(pl_module, ImageOptimization)
        known = pl_module.objective.layers
        unknown = [layer for layer in self.representations if layer not in known]
        if unknown:
            msg = f"layer {unknown[0]!r} cannot be shown: the losses of this run read {', '.join(known) or 'none'}"
            raise InputError(msg)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Starts the clock of the run's own curve."""
        self._began = time.monotonic()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Step, batch_idx: int
    ) -> None:
        """Opens the run directories of pairs that begin or go on after a resume."""
        if self._writers or not is_writer(trainer):
            return
        root = Path(trainer.default_root_dir) / "tensorboard"
        for pair in batch.batch.pairs:
            # Steps after the resumed one are hidden: they are about to be taken again.
            self._writers[pair.name] = SummaryWriter(str(root / pair.name), purge_step=batch.index + 1)
        if batch.index == 0:
            self._write_sources(batch)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: Step, batch_idx: int
    ) -> None:
        """Writes what is due after a step, and closes the run directories after the last."""
        assert isinstance(pl_module, ImageOptimization)
        if not is_writer(trainer):
            return
        step = batch.index + 1
        if step % self.scalars_every == 0 or step == 1 or batch.is_last:
            self._write_losses(pl_module, batch, step)
        self._write_scores(step)
        if step % self.images_every == 0 or batch.is_last:
            for pair, image in zip(batch.batch.pairs, pl_module.result.cpu(), strict=True):
                self._writers[pair.name].add_image("picture/output", image, step)
            self._write_representations(trainer, pl_module, batch)
        if batch.is_last:
            self._write_settings(pl_module, batch)
            self._close()
            self._count(trainer, batch)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Closes the run directories."""
        self._close_all()

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Closes the run directories of a run that was stopped before its last step."""
        self._close_all()

    def _write_sources(self, step: Step) -> None:
        contents, styles = step.batch.contents(step.stages[-1]), step.batch.styles(step.stages[-1])
        for pair, content, of_pair in zip(step.batch.pairs, contents, styles, strict=True):
            writer = self._writers[pair.name]
            writer.add_image("source/content", content, 0)
            for index, style in enumerate(of_pair):
                writer.add_image("source/style" if index == 0 else f"source/style_{index + 1}", style.image()[0], 0)

    @torch.no_grad()
    def _write_representations(self, trainer: L.Trainer, module: ImageOptimization, step: Step) -> None:
        if self.representations == ():
            return
        with trainer.precision_plugin.forward_context():
            features = module.backbone(module.result)
        for index, pair in enumerate(step.batch.pairs):
            for layer in self.representations:
                feature, writer = features[layer][index : index + 1], self._writers[pair.name]
                writer.add_image(f"features/{layer}", feature_tiles(feature, title=layer)[0], step.index + 1)
                writer.add_image(f"gram/{layer}", gram_heat_map(feature, layer)[0], step.index + 1)

    def _write_losses(self, module: ImageOptimization, step: Step, number: int) -> None:
        # One copy for each curve and not for each of its points: a GPU has to wait for every one.
        losses = {name: value.cpu() for name, value in module.losses.items()}
        for index, pair in enumerate(step.batch.pairs):
            for tag, value in _values(losses, index).items():
                self._writers[pair.name].add_scalar(tag, value, number)

    def _write_scores(self, number: int) -> None:
        if self.scores is None:
            return
        for pair, values in self.scores.found.items():
            for name, value in _defined(values).items():
                self._writers[pair].add_scalar(f"score/{name}", value, number)
        for pair, differs in self.scores.maps.items():
            largest = differs.max().item()
            if math.isfinite(largest):  # else the picture was too small
                shown = differs[0, 0].cpu() / (largest if largest > 0 else 1)
                self._writers[pair].add_image("lpips/map", viridis(shown), number)

    def _write_settings(self, module: ImageOptimization, step: Step) -> None:
        for index, pair in enumerate(step.batch.pairs):
            # The table shows the last value of each curve. add_hparams would open a run directory of its own.
            scores = {} if self.scores is None else _defined(self.scores.finals.get(pair.name, {}))
            # The first columns of the table are those that say most.
            ordered = sorted(scores, key=lambda name: SUMMARY.index(name) if name in SUMMARY else len(SUMMARY))
            results = {f"score/{name}": scores[name] for name in ordered}
            results |= dict(sorted(_values(module.losses, index).items()))
            settings = {**module.settings_of(step, pair), "pair": pair.name}
            summaries = hparams(settings, results)  # type: ignore[no-untyped-call]
            for summary in summaries:
                self._writers[pair.name].file_writer.add_summary(summary)  # type: ignore[attr-defined]

    def _count(self, trainer: L.Trainer, step: Step) -> None:
        """Adds to the run's own curve: how many pairs a minute this process has finished so far."""
        before = len(data_of(trainer).finished) + self._finished  # so that a resumed run's curve goes on
        if self._run is None:
            name = "_run" if trainer.world_size == 1 else f"_run_rank{trainer.global_rank}"
            folder = Path(trainer.default_root_dir) / "tensorboard" / name
            self._run = SummaryWriter(str(folder), purge_step=before + 1)
        self._finished += len(step.batch.pairs)
        rate = 60 * self._finished / (time.monotonic() - self._began)
        self._run.add_scalar("pairs/per_minute", rate, before + len(step.batch.pairs))
        self._run.flush()  # else it is seen two minutes later

    def _close(self) -> None:
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()

    def _close_all(self) -> None:
        self._close()
        if self._run is not None:
            self._run.close()
            self._run = None


def _values(losses: dict[str, Tensor], index: int) -> dict[str, float]:
    """Returns one image's losses by tag: the weighted sums under `loss`, the terms' scores under `term`."""
    return {("term/" if "/" in name else "loss/") + name: value[index].item() for name, value in losses.items()}


def _defined(scores: Mapping[str, float]) -> dict[str, float]:
    """Returns the scores that have a number: TensorBoard cannot plot the others."""
    return {name: value for name, value in scores.items() if math.isfinite(value)}
