"""Keeps what a run has done on disk, so that another run, of any number of processes, can do the rest."""

from __future__ import annotations

import json
import time
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint

from nst_lightning.batches import Step
from nst_lightning.data import PairDataModule, data_of, is_writer
from nst_lightning.errors import InputError
from nst_lightning.modules import ImageOptimization
from nst_lightning.progress import CheckpointFiles, Progress, fingerprint
from nst_lightning.runs import Run, replacing

_YEAR = 365 * 24 * 60  # minutes
_FREE = {
    "stages",
    "tile",
    "compile",
}  # settings that a run may go on without: more steps are, the others change nothing


class Checkpoints(Checkpoint):
    """Saves the batch that is optimised, named after its first pair, and marks what is finished, see `runs.Run`.

    A checkpoint goes when its batch is finished. Those that an earlier run left in the folder, of pairs that this one
    is about to begin, are removed as it starts. Between two checkpoints are so many minutes, above 0, at most a year.

    Raises:
        InputError: If the minutes are out of range.
    """

    def __init__(self, run: Run, minutes: float) -> None:
        if not 0 < minutes <= _YEAR:
            raise InputError(f"checkpoint_minutes must be above 0 and at most {_YEAR}, got {minutes}")
        self.run, self.minutes = run, minutes
        self._saved = 0.0

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Has the trainer write its checkpoints whole."""
        trainer.strategy.checkpoint_io = CheckpointFiles()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Removes what is out of date, unless the run goes on from a checkpoint, which may be one of the folder's."""
        self._saved = time.monotonic()
        if is_writer(trainer) and data_of(trainer).progress == Progress():
            assert isinstance(pl_module, ImageOptimization)
            settings = begun_with(trainer, pl_module, data_of(trainer))
            with replacing(self.run.begun) as file:
                file.write_text(json.dumps(settings, indent=1), encoding="utf-8")
        for batch in data_of(trainer).batches if is_writer(trainer) and trainer.global_step == 0 else ():
            for name in batch.names:
                self.run.marker(name).unlink(missing_ok=True)
                if batch.saved is None:
                    self.run.forget(name)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: Step, batch_idx: int
    ) -> None:
        """Saves where it is time to, and marks what is finished."""
        if batch.is_last and is_writer(trainer):
            self._finish(batch)
        # The processes of one image save together, though their clocks differ.
        elif not batch.is_last and trainer.strategy.broadcast(time.monotonic() - self._saved >= 60 * self.minutes):
            self._save(trainer, batch)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Saves the batch where the trainer was told to stop early, by its `max_time` say."""
        if (step := data_of(trainer).unfinished_step()) is not None:
            self._save(trainer, step)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Saves what there is of a batch that was begun."""
        self.on_train_end(trainer, pl_module)

    def _save(self, trainer: L.Trainer, step: Step) -> None:
        name = step.batch.names[0]
        path, before = self.run.checkpoint(name), self.run.checkpoint_before(name)
        if path.exists() and is_writer(trainer):
            before.parent.mkdir(exist_ok=True)
            path.replace(before)
        trainer.save_checkpoint(path)
        self._saved = time.monotonic()

    def _finish(self, step: Step) -> None:
        for name in step.batch.names:
            marker = self.run.marker(name)
            marker.parent.mkdir(parents=True, exist_ok=True)
            marker.touch()
        self.run.forget(step.batch.names[0])


def begun_with(trainer: L.Trainer, module: ImageOptimization, data: PairDataModule) -> dict[str, Any]:
    """Returns what the pictures of a run follow from, see `progress.fingerprint`."""
    settings = {**data.settings, **module.settings, "precision": str(trainer.precision)}
    return fingerprint({name: value for name, value in settings.items() if name not in _FREE}, data.pairs)
