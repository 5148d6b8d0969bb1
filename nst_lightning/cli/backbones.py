"""`nst backbones`: the networks and their layers."""

from collections.abc import Sequence

from nst_lightning.backbones import SPECS, anatomy
from nst_lightning.cli.registry import Parser

HELP = "usage: nst backbones [NAME ...]\n\nLists networks, by default all, with their weights and layers."


def main(arguments: Sequence[str]) -> None:
    """Prints the networks, where their weights come from, and their layers."""
    parser = Parser("backbones")
    parser.add_argument("names", nargs="*", default=[*SPECS])
    print(anatomy.table(parser.parse_args(arguments).names))
