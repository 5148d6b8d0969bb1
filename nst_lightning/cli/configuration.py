"""The configuration of a run, and the run that is made of it."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
from jsonargparse import ActionConfigFile  # type: ignore[attr-defined] # without __all__
from lightning.pytorch.cli import LightningArgumentParser, SaveConfigCallback

from nst_lightning import pairs, runs
from nst_lightning.callbacks import Checkpoints, ImageWriter, ProgressBar, Scores, TensorBoardWriter, VideoWriter
from nst_lightning.cli import options
from nst_lightning.data import PairDataModule
from nst_lightning.errors import InputError, say
from nst_lightning.metrics.scorer import AUTO, OFF
from nst_lightning.modules import ImageOptimization, check_trainer
from nst_lightning.parallel import RankError, agreed, telling

_TRAINER = {
    **{"accelerator": "auto", "devices": 1, "max_epochs": 1},
    **{"logger": False, "log_every_n_steps": 10, "enable_model_summary": False},
}


class Configuration:
    """What a command was given, parsed, with the images' names replaced by paths.

    Args:
        arguments: The options, short names allowed.
        model_class: What optimises.
        defaults: Values by key that stand where the options do not say otherwise.

    Attributes:
        parser: The parser.
        values: What it found, a namespace; may be changed before anything is made of it.

    Raises:
        InputError: If an image or the checkpoint cannot be found.
        ArgumentError: If an option is unknown or its value of the wrong kind.
    """

    def __init__(
        self, arguments: Sequence[str], model_class: type[ImageOptimization], defaults: Mapping[str, Any] | None = None
    ) -> None:
        self.parser = parser_of(model_class)
        self.parser.set_defaults({} if defaults is None else dict(defaults))
        self.values = self.parser.parse_args(options.expand(arguments))
        checkpoint = self.values.ckpt_path
        if checkpoint is not None and not Path(checkpoint).is_file():
            msg = f"{checkpoint}: no such checkpoint; a run's are in its folder checkpoints"
            raise InputError(msg)
        _find_images(self.values.data)

    def make(self) -> tuple[ImageOptimization, PairDataModule, dict[str, Any]]:
        """Returns module, data, and the arguments of the trainer.

        Raises:
            InputError: If a value cannot be used.
        """
        try:
            made = self.parser.instantiate_classes(self.values)
        except ValueError as error:  # an InputError, perhaps in what jsonargparse wraps the errors of lists in
            raise InputError(str(error)) from error
        return made.model, made.data, dict(made.trainer)

    def scores(self) -> Scores | None:
        """Returns the scores that were chosen, None if they are off."""
        choice = names_of(self.values.scores)
        return None if choice == (OFF,) else Scores(AUTO if choice == (AUTO,) else choice, self.values.score_every)


class Job:
    """A run that has not begun, and has written nothing.

    Attributes:
        module: What optimises.
        data: The pairs.
        run: Its folder.
        writer: What writes its pictures.
        trainer: The trainer, with all callbacks.
        resumed: Whether it goes on with what an earlier run has done.

    Raises:
        InputError: If anything that was configured cannot be used.
    """

    def __init__(self, configuration: Configuration) -> None:
        self.module, self.data, settings = configuration.make()
        values = configuration.values
        resume, values.data.resume = values.data.resume, None  # what is saved is the configuration of the whole run
        self.resumed = resume is not None

        def choose() -> str:
            names = [pair.name for pair in self.data.pairs]
            return resume if self.resumed else str(runs.claim(values.output, names, values.overwrite)[0].folder)

        self.run = runs.Run(Path(agreed("folder", choose)))
        file = runs.file_beside(self.run.folder, values.output)
        self.writer = ImageWriter(file, values.save_every, values.overwrite or self.resumed)
        self._films = [] if values.video is False else [VideoWriter(None if values.video is True else values.video)]
        self._checkpoint = values.ckpt_path
        scores, every = configuration.scores(), settings["log_every_n_steps"]
        callbacks = [
            *(settings["callbacks"] or []),
            self.writer,  # before the film, so that the picture is safe should encoding fail
            *self._films,
            *([] if scores is None else [scores]),
            TensorBoardWriter(every, representations=names_of(values.representations), scores=scores),
            ProgressBar(scores=scores, shown=values.show_score),
            Checkpoints(self.run, values.checkpoint_minutes),
            _SaveConfig(configuration.parser, values, save_to_log_dir=False),
        ]
        root = str(self.run.folder)
        self.trainer = L.Trainer(**{**settings, "default_root_dir": root, "callbacks": callbacks})
        check_trainer(self.trainer)

    def fit(self) -> ImageOptimization:
        """Runs the trainer, says where the pictures are or how to go on, and returns the module."""
        folder = self.run.folder
        try:
            with telling({"folder": str(folder), "progress": str(self.run.progress)}):
                # A checkpoint of ours is tensors and plain values: nothing in it is run.
                self.trainer.fit(self.module, datamodule=self.data, ckpt_path=self._checkpoint, weights_only=True)
        except SystemExit:  # what Lightning makes of Ctrl-C, when all is saved
            print(f"\ninterrupted; to go on: nst fit --resume {folder}", file=sys.stderr)
            raise
        except RankError as error:
            done = self.run.finished()
            left = [name for rank in error.codes for name in self.data.dealt[rank] if name not in done]
            go_on = f"not finished: {', '.join(left) or 'none'}; to go on: nst fit --resume {folder}"
            say(f"nst: error: {error}; {go_on}")
            raise SystemExit(1) from error
        for path in [*self.writer.written, *(film for video in self._films for film in video.written)]:
            print(path)
        if self.resumed and self.trainer.is_global_zero and not any(self.data.dealt):
            print(f"{folder}: nothing left to do")
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


def names_of(given: Sequence[str] | str | None) -> tuple[str, ...]:
    """Returns the names in a list or between commas."""
    if given is None:
        return ()
    return tuple(given.replace(" ", "").split(",")) if isinstance(given, str) else tuple(given)


class _SaveConfig(SaveConfigCallback):
    """Writes the configuration to where `nst fit --config` makes the run again."""

    def save_config(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        path = runs.Run(Path(trainer.default_root_dir)).config
        path.parent.mkdir(parents=True, exist_ok=True)
        self.parser.save(self.config, path, overwrite=True)


def _find_images(settings: Any) -> None:  # noqa: ANN401 - a namespace
    """Replaces the images' names by paths, so that the saved configuration runs from anywhere."""
    if settings.pairs is not None:
        settings.pairs = os.path.abspath(settings.pairs)
        return
    for argument, folder in (("content", pairs.CONTENT_FOLDER), ("style", pairs.STYLE_FOLDER)):
        found = [os.path.abspath(str(path)) for path in pairs.find(argument, settings[argument], folder)]
        settings[argument] = found if isinstance(settings[argument], list) or len(found) > 1 else found[0]
