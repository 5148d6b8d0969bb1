"""`nst validate`: the scores of the pictures in a checkpoint."""

from __future__ import annotations

import os
import warnings
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.cli import LightningCLI

from nst_lightning.callbacks.checkpoints import saved
from nst_lightning.cli.base import NSTCLI
from nst_lightning.errors import InputError
from nst_lightning.metrics import table
from nst_lightning.modules import StyleTransfer, check_trainer


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
        self.scores = self.make_scores()
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
