"""Names of pairs, of which no two are one file on any file system."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Sequence
from itertools import count
from pathlib import Path

from nst_lightning import images
from nst_lightning.errors import InputError

MAX_NAME = 200  # bytes of UTF-8; file systems allow 255, and outputs add a suffix or a number

_RESERVED = frozenset('/\\<>:"|?*')  # on Windows; the first of them everywhere
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # Windows, whatever the suffix
_CONTROLS = frozenset({"Cc", *"LRE RLE LRO RLO PDF LRI RLI FSI PDI".split()})  # the latter turn the reading direction


def draft(*sources: images.Source) -> str:
    """Returns the name of what is made of some images, before others that may have it too."""
    return "_".join(Path(each).stem if isinstance(each, (str, os.PathLike)) else "image" for each in sources)


def unique(names: Sequence[str], reserved: Collection[str] = ()) -> list[str]:
    """Shortens what is too long and numbers what occurs more than once, without taking the name of another."""
    names = [_shortened(name) for name in names]
    counts = Counter(map(_key, [*names, *reserved]))
    taken, numbers, unique = set(counts), {key: count(1) for key in counts}, []
    for name in names:
        key = _key(name)
        if counts[key] > 1:
            name = next(free for n in numbers[key] if _key(free := _shortened(name, f"_{n}")) not in taken)
            taken.add(_key(name))
        unique.append(name)
    return unique


def _key(name: str) -> str:
    """What two names share that are one file on some file system: case, Unicode's forms and last dots are ignored."""
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", name).casefold()).rstrip(". ")


def _shortened(name: str, ending: str = "") -> str:
    room = MAX_NAME - len(ending)
    return (name if _bytes(name) <= room else name.encode(errors="ignore")[:room].decode(errors="ignore")) + ending


def _bytes(name: str) -> int:
    return len(name.encode("utf-8", "surrogatepass"))  # Python's stand-in for what is not UTF-8 in a file's name


def check_name(name: str, number: int, lines: dict[str, tuple[int, str]]) -> None:
    """Refuses a name that cannot be a file's on every file system, or that an earlier line has."""
    kinds = {kind for each in name for kind in (unicodedata.category(each), unicodedata.bidirectional(each))}
    plain = _RESERVED.isdisjoint(name) and kinds.isdisjoint(_CONTROLS)
    taken = name.startswith("_run") or _DEVICES.fullmatch(name)  # by the run's own curves, or by a system
    if not plain or taken or name.startswith(".") or name.endswith(".") or _bytes(name) > MAX_NAME:
        allowed = (
            f"at most {MAX_NAME} bytes, no device's name, without control characters and {' '.join(sorted(_RESERVED))}"
        )
        raise InputError(f"name must be {allowed}, and neither begin with _run or a dot nor end with one, got {name!r}")
    first, same = lines.setdefault(_key(name), (number, name))
    if name != "" and first != number:
        got = f"{name!r} after {same!r} on line {first}"
        raise InputError(f"name must differ from every other by more than case, got {got}")
