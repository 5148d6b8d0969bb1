"""Where a run writes to, so that no earlier result is lost."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

FOLDER = Path("data/output-images")


def paths(output: str | None, names: Sequence[str], overwrite: bool) -> tuple[Path, Path | None]:
    """Returns the run's folder, and the picture's file where the output names one.

    A name that is taken gets a number, unless it may be overwritten: an earlier result is never lost.

    Args:
        output: A folder, a picture's file, whose run folder is that of the same name without suffix, or None for
            `data/output-images/<name>`.
        names: What the run makes, at least one.
        overwrite: Whether what is there may be replaced.
    """
    if output is None:
        wished = FOLDER / (names[0] if len(names) == 1 else f"{names[0]}_and_{len(names) - 1}_more")
    else:
        wished = Path(output).with_suffix("")
    for number in itertools.count(1):
        folder = wished if number == 1 else wished.with_name(f"{wished.name}-{number}")
        file = file_beside(folder, output)
        if overwrite or not (_holds_files(folder) or (file is not None and file.exists())):
            return folder, file
    raise AssertionError  # count() does not end


def file_beside(folder: Path, output: str | None) -> Path | None:
    """Returns the picture's file that goes with a run's folder, None where the output names a folder."""
    suffix = "" if output is None else Path(output).suffix
    return folder.with_name(folder.name + suffix) if suffix else None


def free(path: Path, suffixes: Sequence[str]) -> Path:
    """Returns a path without suffix, numbered so that with none of the suffixes there is a file."""
    numbered = (path if number == 1 else path.with_name(f"{path.name}-{number}") for number in itertools.count(1))
    return next(each for each in numbered if not any(each.with_name(each.name + end).exists() for end in suffixes))


def _holds_files(folder: Path) -> bool:
    return folder.is_file() or (folder.is_dir() and any(folder.iterdir()))
