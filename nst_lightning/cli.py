"""The command line: LightningCLI with short names, an output folder and one-line errors."""

from __future__ import annotations

import itertools
import os
import re
import sys
from argparse import ArgumentError
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning as L
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback

from nst_lightning import data, options
from nst_lightning.api import quiet
from nst_lightning.callbacks import ImageWriter, ProgressBar, TensorBoardWriter
from nst_lightning.errors import InputError
from nst_lightning.modules import StyleTransfer, check_trainer

OUTPUT_FOLDER = Path("data/output-images")


def main(arguments: Sequence[str]) -> int:
    """Runs a command of LightningCLI.

    Args:
        arguments: The command and its options.

    Returns:
        The exit code: 0, or 2 after one line on what cannot be used.
    """
    try:
        with quiet():
            NSTCLI(list(arguments))
    except (InputError, MisconfigurationException, ArgumentError) as error:
        print(f"nst: error: {_one_line(error)}", file=sys.stderr)
        return 2
    return 0


def _one_line(error: Exception) -> str:
    """Returns an error's text without line breaks, in short names and words rather than in classes."""
    text = " ".join(str(error).split())
    for option in options.OPTIONS:
        text = text.replace(f'Parser key "{option.target}":', f"--{option.name}:")
    text = re.sub(r"""Parser key ["']([^"']+)["']:""", r"\1:", text)
    text = re.sub(r"a typing\.Literal(\[[^]]*\])", r"one of \1", text)
    return re.sub(r"<class '([^']+)'>", r"\1", text)


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
        arguments: The command and its options, short names allowed.
    """

    def __init__(self, arguments: list[str]) -> None:
        self.arguments = arguments
        super().__init__(
            StyleTransfer,
            data.PairDataModule,
            save_config_callback=SaveConfig,
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
            parser_kwargs={"prog": "nst", "fit": {"usage": "nst fit [options]"}},
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
        parser.add_argument("--checkpoint_minutes", type=float, default=2.0, help="Minutes between checkpoints.")

    def parse_arguments(self, parser: LightningArgumentParser, args: object) -> None:
        """Parses the arguments given to the constructor."""
        command, *rest = self.arguments
        self.resumed, rest = _resumed(rest)
        self.config = parser.parse_args([command, *options.expand(rest)])

    def before_instantiate_classes(self) -> None:
        """Replaces the images' names by paths, so that the saved configuration runs from anywhere."""
        settings = self.config[self.subcommand]["data"]
        for argument, folder in (("content", data.CONTENT_FOLDER), ("style", data.STYLE_FOLDER)):
            found = [os.path.abspath(str(path)) for path in data.find(argument, settings[argument], folder)]
            settings[argument] = found if isinstance(settings[argument], list) else found[0]

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
        try:
            self.trainer.fit(**kwargs)
        except SystemExit:  # what Lightning makes of Ctrl-C, when all is saved
            print(f"\ninterrupted; to go on: nst fit --resume {self.folder}", file=sys.stderr)
            raise
        for path in self.writer.written:
            print(path)
        if self.resumed is not None and not self.writer.written:
            print(f"{self.folder}: nothing left to do")

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        """Makes the trainer with the run's folder and callbacks."""
        config = self.config_init[self.subcommand]
        names = [pair.name for pair in self.datamodule.pairs]
        if self.resumed is not None:
            folder, file = self.resumed, _beside(self.resumed, _file_of(config["output"]))
        else:
            folder, file = output_paths(config["output"], names, config["overwrite"])
        self.folder = folder
        self.writer = ImageWriter(file, config["save_every"], config["overwrite"] or self.resumed is not None)
        callbacks = [
            *(config["trainer"]["callbacks"] or []),
            self.writer,
            TensorBoardWriter(config["trainer"]["log_every_n_steps"]),
            ProgressBar(),
            ModelCheckpoint(
                folder / "checkpoints",
                filename="{step}",
                train_time_interval=timedelta(minutes=config["checkpoint_minutes"]),
                save_on_exception=True,
            ),
        ]
        trainer = super().instantiate_trainer(default_root_dir=str(folder), callbacks=callbacks, **kwargs)
        check_trainer(trainer)
        return trainer


def output_paths(output: str | None, names: Sequence[str], overwrite: bool) -> tuple[Path, Path | None]:
    """Returns the run's folder, and the picture's file where the output names one.

    A name that is taken gets a number, unless it may be overwritten: an earlier result is never lost.

    Args:
        output: A folder, a picture's file, whose run folder is that of the same name without suffix, or None for
            `data/output-images/<pair>`.
        names: The pairs' names.
        overwrite: Whether what is there may be replaced.
    """
    file = _file_of(output)
    if output is None:
        wished = OUTPUT_FOLDER / (names[0] if len(names) == 1 else f"{names[0]}_and_{len(names) - 1}_more")
    else:
        wished = Path(output) if file is None else file.with_suffix("")
    for number in itertools.count(1):
        folder = wished if number == 1 else wished.with_name(f"{wished.name}-{number}")
        numbered = _beside(folder, file)
        taken = _holds_files(folder) or (numbered is not None and numbered.exists())
        if overwrite or not taken:
            return folder, numbered
    raise AssertionError  # count() does not end


def _file_of(output: str | None) -> Path | None:
    return Path(output) if output is not None and Path(output).suffix else None


def _beside(folder: Path, file: Path | None) -> Path | None:
    """Returns the picture's file that goes with a run's folder, in the format asked for."""
    return None if file is None else folder.with_name(folder.name + file.suffix)


def _holds_files(folder: Path) -> bool:
    return folder.is_file() or (folder.is_dir() and any(folder.iterdir()))


def _resumed(arguments: list[str]) -> tuple[Path | None, list[str]]:
    """Replaces `--resume FOLDER` by that run's configuration and newest checkpoint."""
    for index, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name == "--resume":
            rest = arguments[index + 1 :]
            if not equals and not rest:
                msg = "--resume needs the folder of a run, e.g. data/output-images/photo_painting"
                raise InputError(msg)
            folder, rest = (Path(value), rest) if equals else (Path(rest[0]), rest[1:])
            found = ["--config", str(folder / "config.yaml"), "--ckpt_path", str(newest_checkpoint(folder))]
            return folder, [*arguments[:index], *found, *rest]
    return None, arguments


def newest_checkpoint(folder: Path) -> Path:
    """Returns the checkpoint of a run that was written last.

    Raises:
        InputError: If there is none.
    """
    checkpoints = sorted((folder / "checkpoints").glob("*.ckpt"), key=lambda path: path.stat().st_mtime_ns)
    if not checkpoints:
        msg = f"{folder}: no checkpoint to resume from in {folder / 'checkpoints'}"
        raise InputError(msg)
    return checkpoints[-1]
