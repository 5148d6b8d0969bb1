"""The commands: where each is, what it says of itself, how its own options are parsed, and how it is run."""

from __future__ import annotations

import ast
import difflib
import os
import re
import shutil
import sys
from argparse import ArgumentParser, ArgumentTypeError, HelpFormatter
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from io import TextIOWrapper
from pathlib import Path
from typing import Any, NoReturn

from nst_lightning.errors import InputError, refused
from nst_lightning.interruption import Interrupted, break_off, handled, importing, leave
from nst_lightning.terminal import folded, open_all, say, settle

COMMANDS = {
    "fit": ("cli.fit", "paint photographs in the manner of paintings"),
    "ui": ("ui.command", "paint in a browser: a page with a queue and a gallery"),
    "film": ("cli.film", "paint a film frame by frame, or a walk from one painting to the next"),
    "paint": ("cli.paint", "paint photographs in one pass, with a painter of nst train"),
    "train": ("cli.train", "train a painter, which then paints any photograph in one pass"),
    "plan": ("cli.plan", "tell what painting would take, without doing it: time, memory, devices"),
    "strengths": ("cli.strengths", "paint a pair at five strengths, small, in a row"),
    "style": ("cli.style", "learn a style card from many paintings, or show what one holds"),
    "reconstruct": ("cli.reconstruct", "rebuild an image from what single layers hold of it"),
    "reproduce": ("cli.reproduce", "make a picture again from what its file says of it"),
    "score": ("cli.score", "measure what pictures keep of the content and take of the style"),
    "sweep": ("study.sweep_command", "compare settings: a labelled grid, tables and plots out of one file"),
    "report": ("study.report_command", "show results on disk as one page of HTML"),
    "vote": ("study.vote_command", "ask people which of two pictures is better, and count their votes"),
    "validate": ("cli.validate", "score what a checkpoint holds"),
    "inspect": ("cli.inspect", "show what a network sees in an image: feature maps and Gram matrices"),
    "backbones": ("cli.backbones", "list the networks and their layers"),
    "completion": ("cli.completion", "print what makes a shell complete commands and options"),
}
"""The module of each command, whose `main` takes the options and returns an exit code, None for 0; and what it does.

Its help is its constant `HELP`, which is read without importing it, or else what `main` prints for --help.
"""
_LEADING = {
    **{"score": "--output", "validate": "--ckpt_path", "reproduce": "--picture"},
    **dict.fromkeys(("inspect", "reconstruct"), "--image"),
}
"""The option that the words in front of all options are the values of; other commands look after theirs."""


class Parser(ArgumentParser):
    """The parser of a command's own options, each with a text, which raises what it cannot use as `InputError`."""

    def __init__(self, command: str, *options: str, **settings: Any) -> None:
        width = min(116, shutil.get_terminal_size((116, 0)).columns)
        formatter = partial(HelpFormatter, max_help_position=28, width=width)
        super().__init__(f"nst {command}", formatter_class=formatter, allow_abbrev=False, **settings)
        for option in options:
            self.add_argument(option)

    def switch(self, name: str, text: str | None = None) -> None:
        """Adds an option that is true where it is named, and may be told true or false."""
        self.add_argument(name, type=_truth, nargs="?", const=True, default=False, metavar="true|false", help=text)

    def format_help(self) -> str:
        """Returns the help in the width of the terminal, its usage too."""
        return folded(super().format_help())

    def error(self, message: str) -> NoReturn:
        """Raises what the parser has to say, with the option that was meant where there is none of a name."""
        found = re.fullmatch(r"unrecognized arguments: (--\w+).*", message, re.DOTALL)
        close = difflib.get_close_matches(found[1], re.findall(r"--\w+", self.format_help()), n=1) if found else []
        raise InputError(f"{message}; did you mean {close[0]}?" if close else message)


def run(command: str, arguments: Sequence[str]) -> int:
    """Runs a command, a key of `COMMANDS`, and returns the exit code.

    0; 1 where something failed; 2 after one line on what cannot be used; 141 where no one reads the output to its end;
    `UNFINISHED`, and that of `Interrupted`.
    """
    module, _ = COMMANDS[command]
    text = _help(module) if {"-h", "--help"} & set(arguments) else None
    if text is not None:
        print(folded(text.strip()))
        return 0
    open_all()
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a path's name may be more than the terminal can show
    with handled(leave):
        try:
            with importing():
                main: Callable[[Sequence[str]], int | None] = import_module(f"nst_lightning.{module}").main
            words = [*map(_plain, arguments)]
            if command in _LEADING and words and not words[0].startswith("-"):
                words.insert(0, _LEADING[command])
            with handled(break_off):
                code = main(words)
                sys.stdout.flush()
            return 0 if code is None else code
        except BrokenPipeError:
            return 141
        except Interrupted as ended:
            say("nst: interrupted")
            return 128 + ended.number
        except SystemExit as ended:  # after a parser's help, or when all is saved of a run that was broken off
            return ended.code if isinstance(ended.code, int) else 0
        except BaseException as error:  # a panic in Rust is no Exception
            return refused(error)
        finally:
            settle()


def _truth(text: str) -> bool:
    known = {"true": True, "yes": True, "false": False, "no": False}
    if text.lower() not in known:
        raise ArgumentTypeError(f"must be true or false, got {text!r}")
    return known[text.lower()]


def _plain(argument: str) -> str:
    """Returns an argument with underscores in its name, and the home folder for a ~ that begins its value.

    A shell leaves that one behind an =.
    """
    if not argument.startswith("--"):
        return os.path.expanduser(argument)
    name, equals, value = argument.partition("=")
    return f"--{name[2:].replace('-', '_')}{equals}{os.path.expanduser(value)}"


def _help(module: str) -> str | None:
    """Returns the help of a command, read from the module's source; None where there is no `HELP`."""
    source = Path(__file__).parents[1].joinpath(*module.split(".")).with_suffix(".py").read_text(encoding="utf-8")
    assigned = [node for node in ast.parse(source).body if isinstance(node, ast.Assign)]
    found = [str(ast.literal_eval(node.value)) for node in assigned if ast.unparse(node.targets[0]) == "HELP"]
    return found[0] if found else None
