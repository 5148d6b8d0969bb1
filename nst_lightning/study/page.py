"""A report as one page of HTML that holds all its pictures and asks for nothing from elsewhere."""

from __future__ import annotations

import base64
import io
import json
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jinja2

from nst_lightning import images
from nst_lightning.metrics import table as scores
from nst_lightning.study.report import Entry, Picture, Report, Section, Table

SIDE = 768  # px; long side of a picture unless told otherwise
UNDEFINED = "n/a"

_PLOT_SIDE = 1600  # px; lines and letters need more than paint
_QUALITY = 76  # WebP's; strokes of paint hide what it leaves out
_OPEN_ROWS = 24  # a longer table is folded
_HIGHER = {*scores.BETTER, "psnr"}
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def render(page: Report, made: str = "", side: int = SIDE) -> str:
    """Returns a report as HTML.

    Args:
        page: What it shows.
        made: By what the page is made and when.
        side: Long side of its pictures in pixels.

    Raises:
        ImageError: If a picture cannot be read.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["words"] = words
    album = _Album(side)
    return environment.get_template("template.html").render(
        page=page,
        made=made,
        tables=[_table(table) for table in page.tables],
        sections=[_section(section, album) for section in page.sections],
    )


def number(value: float, digits: int | None = None) -> str:
    """Returns a number to read.

    Args:
        value: Any number.
        digits: How many digits stand behind the point, unless that shows nothing of it; None chooses for this number.
    """
    size = abs(value)
    if not math.isfinite(value):
        return UNDEFINED
    if isinstance(value, int) or (digits is None and value.is_integer() and size < 1e7):
        text = f"{int(value):,}".replace(",", "\N{THIN SPACE}")
    elif digits is not None and (size == 0 or 0.5 * 10**-digits <= size < 1e5):
        text = f"{value:.{digits}f}"
    elif 1e-3 <= size < 1e5:
        text = f"{value:.4g}" if size < 1e3 else f"{value:.0f}"
    else:
        mantissa, exponent = f"{value:.3e}".split("e")
        text = f"{mantissa}×10{str(int(exponent)).translate(_SUPERSCRIPTS)}"
    return text.replace("-", "−")


def words(value: Any) -> str:  # noqa: ANN401 - a fact of any kind
    """Returns a fact to read; None is undefined."""
    if value is None:
        return UNDEFINED
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return number(value)
    if isinstance(value, (list, tuple)):
        return ", ".join(map(words, value))
    # Behind a comma a line may end: lists of layers are long words.
    return value.replace(",", ",\u200b") if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


class _Album:
    """The pictures of a page, each encoded once."""

    def __init__(self, side: int) -> None:
        self.side = side
        self._known: dict[str, dict[str, Any]] = {}

    def add(self, path: Path, alt: str, plot: bool = False) -> dict[str, Any]:
        """Returns a picture as the template takes it."""
        key = os.path.realpath(path)
        if key not in self._known:
            rgb = images.read(path).rgb
            rgb = images.resize(rgb, images.fit(rgb.shape[-2], rgb.shape[-1], _PLOT_SIDE if plot else self.side))
            stream = io.BytesIO()
            images.to_pil(rgb.clamp(0, 1)).save(stream, "WEBP", method=4, lossless=plot, quality=_QUALITY)
            source = f"data:image/webp;base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"
            size = {"width": rgb.shape[-1], "height": rgb.shape[-2]}
            self._known[key] = {"id": len(self._known), "src": source, **size}
        return {**self._known[key], "alt": alt}


def _section(section: Section, album: _Album) -> dict[str, Any]:
    """Returns a section as the template takes it."""
    pairs = dict.fromkeys(picture.pair for picture in section.pictures)
    of_pairs = {pair: [picture for picture in section.pictures if picture.pair == pair] for pair in pairs}
    return {
        "section": section,
        "blocks": [_block(pair, pictures, section.columns, album) for pair, pictures in of_pairs.items()],
        "plots": [album.add(plot, plot.stem.replace("_", " "), plot=True) for plot in section.plots],
        "tables": [_table(table) for table in section.tables],
    }


def _block(pair: str, pictures: Sequence[Picture], columns: Sequence[str], album: _Album) -> dict[str, Any]:
    """Returns what the grid shows of a pair: its photograph and paintings, and lines of pictures."""
    files = [("content", pictures[0].content), *(("style", style) for style in pictures[0].styles)]
    sources = [
        {"label": label, "picture": album.add(file, f"{label}: {file.stem.replace('_', ' ')}")}
        for label, file in files
        if file is not None
    ]
    lines = {}
    for label in dict.fromkeys(picture.line for picture in pictures):
        line = [picture for picture in pictures if picture.line == label]
        lines[label] = [_tile(each, album) for each in _in_columns(line, columns)]
    return {"title": pair, "sources": sources, "lines": lines}


def _in_columns(line: Sequence[Picture], columns: Sequence[str]) -> Iterator[Picture]:
    """Yields a line's pictures in the order of the columns, an empty one where a column has none."""
    if not columns:
        yield from line
    for column in columns:
        yield next((each for each in line if each.column == column), Picture("", "", "", column=column))


def _tile(picture: Picture, album: _Album) -> dict[str, Any]:
    return {"of": picture, "picture": None if picture.file is None else album.add(picture.file, picture.title)}


def _table(table: Table) -> dict[str, Any]:
    """Returns a table as the template takes it."""
    columns = [
        {
            "name": name,
            "numeric": all(_is_numeric(row[place]) for row in table.rows),
            "better": "↑" if name in _HIGHER else "↓" if name in scores.HEADLINES or name.endswith("loss") else "",
        }
        for place, name in enumerate(table.columns)
    ]
    return {
        "table": table,
        "columns": columns,
        "rows": [[_entry(entry) for entry in row] for row in table.rows],
        "folded": len(table.rows) > _OPEN_ROWS,
    }


def _is_numeric(entry: Entry) -> bool:
    try:
        return entry.value is None or float(entry.value) is not None
    except ValueError:
        return False


def _entry(entry: Entry) -> dict[str, Any]:
    value = None if isinstance(entry.value, float) and not math.isfinite(entry.value) else entry.value
    return {
        "key": "" if value is None else str(value),
        "text": number(value, 3) if isinstance(value, float) else words(value),
        "small": entry.small,
        "opens": entry.opens,
    }
