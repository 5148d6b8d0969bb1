"""A report as one page of HTML that holds all its pictures and asks for nothing from elsewhere."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from nst_lightning import images
from nst_lightning.metrics.table import BETTER
from nst_lightning.study import tables
from nst_lightning.study.report import Report, Section
from nst_lightning.study.results import Result, Results

SIDE = 768  # px; long side of a picture unless told otherwise

_PLOT_SIDE = 1600  # px; lines and letters need more than paint
_QUALITY = 76  # WebP's; strokes of paint hide what it leaves out


def render(report: Report, made: str = "", side: int = SIDE) -> str:
    """Returns a report as HTML.

    Args:
        report: What it shows.
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
    environment.filters |= {"words": words, "spoken": spoken}
    environment.globals["better"] = {name: "↑" if name in (*BETTER, "psnr") else "↓" for name in tables.SCORES}
    album = _Album(side)
    sections = [_section(section, album) for section in report.sections]
    return environment.get_template("template.html").render(report=report, made=made, sections=sections)


def words(value: Any) -> str:  # noqa: ANN401 - a fact of any kind
    """Returns a fact to read."""
    if isinstance(value, float):
        return tables.number(value)
    text = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
    return text.replace(",", ",\u200b")  # there a line may end: lists of layers are long words


def spoken(name: str) -> str:
    """Returns a name with spaces."""
    return " ".join(name.replace("_", " ").split())


@dataclass(frozen=True)
class _Album:
    """The pictures of a page, of a long side in pixels, each encoded once."""

    side: int
    known: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, file: str, alt: str, side: int | None = None) -> dict[str, Any]:
        """Returns a picture as the template takes it, without loss where it has a side of its own."""
        if file not in self.known:
            rgb = images.read(file).rgb
            rgb = images.resize(rgb, images.fit(rgb.shape[-2], rgb.shape[-1], self.side if side is None else side))
            stream = io.BytesIO()
            images.to_pil(rgb.clamp(0, 1)).save(stream, "WEBP", method=4, lossless=side is not None, quality=_QUALITY)
            source = f"data:image/webp;base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"
            self.known[file] = {"src": source, "width": rgb.shape[-1], "height": rgb.shape[-2]}
        return {**self.known[file], "alt": alt}


def _section(section: Section, album: _Album) -> dict[str, Any]:
    """Returns a section as the template takes it."""
    found = section.results
    pictures = sum(cell.picture != "" for cell in found.cells)
    counts = {"picture": pictures, "pair": len(found.pairs), "seed": len(found.seeds)}
    summary = [f"{count} {name}{'' if count == 1 else 's'}" for name, count in counts.items()]
    means = {"Means over the pairs, with 95 % intervals": tables.texts(tables.means(found))} if found.axes else {}
    return {
        "section": section,
        "summary": [*summary, found.machine],
        "blocks": [_block(pair, found, album) for pair in found.pairs],
        "plots": [album.add(plot, spoken(Path(plot).stem), _PLOT_SIDE) for plot in found.plots],
        "tables": {**means, "Every picture": _every_picture(found)},
    }


def _block(pair: str, found: Results, album: _Album) -> dict[str, Any]:
    """Returns what the grid shows of a pair: its photograph and paintings, and lines of pictures.

    The first axis is the columns, the others and the seeds are the lines.
    """
    cells = [cell for cell in found.cells if cell.pair == pair]
    files = [("content", cells[0].content), *(("style", style) for style in cells[0].style.split("|"))]
    axis, labels = next(iter(found.axes.items()), ("output", ("",)))
    lines: dict[str, dict[str, Any]] = {}
    for cell in cells:
        line = lines.setdefault(", ".join(_line(cell, found)), dict.fromkeys(labels))
        picture = album.add(cell.picture, _title(cell, found)) if cell.picture else None
        line[cell.values.get(axis, "")] = {"cell": cell, "picture": picture, "facts": _facts(cell)}
    sources = [album.add(file, f"{name}: {spoken(Path(file).stem)}") for name, file in files if file]
    return {"title": _pair(cells[0]), "axis": axis, "sources": sources, "lines": lines}


def _pair(cell: Result) -> str:
    """Returns what a pair is called: after its images where the pair is, else as it is."""
    stems = [Path(file).stem for file in (cell.content, *cell.style.split("|"))]
    return " × ".join(map(spoken, stems)) if cell.pair == "_".join(stems) else spoken(cell.pair)


def _line(cell: Result, found: Results) -> list[str]:
    """Returns what tells a picture from the others of its column."""
    own = [f"{spoken(axis)} {cell.values[axis]}" for axis in list(found.axes)[1:]]
    return [*own, f"seed {cell.seed}"] if len(found.seeds) > 1 else own


def _title(cell: Result, found: Results) -> str:
    first = [f"{spoken(axis)} {cell.values[axis]}" for axis in list(found.axes)[:1]]
    return ", ".join([_pair(cell), *first, *_line(cell, found)])


def _facts(cell: Result) -> Mapping[str, Any]:
    losses = {f"{name} loss": value for name, value in cell.losses.items()}
    return {**cell.settings, **cell.values, "seed": cell.seed, **cell.scores, **losses}


def _every_picture(found: Results) -> pd.DataFrame:
    """Returns the headline scores and the losses of every picture; its other scores stand beside it."""
    frame = found.frame()
    numbers = [*(name for name in tables.SCORES if name in frame), *(n for n in frame if n.startswith("loss_"))]
    frame = frame[[*found.axes, "seed", *numbers]].assign(**{name: frame[name].map(tables.number) for name in numbers})
    frame.insert(0, "picture", [_pair(cell) for cell in found.cells])
    return frame.set_index(pd.Index([cell.name if cell.picture else "" for cell in found.cells], name="name"))
