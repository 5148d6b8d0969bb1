"""Writes the output pictures."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import lightning as L
from torch import Tensor

from nst_lightning import images
from nst_lightning.batches import Step
from nst_lightning.callbacks.beside import Beside, on_its_way
from nst_lightning.data import data_of, is_writer
from nst_lightning.errors import InputError
from nst_lightning.interruption import Interrupted
from nst_lightning.modules import ImageOptimization
from nst_lightning.pairs import Pair
from nst_lightning.recipe import TEXT, Recipe
from nst_lightning.runs import Run


class ImageWriter(Beside):
    """Writes each pair's picture when it is finished, every k steps where asked, and as it is when a run is broken off.

    They go into the run folder, the trainer's `default_root_dir`, settings and seed in their metadata. `written` lists
    the finished ones in the order of writing. Those on the way are written beside the steps.

    Args:
        file: Where to write the finished picture of the only pair instead; the suffix gives the format.
        every: The number of steps between the pictures on the way, >= 1; None writes none.
        overwrite: Whether a finished picture may replace a file.
        bits: Those of a channel of the finished pictures, 8 or 16, see `images.write`.
        recipe: Returns what the picture of a pair was made with, to be kept in its file.

    Raises:
        InputError: If `every` is below 1.
    """

    def __init__(
        self,
        file: str | Path | None = None,
        every: int | None = None,
        overwrite: bool = False,
        recipe: Callable[[Pair], Recipe] | None = None,
        bits: int = 8,
    ) -> None:
        if every is not None and every < 1:
            raise InputError(f"save_every must be at least 1, got {every}")
        super().__init__()
        self.file = None if file is None else Path(file)
        self.every, self.overwrite, self.recipe, self.bits = every, overwrite, recipe, bits
        self.written: list[Path] = []
        self.as_it_is: Path | None = None  # the last picture on the way

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Checks that the pictures can be written before an hour of work is spent on them.

        Raises:
            ImageError: If a folder cannot be written to, or the file's suffix is none of a format that is written.
            InputError: If one file is to hold several pairs.
        """
        images.format_of("picture.png" if self.file is None else self.file, self.bits)
        if self.file is not None:
            images.check_writable(self.file.parent)
            if (pairs := len(data_of(trainer).pairs)) > 1:
                raise InputError(f"{self.file}: one file cannot hold {pairs} pairs; name a folder as output")
        images.check_writable(trainer.default_root_dir)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: Step, batch_idx: int
    ) -> None:
        """Writes what is due after a step."""
        assert isinstance(pl_module, ImageOptimization)
        if batch.is_last:
            self.finish()
            self._work(trainer, pl_module, batch, is_finished=True)()
        elif self.every is not None and (batch.index + 1) % self.every == 0:
            self.do(self._work(trainer, pl_module, batch, is_finished=False))

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Writes the picture as it is where the trainer was told to stop early."""
        assert isinstance(pl_module, ImageOptimization)
        self.finish()
        if (step := data_of(trainer).unfinished_step()) is not None:
            self._work(trainer, pl_module, step, is_finished=False)()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Writes the picture as it is when the run is interrupted."""
        super().on_exception(trainer, pl_module, exception)
        if isinstance(exception, (KeyboardInterrupt, Interrupted)):
            self.on_train_end(trainer, pl_module)

    def _work(self, trainer: L.Trainer, module: ImageOptimization, step: Step, is_finished: bool) -> Callable[[], None]:
        """Returns what writes the pictures as they are now."""
        if not is_writer(trainer):
            return lambda: None
        results, alphas = on_its_way(module.result), step.batch.alphas(step.stage)
        return partial(self._write, trainer, module, step, is_finished, results, alphas)

    def _write(
        self,
        trainer: L.Trainer,
        module: ImageOptimization,
        step: Step,
        is_finished: bool,
        results: Callable[[], Tensor],
        alphas: Sequence[Tensor | None],
    ) -> None:
        run, paper = Run(Path(trainer.default_root_dir)), data_of(trainer).paper
        dpi = None if paper is None else paper.dpi
        for pair, rgb, alpha in zip(step.batch.pairs, results(), alphas, strict=True):
            settings = {**module.settings_of(step, pair), "step": step.index + 1}
            metadata = {"Software": "nst-lightning", "nst_lightning": json.dumps(settings)}
            if is_finished:
                metadata |= {} if self.recipe is None else {TEXT: self.recipe(pair).text()}
                path = run.picture(pair.name) if self.file is None else self.file
                self.written.append(images.write(path, rgb, alpha, metadata, self.overwrite, self.bits, dpi))
            else:
                path = run.picture_at(pair.name, step.index + 1)
                self.as_it_is = images.write(path, rgb, alpha, metadata, overwrite=True, dpi=dpi)
