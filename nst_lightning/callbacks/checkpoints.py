"""Keeps what a run has done on disk, so that another run, of any number of processes, can do the rest."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.utilities.types import _PATH
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from nst_lightning.batches import Step
from nst_lightning.data import PairDataModule, data_of, is_writer
from nst_lightning.errors import InputError
from nst_lightning.modules import ImageOptimization
from nst_lightning.pairs import Pair
from nst_lightning.progress import Progress, loaded
from nst_lightning.recipe import digest
from nst_lightning.runs import Run, no_folder, replacing

_YEAR = 365 * 24 * 60  # minutes
# What may differ as a run goes on: there may be more steps, and the others change no pixel.
_FREE = {"stages", "tile", "compile", "graph"}


class CheckpointFiles(TorchCheckpointIO):
    """Writes checkpoints beside the ones that they replace, whole or not at all, and reads them by `loaded`."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: _PATH, storage_options: object = None) -> None:
        """Saves a checkpoint."""
        whole = BytesIO()  # for torch's own writer does not say why it failed
        torch.save(checkpoint, whole)
        with replacing(Path(path)) as file:
            file.write_bytes(whole.getbuffer())

    def load_checkpoint(
        self,
        path: _PATH,
        map_location: object = None,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Returns a checkpoint on the CPU."""
        return loaded(Path(path), torch.device("cpu"))


class Checkpoints(Checkpoint):
    """Saves the batch that is optimised, named after its first pair, and marks what is finished, see `runs.Run`.

    A checkpoint goes when its batch is finished. Those that an earlier run left in the folder, of pairs that this one
    is about to begin, are removed as it starts. Between two checkpoints are so many minutes, above 0, at most a year;
    with None there are only the marks.

    Raises:
        InputError: If the minutes are out of range; in a run, if its trainer has another plugin for checkpoints.
    """

    def __init__(self, run: Run, minutes: float | None) -> None:
        if minutes is not None and not 0 < minutes <= _YEAR:
            raise InputError(f"checkpoint_minutes must be above 0 and at most {_YEAR}, got {minutes}")
        self.run, self.minutes = run, math.inf if minutes is None else minutes
        self._saved = 0.0
        self._saved_after = 0  # steps

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Has the trainer write its checkpoints whole."""
        given = type(trainer.strategy.checkpoint_io)
        if given not in (TorchCheckpointIO, CheckpointFiles):
            raise InputError(f"trainer.plugins: {given.__name__} cannot be used: checkpoints are written whole or not")
        trainer.strategy.checkpoint_io = CheckpointFiles()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Removes what is out of date, unless the run goes on from a checkpoint, which may be one of the folder's."""
        self._saved, self._saved_after = time.monotonic(), 0
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
        """Saves the batch where the trainer was told to stop early, by its `max_time` say; once a step."""
        step = data_of(trainer).unfinished_step()
        if step is not None and self._saved_after != trainer.global_step:
            self._save(trainer, step)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Saves what there is of a batch that was begun, once."""
        self.on_train_end(trainer, pl_module)

    def _save(self, trainer: L.Trainer, step: Step) -> None:
        module = trainer.lightning_module
        assert isinstance(module, ImageOptimization)
        if self.minutes == math.inf or not bool(module.image.isfinite().all()):  # the last one that was is worth more
            return
        name = step.batch.names[0]
        path, before = no_folder(self.run.checkpoint(name)), no_folder(self.run.checkpoint_before(name))
        if path.exists() and is_writer(trainer):
            before.parent.mkdir(exist_ok=True)
            path.replace(before)
        trainer.save_checkpoint(path)
        self._saved, self._saved_after = time.monotonic(), trainer.global_step

    def _finish(self, step: Step) -> None:
        for name in step.batch.names:
            marker = self.run.marker(name)
            marker.parent.mkdir(parents=True, exist_ok=True)
            marker.touch()
            self.run.why_failed(name).unlink(missing_ok=True)
        self.run.forget(step.batch.names[0])


def sums(pair: Pair, sum_of: Callable[[str], str] = digest) -> dict[str, str]:
    """Returns the sums of a pair's images that are files, by what they are called."""
    files = {"content image": pair.content, **{f"style image {n}": each for n, each in enumerate(pair.styles, 1)}}
    if pair.before is not None:
        files |= dict(zip(("picture before", "content image before"), pair.before, strict=True))
    files |= {f"mask {n}": each for n, each in enumerate(pair.mask_files, 1)}
    given = {name: os.fspath(file) for name, file in files.items() if isinstance(file, (str, os.PathLike))}
    return {name: sum_of(file) for name, file in given.items()}


def fingerprint(settings: Mapping[str, Any], pairs: Sequence[Pair]) -> dict[str, Any]:
    """Returns all that a run's pictures follow from but the steps, by names that a user knows, as JSON has it."""
    sum_of = cache(digest)  # once an image: many pairs share theirs
    found = dict(settings)
    for pair in pairs:
        found[f"{pair.name}: regions"] = len(pair.regions_of_content)  # of which no setting means none
        found |= {f"{pair.name}: {name}": value for name, value in pair.settings.items()}
        # What is before a frame follows from the other frames, and may not be there yet.
        found |= {f"{pair.name}: {name}": sum_ for name, sum_ in sums(replace(pair, before=None), sum_of).items()}
    return dict(json.loads(json.dumps(found, default=str)))


def check_begun(run: Run, now: Mapping[str, Any]) -> None:
    """Refuses to go on with a run whose pictures would be of two kinds."""
    if not run.begun.is_file():  # nothing was begun, or by a version that did not note it
        return
    try:
        before = dict(json.loads(run.begun.read_text(encoding="utf-8")))
    except (ValueError, TypeError, RecursionError) as error:
        reason = "is damaged: without it the run goes on, and its settings are not compared"
        raise InputError(f"{run.begun}: {reason}") from error
    if told := differing(before, now):
        raise InputError(f"{run.folder}: was begun otherwise ({told}): give the same, or begin a run with --output")


def differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Returns what two fingerprints differ in, three of it at most; empty where they do not."""
    # Not what only one of them has: pairs may be added, and versions have new settings.
    found = [name for name in before if name in now and now[name] != before[name]]
    return "; ".join(f"{name} was {before[name]}, now {now[name]}" for name in found[:3])


def begun_with(trainer: L.Trainer, module: ImageOptimization, data: PairDataModule) -> dict[str, Any]:
    """Returns what the pictures of a run follow from, see `fingerprint`."""
    of_trainer = {"size": data.stages[-1].size, "precision": str(trainer.precision)}
    settings = {**data.settings, **module.settings, **of_trainer}
    return fingerprint({name: value for name, value in settings.items() if name not in _FREE}, data.pairs)
