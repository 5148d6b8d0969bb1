"""`nst plan`: what a run would take, found out in the way of a run."""

from __future__ import annotations

from typing import Any

import lightning as L

from nst_lightning import images, planning
from nst_lightning.cli.base import NSTCLI
from nst_lightning.errors import InputError
from nst_lightning.modules import StyleTransfer


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

    def take_up(self, trainer: L.Trainer) -> None:
        """Tells the data module what an earlier run has done; tells no other process, for there is none."""
        self.take_up_here()
