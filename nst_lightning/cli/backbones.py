"""`nst backbones`: the networks and their layers."""

from collections.abc import Sequence

from nst_lightning.backbones import anatomy
from nst_lightning.cli.registry import Parser

HELP = "usage: nst backbones\n\nLists the networks, where their weights come from, and their layers."


def main(arguments: Sequence[str]) -> None:
    """Prints the networks, where their weights come from, and their layers."""
    Parser("backbones").parse_args(arguments)
    print(anatomy.table())
