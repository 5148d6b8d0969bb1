"""`nst completion`: what a shell needs to complete commands, options and names of files."""

import io
import re
from argparse import ArgumentParser
from collections.abc import Sequence
from contextlib import redirect_stdout

import shtab

from nst_lightning import presets
from nst_lightning.cli.options import known
from nst_lightning.cli.registry import COMMANDS, Parser, run

HELP = """
usage: nst completion bash|zsh

Prints what makes a shell complete commands, options and names of files.

examples:
  nst completion bash > ~/.local/share/bash-completion/completions/nst
  nst completion zsh > ~/.zfunc/_nst       (with fpath+=~/.zfunc in ~/.zshrc, in front of compinit)
"""


def main(arguments: Sequence[str]) -> None:
    """Prints a shell's script."""
    parser = Parser("completion")
    parser.add_argument("shell", choices=("bash", "zsh"))
    print(shtab.complete(tree(), parser.parse_args(arguments).shell))


def tree() -> ArgumentParser:
    """Returns a parser that has every command with the options that its help names."""
    whole = ArgumentParser("nst", add_help=False)
    commands = whole.add_subparsers()
    for name, (_, text) in COMMANDS.items():
        command = commands.add_parser(name, help=text, add_help=False)
        _completing(command.add_argument("files", nargs="*"))
        told = io.StringIO()
        with redirect_stdout(told):
            run(name, ["--help"])
        own = [each.replace("-", "_") for each in re.findall(r"(?<!\S)--(\w[\w-]*)", told.getvalue())]
        of_fit = ["config", *known()] if name == "fit" or "options of nst fit" in told.getvalue() else []
        for option in dict.fromkeys([*own, "help", *of_fit]):
            _add(command, option)
    return whole


def _add(command: ArgumentParser, name: str) -> None:
    option = known().get(name)
    text = None if option is None else option.text.replace("%", "%%")
    if name == "preset":
        command.add_argument("--preset", choices=presets.names(), help=text)
    elif option is not None and option.words is not None:
        command.add_argument(f"--{name}", nargs="?", choices=sorted(option.words), help=text)
    else:
        _completing(command.add_argument(f"--{name}", help=text))


def _completing(action: object) -> None:
    action.complete = shtab.FILE  # type: ignore[attr-defined] # as shtab looks for it
