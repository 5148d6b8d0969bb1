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
from nst_lightning.callbacks.secondary import secondary
from nst_lightning.data import data_of, is_writer
from nst_lightning.errors import InputError
from nst_lightning.inspection import drawn, gram_figure, tiles_figure, viridis
from nst_lightning.metrics.table import SUMMARY
from nst_lightning.modules import ImageOptimization
from nst_lightning.runs import Run

_FLUSH = 2  # seconds: Ctrl-C in the middle of a notification leaves the writer's thread asleep for so long


@secondary("the curves in TensorBoard")
class TensorBoardWriter(Callback):
    """Writes every pair's losses, pictures and settings to a run directory of its own in the run folder.

    Beside them, `_run` has the curve of the pairs that a process finished a minute. Tags are alike for every pair, so
    that the curves of many runs overlay: `loss/total` and its weighted parts, `term/<group>/<layer>` unweighted,
    `score/<name>`, `picture/output`, `source/content`, `source/style`, `lpips/map` (bright where the picture differs
    most from the content), and where asked for `features/<layer>` and `gram/<layer>`.

    Args:
        scalars_every: Steps between two points of a curve, >= 1.
        images_every: Steps between two pictures, >= 1.
        representations: The layers, among those that the losses read, whose feature maps and Gram matrices are shown.
        scores: The callback that scores the pictures; None writes no scores.

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
                raise InputError(f"{name} must be at least 1, got {value}")
        self.scalars_every, self.images_every = scalars_every, images_every
        self.representations, self.scores = tuple(representations), scores
        self._writers: dict[str, SummaryWriter] = {}
        self._run: SummaryWriter | None = None
        self._began, self._finished = 0.0, 0

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Checks the layers that are to be shown, and starts the clock of the run's own curve.

        Raises:
            InputError: If the losses of this run do not read one.
        """
        assert isinstance(pl_module, ImageOptimization)
        known = pl_module.objective.layers
        for layer in self.representations:
            if layer not in known:
                read = ", ".join(known) or "none"
                raise InputError(f"layer {layer!r} cannot be shown: the losses of this run read {read}")
        self._began = time.monotonic()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Step, batch_idx: int
    ) -> None:
        """Opens the run directories of pairs that begin or go on after a resume."""
        if not self._writers and is_writer(trainer):
            self._open(Run(Path(trainer.default_root_dir)), batch)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: Step, batch_idx: int
    ) -> None:
        """Writes what is due after a step, and closes the run directories after the last."""
        assert isinstance(pl_module, ImageOptimization)
        if self.scores is not None:
            self.scores.take(trainer, pl_module, batch)
        if is_writer(trainer):
            self._write(trainer, pl_module, batch)
            if batch.is_last:
                self._finish(pl_module, batch)
                self._count(trainer, len(batch.batch.pairs))

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Closes the run directories."""
        self.teardown(trainer, pl_module, "fit")

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Closes the run directories of a run that was stopped before its last step."""
        self._close()
        if self._run is not None:
            self._run.close()
            self._run = None

    def _open(self, run: Run, step: Step) -> None:
        contents, styles = step.batch.contents(step.stages[-1]), step.batch.styles(step.stages[-1])
        for pair, content, of_pair in zip(step.batch.names, contents, styles, strict=True):
            # Steps after the resumed one are hidden: they are about to be taken again.
            self._writers[pair] = writer = SummaryWriter(
                str(run.tensorboard(pair)), purge_step=step.index + 1, flush_secs=_FLUSH
            )
            if step.index == 0:
                writer.add_image("source/content", content, 0)
                for number, style in enumerate(of_pair, start=1):
                    writer.add_image("source/style" if number == 1 else f"source/style_{number}", style.image()[0], 0)

    def _write(self, trainer: L.Trainer, module: ImageOptimization, step: Step) -> None:
        number = step.index + 1
        if number % self.scalars_every == 0 or number == 1 or step.is_last:
            # One copy for each curve and not for each of its points: a GPU has to wait for every one.
            losses = {name: value.cpu() for name, value in module.losses.items()}
            for index, pair in enumerate(step.batch.names):
                for tag, value in _losses(losses, index).items():
                    self._writers[pair].add_scalar(tag, value, number)
        if self.scores is not None:
            self._write_scores(self.scores, number)
        if number % self.images_every == 0 or step.is_last:
            for pair, image in zip(step.batch.names, module.result.cpu(), strict=True):
                self._writers[pair].add_image("picture/output", image, number)
            if self.representations != ():
                self._write_representations(trainer, module, step)

    @torch.no_grad()
    def _write_representations(self, trainer: L.Trainer, module: ImageOptimization, step: Step) -> None:
        with trainer.precision_plugin.forward_context():
            features = module.backbone(module.result)
        for layer in self.representations:
            for writer, feature in zip(self._writers.values(), features[layer].split(1), strict=True):
                writer.add_image(f"features/{layer}", drawn(tiles_figure(feature, title=layer))[0], step.index + 1)
                writer.add_image(f"gram/{layer}", drawn(gram_figure(feature, layer))[0], step.index + 1)

    def _write_scores(self, scores: Scores, number: int) -> None:
        for pair, values in scores.found.items():
            for tag, value in _scores(values).items():
                self._writers[pair].add_scalar(tag, value, number)
        for pair, differs in scores.maps.items():
            if math.isfinite(largest := differs.max().item()):  # else the picture was too small
                shown = differs[0, 0].cpu() / (largest if largest > 0 else 1)
                self._writers[pair].add_image("lpips/map", viridis(shown), number)

    def _finish(self, module: ImageOptimization, step: Step) -> None:
        for index, pair in enumerate(step.batch.pairs):
            # The last value of each curve. add_hparams would open a run directory of its own.
            scores = {} if self.scores is None else _scores(self.scores.finals.get(pair.name, {}))
            results = {**scores, **dict(sorted(_losses(module.losses, index).items()))}
            settings = {**module.settings_of(step, pair), "pair": pair.name}
            for summary in hparams(settings, results):  # type: ignore[no-untyped-call]
                self._writers[pair.name].file_writer.add_summary(summary)  # type: ignore[attr-defined]
        self._close()

    def _count(self, trainer: L.Trainer, pairs: int) -> None:
        """Adds to the run's own curve: how many pairs a minute this process has finished so far."""
        before = len(data_of(trainer).progress.finished) + self._finished  # so that a resumed run's curve goes on
        if self._run is None:
            name = "_run" if trainer.world_size == 1 else f"_run_rank{trainer.global_rank}"
            folder = Run(Path(trainer.default_root_dir)).tensorboard(name)
            self._run = SummaryWriter(str(folder), purge_step=before + 1, flush_secs=_FLUSH)
        self._finished += pairs
        rate = 60 * self._finished / (time.monotonic() - self._began)
        self._run.add_scalar("pairs/per_minute", rate, before + pairs)

    def _close(self) -> None:
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()


def _losses(losses: Mapping[str, Tensor], index: int) -> dict[str, float]:
    return {("term/" if "/" in name else "loss/") + name: value[index].item() for name, value in losses.items()}


def _scores(scores: Mapping[str, float]) -> dict[str, float]:
    """Returns the scores that have a number, by tag, those first that say most: TensorBoard cannot plot the others."""
    ordered = sorted(scores, key=lambda name: SUMMARY.index(name) if name in SUMMARY else len(SUMMARY))
    return {f"score/{name}": scores[name] for name in ordered if math.isfinite(scores[name])}
