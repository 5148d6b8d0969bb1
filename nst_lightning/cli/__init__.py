"""The command line: LightningCLI with short names, an output folder and one-line errors."""

from nst_lightning.cli.base import NSTCLI
from nst_lightning.cli.commands import COMMANDS, main
from nst_lightning.cli.plan import PlanCLI
from nst_lightning.cli.validate import ValidateCLI

__all__ = ["COMMANDS", "NSTCLI", "PlanCLI", "ValidateCLI", "main"]
