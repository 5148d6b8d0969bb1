"""`nst train`: trains a painter, a network that paints a photograph in one pass."""

import os
import re
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning as L
from jsonargparse import ActionConfigFile, Namespace  # type: ignore[attr-defined] # without __all__
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.loggers import TensorBoardLogger

from nst_lightning import files, runs
from nst_lightning.api import quiet, trainer_of
from nst_lightning.cli.arguments import read
from nst_lightning.cli.options import LISTS_OF_PAINTERS, NOT_OF_PAINTERS
from nst_lightning.crops import CropDataModule
from nst_lightning.errors import InputError
from nst_lightning.interruption import UNFINISHED, Wish, handled, take
from nst_lightning.modules import Painter, StyleTransfer
from nst_lightning.painters.files import BUNDLED, SUFFIX
from nst_lightning.parallel import agreed, telling
from nst_lightning.terminal import STDERR, say, tell

HELP = """
usage: nst train --photographs FOLDER --styles PAINTINGS [options]

Trains a painter on photographs, a network that then paints any photograph in one pass: nst paint, and --init painter:
of nst fit. It is trained on what nst fit brings down, by the same options, and by Adam.

  --config FILE            settings in YAML, e.g. configs/painter.yaml, in the groups data, painter, model and trainer
  --photographs FOLDER     photographs of any size, the more the better; or a pattern, e.g. photos/**/*.jpg
  --styles PAINTINGS       paintings or style cards, a style each: [a.jpg,b.jpg]
  --held_out FILES         photographs that TensorBoard shows painted as it trains [none]
  -o, --output FILE        the painter, a .safetensors file, or a folder for it [data/output-images/<styles>_painter]
  --ckpt_path FILE         a checkpoint to go on from, of a run's folder checkpoints, whose settings are the default
  --overwrite              replaces an earlier output; else the new one gets a number
  --preset NAME            the losses of a convention, e.g. fast_neural_style, with its max_steps as --steps
  --steps N                steps of Adam [10000]: on two cores a few thousand of small crops, on a GPU 40000 of 256 px
  --crop PIXELS, --batch_size N, --workers N    the photographs' crops [256], those of a step [4], decoding ahead [2]
  --style_size PIXELS, --width N, --lr X, --seed N    size of the strokes [256], channels [32], Adam's rate [1e-3]
  --init FILE              a painter to train on from, e.g. bundled, in a fraction of the steps [random weights]
  --style_loss, --style_layers, --content_layers, --style_weight, --content_weight, --tv_weight, --backbone, ...: as in
                           nst fit, but for style_loss [gram], style_weight [5] and content_layers [relu2_2]
  --devices N --strategy ddp, --accelerator, --precision    Lightning's own
  --checkpoint_minutes X   minutes between two checkpoints [2]

example:
  nst train --photographs photos/ --styles painting.jpg -o painter.safetensors
  nst paint photo.jpg --painter painter.safetensors
"""
_TRAINER: dict[str, Any] = {"accelerator": "auto", "devices": 1, "max_steps": 10_000, "max_epochs": -1}
_TRAINER |= {"log_every_n_steps": 10, "val_check_interval": 500, "check_val_every_n_epoch": None}
_TRAINER |= {"num_sanity_val_steps": 0}
_TRAINER |= dict.fromkeys(("inference_mode", "enable_model_summary", "use_distributed_sampler"), False)


def main(arguments: Sequence[str]) -> int | None:
    """Trains, writes the painter and prints its path; returns another code than 0 where it was told to stop before."""
    with quiet(), ExitStack() as claims:
        parser, values = _parsed(arguments)
        try:
            made = parser.instantiate_classes(values)
            painter = Painter(made.model.problem, **vars(values.painter))
        except (TypeError, ValueError) as error:  # an InputError, perhaps in what jsonargparse wraps it in
            raise InputError(str(error)) from error
        of_losses = {name: each for name, each in made.model.settings.items() if name not in NOT_OF_PAINTERS}
        of_data = {name: getattr(values.data, name) for name in ("crop", "batch_size")}
        painter.settings = {**of_losses, **of_data, **vars(values.painter), "styles": painter.names}
        if values.painter.init is not None:
            painter.settings["init"] = Path(values.painter.init).name
        name = f"{'_'.join(painter.names)}_painter"

        def choose() -> str:
            if values.ckpt_path is not None:
                run = runs.Run(Path(os.path.abspath(values.ckpt_path)).parents[1])
                claims.enter_context(runs.held(run))
            else:
                run, _ = claims.enter_context(runs.claimed(values.output, [name], values.overwrite))
            return str(run.folder)

        run = runs.Run(Path(agreed("folder", choose)))
        beside = runs.file_beside(run.folder, values.output)
        file = run.folder / f"{name}{SUFFIX}" if beside is None else beside
        if file.suffix != SUFFIX:
            raise InputError(f"output must be a {SUFFIX} file or a folder, got {values.output}")
        trainer, ending = _trainer(values, dict(made.trainer), run, bool(made.data.held_out))
        checkpoint, resumed = run.checkpoints / "painter.ckpt", values.ckpt_path
        if trainer.is_global_zero:
            values.ckpt_path = None
            parser.save(values, run.config, skip_unset=False, overwrite=True)
        with telling({"folder": str(run.folder)}), handled(ending.wish.note):
            # A checkpoint of ours is tensors and plain values: nothing in it is run.
            trainer.fit(painter, datamodule=made.data, ckpt_path=resumed, weights_only=True)
        trainer.save_checkpoint(checkpoint)
        if not trainer.is_global_zero:
            return None
        painter.trained.write(file, values.overwrite or resumed is not None)
        tell(file)
        if ending.wish.number is None and trainer.global_step >= trainer.max_steps > 0:
            return None
        say(f"nst: ended after step {trainer.global_step}; to go on: nst train --ckpt_path {checkpoint}")
        return UNFINISHED if ending.wish.number is None else 128 + ending.wish.number


def _trainer(values: Namespace, settings: dict[str, Any], run: runs.Run, shows: bool) -> tuple[L.Trainer, "_Ending"]:
    """Returns the trainer, and what ends it."""
    ending, minutes = _Ending(), timedelta(minutes=values.checkpoint_minutes)
    saving = ModelCheckpoint(run.checkpoints, "painter", train_time_interval=minutes, enable_version_counter=False)
    own = settings["callbacks"]
    settings["callbacks"] = [ending, *(own if isinstance(own, list) else [] if own is None else [own]), saving]
    settings["default_root_dir"] = str(run.folder)
    settings["enable_progress_bar"] = settings["enable_progress_bar"] is not False and STDERR.isatty()
    if settings["logger"] is None:
        settings["logger"] = TensorBoardLogger(run.folder, name="tensorboard", version="")
    if not shows:
        settings["limit_val_batches"] = 0
    return trainer_of(**settings), ending


class _Ending(Callback):
    """Ends the training between two steps where a signal wished it; tells of the held-out loss where no bar does."""

    def __init__(self) -> None:
        self.wish = Wish()
        self.wish.patient = True

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Takes SIGTERM back from Lightning."""
        take(self.wish.note)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: object) -> None:
        """Ends it where it is to, in all processes after the same step."""
        self.wish.number = trainer.strategy.broadcast(self.wish.number)
        if self.wish.number is not None:
            trainer.should_stop = True

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Tells of the loss."""
        total = trainer.callback_metrics.get("held_out/total")
        if total is not None and trainer.progress_bar_callback is None and trainer.is_global_zero:
            say(f"step {trainer.global_step} of {trainer.max_steps}: held-out loss {float(total):.4g}")


def _parsed(arguments: Sequence[str]) -> tuple[LightningArgumentParser, Namespace]:
    """Returns the parser, and what was given, with the names of files from the root on."""
    parser = LightningArgumentParser("nst train", usage="nst train [options]", description="", exit_on_error=False)
    parser.add_argument("-c", "--config", action=ActionConfigFile)
    parser.add_lightning_class_args(L.Trainer, "trainer")
    parser.set_defaults({f"trainer.{name}": value for name, value in _TRAINER.items()})
    parser.add_class_arguments(StyleTransfer, "model", skip={*NOT_OF_PAINTERS})
    # A deeper layer of the content, as nst fit has it, lets a painter cover everything with marks in rows.
    parser.set_defaults({"model.style_loss": "gram", "model.style_weight": 5.0, "model.content_layers": "relu2_2"})
    parser.add_class_arguments(CropDataModule, "data", fail_untyped=False, sub_configs=False)
    parser.add_class_arguments(Painter, "painter", skip={"problem"}, instantiate=False, sub_configs=False)
    parser.add_argument("--output", type=str | None, default=None)
    parser.add_argument("--ckpt_path", type=str | None, default=None)
    parser.add_argument("--overwrite", type=bool, default=False)
    parser.add_argument("--checkpoint_minutes", type=float, default=2.0)
    given = read(arguments, "train")
    checkpoint = given.values("ckpt_path")
    if checkpoint is not None and not os.path.isfile(checkpoint[-1]):
        raise InputError(f"{checkpoint[-1]}: no such checkpoint; a run's is in its folder checkpoints")
    if checkpoint is not None and not any(re.match("(-c|--config)($|=)", word) for word in arguments):
        config = runs.Run(Path(os.path.abspath(checkpoint[-1])).parents[1]).config
        given = read(["--config", str(config), *arguments], "train")
    seeds = [("data.seed", values) for key, values in given.options if key == "painter.seed"]
    values = parser.parse_args(replace(given, options=(*seeds, *given.options)).as_arguments())
    for key, folder in zip(
        LISTS_OF_PAINTERS, (files.CONTENT_FOLDER, files.CONTENT_FOLDER, files.STYLE_FOLDER), strict=True
    ):
        named_files = values[key] if isinstance(values[key], list) else [values[key]]
        values[key] = None if values[key] is None else [_absolute(each, folder) for each in named_files]
    if values.painter.init not in (None, BUNDLED):
        values.painter.init = os.path.abspath(values.painter.init)
    return parser, values


def _absolute(name: str, folder: Path) -> str:
    """Returns a path or pattern from the root on, so that the saved configuration runs from anywhere."""
    sample = None if os.path.exists(name) else files.sample(Path(name), folder)
    return os.path.abspath(os.path.expanduser(name) if sample is None else sample)
