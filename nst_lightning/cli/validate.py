"""`nst validate`: the scores of the pictures in a checkpoint."""

import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import lightning as L

from nst_lightning.api import quiet
from nst_lightning.cli.arguments import read
from nst_lightning.cli.configuration import Configuration
from nst_lightning.cli.registry import Parser
from nst_lightning.errors import InputError
from nst_lightning.metrics import table
from nst_lightning.modules import StyleTransfer, check_trainer
from nst_lightning.runs import Run

HELP = """
usage: nst validate FILE [--config FILE] [options of nst fit]

Scores the pictures that a checkpoint holds, and prints the table.

  FILE                     a checkpoint, data/output-images/<run>/checkpoints/<pair>.ckpt
  --config FILE            the run's configuration [the one in the checkpoint's run folder]
  --scores NAMES           auto, or some of those that nst score --help names [auto]

A run's finished pictures are scored by nst score, and have their scores in the run's folder scores.
"""


def main(arguments: Sequence[str]) -> None:
    """Scores what a checkpoint holds, prints the table, and writes nothing."""
    given, rest = Parser("validate", "--ckpt_path", "--config").parse_known_args(arguments)
    if given.ckpt_path is None:
        raise InputError("no checkpoint was given; name one with --ckpt_path, a run's are in its folder checkpoints")
    beside = Run(Path(os.path.abspath(given.ckpt_path)).parents[1]).config
    config = str(beside) if given.config is None and beside.is_file() else given.config
    of_run = [] if config is None else ["--config", config]
    with quiet():
        _validate(Configuration(read([*of_run, *rest, "--ckpt_path", given.ckpt_path]), StyleTransfer))


def _validate(configuration: Configuration) -> None:
    path, scores = configuration.values.ckpt_path, configuration.scores()
    if scores is None:
        raise InputError("scores is off: there is nothing to validate")
    configuration.values.data.resume = path
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".* will begin anew")  # nothing begins here
        module, data, settings = configuration.make()
        if not data.progress.saved:
            msg = f"{path}: is damaged or holds no picture; a finished one's scores are in its run's folder scores"
            raise InputError(msg)
        # One process, whatever the run had: a checkpoint is of one process's pairs.
        settings |= {"devices": 1, "num_nodes": 1, "strategy": "auto", "callbacks": [scores]}
        trainer = L.Trainer(**settings | {"enable_progress_bar": False})
        check_trainer(trainer)
        trainer.validate(module, datamodule=data, verbose=False)
    if not scores.finals:
        raise InputError(f"{path}: is of other pairs or stages than these settings; give the configuration of its run")
    print(table.text(scores.finals))
