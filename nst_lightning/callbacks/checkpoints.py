"""Keeps what a run has done on disk, so that another run, of any number of processes, can do the rest."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint

from nst_lightning.batches import Batch, Step
from nst_lightning.data import PairDataModule, data_of, is_writer
from nst_lightning.errors import InputError
from nst_lightning.runs import Run

_YEAR = 365 * 24 * 60  # minutes


class Checkpoints(ModelCheckpoint):
    """Saves the batch that is optimised, named after its first pair, and marks what is finished, see `runs.Run`.

    A checkpoint goes when its batch is finished. Those that an earlier run left in the folder, of pairs that this one
    is about to begin, are removed as it starts.

    Args:
        run: Where to write.
        minutes: Between two checkpoints, above 0, at most a year.

    Raises:
        InputError: If the minutes are out of range.
    """

    def __init__(self, run: Run, minutes: float) -> None:
        if not 0 < minutes <= _YEAR:
            msg = f"checkpoint_minutes must be above 0 and at most {_YEAR}, got {minutes}"
            raise InputError(msg)
        super().__init__(
            run.checkpoints,
            train_time_interval=timedelta(minutes=minutes),
            save_on_exception=True,
            enable_version_counter=False,
        )
        self.run = run
        self._data: PairDataModule | None = None

    @property
    def state_key(self) -> str:
        """What a checkpoint calls this callback: the same whatever its settings, so that these may change."""
        return type(self).__qualname__

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Notes the data, which know where the run is."""
        super().setup(trainer, pl_module, stage)
        self._data = data_of(trainer)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Removes what is out of date, unless the run goes on from a checkpoint, which may be one of the folder's."""
        super().on_train_start(trainer, pl_module)
        if is_writer(trainer) and trainer.global_step == 0:
            for batch in data_of(trainer).batches:
                self._forget(batch)

    def format_checkpoint_name(
        self, metrics: Mapping[str, Any], filename: str | None = None, ver: int | None = None, prefix: str | None = None
    ) -> str:
        """Returns the path of the current batch's checkpoint."""
        assert self._data is not None
        step = self._data.last_step()
        assert step is not None  # Lightning saves behind steps only
        return os.fspath(self._path(step))

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,  # noqa: ANN401 - as Lightning has it
        batch: Step,
        batch_idx: int,
    ) -> None:
        """Saves where it is time to, and marks what is finished."""
        if not batch.is_last:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        elif is_writer(trainer):
            self._finish(batch)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Saves the batch where the trainer was told to stop early, by its `max_time` say."""
        step = data_of(trainer).unfinished_step()
        if step is not None and self._last_global_step_saved != trainer.global_step:
            trainer.save_checkpoint(self._path(step))

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Saves what there is of a batch that was begun."""
        if data_of(trainer).unfinished_step() is not None:
            super().on_exception(trainer, pl_module, exception)

    def _path(self, step: Step) -> Path:
        return self.run.checkpoint(step.batch.names[0])

    def _finish(self, step: Step) -> None:
        for name in step.batch.names:
            marker = self.run.marker(name)
            marker.parent.mkdir(parents=True, exist_ok=True)
            marker.touch()
        self._path(step).unlink(missing_ok=True)

    def _forget(self, batch: Batch) -> None:
        for name in batch.names:
            self.run.marker(name).unlink(missing_ok=True)
            if batch.saved is None:
                self.run.checkpoint(name).unlink(missing_ok=True)
