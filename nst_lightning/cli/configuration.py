"""The configuration of a run, and the run that is made of it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import Any

import lightning as L
import yaml
from jsonargparse import ActionConfigFile, Namespace  # type: ignore[attr-defined] # without __all__
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.callbacks import ProgressBar as _Bar
from lightning.pytorch.cli import LightningArgumentParser

from nst_lightning import files, runs
from nst_lightning.api import trainer_of
from nst_lightning.backbones import spec_of
from nst_lightning.callbacks import (
    Checkpoints,
    Ending,
    ImageWriter,
    Preview,
    ProgressBar,
    Scores,
    TensorBoardWriter,
    VideoWriter,
)
from nst_lightning.callbacks.checkpoints import begun_with, check_begun, differing, sums
from nst_lightning.cli import options
from nst_lightning.cli.arguments import Given
from nst_lightning.data import PairDataModule, is_writer
from nst_lightning.errors import InputError
from nst_lightning.initializers import check, with_file
from nst_lightning.interruption import UNFINISHED, Interrupted, Wish, handled
from nst_lightning.metrics.scorer import AUTO, OFF
from nst_lightning.modules import ImageOptimization, PairsLoop, StyleTransfer, check_settings, check_trainer
from nst_lightning.pairs import Pair, find_masks
from nst_lightning.parallel import RankError, TileParallel, agreed, alone, check_launched, telling
from nst_lightning.recipe import Recipe
from nst_lightning.schedule import Stage, scheduled
from nst_lightning.terminal import say, tell

# In a saved configuration: a Timer's interval is one.
yaml.SafeDumper.add_multi_representer(Enum, lambda dumper, each: dumper.represent_data(each.value))

_TRAINER: dict[str, Any] = {"accelerator": "auto", "devices": 1, "max_epochs": 1, "log_every_n_steps": 10}
_OF_REGIONS = {"content_mask", "style_mask", "regions", "content_weights"}
_OF_IMAGES = {"content", "style", "pairing", "pairs", "style_weights", "batch_size", "resume", *_OF_REGIONS}
_TRAINER |= {"logger": False, "enable_model_summary": False}


class Configuration:
    """What a command was given as `values`, a namespace to change at will, with the images' names replaced by paths.

    It goes before defaults, which are by key. An `InputError` if an image or the checkpoint
    cannot be found; an `ArgumentError` if an option is wrong.
    """

    def __init__(
        self, given: Given, model_class: type[ImageOptimization], defaults: Mapping[str, Any] | None = None
    ) -> None:
        self.parser = parser_of(model_class)
        self.parser.set_defaults({} if defaults is None else dict(defaults))
        self.values = self.parser.parse_args(given.as_arguments())
        try:
            self.parser.validate(self.values, False)  # None too, which a file may have anywhere
        except TypeError as error:
            raise InputError(str(error)) from error
        for key, value in [*self.values.items()]:
            self.values[key] = _at_home(value)
        checkpoint = self.values.ckpt_path
        if checkpoint is not None and not os.path.isfile(checkpoint):
            raise InputError(f"{checkpoint}: no such checkpoint; a run's are in its folder checkpoints")
        _find_images(self.values.data)
        check(self.values.model.init)
        self.values.model.init = with_file(self.values.model.init, os.path.abspath)  # so that it runs anywhere
        for key, value in self.values.items():
            if any("\ud800" <= character <= "\udfff" for character in str(value)):  # what Python makes of other bytes
                raise InputError(f"{key} has a name that is not UTF-8, which no configuration can hold: {value!a}")

    def make(self) -> tuple[ImageOptimization, PairDataModule, dict[str, Any]]:
        """Returns module, data, and the arguments of the trainer, or raises an `InputError`."""
        try:
            made = self.parser.instantiate_classes(self.values)
        except (TypeError, ValueError) as error:  # an InputError, perhaps in what jsonargparse wraps those of lists in
            raise InputError(str(error)) from error
        return made.model, made.data, dict(made.trainer)

    def recipe(self, pair: Pair) -> Recipe:
        """Returns what the picture of a pair follows from."""
        held = yaml.safe_load(self.parser.dump(self.values))
        of_data = {name: value for name, value in held["data"].items() if name not in _OF_IMAGES}
        if pair.style_scales:
            del of_data["style_scale"]  # the row has it
        of_trainer = {"precision": held["trainer"].get("precision", "32-true")}
        if pair.strength is not None:  # which was found: a strength that is given beside the picture goes before it
            held["model"]["style_weight"], of_data["strength"] = pair.weights["style"], None
            others = {group: weight for group, weight in pair.weights.items() if group != "style"}
            pair = replace(pair, weights=others, strength=None)
        settings = {"data": {**of_data, "pairs": [pair.row]}, "model": held["model"], "trainer": of_trainer}
        settings["bits"] = held["bits"]
        return Recipe(settings, sums(pair))

    def scores(self) -> Scores | None:
        """Returns the scores that were chosen, None if they are off."""
        choice = names_of(self.values.scores)
        return None if choice == (OFF,) else Scores(AUTO if choice == (AUTO,) else choice, self.values.score_every)


class Job:
    """A run that has not begun; an `InputError` if what was configured cannot be used.

    Of claims to close after it, one on its folder is among them; without any, it has written nothing and may only be
    looked at. Where its pictures are the frames of a film, in that folder, it is the film that is gone on with.
    """

    def __init__(self, configuration: Configuration, claims: ExitStack | None = None, film: Path | None = None) -> None:
        self.module, self.data, settings = configuration.make()
        check_settings(settings)
        check_launched(settings["strategy"])
        values = configuration.values
        resume: str | None = values.data.resume
        values.data.resume = None  # what is saved is the configuration of the whole run
        self._resumed = resume is not None

        def choose() -> str:
            if resume is not None:
                run = runs.Run(Path(resume))
                if claims is not None:
                    claims.enter_context(runs.held(run))
            else:
                wished = values.output, [pair.name for pair in self.data.pairs], values.overwrite
                run, _ = runs.proposed(*wished) if claims is None else claims.enter_context(runs.claimed(*wished))
            return str(run.folder)

        self.run = runs.Run(Path(agreed("folder", choose)))
        self._is_film = film is not None
        self._go_on = f"to go on: nst {'fit' if film is None else 'film'} --resume {film or self.run.folder}"
        file = runs.file_beside(self.run.folder, values.output)
        replaces = values.overwrite or self._resumed
        self.writer = ImageWriter(file, values.save_every, replaces, configuration.recipe, values.bits)
        self._films = [] if values.video is False else [VideoWriter(None if values.video is True else values.video)]
        self._checkpoint = values.ckpt_path
        scores, every, own = configuration.scores(), settings["log_every_n_steps"], settings["callbacks"]
        own = own if isinstance(own, list) else [] if own is None else [own]
        has_bar = settings["enable_progress_bar"] is not False and not any(isinstance(each, _Bar) for each in own)
        keeps = settings.pop("enable_checkpointing") is not False
        settings["default_root_dir"] = str(self.run.folder)
        self._wish, checkpoints = Wish(), Checkpoints(self.run, values.checkpoint_minutes if keeps else None)
        settings["callbacks"] = [
            Ending(self._wish, checkpoints),
            *own,
            self.writer,  # before the film, so that the picture is safe should encoding fail
            *self._films,
            *([] if scores is None else [scores]),
            TensorBoardWriter(every, representations=names_of(values.representations), scores=scores),
            Preview(),
            *([ProgressBar(scores=scores, shown=values.show_score)] if has_bar else []),
            checkpoints,
            _SaveConfig(configuration.parser, values),
        ]
        self.trainer = trainer_of(**settings)
        check_trainer(self.trainer)
        loop = self.trainer.fit_loop.epoch_loop
        if not isinstance(self.trainer.strategy, TileParallel):
            self.trainer.fit_loop.epoch_loop = PairsLoop(self.trainer, loop.min_steps, loop.max_steps)
        if self._resumed:
            check_begun(self.run, begun_with(self.trainer, self.module, self.data))

    def check_images(self, before: Mapping[str, str]) -> None:
        """Raises an `InputError` if the images of the only pair have other sums, see `Recipe`."""
        (pair,) = self.data.pairs
        if told := differing(before, sums(pair)):
            raise InputError(f"these are not the images that the picture was made from ({told})")

    def fit(self) -> ImageOptimization:
        """Runs the trainer, says where the pictures are or how to go on, and returns the module."""
        folder = self.run.folder
        go_on = self._go_on
        if self._resumed and self.trainer.world_size > 1 and alone():
            self.data.progress.write(self.run)
        codes: set[int] = set()
        try:
            with telling({"folder": str(folder), "progress": str(self.run.progress)}), handled(self._wish.note):
                try:
                    # A checkpoint of ours is tensors and plain values: nothing in it is run.
                    self.trainer.fit(self.module, datamodule=self.data, ckpt_path=self._checkpoint, weights_only=True)
                finally:
                    self._wish.forget()
        except Interrupted as ended:
            if self.writer.as_it_is is not None:
                say(f"nst: the picture as it is: {self.writer.as_it_is}")
            if self.trainer.is_global_zero:
                say(f"nst: interrupted; {go_on}")
            raise SystemExit(ended.code) from ended
        except RankError as error:
            done = self.run.finished()
            left = [name for rank in error.codes for name in self.data.dealt[rank] if name not in done]
            say(f"nst: error: {error}; not finished: {', '.join(left) or 'none'}; {go_on}")
            codes |= {code if code in (2, UNFINISHED) or code > 128 else 1 for code in error.codes.values()}
        for name, (reason, code) in self.data.failed.items():
            say(f"nst: error: {name}: {reason}")
            codes.add(code)
        done = self.run.finished() | self.data.failed.keys()
        own = [name for batch in self.data.batches for name in batch.names if is_writer(self.trainer)]
        left = [name for name in own if name not in done]
        if left:
            say(f"nst: not finished: {', '.join(left[:3])}{' ...' if len(left) > 3 else ''}; {go_on}")
            codes.add(UNFINISHED)
        pictures = [] if self._is_film else self.writer.written
        for path in [*pictures, *(film for video in self._films for film in video.written)]:
            tell(path)
        if self._resumed and self.trainer.is_global_zero and not any(self.data.dealt):
            tell(f"{folder}: nothing left to do")
        if codes:
            raise SystemExit(min(codes))
        return self.module


def parser_of(model_class: type[ImageOptimization]) -> LightningArgumentParser:
    """Returns the parser of all keys of a configuration."""
    parser = LightningArgumentParser("nst fit", usage="nst fit [options]", description="", exit_on_error=False)
    parser.add_argument("-c", "--config", action=ActionConfigFile, help="A configuration file in YAML.")
    parser.add_lightning_class_args(L.Trainer, "trainer")
    parser.set_defaults({f"trainer.{name}": value for name, value in _TRAINER.items()})
    parser.add_lightning_class_args(model_class, "model")
    # Without sub_configs: the name of an image is not that of a file of settings.
    parser.add_class_arguments(PairDataModule, "data", fail_untyped=False, sub_configs=False)
    for name, (kind, default, text) in options.OF_RUN.items():
        parser.add_argument(f"--{name}", type=kind, default=default, help=text)
    return parser


def resolved(given: Given) -> str:
    """Returns a configuration in YAML, with what a default decides later in its place; images need not be named.

    Layers that were not chosen are each loss's own, for which there is no word.
    """
    parser = parser_of(StyleTransfer)
    values = parser.parse_args([word for word in given.as_arguments() if word != "--print_config"])
    of_model, of_data = values.model, values.data
    if of_model.weights is None:
        of_model.weights = spec_of(of_model.backbone).default_weights
    if of_model.optimizer is None:
        of_model.optimizer = Namespace(class_path="nst_lightning.optim.LBFGS")  # type: ignore[no-untyped-call]
    stages = schedule_of(of_data)
    of_data.steps = sum(stage.steps for stage in stages)
    if of_data.print is None:
        of_data.size = stages[-1].size
    return str(parser.dump(values))


def schedule_of(of_data: Any) -> tuple[Stage, ...]:  # noqa: ANN401 - a namespace
    """Returns the stages that the settings of the data stand for."""
    given_stages = of_data.stages if isinstance(of_data.stages, int) else [Stage(**vars(it)) for it in of_data.stages]
    return scheduled(given_stages, of_data.size, of_data.steps)


def names_of(given: Sequence[str] | str | None) -> tuple[str, ...]:
    """Returns the names in a list or between commas."""
    if isinstance(given, str):
        return tuple(given.replace(" ", "").split(","))
    return () if given is None else tuple(given)


class _SaveConfig(Callback):
    """Writes the configuration to where `nst fit --config` makes the run again, once nothing can be refused."""

    def __init__(self, parser: LightningArgumentParser, values: Any) -> None:  # noqa: ANN401 - a namespace
        self.parser, self.values = parser, values

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Writes it, in the first process."""
        path = runs.Run(Path(trainer.default_root_dir)).config
        if trainer.is_global_zero:
            with runs.replacing(path) as file:
                self.parser.save(self.values, file, overwrite=True)


def _at_home(value: object) -> object:
    """Returns a text, or those in a list, with a leading ~ replaced by the home folder: no option but a path has it."""
    if isinstance(value, list):
        return [_at_home(each) for each in value]
    return os.path.expanduser(value) if isinstance(value, str) else value


def _find_images(settings: Any) -> None:  # noqa: ANN401 - a namespace
    """Replaces the images' names by paths, so that the saved configuration runs from anywhere."""
    if settings.pairs is not None:
        settings.pairs = os.path.abspath(settings.pairs) if isinstance(settings.pairs, str) else settings.pairs
        return
    for argument, folder in (("content", files.CONTENT_FOLDER), ("style", files.STYLE_FOLDER)):
        found = [os.path.abspath(str(path)) for path in files.find(argument, settings[argument], folder)]
        settings[argument] = found if isinstance(settings[argument], list) or len(found) > 1 else found[0]
    for argument in ("content_mask", "style_mask"):
        if (named := settings[argument]) is not None:
            masks = find_masks(argument, named)
            settings[argument] = [mask if isinstance(mask, str) else os.path.abspath(str(mask)) for mask in masks]
