"""One page of HTML about results: what it shows as plain dataclasses, and how that becomes text."""

from __future__ import annotations

import base64
import io
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

import jinja2
from torch import Tensor

from nst_lightning import images
from nst_lightning.metrics import table as scores

Value: TypeAlias = str | int | float | None
"""What stands in a cell of a table or behind a fact; None is undefined."""

SMALL = 320  # px; long side of a picture in a grid unless told otherwise
LARGE = 768  # px; at most that for an enlarged one
UNDEFINED = "n/a"

_PLOT = 1600  # px; lines and letters need more than paint
_QUALITY = {"small": 72, "large": 76}  # WebP's; strokes of paint hide what it leaves out
_MANY = 60  # pictures; above, a little less quality keeps the page light
_MANY_QUALITY = {"small": 60, "large": 58}
_OPEN_ROWS = 24  # a longer table is folded
_HIGHER = {*scores.BETTER, "psnr"}
_LOWER = {*scores.HEADLINES, "loss"} - _HIGHER
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Shot:
    """An image file.

    Attributes:
        path: The file.
        alt: What it shows, for those who do not see it.
    """

    path: Path
    alt: str


@dataclass(frozen=True)
class Result:
    """A picture that was made.

    Attributes:
        name: What its files are called; unlike every other of its section.
        title: What it is called over the enlarged picture.
        pair: What it is of; the grid has a block for each.
        line: What tells its line in that block from the others, empty where there is one line.
        column: What stands under it in the grid.
        shot: The picture; None where there is none yet.
        content: The photograph; None where it is not on this machine.
        styles: The paintings that are on this machine.
        facts: Scores, losses and settings, shown beside the enlarged picture.
    """

    name: str
    title: str
    pair: str
    line: str = ""
    column: str = ""
    shot: Shot | None = None
    content: Shot | None = None
    styles: tuple[Shot, ...] = ()
    facts: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True)
class Entry:
    """A cell of a table.

    Attributes:
        value: What it holds, and what sorting goes by.
        low: The lower end of the interval around the value, if it has one.
        high: Its upper end.
        note: What stands below the value in small letters.
        opens: The name of the result that a click on it shows.
    """

    value: Value
    low: float | None = None
    high: float | None = None
    note: str = ""
    opens: str | None = None


@dataclass(frozen=True)
class Table:
    """A table whose headings sort it.

    Attributes:
        title: Its heading.
        columns: What stands over the columns.
        rows: As many entries each.
        note: A sentence below the heading.
        kind: `plain`; `intervals` draws them; `findings` has more text than numbers, and its last column but one
            holds a verdict.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Entry, ...], ...]
    note: str = ""
    kind: Literal["plain", "intervals", "findings"] = "plain"


@dataclass(frozen=True)
class Facts:
    """A list of names with values, e.g. a configuration.

    Attributes:
        title: Its heading.
        values: The values by name.
        text: What is shown as it is instead, e.g. a file.
    """

    title: str
    values: Mapping[str, Value] = field(default_factory=dict)
    text: str = ""


@dataclass(frozen=True)
class Section:
    """What the page tells of one sweep or run.

    Attributes:
        title: Its heading.
        about: What it is about, in a sentence or two.
        results: Its pictures, in the order of the grid.
        axis: What differs along the lines of the grid; empty where nothing does.
        columns: The columns of the grid in their order, values of that axis.
        tables: Its tables.
        plots: Its plots.
        facts: Its configuration, versions and so on.
        summary: What stands below the heading in small letters, e.g. the date.
    """

    title: str
    about: str = ""
    results: tuple[Result, ...] = ()
    axis: str = ""
    columns: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    plots: tuple[Shot, ...] = ()
    facts: tuple[Facts, ...] = ()
    summary: tuple[str, ...] = ()


@dataclass(frozen=True)
class Page:
    """A whole page.

    Attributes:
        title: Its heading.
        kind: What it is about in a word, e.g. `study`.
        sections: At least one; several get a table of contents.
        about: What it is about, in a sentence or two.
        tables: What stands before the sections.
        made: By what it was made and when.
    """

    title: str
    kind: str
    sections: tuple[Section, ...]
    about: str = ""
    tables: tuple[Table, ...] = ()
    made: str = ""


def render(page: Page, small: int = SMALL) -> str:
    """Returns a page as HTML that holds all its pictures and asks for nothing from elsewhere.

    Args:
        page: What it shows.
        small: Long side in pixels of a picture in a grid; an enlarged one has `LARGE`, or this if it is more.

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
    count = sum(result.shot is not None for section in page.sections for result in section.results)
    album = _Album(small, max(small, LARGE), _MANY_QUALITY if count > _MANY else _QUALITY)
    sections = [_section(section, number, album) for number, section in enumerate(page.sections)]
    tables = [_table(table, {}) for table in page.tables]
    return environment.get_template("template.html").render(
        page=page, sections=sections, tables=tables, album=album, count=count
    )


def number(value: float, digits: int | None = None) -> str:
    """Returns a number to read.

    Args:
        value: Any number.
        digits: How many digits stand behind the point; None chooses for this number alone.
    """
    if not math.isfinite(value):
        return UNDEFINED
    size = abs(value)
    if isinstance(value, int) or (digits is None and value.is_integer() and size < 1e7):
        text = f"{int(value):,}".replace(",", "\N{THIN SPACE}" if size >= 10_000 else "")
    elif digits is not None:
        text = f"{value:.{digits}f}"
    elif size < 1e-3 or size >= 1e5:
        mantissa, exponent = f"{value:.3e}".split("e")
        text = f"{mantissa}×10{str(int(exponent)).translate(_SUPERSCRIPTS)}"
    else:
        text = f"{value:.4g}" if size < 1e3 else f"{value:.0f}"
    return text.replace("-", "−")


def words(value: Value) -> str:
    """Returns a value to read, None as undefined."""
    if value is None:
        return UNDEFINED
    return value if isinstance(value, str) else number(value)


def _breakable(text: str) -> str:
    """Returns a text that a line may end in behind each comma: lists of layers are long words."""
    return text.replace(",", ",\u200b")


# ---- pictures ----


class _Album:
    """The pictures of a page, each encoded once in every size, and what can be enlarged.

    Attributes:
        items: What can be enlarged, in the order of the page.
        enlarged: The enlarged pictures by the number of the picture, where they differ from the small ones.
    """

    def __init__(self, small: int, large: int, quality: Mapping[str, int]) -> None:
        self.small = small
        self.large = large
        self.quality = quality
        self.items: list[dict[str, Any]] = []
        self.enlarged: dict[int, str] = {}
        self._known: dict[str, dict[str, Any]] = {}

    def add(self, shot: Shot, plot: bool = False) -> dict[str, Any]:
        """Returns a picture as the template takes it."""
        key = os.path.realpath(shot.path)
        if key not in self._known:
            self._known[key] = self._encoded(shot, len(self._known), plot)
        return {**self._known[key], "alt": shot.alt}

    def item(self, group: str, title: str, picture: Mapping[str, Any], **more: object) -> int:
        """Adds what can be enlarged, and returns its number."""
        shown = {name: picture[name] for name in ("id", "width", "height", "alt")}
        self.items.append({"group": group, "title": title, "picture": shown, "facts": [], "against": [], **more})
        return len(self.items) - 1

    def _encoded(self, shot: Shot, number: int, plot: bool) -> dict[str, Any]:
        rgb = images.read(shot.path).rgb
        height, width = rgb.shape[-2:]
        if plot:  # shown wide as it is
            rgb = images.resize(rgb, images.fit(height, width, _PLOT))
            source = _data_uri(rgb, None)
        else:
            source = _data_uri(images.resize(rgb, images.fit(height, width, self.small)), self.quality["small"])
            rgb = images.resize(rgb, images.fit(height, width, self.large))
            if max(height, width) > self.small:
                self.enlarged[number] = _data_uri(rgb, self.quality["large"])
        return {"id": number, "src": source, "width": rgb.shape[-1], "height": rgb.shape[-2]}


def _data_uri(rgb: Tensor, quality: int | None) -> str:
    """Returns an image as WebP in a data URI, without loss where no quality is given."""
    stream = io.BytesIO()
    options: dict[str, Any] = {"lossless": True} if quality is None else {"quality": quality}
    images.to_pil(rgb.clamp(0, 1)).save(stream, "WEBP", method=4, **options)
    return f"data:image/webp;base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"


# ---- parts of the page ----


def _section(section: Section, number: int, album: _Album) -> dict[str, Any]:
    """Returns a section as the template takes it."""
    group = f"section-{number}"
    shown = {result.name: _result(result, group, album) for result in section.results}
    blocks = [
        _block(pair, [each for each in section.results if each.pair == pair], section.columns, shown, group, album)
        for pair in dict.fromkeys(result.pair for result in section.results)
    ]
    plots = [(plot, album.add(plot, plot=True)) for plot in section.plots]
    return {
        "id": group,
        "section": section,
        "blocks": blocks,
        "compared": [each for each in shown.values() if each["picture"] is not None],
        "plots": [
            {"picture": picture, "item": album.item(f"{group}-plots", plot.alt, picture)} for plot, picture in plots
        ],
        "tables": [_table(table, {name: each["item"] for name, each in shown.items()}) for table in section.tables],
        "facts": [
            (facts, [(name, _breakable(words(value))) for name, value in facts.values.items()])
            for facts in section.facts
        ],
    }


def _result(result: Result, group: str, album: _Album) -> dict[str, Any]:
    picture = None if result.shot is None else album.add(result.shot)
    shown: dict[str, Any] = {"result": result, "picture": picture, "item": None}
    if picture is not None:
        facts = [(name, _breakable(words(value))) for name, value in result.facts.items()]
        shown["item"] = album.item(group, result.title, picture, facts=facts, against=_against(result, album))
    return shown


def _against(result: Result, album: _Album) -> list[dict[str, Any]]:
    """Returns what a picture is compared with."""
    names = ["style"] if len(result.styles) == 1 else [f"style {index + 1}" for index in range(len(result.styles))]
    sources = [("content", result.content), *zip(names, result.styles, strict=True)]
    pictures = [(name, album.add(shot)) for name, shot in sources if shot is not None]
    return [{"name": name, **{key: picture[key] for key in ("id", "alt")}} for name, picture in pictures]


def _block(
    pair: str,
    results: Sequence[Result],
    columns: Sequence[str],
    shown: Mapping[str, Mapping[str, Any]],
    group: str,
    album: _Album,
) -> dict[str, Any]:
    """Returns what the grid shows of a pair: its photograph and paintings, and lines of pictures."""
    first = next((result for result in results if result.content is not None), results[0])
    shots = [("content", first.content), *(("style", style) for style in first.styles)]
    sources = []
    for label, shot in shots:
        if shot is not None:
            picture = album.add(shot)
            item = album.item(f"{group}-sources", f"{label}: {spoken(shot.path.stem)}", picture)
            sources.append({"picture": picture, "item": item, "label": label, "name": spoken(shot.path.stem)})
    ratios = [each["picture"] for each in (*sources, *(shown[result.name] for result in results)) if each["picture"]]
    lines = [
        {"label": label, "tiles": [shown.get(each.name) if each else None for each in _tiles(list(line), columns)]}
        for label, line in _by_line(results)
    ]
    ratio = f"{ratios[0]['width']} / {ratios[0]['height']}" if ratios else "1"
    most = max(len(line["tiles"]) for line in lines)
    tiles = max(3, most + len(sources) if len(lines) == 1 else most)  # fewer would be too large
    return {"title": pair, "sources": sources, "lines": lines, "ratio": ratio, "tiles": tiles}


def _by_line(results: Sequence[Result]) -> Iterator[tuple[str, list[Result]]]:
    for label in dict.fromkeys(result.line for result in results):
        yield label, [result for result in results if result.line == label]


def _tiles(line: Sequence[Result], columns: Sequence[str]) -> Iterator[Result | None]:
    """Yields a line's results in the order of the columns, None where a column has none."""
    for column in columns:
        found = [result for result in line if result.column == column]
        yield from found
        if not found:
            yield None
    yield from (result for result in line if result.column not in columns)


def spoken(name: str) -> str:
    """Returns a file's name as words."""
    return " ".join(name.replace("_", " ").split())


# ---- tables ----


def _table(table: Table, items: Mapping[str, int | None]) -> dict[str, Any]:
    """Returns a table as the template takes it."""
    columns = [
        _column(name, [row[index] for row in table.rows], table.kind) for index, name in enumerate(table.columns)
    ]
    rows = [[_entry(entry, column, items) for entry, column in zip(row, columns, strict=True)] for row in table.rows]
    return {
        "table": table,
        "columns": columns,
        "rows": rows,
        "folded": table.kind == "plain" and len(rows) > _OPEN_ROWS,
    }


def _column(name: str, entries: Sequence[Entry], kind: str) -> dict[str, Any]:
    values = [entry.value for entry in entries if isinstance(entry.value, (int, float)) and math.isfinite(entry.value)]
    ends = [end for entry in entries for end in (entry.low, entry.high) if end is not None]
    low, high = min([*values, *ends], default=0.0), max([*values, *ends], default=0.0)
    largest = max(map(abs, (*values, *ends)), default=0.0)
    plain = name.split("/")[0]
    return {
        "name": name,
        "numeric": all(isinstance(entry.value, (int, float, type(None))) for entry in entries),
        "better": "higher" if plain in _HIGHER else "lower" if plain in _LOWER else None,
        # The same digits all the way down a column; numbers that differ by magnitudes have their own.
        "digits": 3 if largest < 10 else 2 if largest < 1000 else None,
        "range": (low, high) if kind == "intervals" and ends and high > low else None,
    }


def _entry(entry: Entry, column: Mapping[str, Any], items: Mapping[str, int | None]) -> dict[str, Any]:
    value = entry.value
    digits = column["digits"]
    if isinstance(value, float) and not math.isfinite(value):
        value = None
    text = words(value) if isinstance(value, str) or value is None else _tabular(value, digits)
    interval = ""
    if entry.low is not None and entry.high is not None:
        interval = f"{_tabular(entry.low, digits)} – {_tabular(entry.high, digits)}"
    bar = None
    if column["range"] is not None and isinstance(value, (int, float)):
        low, high = column["range"]
        ends = (entry.low, value, entry.high)
        bar = [f"{((value if end is None else end) - low) / (high - low):.2%}" for end in ends]
    return {
        "entry": entry,
        "key": "" if value is None else repr(value) if isinstance(value, (int, float)) else value,
        "text": text,
        "interval": interval,
        "bar": bar,
        "item": None if entry.opens is None else items.get(entry.opens),
    }


def _tabular(value: float, digits: int | None) -> str:
    """Returns a number with the digits of its column, with more where these would show nothing of it."""
    vanishes = digits is not None and value != 0 and abs(value) < 0.5 * 10**-digits
    return number(value, None if vanishes else digits)
