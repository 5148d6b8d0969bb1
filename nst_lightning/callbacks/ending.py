"""How a run ends before its work is done: between two steps, and first of all with its checkpoint."""

from __future__ import annotations

import signal
from contextlib import suppress

import lightning as L
from lightning.pytorch.callbacks import Callback

from nst_lightning.batches import Step
from nst_lightning.callbacks.checkpoints import Checkpoints
from nst_lightning.interruption import Wish, take
from nst_lightning.parallel import TileParallel, is_orphan


class Ending(Callback):
    """Ends a run where a signal wished it, or where the process that started this one is gone.

    It goes before all other callbacks, which may fail as the run ends: the checkpoint is saved by then.
    """

    def __init__(self, wish: Wish, checkpoints: Checkpoints) -> None:
        self.wish, self.checkpoints = wish, checkpoints

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Takes SIGTERM back from Lightning, which ends a run without a word."""
        take(self.wish.note)
        # Processes that work on one image end after the same step, or they wait for each other.
        self.wish.patient = isinstance(trainer.strategy, TileParallel)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Step, batch_idx: int
    ) -> None:
        """Ends the run where it is to."""
        if is_orphan():
            self.wish.note(signal.SIGTERM)
        self.wish.number = trainer.strategy.broadcast(self.wish.number)
        self.wish.fulfil()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Saves what there is; where the disk cannot take it, that is told when the others have come to their ends."""
        with suppress(OSError):
            self.checkpoints.on_exception(trainer, pl_module, exception)
