"""Writes the output pictures."""

from __future__ import annotations

import json
from pathlib import Path

import lightning as L
from lightning.pytorch.callbacks import Callback

from nst_lightning import images
from nst_lightning.batches import Step
from nst_lightning.data import data_of, is_writer
from nst_lightning.errors import InputError
from nst_lightning.modules import ImageOptimization
from nst_lightning.pairs import Pair


class ImageWriter(Callback):
    """Writes each pair's picture when it is finished, every k steps where asked, and as it is when a run is broken off.

    The finished picture is `<root>/<pair>.png`, those on the way are `<root>/steps/<pair>/<step>.png`, with
    the trainer's `default_root_dir` as root. Settings and seed stand in the files' metadata.

    Args:
        file: Where to write the finished picture of the only pair instead; the suffix gives the format.
        every: The number of steps between the pictures on the way, >= 1; None writes none.
        overwrite: Whether a finished picture may replace a file.

    Attributes:
        written: The finished pictures, in the order of writing.

    Raises:
        InputError: If `every` is below 1.
    """

    def __init__(self, file: str | Path | None = None, every: int | None = None, overwrite: bool = False) -> None:
        if every is not None and every < 1:
            msg = f"save_every must be at least 1, got {every}"
            raise InputError(msg)
        self.file = None if file is None else Path(file)
        self.every = every
        self.overwrite = overwrite
        self.written: list[Path] = []

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Checks that the pictures can be written before an hour of work is spent on them.

        Raises:
            ImageError: If a folder cannot be written to, or the file's suffix is none of a format that is written.
            InputError: If one file is to hold several pairs.
        """
        if self.file is not None:
            images.format_of(self.file)
            images.check_writable(self.file.parent)
            count = len(data_of(trainer).pairs)
            if count > 1:
                msg = f"{self.file}: one file cannot hold {count} pairs; name a folder as output"
                raise InputError(msg)
        images.check_writable(trainer.default_root_dir)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: Step, batch_idx: int
    ) -> None:
        """Writes what is due after a step."""
        if batch.is_last:
            self._write(trainer, pl_module, batch, None)
        elif self.every is not None and (batch.index + 1) % self.every == 0:
            self._write(trainer, pl_module, batch, batch.index + 1)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Writes the picture as it is where the trainer was told to stop early."""
        self._write_unfinished(trainer, pl_module)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Writes the picture as it is when the run is interrupted by hand."""
        if isinstance(exception, KeyboardInterrupt):
            self._write_unfinished(trainer, pl_module)

    def _write_unfinished(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        step = data_of(trainer).unfinished_step()
        if step is not None:
            self._write(trainer, pl_module, step, step.index + 1)

    def _write(self, trainer: L.Trainer, pl_module: L.LightningModule, step: Step, number: int | None) -> None:
        assert isinstance(pl_module, ImageOptimization)
        if not is_writer(trainer):
            return
        root = Path(trainer.default_root_dir)
        results, alphas = pl_module.result.cpu(), step.batch.alphas(step.stage)
        for pair, rgb, alpha in zip(step.batch.pairs, results, alphas, strict=True):
            if number is not None:
                path, overwrite = root / "steps" / pair.name / f"{number:06d}.png", True
            else:
                path, overwrite = root / f"{pair.name}.png" if self.file is None else self.file, self.overwrite
            images.write(path, rgb[None], alpha, self._metadata(pl_module, step, pair), overwrite)
            if number is None:
                self.written.append(path)

    @staticmethod
    def _metadata(pl_module: ImageOptimization, step: Step, pair: Pair) -> dict[str, str]:
        settings = {**pl_module.settings_of(step, pair), "step": step.index + 1}
        return {"Software": "nst-lightning", "nst_lightning": json.dumps(settings)}
