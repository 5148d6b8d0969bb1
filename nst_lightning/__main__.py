"""The entry of the command line: answers what it can before torch is imported, and hands on the rest."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Sequence
from importlib.metadata import version

from nst_lightning import options

COMMANDS = {"fit": "paint photographs in the manner of paintings"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        arguments: The command line without the program's name; None takes the process's.

    Returns:
        The exit code: 0, or 2 for what cannot be used.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] in (["-h"], ["--help"], ["help"]):
        print(_help())
        return 0
    if given[:1] == ["--version"]:
        print(f"nst {version('nst-lightning')}")
        return 0
    if not given or given[0] not in COMMANDS:
        print(_unknown(given), file=sys.stderr)
        return 2
    if {"-h", "--help"} & set(given[1:]):
        print(_command_help(given[0]), flush=True)
    from nst_lightning import cli

    return cli.main(given)


def _help() -> str:
    commands = "\n".join(f"  {name:<8}{text}" for name, text in COMMANDS.items())
    return (
        "usage: nst COMMAND [options]\n\n"
        "Neural style transfer by optimisation (Gatys et al., 2016).\n\n"
        f"commands:\n{commands}\n\n"
        "  nst COMMAND --help shows a command's options, nst --version the version.\n\n"
        "example:\n  nst fit --content photo.jpg --style painting.jpg --output picture.png"
    )


def _unknown(given: Sequence[str]) -> str:
    if not given:
        return _help()
    close = difflib.get_close_matches(given[0], COMMANDS, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    return f"nst: error: unknown command {given[0]!r}{hint} (commands: {', '.join(COMMANDS)}; see nst --help)"


def _command_help(command: str) -> str:
    return (
        f"usage: nst {command} [--config FILE] [options]\n\n"
        "examples:\n"
        f"  nst {command} --config configs/quickstart.yaml\n"
        f"  nst {command} --content photo.jpg --style painting.jpg --output picture.png\n"
        f"  nst {command} --resume data/output-images/photo_painting\n\n"
        "the options that matter first:\n"
        f"{options.table()}\n\n"
        "All options, in the words of a configuration file:\n"
    )


if __name__ == "__main__":
    sys.exit(main())
