"""Keeps what a run has done on disk, so that another run, of any number of processes, can do the rest."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_warn

from nst_lightning.batches import Batch, Saved, Step
from nst_lightning.data import data_of, is_writer
from nst_lightning.errors import InputError
from nst_lightning.schedule import Stage

_YEAR = 365 * 24 * 60  # minutes


class Checkpoints(ModelCheckpoint):
    """Saves the batch that is optimised as `<folder>/<its first pair>.ckpt`, and what is finished as empty files.

    A checkpoint goes when its batch is finished; then `<folder>/finished/<pair>` says so of each pair. Those that an
    earlier run left in the folder, of pairs that this one is about to begin, are removed as it starts.

    Args:
        folder: Where to write.
        minutes: Between two checkpoints, above 0, at most a year.

    Raises:
        InputError: If the minutes are out of range.
    """

    def __init__(self, folder: Path, minutes: float) -> None:
        if not 0 < minutes <= _YEAR:
            msg = f"checkpoint_minutes must be above 0 and at most {_YEAR}, got {minutes}"
            raise InputError(msg)
        super().__init__(
            folder,
            train_time_interval=timedelta(minutes=minutes),
            save_on_exception=True,
            enable_version_counter=False,
        )
        self.folder = folder
        self._name: str | None = None

    @property
    def state_key(self) -> str:
        """What a checkpoint calls this callback: the same whatever its settings, so that these may change."""
        return type(self).__qualname__

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
        return os.fspath(self.folder / f"{self._name}.ckpt")

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Step, batch_idx: int
    ) -> None:
        """Notes which batch it is."""
        self._name = batch.batch.names[0]

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
            (self.folder / "finished").mkdir(parents=True, exist_ok=True)
            for name in batch.batch.names:
                (self.folder / "finished" / name).touch()
            (self.folder / f"{self._name}.ckpt").unlink(missing_ok=True)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Saves the batch where the trainer was told to stop early, by its `max_time` say."""
        if data_of(trainer).unfinished_step() is not None and self._last_global_step_saved != trainer.global_step:
            trainer.save_checkpoint(self.format_checkpoint_name({}))

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Saves what there is of a batch that was begun."""
        if data_of(trainer).unfinished_step() is not None:
            super().on_exception(trainer, pl_module, exception)

    def _forget(self, batch: Batch) -> None:
        for name in batch.names:
            (self.folder / "finished" / name).unlink(missing_ok=True)
            if batch.saved is None:
                (self.folder / f"{name}.ckpt").unlink(missing_ok=True)


def finished(folder: Path) -> frozenset[str]:
    """Returns the names of the pairs that a run with this folder of checkpoints has finished."""
    return frozenset(path.name for path in (folder / "finished").glob("*"))


def saved(folder: Path) -> tuple[Saved, ...]:
    """Returns the checkpoints of unfinished batches in a folder, the newest first; or the one that a file is."""
    files = [folder] if folder.is_file() else folder.glob("*.ckpt")
    newest = sorted(files, key=lambda path: -path.stat().st_mtime_ns)
    found = []
    for path in newest:
        try:
            checkpoint = torch.load(path, map_location="meta", weights_only=True)
        except (OSError, EOFError, RuntimeError, UnpicklingError):  # what torch makes of damaged files
            rank_zero_warn(f"{path}: is damaged; the pairs it was of will begin anew")
            continue
        batch = checkpoint.get("batch")
        if batch is not None and "convergence" not in checkpoint:
            rank_zero_warn(f"{path}: is of an earlier version; the pairs it was of will begin anew")
        elif batch is not None:
            stages = tuple(Stage(*stage) for stage in batch["stages"])
            found.append(Saved(path, tuple(batch["names"]), stages, batch["stage_index"], batch["taken"]))
    return tuple(found)
