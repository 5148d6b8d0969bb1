"""What the commands share: LightningCLI with short names, a run's folder and its callbacks, and going on."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback

from nst_lightning import data, pairs, runs
from nst_lightning.batches import Saved
from nst_lightning.callbacks import Checkpoints, ImageWriter, ProgressBar, Scores, TensorBoardWriter, VideoWriter
from nst_lightning.callbacks.checkpoints import finished, saved
from nst_lightning.cli import options
from nst_lightning.errors import InputError
from nst_lightning.metrics.scorer import AUTO, OFF
from nst_lightning.modules import ImageOptimization, StyleTransfer, check_trainer
from nst_lightning.parallel import RankError, agreed, telling
from nst_lightning.schedule import Stage


class Parser(LightningArgumentParser):
    """A parser that raises its errors, and takes the name of an image for a name."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "exit_on_error": False})

    def add_class_arguments(self, theclass: type, *args: Any, **kwargs: Any) -> list[str]:
        """Adds a class's arguments; those of the data are never read out of a file that they name."""
        if theclass is data.PairDataModule:
            kwargs["sub_configs"] = False
        added: list[str] = super().add_class_arguments(theclass, *args, **kwargs)
        return added


class SaveConfig(SaveConfigCallback):
    """Writes the configuration to `<root>/config.yaml`, where `nst fit --config` can run it again."""

    def save_config(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Writes the file."""
        folder = Path(trainer.default_root_dir)
        folder.mkdir(parents=True, exist_ok=True)
        self.parser.save(self.config, folder / "config.yaml", overwrite=True)


class NSTCLI(LightningCLI):
    """LightningCLI for style transfer; it runs its command as it is made.

    Args:
        arguments: The options of `fit`, short names allowed.
        model_class: What is optimised.
    """

    command = "fit"
    save_config: type[SaveConfigCallback] | None = SaveConfig

    def __init__(self, arguments: list[str], model_class: type[ImageOptimization]) -> None:
        self.arguments = arguments
        self.scored = model_class is StyleTransfer  # what is rebuilt from one image has nothing to be compared with
        super().__init__(
            model_class,
            data.PairDataModule,
            save_config_callback=self.save_config,
            save_config_kwargs={"save_to_log_dir": False},
            trainer_defaults={
                "accelerator": "auto",
                "devices": 1,
                "max_epochs": 1,
                "logger": False,
                "log_every_n_steps": 10,
                "enable_model_summary": False,
            },
            seed_everything_default=False,  # the one random thing, the noise to start from, has model.seed
            parser_class=Parser,
            parser_kwargs={"prog": "nst", self.command: {"usage": f"nst {self.command} [options]"}},
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,  # the saved configuration makes a run again, not its checkpoint
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Returns the commands and what of the trainer's methods they do not show."""
        return {"fit": {"model", "train_dataloaders", "val_dataloaders", "datamodule"}}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds what belongs to the run as a whole."""
        parser.add_argument("--output", type=str | None, default=None, help="A picture's file, or a folder.")
        parser.add_argument("--overwrite", type=bool, default=False, help="Replace earlier outputs.")
        parser.add_argument("--save_every", type=int | None, default=None, help="Steps between pictures on the way.")
        parser.add_argument(
            "--video",
            type=bool | str,  # not a Literal: VideoWriter says in one line what is allowed
            default=False,
            help="Write a film of the optimisation.",
        )
        parser.add_argument(
            "--representations",
            type=list[str] | str | None,
            default=None,
            help="Layers to show in TensorBoard beside each picture, as feature maps and Gram matrices.",
        )
        parser.add_argument(
            "--scores",
            type=list[str] | str,
            default=AUTO if self.scored else OFF,
            help="Scores of the pictures: auto, off, or names.",
        )
        parser.add_argument("--score_every", type=int | None, default=None, help="Steps between two scorings.")
        parser.add_argument("--show_score", type=str | None, default="overall", help="What the progress bar shows.")
        parser.add_argument("--checkpoint_minutes", type=float, default=2.0, help="Minutes between checkpoints.")

    def parse_arguments(self, parser: LightningArgumentParser, args: object) -> None:
        """Parses the arguments given to the constructor."""
        self.resumed, rest = _resumed(self.arguments)
        self.config = parser.parse_args([self.command, *options.expand(rest)])

    def before_instantiate_classes(self) -> None:
        """Replaces the images' names by paths, so that the saved configuration runs from anywhere.

        Raises:
            InputError: If an image or the checkpoint is not there.
        """
        checkpoint = self.config[self.subcommand]["ckpt_path"]
        if checkpoint is not None and not Path(checkpoint).is_file():
            msg = f"{checkpoint}: no such checkpoint; a run's are in its folder checkpoints"
            raise InputError(msg)
        settings = self.config[self.subcommand]["data"]
        if settings["pairs"] is not None:
            settings["pairs"] = os.path.abspath(settings["pairs"])
            return
        for argument, folder in (("content", pairs.CONTENT_FOLDER), ("style", pairs.STYLE_FOLDER)):
            found = [os.path.abspath(str(path)) for path in pairs.find(argument, settings[argument], folder)]
            settings[argument] = found if isinstance(settings[argument], list) or len(found) > 1 else found[0]

    def instantiate_classes(self) -> None:
        """Makes module, data and trainer; what one of them refuses is an error of the configuration."""
        try:
            super().instantiate_classes()
        except InputError:
            raise
        except ValueError as error:  # jsonargparse wraps the errors of values in lists
            raise InputError(str(error)) from error

    def fit(self, **kwargs: Any) -> None:
        """Runs the trainer, and says where the pictures are or how to go on."""
        if "weights_only" in kwargs:
            kwargs["weights_only"] = True  # a checkpoint of ours is tensors and plain values: nothing in it is run
        try:
            with telling({"folder": str(self.folder), "progress": str(_progress_file(self.folder))}):
                self.trainer.fit(**kwargs)
        except SystemExit:  # what Lightning makes of Ctrl-C, when all is saved
            print(f"\ninterrupted; to go on: nst fit --resume {self.folder}", file=sys.stderr)
            raise
        except RankError as error:
            done = finished(self.folder / "checkpoints")
            left = [name for rank in error.codes for name in self.datamodule.dealt[rank] if name not in done]
            go_on = f"not finished: {', '.join(left) or 'none'}; to go on: nst fit --resume {self.folder}"
            say(f"nst: error: {error}; {go_on}")
            raise SystemExit(1) from error
        for path in [*self.writer.written, *(film for video in self.videos for film in video.written)]:
            print(path)
        if self.resumed is not None and self.trainer.is_global_zero and not any(self.datamodule.dealt):
            print(f"{self.folder}: nothing left to do")

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        """Makes the trainer with the run's folder and callbacks."""
        config = self.config_init[self.subcommand]
        scores = self.make_scores()
        names = [pair.name for pair in self.datamodule.pairs]

        def choose() -> str:
            if self.resumed is not None:
                return str(self.resumed)
            return str(runs.claim(config["output"], names, config["overwrite"])[0].folder)

        self.folder = Path(agreed("folder", choose))
        file = runs.file_beside(self.folder, config["output"])
        self.writer = ImageWriter(file, config["save_every"], config["overwrite"] or self.resumed is not None)
        video = config["video"]
        self.videos = [] if video is False else [VideoWriter(None if video is True else video)]
        given = config["trainer"]["callbacks"]
        callbacks = [
            *([] if given is None else given),
            self.writer,  # before the film, so that the picture is safe should encoding fail
            *self.videos,
            *([] if scores is None else [scores]),
            TensorBoardWriter(
                config["trainer"]["log_every_n_steps"],
                representations=names_of(config["representations"]),
                scores=scores,
            ),
            ProgressBar(scores=scores, shown=config["show_score"]),
            Checkpoints(self.folder / "checkpoints", config["checkpoint_minutes"]),
        ]
        trainer = super().instantiate_trainer(default_root_dir=str(self.folder), callbacks=callbacks, **kwargs)
        check_trainer(trainer)
        self.take_up(trainer)
        return trainer

    def make_scores(self) -> Scores | None:
        """Returns the scores that were chosen, or None if they are off."""
        config = self.config_init[self.subcommand]
        choice = names_of(config["scores"])
        if choice == (OFF,):
            return None
        return Scores(AUTO if choice == (AUTO,) else choice, config["score_every"])

    def take_up(self, trainer: L.Trainer) -> None:
        """Tells the data module what an earlier run has done: in every process what the first one found."""
        folder = self.folder / "checkpoints"
        here = _progress_file(self.folder)

        def write() -> str:
            resumed = self.resumed is not None
            here.parent.mkdir(parents=True, exist_ok=True)
            found = {
                "finished": sorted(finished(folder)) if resumed else [],
                "saved": [_as_json(each) for each in saved(folder)] if resumed else [],
            }
            here.write_text(json.dumps(found), encoding="utf-8")
            return str(here)

        if trainer.world_size == 1:
            self.take_up_here()
            return
        found = json.loads(Path(agreed("progress", write)).read_text(encoding="utf-8"))
        self.datamodule.finished = frozenset(found["finished"])
        self.datamodule.saved = tuple(_from_json(each) for each in found["saved"])

    def take_up_here(self) -> None:
        """Tells the data module what this process finds of an earlier run."""
        if self.resumed is not None:
            folder = self.folder / "checkpoints"
            self.datamodule.finished, self.datamodule.saved = finished(folder), saved(folder)


def say(line: str) -> None:
    """Writes a line to stderr in one piece, for several processes may share it."""
    sys.stderr.write(f"{line}\n")


def names_of(given: Sequence[str] | str | None) -> tuple[str, ...]:
    """Returns the names in a list or between commas."""
    if given is None:
        return ()
    return tuple(given.replace(" ", "").split(",")) if isinstance(given, str) else tuple(given)


def _progress_file(folder: Path) -> Path:
    return folder / "checkpoints" / "progress.json"


def _as_json(saved: Saved) -> dict[str, Any]:
    return {**asdict(saved), "path": str(saved.path)}


def _from_json(of: Mapping[str, Any]) -> Saved:
    stages = tuple(Stage(**stage) for stage in of["stages"])
    return Saved(Path(of["path"]), tuple(of["names"]), stages, of["stage_index"], of["taken"])


def _resumed(arguments: list[str]) -> tuple[Path | None, list[str]]:
    """Replaces `--resume FOLDER` by that run's configuration."""
    for index, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name == "--resume":
            rest = arguments[index + 1 :]
            if not equals and not rest:
                msg = "--resume needs the folder of a run, e.g. data/output-images/photo_painting"
                raise InputError(msg)
            folder, rest = (Path(value), rest) if equals else (Path(rest[0]), rest[1:])
            if not (folder / "config.yaml").is_file():
                msg = f"{folder}: is not the folder of a run, for it has no config.yaml"
                raise InputError(msg)
            return folder, [*arguments[:index], "--config", str(folder / "config.yaml"), *rest]
    return None, arguments
