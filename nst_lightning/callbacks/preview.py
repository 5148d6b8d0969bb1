"""The picture as it is, to be looked at while it is painted."""

from __future__ import annotations

import time
from pathlib import Path

import lightning as L
from lightning.pytorch.callbacks import Callback

from nst_lightning import images
from nst_lightning.batches import Step
from nst_lightning.callbacks.secondary import secondary
from nst_lightning.data import is_writer
from nst_lightning.modules import ImageOptimization
from nst_lightning.runs import Run

_INTERVAL = 5.0  # s


@secondary("the preview")
class Preview(Callback):
    """Writes `Run.preview` after the first step and every five seconds, of a batch its first pair, until the end."""

    def __init__(self) -> None:
        self._last = 0.0

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: Step, batch_idx: int
    ) -> None:
        """Writes it where it is time to."""
        assert isinstance(pl_module, ImageOptimization)
        if is_writer(trainer) and (batch.index == 0 or time.monotonic() - self._last > _INTERVAL):
            preview = Run(Path(trainer.default_root_dir)).preview(trainer.global_rank)
            images.write(preview, pl_module.result[0].cpu(), overwrite=True)
            self._last = time.monotonic()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Removes it."""
        Run(Path(trainer.default_root_dir)).preview(trainer.global_rank).unlink(missing_ok=True)
