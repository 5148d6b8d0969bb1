"""The style weights of strengths: how far pictures go from their photographs to their paintings, told by the scores."""

from __future__ import annotations

import math
import os
import signal
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate, pairwise
from statistics import fmean
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from tqdm import tqdm

from nst_lightning import memory
from nst_lightning.batches import Step, Timeline
from nst_lightning.data import PairDataModule, data_of, is_writer
from nst_lightning.errors import InputError
from nst_lightning.metrics.scorer import Reference, Scorer
from nst_lightning.modules.optimization import ImageOptimization
from nst_lightning.pairs import Pair
from nst_lightning.terminal import STDERR

FACTORS = (0.008, 0.04, 0.2, 1.0, 5.0)
"""The run's style weight times these is tried; the last one's picture is that of strength 1."""
SIZE = 192  # px, the long side of what is painted to be judged
STEPS = 30  # at most


def way(scores: Mapping[str, float], gentlest: Mapping[str, float]) -> float:
    """Returns how far a picture is from its photograph, at 0, on the way to its painting, at 1.

    The mean, of those that are defined, of `palette` and `texture`, and of the part of `outline` that is lost beside a
    picture of hardly any style weight, which has fewer than the photograph where it was enlarged on the way; each of
    them in [0, 1]. NaN where none is defined.
    """
    parts = scores["palette"], scores["texture"], 1 - scores["outline"] / (gentlest["outline"] or math.nan)
    defined = [min(max(part, 0.0), 1.0) for part in parts if math.isfinite(part)]
    return fmean(defined) if defined else math.nan


def weight_of(strength: float, weights: Sequence[float], ways: Sequence[float]) -> float:
    """Returns the style weight whose picture goes the share `strength`, in [0, 1], of the way at the largest weight.

    Linear in the logarithm of the weights, which rise, between those whose ways are known; in the weight below the
    first of them. A way is taken for no shorter than that at a lower weight. To 4 digits, as it is told.
    """
    gone = [*accumulate(ways, max)]
    wanted = strength * gone[-1]
    if wanted <= gone[0]:
        found = weights[0] * (wanted / gone[0] if gone[0] > 0 else strength)
    else:
        (low, high), (less, more) = next(
            (ends, reached)
            for ends, reached in zip(pairwise(weights), pairwise(gone), strict=True)
            if reached[1] >= wanted
        )
        found = low * (high / low) ** ((wanted - less) / (more - less))
    return float(f"{found:.4g}")


class Strength(Callback):
    """Finds the style weights of pairs that have a strength, as their batch begins, once for pairs of the same images.

    A batch that goes on from a checkpoint has those that were found before.
    """

    def __init__(self) -> None:
        self._tried: dict[str, tuple[list[float], list[float]]] = {}  # weights and ways, by what is painted
        self._found: Mapping[str, float] = {}  # style weights by a pair's name, from the trainer's checkpoint

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Takes over the weights that were found before."""
        self._found = checkpoint["batch"].get("weights", {})

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Step, batch_idx: int
    ) -> None:
        """Has the batch be of pairs with style weights of their own."""
        if any(_is_open(pair) for pair in batch.batch.pairs):
            assert isinstance(pl_module, ImageOptimization)
            assert isinstance(trainer.train_dataloader, Timeline)
            pl_module.stuck = batch  # so that a pair that cannot be judged is left out alone
            trainer.train_dataloader.exchange(
                batch, [self._weighed(trainer, pl_module, batch, pair) for pair in batch.batch.pairs]
            )

    def _weighed(self, trainer: L.Trainer, module: ImageOptimization, step: Step, pair: Pair) -> Pair:
        """Returns a pair with its style weight, which is said where it was not known."""
        if not _is_open(pair):
            return pair
        saved = self._found if step.batch.saved is None else step.batch.saved.weights
        weight = saved.get(pair.name)
        if weight is None:
            sources = (pair.content, *pair.styles)
            images = [os.fspath(each) if isinstance(each, (str, os.PathLike)) else id(each) for each in sources]
            key = str([*images, step.stages, {**pair.settings, "strength": None}])
            if key not in self._tried:
                self._tried[key] = _judged(trainer, module, step, pair)
            assert pair.strength is not None
            weight = weight_of(pair.strength, *self._tried[key])
            # Of processes that work on one image, that of the first.
            weight = trainer.strategy.broadcast(weight)
            if is_writer(trainer):
                line = f"nst: {pair.name}: strength {pair.strength:g} is style_weight {weight:g}"
                tqdm.write(line, file=STDERR)  # not on the line of a progress bar
        return replace(pair, weights={**pair.weights, "style": weight})


def _is_open(pair: Pair) -> bool:
    return pair.strength is not None and "style" not in pair.weights


def _judged(trainer: L.Trainer, module: ImageOptimization, step: Step, pair: Pair) -> tuple[list[float], list[float]]:
    """Returns style weights in rising order, and how far small pictures of them go, painted as one batch."""
    problem, data = module.problem, data_of(trainer)
    weights = [problem.weight(pair, "style") * factor for factor in FACTORS]
    tried = tuple(
        replace(pair, name=str(number), weights={**pair.weights, "style": weight}, size=None, steps=None, strength=None)
        for number, weight in enumerate(weights)
    )
    last, steps = step.stages[-1], sum(stage.steps for stage in step.stages)
    couples = isinstance(trainer.optimizers[0], torch.optim.LBFGS)
    small = PairDataModule(
        pairs=tried,  # type: ignore[arg-type] # as Python may, see PairDataModule
        size=min(SIZE, last.size),
        steps=min(STEPS, steps),
        stages=[*step.stages],
        style_scale=data.style_scale,
        upscale=data.upscale,
        batch_size=1 if couples else len(tried),
    )
    judge = _Judge()
    device = module.device
    off: dict[str, Any] = dict.fromkeys(
        ("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing"), False
    )
    inner = L.Trainer(
        accelerator=device.type if device.type != "cuda" else "gpu",
        devices=1 if device.index is None else [device.index],
        max_epochs=1,
        precision=trainer.precision,
        callbacks=[judge],
        **off,
    )
    inner.fit(ImageOptimization(replace(problem, compile=False, graph=False)), datamodule=small)
    problem.backbone.to(device)  # the end of a run brings its module to the CPU
    if device.type == "cpu":
        memory.reuse_freed()
    ways = [way(judge.scores[each.name], judge.scores[tried[0].name]) for each in tried]
    if not all(map(math.isfinite, ways)):
        raise InputError(f"pair {pair.name}: its strength cannot be told by the scores; give a style_weight instead")
    return weights, ways


class _Judge(Callback):
    """Scores finished pictures that are of one photograph and its paintings."""

    def __init__(self) -> None:
        self.scores: dict[str, dict[str, float]] = {}
        self._scorer = Scorer(("outline", "palette", "texture"))
        self._reference: Reference | None = None
        self._on_end = signal.getsignal(signal.SIGTERM)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Takes SIGTERM back from Lightning for whom it belonged to."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._on_end)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: Step, batch_idx: int
    ) -> None:
        """Scores those of a batch."""
        assert isinstance(pl_module, ImageOptimization)
        if not batch.is_last:
            return
        device = pl_module.device
        if self._reference is None:
            styles = [style.image().to(device) for style in batch.batch.styles(batch.stage)[0]]
            self._reference = self._scorer.reference(batch.batch.contents(batch.stage)[:1].to(device), styles)
        for name, picture in zip(batch.batch.names, torch.split(pl_module.result, 1), strict=True):
            self.scores[name] = self._scorer.scores(picture, self._reference)
