"""A report as one page of HTML that holds all its pictures and asks for nothing from elsewhere."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import jinja2
import pandas as pd

from nst_lightning import images
from nst_lightning.errors import InputError
from nst_lightning.metrics.table import BETTER
from nst_lightning.study import plots, tables
from nst_lightning.study.report import Making, Report
from nst_lightning.study.results import Result, Results

SIDE = 768  # px; long side of a picture unless told otherwise

_PLOT_SIDE = 1600  # px; lines and letters need more than paint
_MOST_STEPS = 8
_QUALITY = 76  # WebP's; strokes of paint hide what it leaves out
_Picture: TypeAlias = dict[str, Any]


def render(report: Report, made: str = "", side: int = SIDE) -> str:
    """Returns a report as HTML: its pictures have a long side in pixels, `made` says by what it was made and when.

    Raises:
        ImageError: If a picture cannot be read.
    """
    better = {name: "↑" if name in (*BETTER, "psnr") else "↓" for name in tables.SCORES}
    shown = partial(encoded, side=side)
    sections = [_section(found, report.makings, shown) for found in report.sections]
    return template("template.html").render(report=report, made=made, sections=sections, better=better)


def check(output: Path, width: int) -> None:
    """Raises an InputError where a page cannot have a file's name, or its pictures a width in pixels."""
    if not images.MIN_SIDE <= width <= images.MAX_SIDE:
        raise InputError(f"width must be {images.MIN_SIDE} to {images.MAX_SIDE} pixels, got {width}")
    if output.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"output must end with .html or .htm, got {output}")


def template(name: str) -> jinja2.Template:
    """Returns a template of this folder."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {"words": words, "spoken": spoken}
    return environment.get_template(name)


def words(value: Any) -> str:  # noqa: ANN401 - a fact of any kind
    """Returns a fact to read."""
    if isinstance(value, float):
        return tables.number(value)
    text = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
    return text.replace(",", ",\u200b")  # there a line may end: lists of layers are long words


def spoken(name: str) -> str:
    """Returns a name with spaces."""
    return " ".join(name.replace("_", " ").split())


def encoded(file: images.Source, alt: str, side: int, lossless: bool = False) -> _Picture:
    """Returns a picture as templates take it, of a long side in pixels: `src`, `width`, `height` and `alt`."""
    rgb = images.read(file).rgb
    rgb = images.resize(rgb, images.fit(rgb.shape[-2], rgb.shape[-1], side)).clamp(0, 1)
    stream = io.BytesIO()
    images.to_pil(rgb).save(stream, "WEBP", method=4, lossless=lossless, quality=_QUALITY)
    return {"src": _data("image/webp", stream.getvalue()), "width": rgb.shape[-1], "height": rgb.shape[-2], "alt": alt}


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _section(found: Results, makings: Mapping[str, Making], encoded: Callable[..., _Picture]) -> dict[str, Any]:
    """Returns a section as the template takes it."""
    counts = {"picture": sum(cell.picture != "" for cell in found.cells)}
    counts |= {"pair": len(found.distinct("pair")), "seed": len(found.distinct("seed"))}
    means = {"Means over the pairs, with 95 % intervals": tables.texts(tables.means(found))} if found.axes else {}
    facts = {
        "What varies": found.axes,
        "What is the same": found.base,
        "Versions": found.versions,
        "What failed": found.failed,
    }
    return {
        "results": found,
        "summary": [*(f"{count} {name}{'' if count == 1 else 's'}" for name, count in counts.items()), found.machine],
        "blocks": [_block(pair, found, makings, encoded) for pair in found.distinct("pair")],
        "plots": [encoded(plot, spoken(Path(plot).stem), side=_PLOT_SIDE, lossless=True) for plot in found.plots],
        "tables": {**means, "Every picture": _every_picture(found)},
        "facts": {title: values for title, values in facts.items() if values},
    }


def _block(
    pair: str, found: Results, makings: Mapping[str, Making], encoded: Callable[..., _Picture]
) -> dict[str, Any]:
    """Returns what the grid shows of a pair: its photograph and paintings, lines of pictures, and how they were made.

    The first axis is the columns, the others and the seeds are the lines.
    """
    cells = [cell for cell in found.cells if cell.pair == pair]
    files = [("content", cells[0].content), *(("style", style) for style in cells[0].style.split("|"))]
    axis, labels = next(iter(found.axes.items()), ("output", ("",)))
    lines: dict[str, dict[str, Any]] = {}
    for cell in cells:
        own = [f"{spoken(name)} {cell.values[name]}" for name in found.axes]
        own += [f"seed {cell.seed}"] if len(found.distinct("seed")) > 1 else []
        line = lines.setdefault(", ".join(own[1 if found.axes else 0 :]), dict.fromkeys(labels))
        picture = encoded(cell.picture, ", ".join([_pair(cell), *own])) if cell.picture else None
        losses = {f"{name} loss": value for name, value in cell.losses.items()}
        facts = {**cell.settings, **cell.values, "seed": cell.seed, **cell.scores, **losses}
        line[cell.values.get(axis, "")] = {"cell": cell, "picture": picture, "facts": facts}
    sources = [encoded(file, f"{name}: {spoken(Path(file).stem)}") for name, file in files if file]
    made = [_making(makings[cell.picture], _pair(cell), encoded) for cell in cells if cell.picture in makings]
    return {"title": _pair(cells[0]), "axis": axis, "sources": sources, "lines": lines, "made": made}


def _making(made: Making, title: str, encoded: Callable[..., _Picture]) -> dict[str, Any]:
    """Returns what the page shows of how a picture was made: a few of those on the way, the film, and the losses."""
    taken = made.steps[:: math.ceil(len(made.steps) / _MOST_STEPS)] if made.steps else ()
    after = [f"after {int(file.stem)} steps" for file in taken]
    steps = [{**encoded(file, f"{title}, {text}"), "after": text} for file, text in zip(taken, after, strict=True)]
    film, curve = None, None
    if made.film is not None:
        is_video = made.film.suffix == ".mp4"
        source = _data("video/mp4" if is_video else "image/webp", made.film.read_bytes())
        film = {"src": source, "alt": f"{title}, film", "is_video": is_video}
    if made.losses:
        curve = encoded(plots.curve(made.losses), f"{title}, losses", side=_PLOT_SIDE, lossless=True)
    return {"steps": steps, "film": film, "curve": curve}


def _pair(cell: Result) -> str:
    """Returns what a pair is called: after its images where the pair is, else as it is."""
    stems = [Path(file).stem for file in (cell.content, *cell.style.split("|"))]
    return " × ".join(map(spoken, stems)) if cell.pair == "_".join(stems) else spoken(cell.pair)


def _every_picture(found: Results) -> pd.DataFrame:
    """Returns the headline scores and the losses of every picture; its other scores stand beside it."""
    frame = found.frame()
    numbers = [*(name for name in tables.SCORES if name in frame), *(n for n in frame if n.startswith("loss_"))]
    frame = frame[[*found.axes, "seed", *numbers]].assign(**{name: frame[name].map(tables.number) for name in numbers})
    frame.insert(0, "picture", [_pair(cell) for cell in found.cells])
    return frame.set_index(pd.Index([cell.name if cell.picture else "" for cell in found.cells], name="name"))
