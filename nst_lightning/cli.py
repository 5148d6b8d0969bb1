"""The command line: LightningCLI with short names, an output folder and one-line errors."""

from __future__ import annotations

import json
import os
import re
import sys
import warnings
from argparse import ArgumentError, ArgumentParser
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal

import lightning as L
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio

from nst_lightning import data, figures, images, options, outputs, pairs, planning
from nst_lightning.api import RECONSTRUCTION_STAGES, quiet, representations
from nst_lightning.backbones import spec_of
from nst_lightning.batches import Saved
from nst_lightning.callbacks import Checkpoints, ImageWriter, ProgressBar, Scores, TensorBoardWriter, VideoWriter
from nst_lightning.callbacks.checkpoints import finished, saved
from nst_lightning.errors import InputError
from nst_lightning.modules import ImageOptimization, Reconstruction, StyleTransfer, check_trainer
from nst_lightning.schedule import Stage
from nst_lightning.scoring import AUTO, OFF, table
from nst_lightning.strategies import RankError, agreed, telling


def main(arguments: Sequence[str]) -> int:
    """Runs a command.

    Args:
        arguments: The command, a key of `COMMANDS`, and its options.

    Returns:
        The exit code: 0, or 2 after one line on what cannot be used.
    """
    command, *given = arguments
    try:
        with quiet():
            COMMANDS[command](given)
    except (InputError, MisconfigurationException, ArgumentError) as error:
        _say(f"nst: error: {_one_line(error)}")
        return 2
    except (UnpicklingError, EOFError, RuntimeError) as error:  # EOFError for an empty file
        if isinstance(error, RuntimeError) and "PytorchStreamReader" not in str(error):  # a file that was cut off
            raise
        _say("nst: error: the checkpoint is damaged or not one of this program's; it is not loaded")
        return 2
    return 0


def fit(given: list[str]) -> None:
    """Paints photographs: `nst fit`."""
    NSTCLI(given, StyleTransfer)


def plan(given: list[str]) -> None:
    """Says what `nst fit` of the same options would take: `nst plan`.

    Raises:
        InputError: If an option cannot be used.
    """
    parser = ArgumentParser(prog="nst plan", add_help=False, exit_on_error=False, allow_abbrev=False)
    parser.add_argument("--within")
    chosen, rest = parser.parse_known_args(given)
    within = None if chosen.within is None else planning.duration(chosen.within)
    planned = PlanCLI(rest)
    pictures = f"in {planned.folder}" if planned.writer.file is None else str(planned.writer.file)
    print(planning.text(planned.estimate, planned.trainer, pictures, within))


def validate(given: list[str]) -> None:
    """Scores what a checkpoint holds: `nst validate`."""
    ValidateCLI(given)


def reconstruct(given: list[str]) -> None:
    """Rebuilds an image from single layers, one run each, and puts the pictures in a row: `nst reconstruct`.

    Raises:
        InputError: If an option cannot be used.
    """
    parser = ArgumentParser(prog="nst reconstruct", add_help=False, exit_on_error=False, allow_abbrev=False)
    for name in ("--image", "--layers", "--output", "--backbone"):
        parser.add_argument(name)
    parser.add_argument("--from", dest="source", choices=["content", "style"], default="content")
    parser.add_argument("--overwrite", choices=["true", "false"], default="false")
    chosen, rest = parser.parse_known_args(given)
    (image,) = pairs.find("image", chosen.image, pairs.CONTENT_FOLDER)
    backbone = "vgg16" if chosen.backbone is None else chosen.backbone
    layers = spec_of(backbone).style_layers if chosen.layers is None else _names(chosen.layers)
    overwrite = chosen.overwrite == "true"
    folder, _ = outputs.paths(chosen.output, [f"{Path(str(image)).stem}_from_{chosen.source}"], overwrite)
    pictures = []
    for name, seen in representations(layers, chosen.source).items():
        of_image = ["--content", str(image), "--style", str(image), *_schedule(chosen.source)]
        of_layer = ["--model.source", chosen.source, "--model.layers", ",".join(seen), "--backbone", backbone]
        run = NSTCLI(
            [*of_image, *of_layer, *rest, "--output", str(folder / f"{name}.png"), "--overwrite", chosen.overwrite],
            Reconstruction,
        )
        pictures.append((name, images.read(run.writer.written[0]).rgb))
    original = images.resize(images.read(image).rgb, (pictures[0][1].shape[-2], pictures[0][1].shape[-1])).clamp(0, 1)
    labels = [_label(name, rgb, original, chosen.source) for name, rgb in pictures]
    row = figures.strip(
        [images.to_pil(rgb) for rgb in (original, *(rgb for _, rgb in pictures))], ["original", *labels]
    )
    print(images.write(folder / "strip.png", images.read(row).rgb, overwrite=overwrite))


def _schedule(source: str) -> list[str]:
    return ["--size", "256", "--steps", "200", "--stages", str(RECONSTRUCTION_STAGES[source])]


def _label(layer: str, rgb: Tensor, original: Tensor, source: str) -> str:
    """Returns what stands over a picture, and prints how near it comes to the original where it is to."""
    if source == "style":
        return layer  # the style keeps no places: what is alike need not be near
    ratio = peak_signal_noise_ratio(rgb, original, data_range=1.0).item()
    print(f"{layer}: PSNR {ratio:.2f} dB")
    return f"{layer}  {ratio:.1f} dB"


COMMANDS: Mapping[str, Callable[[list[str]], None]] = {
    "fit": fit,
    "plan": plan,
    "reconstruct": reconstruct,
    "validate": validate,
}


def _say(line: str) -> None:
    """Writes a line to stderr in one piece, for several processes may share it."""
    sys.stderr.write(f"{line}\n")


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
            type=bool | Literal["mp4", "webp", "gif"],
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
            _say(f"nst: error: {error}; {go_on}")
            raise SystemExit(1) from error
        for path in [*self.writer.written, *(film for video in self.videos for film in video.written)]:
            print(path)
        if self.resumed is not None and self.trainer.is_global_zero and not any(self.datamodule.dealt):
            print(f"{self.folder}: nothing left to do")

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        """Makes the trainer with the run's folder and callbacks."""
        config = self.config_init[self.subcommand]
        scores = self._scores()
        names = [pair.name for pair in self.datamodule.pairs]

        def choose() -> str:
            if self.resumed is not None:
                return str(self.resumed)
            return str(outputs.paths(config["output"], names, config["overwrite"])[0])

        self.folder = Path(agreed("folder", choose))
        file = outputs.file_beside(self.folder, config["output"])
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
                representations=_names(config["representations"]),
                scores=scores,
            ),
            ProgressBar(scores=scores, shown=config["show_score"]),
            Checkpoints(self.folder / "checkpoints", config["checkpoint_minutes"]),
        ]
        trainer = super().instantiate_trainer(default_root_dir=str(self.folder), callbacks=callbacks, **kwargs)
        check_trainer(trainer)
        self._take_up(trainer)
        return trainer

    def _scores(self) -> Scores | None:
        config = self.config_init[self.subcommand]
        choice = _names(config["scores"])
        if choice == (OFF,):
            return None
        return Scores(AUTO if choice == (AUTO,) else choice, config["score_every"])

    def _take_up(self, trainer: L.Trainer) -> None:
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
            self._take_up_here()
            return
        found = json.loads(Path(agreed("progress", write)).read_text(encoding="utf-8"))
        self.datamodule.finished = frozenset(found["finished"])
        self.datamodule.saved = tuple(_from_json(each) for each in found["saved"])

    def _take_up_here(self) -> None:
        """Tells the data module what this process finds of an earlier run."""
        if self.resumed is not None:
            folder = self.folder / "checkpoints"
            self.datamodule.finished, self.datamodule.saved = finished(folder), saved(folder)


class ValidateCLI(NSTCLI):
    """Scores what a checkpoint holds instead of optimising it, and writes nothing.

    Args:
        arguments: The options of `validate`; without a configuration, that of the checkpoint's run is taken.

    Raises:
        InputError: If there is no checkpoint, or it does not fit the run.
    """

    command = "validate"
    save_config = None

    def __init__(self, arguments: list[str]) -> None:
        # One process, whatever the run had: a checkpoint is of one process's pairs.
        alone = ["--trainer.devices", "1", "--trainer.num_nodes", "1", "--trainer.strategy", "auto"]
        super().__init__([*_config_of_checkpoint(arguments), *arguments, *alone], StyleTransfer)

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Returns the command and what of the trainer's method it does not show."""
        return {"validate": {"model", "dataloaders", "datamodule"}}

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        """Makes a trainer that scores and leaves the run's folder alone."""
        self.scores = self._scores()
        if self.scores is None:
            msg = "scores is off: there is nothing to validate"
            raise InputError(msg)
        trainer = LightningCLI.instantiate_trainer(self, callbacks=[self.scores], enable_progress_bar=False, **kwargs)
        check_trainer(trainer)
        return trainer

    def validate(self, **kwargs: Any) -> None:
        """Scores the pictures of the checkpoint and prints the table.

        Raises:
            InputError: If there is no checkpoint, or it does not fit the run.
        """
        path = kwargs["ckpt_path"]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".* will begin anew")  # nothing begins here
            self.datamodule.saved = saved(Path(path))
            if not self.datamodule.saved:
                msg = f"{path}: is damaged or holds no picture; a finished one's scores are in its run's folder scores"
                raise InputError(msg)
            self.trainer.validate(**{**kwargs, "verbose": False, "weights_only": True})
        assert self.scores is not None
        if not self.scores.finals:
            msg = f"{path}: is of other pairs or stages than these settings; give the configuration of its run"
            raise InputError(msg)
        print(table.text(self.scores.finals))


class PlanCLI(NSTCLI):
    """Finds out what a run would take instead of running it, and writes nothing.

    Args:
        arguments: The options of `fit`, short names allowed.

    Attributes:
        estimate: What it would take.
    """

    def __init__(self, arguments: list[str]) -> None:
        self.estimate: planning.Estimate
        super().__init__(arguments, StyleTransfer)

    def fit(self, **kwargs: Any) -> None:
        """Measures a few steps.

        Raises:
            InputError: If the run would refuse what it was given.
        """
        if kwargs.get("ckpt_path") is not None:
            msg = "ckpt_path cannot be planned; what is left of a run is: nst plan --resume FOLDER"
            raise InputError(msg)
        if self.writer.file is not None:
            images.format_of(self.writer.file)
        settings = self.config_init[self.subcommand]["trainer"]
        self.estimate = planning.measure(self.model, self.datamodule, self.trainer, settings)

    def _take_up(self, trainer: L.Trainer) -> None:
        """Tells the data module what an earlier run has done; tells no other process, for there is none."""
        self._take_up_here()


def _progress_file(folder: Path) -> Path:
    return folder / "checkpoints" / "progress.json"


def _as_json(saved: Saved) -> dict[str, Any]:
    return {**asdict(saved), "path": str(saved.path)}


def _from_json(of: Mapping[str, Any]) -> Saved:
    stages = tuple(Stage(**stage) for stage in of["stages"])
    return Saved(Path(of["path"]), tuple(of["names"]), stages, of["stage_index"], of["taken"])


def _names(given: Sequence[str] | str | None) -> tuple[str, ...]:
    """Returns the names in a list or between commas."""
    if given is None:
        return ()
    return tuple(given.replace(" ", "").split(",")) if isinstance(given, str) else tuple(given)


def _config_of_checkpoint(arguments: Sequence[str]) -> list[str]:
    """Returns the option for the configuration of the run that a checkpoint is of, where none is given."""
    parser = ArgumentParser(add_help=False, exit_on_error=False, allow_abbrev=False)
    for name in ("--config", "--ckpt_path"):
        parser.add_argument(name)
    given, _ = parser.parse_known_args(arguments)
    if given.ckpt_path is None:
        msg = "no checkpoint was given; name one with --ckpt_path, those of a run are in its folder checkpoints"
        raise InputError(msg)
    if given.config is not None:
        return []
    config = Path(os.path.abspath(given.ckpt_path)).parent.parent / "config.yaml"
    return ["--config", str(config)] if config.is_file() else []


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
