"""The progress bar."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import lightning as L
from lightning.pytorch import callbacks
from torch import Tensor
from tqdm.auto import tqdm

from nst_lightning.batches import Step, Timeline
from nst_lightning.callbacks.scores import Scores
from nst_lightning.callbacks.secondary import secondary
from nst_lightning.errors import InputError
from nst_lightning.metrics.base import known
from nst_lightning.modules import ImageOptimization
from nst_lightning.terminal import STDERR


@secondary("the progress bar")
class ProgressBar(callbacks.ProgressBar):
    """Shows step, time left, loss, score, stage and pair, in this order, of which a narrow terminal drops the last.

    The time left counts pixels, for steps of late stages take longer. In a notebook it is a widget.

    Args:
        interval: Seconds between two refreshes, >= 0; by default 0.2 on a terminal and 10 in a file.
        scores: The callback that scores the pictures.
        shown: The score to show beside the loss, once there is one: the mean over the batch's pictures.

    Raises:
        InputError: If there is no score of the name `shown`.
    """

    def __init__(
        self, interval: float | None = None, scores: Scores | None = None, shown: str | None = "overall"
    ) -> None:
        super().__init__()
        names = [score.name for score in known()]
        if shown is not None and not shown.startswith(tuple(names)):
            raise InputError(f"show_score: unknown score {shown!r}; known are {', '.join(names)}")
        usual = 0.2 if STDERR.isatty() or "ipykernel" in sys.modules else 10.0
        self.interval = usual if interval is None else interval
        self.scores, self.shown = scores, shown
        self._score = ""
        self._enabled = True
        self._bar: Any = None  # a tqdm
        self._began = self._shown = 0.0

    def disable(self) -> None:
        """Shows nothing from now on: what Lightning asks of the processes beside the first."""
        self._enabled = False

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begins where the run does, which after a resume is not at 0."""
        timeline = _timeline(trainer)
        self._began = time.monotonic()
        layout = "{percentage:3.0f}%|{bar:10}| {n_fmt}/{total_fmt}{postfix}"
        self._bar = tqdm(
            total=len(timeline),
            file=STDERR,
            initial=timeline.start,
            disable=not self._enabled,
            dynamic_ncols=True,
            bar_format=layout,
        )

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: Step, batch_idx: int
    ) -> None:
        """Refreshes the bar where it is time to."""
        assert isinstance(pl_module, ImageOptimization)
        if self.scores is not None:
            self.scores.take(trainer, pl_module, batch)
            self._remember_score(batch, self.scores.means())
        self._refresh(_timeline(trainer), trainer.global_step, batch, pl_module.losses)

    def _refresh(self, timeline: Timeline, done: int, step: Step, losses: Mapping[str, Tensor]) -> None:
        now = time.monotonic()
        if self._bar is None or self._bar.disable or (now - self._shown < self.interval and done < len(timeline)):
            return  # reading the loss would make a GPU wait
        self._shown = now
        self._bar.n, self._bar.total = done, len(timeline)
        left = (now - self._began) * timeline.cost(done, len(timeline)) / timeline.cost(timeline.start, done)
        loss = losses["total"].mean().item()
        shown = f"left {timedelta(seconds=round(left))}, loss {loss:.3g}{self._score}, {describe(step, timeline)}"
        columns, before = self._bar.format_dict["ncols"], f"100%|{'':10}| {done}/{len(timeline)}, "
        while columns is not None and len(before + shown) >= columns and ", " in shown:
            shown = shown.rpartition(", ")[0]
        self._bar.set_postfix_str(shown, refresh=False)
        self._bar.refresh()

    def _remember_score(self, step: Step, means: Mapping[str, float]) -> None:
        if self.shown is not None and self.shown in means:
            self._score = f", {self.shown} {means[self.shown]:.2f}"
        elif step.is_first:
            self._score = ""

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Closes the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Closes the bar, so that the message stands on a line of its own."""
        self.on_train_end(trainer, pl_module)


def describe(step: Step, timeline: Timeline) -> str:
    """Returns what is being done in a few words: the stage, the pair, and its place in the run."""
    pairs = step.batch.pairs
    others = f" +{len(pairs) - 1}" if len(pairs) > 1 else ""
    batches = f" ({step.batch_index + 1}/{len(timeline.batches)})" if len(timeline.batches) > 1 else ""
    height, width = step.batch.output_size(step.stage)
    return f"{width}x{height} px ({step.stage_index + 1}/{len(step.stages)}), {pairs[0].name}{others}{batches}"


def _timeline(trainer: L.Trainer) -> Timeline:
    timeline = trainer.train_dataloader
    assert isinstance(timeline, Timeline)
    return timeline
