"""Images by their names: files, folders of them, patterns, and the samples. It needs no torch, to answer at once."""

from __future__ import annotations

import contextlib
import glob
import os
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from nst_lightning.errors import InputError

if TYPE_CHECKING:
    from nst_lightning.images import Source

Images: TypeAlias = "Source | Sequence[Source] | None"
"""What `find` takes: an image, several, or none, which it refuses."""

CONTENT_FOLDER = Path("data/content-images")
STYLE_FOLDER = Path("data/style-images")
MASK_FOLDER = Path("data/content-masks")

# Pillow reads these by their first bytes or other programs only.
_UNREADABLE = frozenset({"BUFR", "GRIB", "HDF5", "MPEG", "EPS"})


def find(argument: str, given: Images, *folders: Path) -> list[Source]:
    """Returns the images that were named, files with their path.

    A folder stands for the images in it, in natural order of their names, without hidden files and subfolders; a
    pattern with `*`, `**`, `?` or `[...]` for the files that it matches, in the same order, unless it is a file's or
    folder's name. A name without a folder that no file here has is looked up in `folders`, its suffix given or not.
    An error calls the images `argument`.

    Raises:
        InputError: If nothing was named, or a name, folder or pattern stands for no file.
    """
    sources: Sequence[Source | None] = given if isinstance(given, (list, tuple)) else [given]  # type: ignore[list-item]
    found = [image for source in sources for image in _find(argument, source, folders)]
    if not found:
        raise InputError(f"{argument} is an empty list; name an image, or several")
    return found


def _find(argument: str, source: Source | None, folders: Sequence[Path]) -> Sequence[Source]:
    noun = "image" if argument == "image" else f"{argument} image"
    if source is None:
        raise InputError(f"no {noun} was given; name a file with --{argument}, e.g. one of {folders[0]}")
    if not isinstance(source, (str, os.PathLike)):
        return [source]
    path = Path(os.path.expanduser(source))
    # Not Path.is_file, which raises on a name that is too long. Reading an empty name says what is wrong.
    if os.path.isfile(path) or os.fspath(source) == "":
        return [path]
    if (named := sample(path, *folders)) is not None:
        return [named]
    if os.path.isdir(path):
        shown = (entry for entry in path.iterdir() if not entry.name.startswith(".") and entry.is_file())
        if found := [entry for entry in shown if entry.suffix.lower() in _suffixes()]:
            return sorted(found, key=_natural)
        allowed = "expected files with the suffix of an image, not hidden and not in a subfolder"
        raise InputError(f"{argument} folder {path} has no image in it; {allowed}")
    if not set("*?[").isdisjoint(str(path)):
        if found := _matches(path):
            return sorted(found, key=_natural)
        raise InputError(f"{argument} pattern {str(path)!r} matches no file; name a file, a folder or another pattern")
    if path.parent != Path():
        return [path]  # reading it says what is wrong
    raise InputError(f"{noun} {source} is neither here nor in {' or '.join(map(str, folders))}{known_names(*folders)}")


def sample(path: Path, *folders: Path) -> Path | None:
    """Returns the file of a name in folders of samples, its suffix given or not; None for a path with a folder."""
    if path.parent != Path():
        return None
    there = (entry for folder in folders for entry in (folder / path, *sorted(folder.glob("*.*"))))
    return next((entry for entry in there if path.name in (entry.name, entry.stem) and os.path.isfile(entry)), None)


def known_names(*folders: Path) -> str:
    """Returns the end of a sentence that lists the samples, empty where there are none."""
    known = sorted(entry.name for folder in folders for entry in folder.glob("*.*"))
    return f"; there are {', '.join(known)}" if known else ""


def _matches(pattern: Path) -> list[Path]:
    # The part that is there is taken as it is: a folder's name may have brackets too.
    root = next((parent for parent in pattern.parents if os.path.isdir(parent)), Path(pattern.anchor))
    with contextlib.suppress(ValueError):  # a null character
        names = glob.glob(str(pattern.relative_to(root)), root_dir=root, recursive=True)
        return list({root / name for name in names if os.path.isfile(root / name)})
    return []


@cache
def _suffixes() -> frozenset[str]:
    from PIL import Image  # not above, for the help answers without it

    formats = Image.registered_extensions()  # fills OPEN
    return frozenset(suffix for suffix, form in formats.items() if form in Image.OPEN.keys() - _UNREADABLE)


def _natural(path: Path) -> tuple[list[list[str | int]], str]:
    """A sort key by which 2 comes before 10."""
    parts = [re.split(r"(\d+)", part.casefold()) for part in path.parts]
    return [[int(part) if i % 2 == 1 else part for i, part in enumerate(split)] for split in parts], str(path)
