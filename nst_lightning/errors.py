"""The one exception that means: what was given cannot be used; and how a command says so."""

from __future__ import annotations

import re
import sys


class InputError(ValueError):
    """Something a user gave cannot be used; the text is one line that says what came and what is allowed.

    The command line prints the text and ends with exit code 2.
    """


def refused(error: Exception) -> int:
    """Says on stderr in one line why a command cannot be run, in a user's words, and returns its exit code, 2."""
    text = re.sub(r'Parser key "(\w+)":', r"--\1:", " ".join(str(error).split()))
    text = re.sub(r"<class '(\w+)'>", r"\1", text)
    print(f"nst: error: {text}", file=sys.stderr)
    return 2
