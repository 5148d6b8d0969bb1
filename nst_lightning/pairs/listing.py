"""Lists of pairs: the columns of a CSV file, and what is refused in it by line."""

from __future__ import annotations

import contextlib
import csv
import io
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from nst_lightning import images, initializers
from nst_lightning.colors import COLORS
from nst_lightning.errors import InputError
from nst_lightning.files import CONTENT_FOLDER, MASK_FOLDER, STYLE_FOLDER, known_names, sample
from nst_lightning.naming import check_name, draft, unique
from nst_lightning.pairs.pair import (
    GROUPS,
    MASK_WORDS,
    OF_REGIONS,
    STRENGTH,
    STYLE_SCALES,
    STYLE_WEIGHTS,
    Pair,
    can_scale,
    can_weigh,
    is_word,
)
from nst_lightning.runs import regular

COLUMNS = (
    *("content", "style", "name", *(f"{group}_weight" for group in GROUPS), "strength", "style_weights", "style_scale"),
    *("size", "steps", "init", "seed", "before", "colors", *OF_REGIONS),
)
"""The columns that `read_pairs` knows; the first two are required."""

_WHOLE = (int, lambda value: 1 <= value < 2**31, "a whole number from 1 to 2**31 - 1")
_SEED = (int, lambda value: 0 <= value < 2**63, "a whole number from 0 to 2**63 - 1")
_WEIGHT = (float, lambda value: 0 <= value < math.inf, "a finite number, 0 or above")


def read_pairs(listed: str | os.PathLike[str] | Sequence[Mapping[str, object]]) -> tuple[Pair, ...]:
    """Reads a list of pairs: a CSV file whose first line names its columns, which are among `COLUMNS`, or such rows.

    It is UTF-8, its cells separated by comma, semicolon or tab. Empty lines and those that begin with # are skipped; an
    empty cell means the run's value, an empty `name` one made up of the files' names. Several styles, their weights in
    `style_weights` and their scales in `style_scale`, are separated by |. Files are looked up as in `find`, from the
    list's folder, or that of work.

    Raises:
        InputError: If the file cannot be read, has no pairs, or a line is not as above; it names the line.
    """
    if isinstance(listed, (str, os.PathLike)):
        path = Path(os.path.expanduser(listed))
        lines = _lines(path)
    else:
        path, lines = Path("pairs"), _as_lines(listed)
    if not lines:
        raise InputError(f"{path}: is empty; expected a line with the columns, e.g. {','.join(COLUMNS[:3])}")
    delimiter = max(",;\t", key=next(iter(lines.values())).count)
    columns: list[str] | None = None
    pairs: list[Pair] = []
    lines_of: dict[str, tuple[int, str]] = {}
    for number, line in lines.items():
        try:
            cells = _split(line, delimiter)
            if columns is None:
                columns = _checked_columns(cells)
            elif any(cells):  # else it is how a spreadsheet stores an empty row
                pairs.append(_pair(_by_column(columns, cells, delimiter), path.parent))
                check_name(pairs[-1].name, number, lines_of)
        except InputError as err:
            raise InputError(f"{path} line {number}: {err}") from err
    if not pairs:
        raise InputError(f"{path}: has no pairs; expected a line for each below that of the columns")
    drafts = [draft(pair.content, *pair.styles) for pair in pairs if pair.name == ""]
    made_up = iter(unique(drafts, [pair.name for pair in pairs]))
    return tuple(replace(pair, name=pair.name or next(made_up)) for pair in pairs)


def _lines(path: Path) -> dict[int, str]:
    """The lines of a list by their numbers, without those that are empty or a comment."""
    try:
        text = regular(path).read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as err:
        line = err.object[: err.start].count(b"\n") + 1
        byte = f"byte 0x{err.object[err.start]:02x}"
        raise InputError(f"{path} line {line}: {byte} is not UTF-8; save the file as UTF-8") from err
    except (OSError, ValueError) as err:  # ValueError: a null character in the path
        reason = err.strerror if isinstance(err, OSError) else err
        raise InputError(f"{path}: cannot be opened ({reason}); expected a CSV file of pairs") from err
    # Not csv's own way over lines: a quote in a comment would swallow what follows.
    numbered = enumerate(io.StringIO(text, newline=None), start=1)
    return {number: line for number, line in numbered if line.strip() != "" and not line.lstrip().startswith("#")}


def _as_lines(rows: Sequence[Mapping[str, object]]) -> dict[int, str]:
    """Rows as the lines of a list, of which the first names the columns."""
    stream = io.StringIO()
    columns = dict.fromkeys(str(column) for row in rows for column in row)
    writer = csv.DictWriter(stream, [*columns], quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return dict(enumerate(stream.getvalue().splitlines()))


def _split(line: str, delimiter: str) -> list[str]:
    if "\0" in line:  # as Python 3.11 no longer does
        raise InputError("has a null character, which no name has")
    try:
        (cells,) = csv.reader([line], delimiter=delimiter, skipinitialspace=True, strict=True)
    except csv.Error as err:
        raise InputError(f"cannot be split into cells ({err}); is a double quote left open?") from err
    return [cell.strip() for cell in cells]


def _checked_columns(columns: list[str]) -> list[str]:
    for column in columns:
        if column not in COLUMNS:
            raise InputError(f"unknown column {column!r}; known are {', '.join(COLUMNS)}")
        if columns.count(column) > 1:
            raise InputError(f"column {column!r} occurs {columns.count(column)} times; expected it once")
    for required in COLUMNS[:2]:
        if required not in columns:
            raise InputError(f"column {required!r} is missing; content and style are required")
    return columns


def _by_column(columns: Sequence[str], cells: Sequence[str], delimiter: str) -> dict[str, str]:
    """The cells of a line that are not empty."""
    if len(cells) != len(columns):
        expected = f"expected {len(columns)} cells separated by {delimiter!r}, as in the header"
        raise InputError(f"{expected}, got {len(cells)}")
    return {column: cell for column, cell in zip(columns, cells, strict=True) if cell != ""}


def _pair(cells: Mapping[str, str], base: Path) -> Pair:
    """The pair of a line; its name is empty where the line has none."""
    named = cells.get("style", "")
    styles = tuple(_file("style", name.strip(), named, base, STYLE_FOLDER) for name in named.split("|"))
    init = cells.get("init")
    if init is not None and init not in initializers.INITIALIZERS:
        init = initializers.with_file(init, lambda file: os.path.abspath(base / os.path.expanduser(file)))
        initializers.check(init)
    weights = {group: _value(cells, f"{group}_weight", *_WEIGHT) for group in GROUPS}
    strength = _value(cells, "strength", *STRENGTH)
    if strength is not None and weights["style"] is not None:
        raise InputError("strength finds the style_weight: leave out one of them")
    weighed = (_numbers, partial(can_weigh, len(styles)), STYLE_WEIGHTS)
    scaled = (_numbers, partial(can_scale, len(styles)), STYLE_SCALES)
    factors = (_numbers, lambda weights: len(weights) == len(styles), "a number for each region")
    colours = cells.get("regions")
    return Pair(
        _file("content", cells.get("content", ""), "", base, CONTENT_FOLDER),
        styles,
        cells.get("name", ""),
        {group: weight for group, weight in weights.items() if weight is not None},
        _value(cells, "size", *_WHOLE),
        _value(cells, "steps", *_WHOLE),
        init,
        _value(cells, "seed", *_SEED),
        _value(cells, "style_weights", *weighed) or (),
        _before(cells.get("before"), base),
        _value(cells, "colors", str, COLORS.__contains__, f"one of {', '.join(COLORS)}"),
        strength,
        _masks("content_mask", cells, base),
        _masks("style_mask", cells, base),
        () if colours is None else tuple(colour.strip(' "') for colour in colours.split("|")),
        _value(cells, "content_weights", *factors) or (),
        _value(cells, "style_scale", *scaled) or (),
    )


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(map(float, text.split("|")))


def _masks(column: str, cells: Mapping[str, str], base: Path) -> tuple[images.Source, ...]:
    if column not in cells:
        return ()
    names = (name.strip() for name in cells[column].split("|"))
    return tuple(
        name if is_word(name, *MASK_WORDS) else _file(column, name, cells[column], base, MASK_FOLDER) for name in names
    )


def _before(cell: str | None, base: Path) -> tuple[Path, Path] | None:
    """The picture and the content image of the frame before."""
    if cell is None:
        return None
    picture, _, content = cell.partition("|")
    return base / os.path.expanduser(picture.strip()), _file("before", content.strip(), cell, base, CONTENT_FOLDER)


def _value(
    cells: Mapping[str, str], column: str, convert: Callable[[str], Any], fits: Callable[[Any], bool], allowed: str
) -> Any:  # noqa: ANN401
    """The number or numbers in a cell, None where it is empty."""
    if column not in cells:
        return None
    with contextlib.suppress(ValueError):
        value = convert(cells[column])
        if fits(value):
            return value
    raise InputError(f"{column} must be {allowed}, got {cells[column]!r}")


def _file(column: str, name: str, cell: str, base: Path, folder: Path) -> Path:
    if name == "":
        raise InputError(f"{column} must name an image, got {cell!r}")
    name = os.path.expanduser(name)
    found = base / name if os.path.isfile(base / name) else sample(Path(name), folder)
    if found is not None:
        return found
    if Path(name).parent != Path():
        raise InputError(f"{column} must name an image, got {name!r}; there is no file {str(base / name)!r}")
    raise InputError(f"{column} image {name!r} is neither in {base} nor in {folder}{known_names(folder)}")
