"""Bytes made out of whole files by a few edits each, of the kinds that break parsers."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

LIMITS = [b"\x00" * 4, b"\xff" * 4, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x80\x00", b"\x00\x01", b"\xfe\xff"]
_KINDS = ("flip", "set", "limit", "cut", "drop", "repeat", "zeros", "splice", "swap")


@st.composite
def mutated(draw: st.DrawFn, wholes: Sequence[bytes], edits: int = 4) -> bytes:
    """One of the files, changed in up to so many places; the shortest of them first."""
    found = bytearray(draw(st.sampled_from(wholes)))
    for _ in range(draw(st.integers(0, edits))):
        kind, at = draw(st.sampled_from(_KINDS)), draw(st.integers(0, 2**24))
        # Half of the places in the first 512 bytes, where the headers are.
        place = at % max(1, min(len(found), 512) if at & 1 else len(found))
        length = 1 + draw(st.integers(0, 2**12)) % 64
        if kind == "flip" and found:
            found[place] ^= 1 << (length % 8)
        elif kind == "set":
            found[place : place + length % 8 + 1] = draw(st.binary(min_size=1, max_size=8))
        elif kind == "limit":
            limit = draw(st.sampled_from(LIMITS))
            found[place : place + len(limit)] = limit
        elif kind == "cut":
            del found[place:]
        elif kind == "drop":
            del found[place : place + length]
        elif kind == "repeat":
            found[place:place] = found[place : place + length] * (1 + length % 5)
        elif kind == "zeros":
            found[place : place + length] = bytes(length)
        elif kind == "splice":
            other = draw(st.sampled_from(wholes))
            start = at % max(1, len(other))
            found[place : place + length] = other[start : start + length]
        elif kind == "swap":
            found[place : place + 2 * length] = (
                found[place + length : place + 2 * length] + found[place : place + length]
            )
    return bytes(found)
