"""Curves and pictures in TensorBoard, one run directory a pair."""

from __future__ import annotations

import itertools
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from socket import gethostname
from typing import Any

import lightning as L
import torch
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from tensorboard.summary.writer.record_writer import RecordWriter
from torch import Tensor
from torch.utils.tensorboard.summary import hparams, image, scalar

from nst_lightning.batches import Step
from nst_lightning.callbacks.beside import Beside, on_its_way
from nst_lightning.callbacks.scores import Scores
from nst_lightning.callbacks.secondary import secondary
from nst_lightning.data import data_of, is_writer
from nst_lightning.errors import InputError
from nst_lightning.metrics.table import SUMMARY
from nst_lightning.modules import ImageOptimization, tag_of
from nst_lightning.runs import Run

_NUMBERS = itertools.count()
Point = tuple["EventFile", int, Callable[[], list[Any]]]
"""A file, a step, and what makes the summaries that it is to have there: pictures are encoded then."""


class EventFile:
    """A file of curves and pictures, on the disk as soon as they are added, see `torch.utils.tensorboard`.

    Not its `SummaryWriter`, of whose thread nobody hears what comes of a full disk or a missing folder, and which a
    signal at the wrong moment has the program wait for, for minutes.

    Args:
        folder: That of the pair, which is made.
        first: Points of earlier files from this step on are hidden.
    """

    def __init__(self, folder: Path, first: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time():010.0f}.{gethostname()}.{os.getpid()}.{next(_NUMBERS)}"
        self._path = folder / name
        self._path.touch()
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))
        start = SessionLog(status=SessionLog.START)
        self._write(Event(wall_time=time.time(), step=first, session_log=start))

    def add(self, step: int, *summaries: Any) -> None:
        """Adds what torch's functions have made; an OSError says why it cannot be written."""
        self._write(*(Event(wall_time=time.time(), step=step, summary=each) for each in summaries))

    def _write(self, *events: Any) -> None:
        with self._path.open("r+b") as file:  # fails where it was deleted
            file.seek(0, os.SEEK_END)
            records = RecordWriter(file)
            for event in events:
                records.write(event.SerializeToString())


# TensorBoard's table shows five settings without being asked: first those that differ, or are said to, by their names.
_SHOWN = {"pair", "style_weight", "content_weight", "style_loss", "stages"}


@secondary("the curves in TensorBoard")
class TensorBoardWriter(Beside):
    """Writes every pair's losses, pictures and settings to a run directory of its own in the run folder.

    Beside them, where there are several pairs, `_run` has the curve of those that a process finished a minute. Tags are
    alike for every pair, so that the curves of many runs overlay: `loss/total` and its weighted parts, `log10/total`
    and theirs, for the page's axes are linear, `term/<group>/<layer>` unweighted, `score/<name>`, `picture/output`,
    `source/content`, `source/style`, `lpips/map` (bright where the picture differs most from the content), and where
    asked for `features/<layer>` and `gram/<layer>`.

    Args:
        scalars_every: Steps between two points of a curve, >= 1.
        images_every: Steps between two pictures, >= 1.
        representations: The layers, among those that the losses read, whose feature maps and Gram matrices are shown.
        scores: The callback that scores the pictures; None writes no scores.

    Raises:
        InputError: If an interval is below 1.
    """

    def __init__(
        self,
        scalars_every: int = 10,
        images_every: int = 50,
        representations: Sequence[str] = (),
        scores: Scores | None = None,
    ) -> None:
        for name, value in (("scalars_every", scalars_every), ("images_every", images_every)):
            if value < 1:
                raise InputError(f"{name} must be at least 1, got {value}")
        super().__init__()
        self.scalars_every, self.images_every = scalars_every, images_every
        self.representations, self.scores = tuple(representations), scores
        if self.representations != ():
            import_module("nst_lightning.inspection")  # of an extra: where it is missing nothing is begun
        self._files: dict[str, EventFile] = {}
        self._run: EventFile | None = None
        self._began, self._finished = 0.0, 0

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Checks the layers that are to be shown, and starts the clock of the run's own curve.

        Raises:
            InputError: If the losses of this run do not read one.
        """
        assert isinstance(pl_module, ImageOptimization)
        known = pl_module.objective.layers
        for layer in self.representations:
            if layer not in known:
                read = ", ".join(known) or "none"
                raise InputError(f"layer {layer!r} cannot be shown: the losses of this run read {read}")
        self._began, self._run = time.monotonic(), None

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Step, batch_idx: int
    ) -> None:
        """Opens the run directories of pairs that begin or go on after a resume."""
        if batch.is_first and is_writer(trainer):
            self._open(Run(Path(trainer.default_root_dir)), batch)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: Step, batch_idx: int
    ) -> None:
        """Writes what is due after a step."""
        assert isinstance(pl_module, ImageOptimization)
        if self.scores is not None:
            self.scores.take(trainer, pl_module, batch)
        if is_writer(trainer):
            points = list(self._due(trainer, pl_module, batch))
            if batch.is_last:
                points += [*self._last(pl_module, batch), *self._count(trainer, len(batch.batch.pairs))]
            if points:
                self.do(partial(_write, points))

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Waits until all is written."""
        self.finish()

    def _open(self, run: Run, step: Step) -> None:
        contents, styles = step.batch.contents(step.stages[-1]), step.batch.paintings(step.stages[-1])
        for pair, content, of_pair in zip(step.batch.names, contents, styles, strict=True):
            # Steps after the resumed one are hidden: they are about to be taken again.
            self._files[pair] = file = EventFile(run.tensorboard(pair), step.index + 1)
            if step.index == 0:
                shown = {"source/content": content}
                for number, style in enumerate(of_pair, start=1):
                    shown["source/style" if number == 1 else f"source/style_{number}"] = style.image()[0]
                self.do(partial(_write, [(file, 0, partial(_pictures, shown))]))

    def _due(self, trainer: L.Trainer, module: ImageOptimization, step: Step) -> Iterator[Point]:
        number = step.index + 1
        if number % self.scalars_every == 0 or number == 1 or step.is_last:
            losses = _losses(module)
            for index, pair in enumerate(step.batch.names):
                yield self._files[pair], number, partial(_curves, losses, index)
        if self.scores is not None:
            yield from self._of_scores(self.scores, number)
        if number % self.images_every == 0 or number == 1 or step.is_last:
            results = on_its_way(module.result)
            for index, pair in enumerate(step.batch.names):
                yield self._files[pair], number, partial(_output, results, index)
            if self.representations != ():
                yield from self._of_representations(trainer, module, step)

    def _of_representations(self, trainer: L.Trainer, module: ImageOptimization, step: Step) -> Iterator[Point]:
        from nst_lightning.inspection import pictures

        with torch.no_grad(), trainer.precision_plugin.forward_context():
            features = module.backbone(module.result)
        for layer in self.representations:
            for pair, feature in zip(step.batch.names, features[layer].split(1), strict=True):
                shown = {f"{kind}/{layer}": each[0].cpu() for kind, each in pictures(feature, layer).items()}
                yield self._files[pair], step.index + 1, partial(_pictures, shown)

    def _of_scores(self, scores: Scores, number: int) -> Iterator[Point]:
        for pair, values in scores.found.items():
            yield self._files[pair], number, partial(_scalars, _scores(values))
        for pair, differs in scores.maps.items():
            if math.isfinite(largest := differs.max().item()):  # else the picture was too small
                shown = differs[0].cpu() / (largest if largest > 0 else 1)
                yield self._files[pair], number, partial(_pictures, {"lpips/map": shown.expand(3, -1, -1)})

    def _last(self, module: ImageOptimization, step: Step) -> Iterator[Point]:
        for pair, losses in zip(step.batch.pairs, _losses(module)(), strict=True):
            # The last value of each curve. add_hparams would open a run directory of its own.
            scores = {} if self.scores is None else _scores(self.scores.finals.get(pair.name, {}))
            results = {**scores, **dict(sorted(losses.items()))}
            settings = {"pair": pair.name, **module.settings_of(step, pair)}
            columns, *values = hparams(settings, results)  # type: ignore[no-untyped-call]
            plugin = columns.value[0].metadata.plugin_data
            table = HParamsPluginData.FromString(plugin.content)
            for info in table.experiment.hparam_infos:
                info.differs = info.name in _SHOWN
            plugin.content = table.SerializeToString()
            yield self._files.pop(pair.name), 0, partial(list, [columns, *values])

    def _count(self, trainer: L.Trainer, pairs: int) -> Iterator[Point]:
        """Adds to the run's own curve: how many pairs a minute this process has finished so far."""
        if len(data_of(trainer).pairs) == 1:
            return
        before = len(data_of(trainer).progress.finished) + self._finished  # so that a resumed run's curve goes on
        if self._run is None:
            name = "_run" if trainer.world_size == 1 else f"_run_rank{trainer.global_rank}"
            folder = Run(Path(trainer.default_root_dir)).tensorboard(name)
            self._run = EventFile(folder, before + 1)
        self._finished += pairs
        rate = 60 * self._finished / (time.monotonic() - self._began)
        yield self._run, before + pairs, partial(_scalars, {"pairs/per_minute": rate})


def _write(points: Sequence[Point]) -> None:
    for file, number, make in points:
        file.add(number, *make())


def _losses(module: ImageOptimization) -> Callable[[], Sequence[Mapping[str, float]]]:
    """Returns what waits for the losses of every image by tag: in one copy, for a GPU has to wait for every one."""
    tags, values = [tag_of(name) for name in module.losses], on_its_way(torch.stack([*module.losses.values()]))
    return cache(lambda: [dict(zip(tags, of_image, strict=True)) for of_image in values().T.tolist()])


def _curves(losses: Callable[[], Sequence[Mapping[str, float]]], index: int) -> list[Any]:
    found = losses()[index]
    parts = {tag.replace("loss/", "log10/"): found[tag] for tag in found if tag.startswith("loss/")}
    logs = {tag: math.log10(value) for tag, value in parts.items() if value > 0}
    return _scalars({**logs, **found})


def _output(results: Callable[[], Tensor], index: int) -> list[Any]:
    return _pictures({"picture/output": results()[index]})


def _scalars(values: Mapping[str, float]) -> list[Any]:
    return [scalar(tag, value) for tag, value in values.items()]  # type: ignore[no-untyped-call]


def _pictures(values: Mapping[str, Tensor]) -> list[Any]:
    return [image(tag, rgb, dataformats="CHW") for tag, rgb in values.items()]  # type: ignore[no-untyped-call]


def _scores(scores: Mapping[str, float]) -> dict[str, float]:
    """Returns the scores that have a number, by tag, those first that say most: TensorBoard cannot plot the others."""
    ordered = sorted(scores, key=lambda name: SUMMARY.index(name) if name in SUMMARY else len(SUMMARY))
    return {f"score/{name}": scores[name] for name in ordered if math.isfinite(scores[name])}
