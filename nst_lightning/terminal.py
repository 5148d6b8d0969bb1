"""What is told to whoever reads the terminal: where it is gone, closed or full, what cannot be told is dropped."""

from __future__ import annotations

import os
import re
import shutil
import sys
import textwrap
from contextlib import suppress

_GONE = (AttributeError, OSError, ValueError)  # None under pythonw; broken or full; closed


class _Errors:
    """stderr as it is at the moment, whose failures end nothing: for what shows a bar or a message on the way."""

    def write(self, text: str) -> int:
        """Writes a text in one piece, for several processes may share the stream."""
        with suppress(*_GONE):
            sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        """Flushes the stream."""
        with suppress(*_GONE):
            sys.stderr.flush()

    def isatty(self) -> bool:
        """Whether a person is likely to look."""
        with suppress(*_GONE):
            return sys.stderr.isatty()
        return False

    def fileno(self) -> int:
        """Returns its number, by which its width is asked for; an OSError where it has none."""
        try:
            return sys.stderr.fileno()
        except _GONE as error:
            raise OSError(str(error)) from error


STDERR = _Errors()


def say(line: str) -> None:
    """Writes a line to stderr."""
    STDERR.write(f"{line}\n")


def tell(line: object) -> None:
    """Writes a line to stdout of a run that has done its work, which is no worse where no one reads of it."""
    with suppress(*_GONE):
        print(line, flush=True)


def folded(text: str) -> str:
    """Returns lines that the terminal need not break in mid-word: what is in a second column stays in it."""
    width = shutil.get_terminal_size((1000, 0)).columns
    return "\n".join(_folded(line, width) if len(line) > width else line for line in text.split("\n"))


def _folded(line: str, width: int) -> str:
    column = re.match(r" *(\S+ )*\S*  +", line)
    indent = " " * (0 if column is None else column.end())
    return textwrap.fill(line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def open_all() -> None:
    """Opens what was closed before the start: else the next file takes its number, and is written to by libraries."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))


def settle() -> None:
    """Drops what can no longer be written, over which Python would fail once more as it ends."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except _GONE:
            with suppress(*_GONE):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
