"""Numbers and texts that are near what is meant, and far from it."""

from __future__ import annotations

from hypothesis import strategies as st

_ODD = [
    "",
    " ",
    ".",
    "..",
    "/",
    "~",
    "~nobody/x",
    "\0",
    "a\0b",
    "CON",
    "nul.txt",
    "\u202e",
    "a" * 300,
    "é" * 150,
    "\udc80",
    "\ud800",
    "_run",
    "-",
    "--",
    "*",
    "[",
    "[a",
    "**",
    "a/../b",
    "{}",
    "[]",
    "null",
    "\n",
    "a\r\nb",
    "'",
    '"',
    "=1+1",
    "\ufeff",
    "a|b",
    "%s",
    "{0}",
    "\\",
    "Ä",
    "A\u0308",
    "ſ",
    "K",
    "x.",
    "x ",
    "photo",
    "photo.png",
    "🖼",
]
_NUMBERS = """
0 1 -1 64 32 3 2.5 1e-3 1e400 -1e400 nan .nan inf .inf -.inf 0x10 1_000 ١ 1e30 9223372036854775807 9223372036854775808
1e-320 1.5 true 16384 16385 99999999999999999999999999 1:30 00 -0
"""
NUMBERS = st.sampled_from(_NUMBERS.split())
"""Numbers as text."""


def odd(length: int) -> st.SearchStrategy[str]:
    """Returns texts that programs stumble over, and any others up to a length."""
    return st.sampled_from(_ODD) | st.text(max_size=length) | st.text("abc ,;|/\\.:{}[]#&*!%@'\"\n\t", max_size=length)
