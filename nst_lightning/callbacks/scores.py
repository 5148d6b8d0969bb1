"""Scores of the pictures while they are optimised."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from tqdm import tqdm

from nst_lightning.batches import Step
from nst_lightning.cards import is_card
from nst_lightning.data import data_of, is_writer
from nst_lightning.errors import InputError
from nst_lightning.metrics import table
from nst_lightning.metrics.scorer import Choice, Reference, Scorer
from nst_lightning.modules import ImageOptimization
from nst_lightning.runs import Run, replacing
from nst_lightning.terminal import STDERR, say

SHARE = 0.05  # of a run's time that scores on the way may take unless their steps were asked for
_TIMES = 12
_GUESS = 0.5  # s that scoring a picture is taken to last until it was measured
_MOST_SHOWN = 20


class Scores(Callback):
    """Scores every pair's picture a dozen times on the way and when it is finished, and in a validation.

    The final ones are written to the run's folder, with the losses, and printed. Who reads `found` calls `take` first:
    the order of the callbacks does not matter.

    Args:
        choice: `auto`, or names of scores, see `Scorer`.
        every: Steps between two scorings, >= 1; by default a twelfth of a pair's, within `SHARE` of the run's time.

    Attributes:
        found: The scores that belong to the last step taken, by pair and name; empty where it was not scored.
        maps: Where the pictures differ from the contents by LPIPS, by pair, (1, 1, h, w); likewise.
        finals: The scores of the finished pairs, by pair and name.
        seconds: The time that scoring has taken.

    Raises:
        InputError: If `every` is below 1; and as `Scorer`.
    """

    def __init__(self, choice: Choice = "auto", every: int | None = None) -> None:
        if every is not None and every < 1:
            raise InputError(f"score_every must be at least 1, got {every}")
        self.scorer, self.every = Scorer(choice), every
        self.found: Mapping[str, Mapping[str, float]] = {}
        self.maps: Mapping[str, Tensor] = {}
        self.finals: dict[str, Mapping[str, float]] = {}
        self.seconds = self._began = 0.0
        self._last = _GUESS
        self._compared: tuple[object, ...] = ()  # the batch and the stage that the references are of
        self._references: list[Reference] = []
        self._taken: Step | None = None

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Says what is left out; a run says nothing of it, for it would in every one."""
        if self.scorer.missing is not None and trainer.is_global_zero:
            say(f"nst: {self.scorer.missing}")

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Starts the clock."""
        self._began = time.monotonic()
        self.seconds, self._last = 0.0, _GUESS
        if trainer.is_global_zero and any(is_card(each) for pair in data_of(trainer).pairs for each in pair.styles):
            say("nst: a style card holds no painting: what compares a picture with its painting is not scored")

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: Step, batch_idx: int
    ) -> None:
        """Scores where it is time to, and writes the final scores."""
        self.take(trainer, pl_module, batch)
        if is_writer(trainer) and batch.is_last:
            self._write(trainer, pl_module)

    def take(self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Step) -> None:
        """Fills `found`, `maps` and `finals` with what belongs to a step, once for whichever callback asks first."""
        if batch is not self._taken:
            self._taken, self.found, self.maps = batch, {}, {}
            if is_writer(trainer) and self._is_due(batch):
                self._score(pl_module, batch)
                self._log(trainer, pl_module)
            if batch.is_last:
                self.finals |= self.found

    def means(self) -> dict[str, float]:
        """Returns the means of what was `found` over the pictures that have a number, by the score's name."""
        names = dict.fromkeys(name for scores in self.found.values() for name in scores)
        values = {name: [s[name] for s in self.found.values() if math.isfinite(s[name])] for name in names}
        return {name: fmean(defined) for name, defined in values.items() if defined}

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Prints the final scores of a few pairs, the time that scoring took, and what is wrong with any."""
        if self.finals:
            share = self.seconds / (time.monotonic() - self._began)
            lines = [table.text(self.finals)] if len(self.finals) <= _MOST_SHOWN else []
            lines += [f"scoring took {self.seconds:.1f} s, {share:.1%} of the run"]
            lines = lines if trainer.progress_bar_callback is not None else []  # whoever wants no bar is only warned
            lines += [f"nst: {line}" for line in table.warnings(self.finals)]
            # Not on the line of a progress bar, which is closed after this.
            tqdm.write("\n".join(lines), file=STDERR, end="\n" if lines else "")

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: object,
        batch: Step,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Scores the pictures of a checkpoint."""
        self._score(pl_module, batch)
        self.finals |= self.found
        pl_module.log_dict(self._tagged(), batch_size=1)

    def _log(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Hands the scores to callbacks, and to loggers at the very step, which need not be one of theirs."""
        means = self._tagged()
        module.log_dict(means, batch_size=1, logger=False)
        for logger in trainer.loggers:
            logger.log_metrics(means, trainer.global_step)

    def _tagged(self) -> dict[str, float]:
        return {f"score/{name}": mean for name, mean in self.means().items()}

    def _write(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        assert isinstance(module, ImageOptimization)
        losses = {f"loss/{name}": values for name, values in module.losses.items() if "/" not in name}
        for index, (name, scores) in enumerate(self.found.items()):
            of_pair = {loss: values[index].item() for loss, values in losses.items()}
            with replacing(Run(Path(trainer.default_root_dir)).scores(name)) as file:
                file.write_text(table.as_json({"pair": name, **scores, **of_pair}), encoding="utf-8")

    def _is_due(self, step: Step) -> bool:
        every = max(1, step.batch.steps // _TIMES) if self.every is None else self.every
        if self.every is None and self.seconds + 2 * self._last > SHARE * (time.monotonic() - self._began):
            return step.is_last
        return step.is_last or (step.index + 1) % every == 0

    def _score(self, module: L.LightningModule, step: Step) -> None:
        assert isinstance(module, ImageOptimization)
        before = time.monotonic()
        if self._compared != (step.batch, step.stage):
            self._compared = step.batch, step.stage
            contents = torch.split(step.batch.contents(step.stage).to(module.device), 1)
            styles = [[style.image().to(module.device) for style in each] for each in step.batch.paintings(step.stage)]
            self._references = [self.scorer.reference(*of_pair) for of_pair in zip(contents, styles, strict=True)]
        pictures = list(zip(step.batch.names, torch.split(module.result, 1), self._references, strict=True))
        self.found = {name: self.scorer.scores(image, reference) for name, image, reference in pictures}
        maps = {name: self.scorer.map(image, reference) for name, image, reference in pictures}
        self.maps = {name: found for name, found in maps.items() if found is not None}
        self._last = time.monotonic() - before
        self.seconds += self._last
