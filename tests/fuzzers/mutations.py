"""Bytes made out of whole files by a few edits each, of the kinds that break parsers."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

LIMITS = [b"\x00" * 4, b"\xff" * 4, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x80\x00", b"\x00\x01", b"\xfe\xff"]
_KINDS = ("flip", "set", "limit", "cut", "drop", "repeat", "zeros", "splice", "swap")


_EDITS = st.lists(st.integers(0, 2**62), max_size=4)  # one number an edit: drawing is what takes the time


@st.composite
def mutated(draw: st.DrawFn, wholes: Sequence[bytes]) -> bytes:
    """One of the files, changed in up to four places; the shortest of them first."""
    found = bytearray(draw(st.sampled_from(wholes)))
    for number in draw(_EDITS):
        number, kind = divmod(number, len(_KINDS))
        number, in_head = divmod(number, 2)  # where the headers are
        number, length = divmod(number, 64)
        number, choice = divmod(number, 2**16)
        _edit(found, _KINDS[kind], number % max(1, min(len(found), 512) if in_head else len(found)), length + 1, choice)
        if _KINDS[kind] == "splice":
            other = wholes[choice % len(wholes)]
            found[number % (len(found) + 1) :] = other[number % (len(other) + 1) :]
    return bytes(found)


def _edit(found: bytearray, kind: str, place: int, length: int, choice: int) -> None:
    if kind == "flip" and found:
        found[place] ^= 1 << (choice % 8)
    elif kind == "set":
        found[place : place + 1] = bytes([choice % 256])
    elif kind == "limit":
        limit = LIMITS[choice % len(LIMITS)]
        found[place : place + len(limit)] = limit
    elif kind == "cut":
        del found[place:]
    elif kind == "drop":
        del found[place : place + length]
    elif kind == "repeat":
        found[place:place] = found[place : place + length] * (1 + choice % 5)
    elif kind == "zeros":
        found[place : place + length] = bytes(length)
    elif kind == "swap":
        found[place : place + 2 * length] = found[place + length : place + 2 * length] + found[place : place + length]
