"""The entry of the command line: it answers what it can before torch is imported, and hands on the rest."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Sequence

from nst_lightning import __version__
from nst_lightning.cli.registry import COMMANDS, run
from nst_lightning.interruption import leave, take
from nst_lightning.terminal import folded, say

_COMMANDS = "\n".join(f"  {name:<13}{text}" for name, (_, text) in COMMANDS.items())
_HELP = f"""usage: nst COMMAND [options]

Neural style transfer by optimisation (Gatys et al., 2016).

commands:
{_COMMANDS}

  nst COMMAND --help shows a command's options, nst --version the version.

example:
  nst fit photo.jpg painting.jpg -o picture.png"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command line, by default the process's, and returns the exit code: 0, or 2 for what cannot be used."""
    if arguments is None:
        take(leave)  # to the process's very end
    command, *given = (sys.argv[1:] if arguments is None else arguments) or [""]
    if command in COMMANDS:
        code = run(command, given)
        if arguments is None and code > 128:  # Python's own end takes seconds, in which another signal is not handled
            os._exit(code)
        return code
    if command == "help" and given and given[0] in COMMANDS:
        return run(given[0], ["--help"])
    if command in ("-h", "--help", "help"):
        print(folded(_HELP))
    elif command == "--version":
        print(f"nst {__version__}")
    else:
        close = difflib.get_close_matches(command, COMMANDS, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        known = f"(commands: {', '.join(COMMANDS)}; see nst --help)"
        say(f"nst: error: unknown command {command!r}{hint} {known}" if command else folded(_HELP))
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
