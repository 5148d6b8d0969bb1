"""What cannot be used, as an exception, and the one way that an error becomes a line and an exit code."""

from __future__ import annotations

import re
import sys
from contextlib import suppress
from pickle import UnpicklingError

# By their names: to import jsonargparse's, Lightning's and yaml's classes for comparing takes seconds.
_OF_USERS = {"InputError", "ArgumentError", "MisconfigurationException", "YAMLError"}
_WORDS = (
    (r"\s+", " "),
    (r"""Parser key ["'](?:(?:data|model)\.(?=\w+["']))?([^"']+)["']:""", r"--\1:"),
    (r"a typing\.Literal(\[[^]]*\])", r"one of \1"),
    (r"<class '([^']+)'>", r"\1"),
)
"""What a parser's messages say, and what a user is told instead."""


class InputError(ValueError):
    """Something a user gave cannot be used; the text is one line that says what came and what is allowed."""


def say(line: str) -> None:
    """Writes a line to stderr in one piece, for several processes may share it; where no one reads it, nowhere."""
    # It is None under pythonw, and closed or broken where a terminal went away.
    with suppress(AttributeError, OSError, ValueError):
        sys.stderr.write(f"{line}\n")


def refused(error: BaseException) -> int:
    """Says on stderr in one line why a command ended, and returns its exit code: 2, or 130 after Ctrl-C.

    An error that neither what was given nor the machine explains is raised again.
    """
    text = _explained(error)
    if text is None:
        raise error
    for pattern, words in _WORDS:
        text = re.sub(pattern, words, text)
    say(f"nst: error: {text}")
    return 130 if isinstance(error, KeyboardInterrupt) else 2


def _explained(error: BaseException) -> str | None:
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if kinds & _OF_USERS:
        return str(error)
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if isinstance(error, UnicodeDecodeError):  # of a configuration, which says where but not in which file
        return f"the configuration is not text in UTF-8 ({error.reason} at byte {error.start})"
    if isinstance(error, OSError):
        reason = error.strerror or str(error) or type(error).__name__
        return reason if error.filename is None else f"{error.filename}: {reason}"
    if kinds & {"MemoryError", "OutOfMemoryError"} or "can't allocate memory" in str(error):
        return "there is not enough memory: a smaller --size, or --tile auto, takes less"
    if isinstance(error, (UnpicklingError, EOFError)) or "PytorchStreamReader" in str(error):  # EOFError: it is empty
        return "the checkpoint is damaged or not one of this program's; it is not loaded"
    return None
