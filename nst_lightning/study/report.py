"""What a report shows, read from disk: the results of a sweep, of several sweeps and their findings, or of a run."""

from __future__ import annotations

import glob
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

from nst_lightning import images, pairs, runs
from nst_lightning.errors import InputError
from nst_lightning.initializers import INITIALIZERS
from nst_lightning.pairs import Pair
from nst_lightning.study import results, schema, tables, verdicts
from nst_lightning.study.results import Result, Results
from nst_lightning.study.verdicts import Finding

Shown: TypeAlias = str | int | float | None
"""What stands in a table; None and NaN are undefined."""

_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff")


@dataclass(frozen=True)
class Picture:
    """A picture that was made.

    Attributes:
        name: What its files are called.
        title: What it is called when it is enlarged, and for those who do not see it.
        pair: What it is of; the grid has a block for each.
        line: What tells its line in that block from the others, empty where there is one line.
        column: What stands under it in the grid.
        file: Its file; None where there is none yet.
        content: The photograph; None where it is not on this machine.
        styles: The paintings that are on this machine.
        facts: Scores, losses and settings.
    """

    name: str
    title: str
    pair: str
    line: str = ""
    column: str = ""
    file: Path | None = None
    content: Path | None = None
    styles: tuple[Path, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Entry:
    """A cell of a table: its value, lines in small letters below it, and the name of a picture that it opens."""

    value: Shown
    small: tuple[str, ...] = ()
    opens: str | None = None


@dataclass(frozen=True)
class Table:
    """A table whose headings sort it, with a sentence on what stands in it."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Entry, ...], ...]
    note: str = ""


@dataclass(frozen=True)
class Section:
    """What the page tells of one sweep or run.

    Attributes:
        title: Its heading.
        about: What it is about, in a sentence or two.
        summary: How much there is, in a few words each.
        axis: What differs along the lines of the grid; empty where nothing does.
        columns: The columns of the grid, values of that axis.
        pictures: Its pictures, in the order of the grid.
        plots: The files of its plots.
        tables: Its tables.
        facts: Names with values, or a text, by heading.
    """

    title: str
    about: str = ""
    summary: tuple[str, ...] = ()
    axis: str = ""
    columns: tuple[str, ...] = ()
    pictures: tuple[Picture, ...] = ()
    plots: tuple[Path, ...] = ()
    tables: tuple[Table, ...] = ()
    facts: Mapping[str, Mapping[str, Any] | str] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """All that a page shows: `kind` is study, sweep or run; `tables` stand before the sections."""

    title: str
    kind: str
    sections: tuple[Section, ...]
    tables: tuple[Table, ...] = ()


def read(folder: Path) -> Report:
    """Reads the results in a folder.

    Args:
        folder: The folder of a sweep, of several sweeps, or of a run of `nst fit`.

    Raises:
        InputError: If there are none, or a file of them is damaged; it names the file and the key.
    """
    config = runs.Run(folder).config
    if not folder.is_dir():
        msg = f"{folder}: is no folder; name one that holds results"
        raise InputError(msg)
    if not (folder / results.FILE).is_file() and config.is_file():
        section = run(folder)
        return Report(section.title, "run", (section,))
    if (folder / results.FILE).is_file():
        section = sweep(folder)
        return Report(section.title, "sweep", (section,), _findings(folder))
    folders = sorted(entry.parent for entry in folder.glob(f"*/{results.FILE}"))
    if not folders:
        msg = f"{folder}: has no results: neither {results.FILE}, as a sweep has, nor {config.name}, as a run has, nor "
        raise InputError(f"{msg}sweeps in it")
    return Report(_title(folder), "study", tuple(map(sweep, folders)), _findings(folder))


def sweep(folder: Path) -> Section:
    """Reads the results of a sweep.

    Raises:
        InputError: If results.json cannot be read or is not as a sweep writes it.
    """
    found = results.read(folder)
    facts = {
        "What varies": {_spoken(axis): ", ".join(labels) for axis, labels in found.axes.items()},
        "What is the same": found.base,
        "Versions": found.versions,
        "What failed": found.failed,
    }
    section = _section(replace(found, title=found.title or _title(folder)), folder)
    return replace(section, facts={title: values for title, values in facts.items() if values})


def run(folder: Path) -> Section:
    """Reads the results of a run of `nst fit`.

    Raises:
        InputError: If a file in it is damaged, or there is no picture.
    """
    path = runs.Run(folder).config
    config = schema.read_yaml(path, "the configuration of a run of nst fit")
    if not isinstance(config, dict) or not isinstance(config.get("data"), dict):
        msg = f"{path}: data must name the images, got none; is this the folder of a run of nst fit?"
        raise InputError(msg)
    beside = runs.file_beside(folder, str(config.get("output") or ""))
    cells = tuple(cell for pair in _pairs(config["data"], folder) for cell in _of_run(pair, beside, folder))
    if not cells:
        msg = f"{folder}: has no picture yet; expected <pair>.png, as nst fit writes it when a pair is finished"
        raise InputError(msg)
    missing = any(_there(file, folder) is None for cell in cells for file in (cell.content, *cell.style.split("|")))
    about = "Some photographs or paintings are no longer where config.yaml has them." if missing else ""
    section = _section(Results(_title(folder) if len(cells) > 1 else _pair_title(cells[0]), about, cells=cells), folder)
    first = cells[0].settings
    common = {name: first[name] for name in first if all(cell.settings.get(name) == first[name] for cell in cells)}
    return replace(section, facts={"Settings": common, "Configuration": path.read_text(encoding="utf-8")})


# ---- sweeps ----


def _section(found: Results, folder: Path) -> Section:
    axis, labels = next(iter(found.axes.items()), ("", ()))
    pictures = tuple(_picture(cell, found, folder) for cell in found.cells)
    made = sum(picture.file is not None for picture in pictures)
    counts = [f"{count} {name}{'' if count == 1 else 's'}" for count, name in _counts(found, made)]
    return Section(
        title=found.title,
        about=found.about,
        summary=tuple(each for each in (*counts, found.machine) if each),
        axis=_spoken(axis),
        columns=labels,
        pictures=pictures,
        plots=tuple(folder / plot for plot in found.plots),
        tables=tuple(table for table in (_means(found), _every_picture(found)) if table.rows),
    )


def _counts(found: Results, made: int) -> Iterator[tuple[int, str]]:
    yield made, "picture"
    yield len(found.pairs), "pair"
    yield len(found.seeds), "seed"


def _picture(cell: Result, found: Results, folder: Path) -> Picture:
    """Returns a cell as the grid shows it: the first axis is its columns, the others are its lines."""
    told = {axis: f"{_spoken(axis)} {label}" for axis, label in cell.values.items()}
    first = next(iter(found.axes), "")
    line = [text for axis, text in told.items() if axis != first]
    if len(found.seeds) > 1:
        line.append(f"seed {cell.seed}")
    own = {
        **{_spoken(axis): label for axis, label in cell.values.items()},
        "seed": cell.seed,
        **cell.scores,
        **{f"{_spoken(name)} loss": value for name, value in cell.losses.items()},
    }
    styles = (_there(style, folder) for style in cell.style.split("|"))
    return Picture(
        name=cell.name,
        title=", ".join([_pair_title(cell), *(told[axis] for axis in told if axis == first), *line]),
        pair=_pair_title(cell),
        line=", ".join(line),
        column=cell.values.get(first, ""),
        file=Path(cell.picture) if cell.picture else None,
        content=_there(cell.content, folder),
        styles=tuple(style for style in styles if style is not None),
        facts={**own, **{_spoken(name): value for name, value in cell.settings.items() if _spoken(name) not in own}},
    )


def _there(name: str, folder: Path) -> Path | None:
    """Returns a photograph's or a painting's file; None if it is not on this machine, as after a move."""
    return next((path for path in (folder / name, Path(name)) if name and path.is_file()), None)


def _pair_title(cell: Result) -> str:
    """Returns what a pair is called: after its images where the pair is, else as it is."""
    stems = [Path(file).stem for file in (cell.content, *cell.style.split("|")) if file]
    return " × ".join(map(_spoken, stems)) if cell.pair == "_".join(stems) else _spoken(cell.pair)


def _means(found: Results) -> Table:
    """Returns the means over the pairs: a line for each combination of values, a column for each score."""
    axes = list(found.axes)
    table = tables.means(found)
    scores = table["score"].unique()
    lines: dict[tuple[str, ...], dict[str, Entry]] = {}
    for row in table.to_dict("records"):
        small = [] if math.isnan(row["low"]) else [f"{row['low']:.3f} – {row['high']:.3f}"]
        small += [f"n {row['n']}"] if row["n"] < len(found.pairs) else []
        lines.setdefault(tuple(row[axis] for axis in axes), {})[row["score"]] = Entry(row["mean"], tuple(small))
    rows = [
        (*map(Entry, values), *(line.get(score, Entry(None)) for score in scores)) for values, line in lines.items()
    ]
    note = "Means over the pairs, below each its 95 % interval, and of how many pairs it is where not of all."
    return Table("Means", (*map(_spoken, axes), *scores), tuple(rows) if axes else (), note)


def _every_picture(found: Results) -> Table:
    """Returns the headline scores and the losses of every picture; its other scores stand beside it."""
    frame = found.frame()
    scores = [name for name in tables.SCORES if name in frame]
    losses = [name for name in frame if name.startswith("loss_")]
    columns = [*found.axes, "seed", *scores, *losses]
    rows = [
        (Entry(_pair_title(cell), opens=cell.name if cell.picture else None), *map(Entry, values))
        for cell, values in zip(found.cells, frame[columns].itertuples(index=False, name=None), strict=True)
    ]
    heads = (*map(_spoken, columns[: -len(losses) or None]), *(f"{name[5:]} loss" for name in losses))
    return Table("Every picture", ("picture", *heads), tuple(rows))


def _title(folder: Path) -> str:
    return _spoken(folder.resolve().name) or str(folder)


def _spoken(name: str) -> str:
    return " ".join(name.replace("_", " ").split())


# ---- findings ----


def _findings(folder: Path) -> tuple[Table, ...]:
    """Returns the table of what was found against what was claimed; nothing where there is no such file."""
    path = folder / verdicts.FILE
    if not path.is_file():
        return ()
    columns = ("claim", "figure", "prediction", "n", "effect", "p", "corrected", "verdict", "why")
    found = schema.read_json(path, verdicts.Findings).findings
    return (Table("Findings", columns, tuple(map(_finding, found))),) if found else ()


def _finding(finding: Finding) -> tuple[Entry, ...]:
    ends = () if math.isnan(finding.low) else (f"{finding.low:.3f} – {finding.high:.3f}",)
    return (
        Entry(finding.claim, (finding.id,)),
        Entry(finding.figure),
        Entry(finding.prediction),
        Entry(finding.n),
        Entry(finding.effect, ends),
        Entry(finding.p),
        Entry(finding.corrected),
        Entry(finding.verdict),
        Entry(finding.why),
    )


# ---- runs ----


def _pairs(data: Mapping[str, Any], folder: Path) -> Sequence[Pair]:
    """Returns the pairs of a run; where their images are gone, those that pictures tell of, without images."""
    try:
        if data.get("pairs") is not None:
            return pairs.read_pairs(data["pairs"], allowed_inits=INITIALIZERS)
        contents = pairs.find("content", data.get("content"), pairs.CONTENT_FOLDER)
        styles = pairs.find("style", data.get("style"), pairs.STYLE_FOLDER)
        return pairs.pair_up(contents, styles, data.get("pairing", "zip"))
    except InputError:
        files = sorted(entry for entry in folder.iterdir() if entry.suffix.lower() in _SUFFIXES)
        return [Pair("", (), entry.stem) for entry in files]


def _of_run(pair: Pair, beside: Path | None, folder: Path) -> Iterator[Result]:
    """Yields a pair's picture: the one in the run's folder, or beside it where the run was told to write one file."""
    found = sorted(path for path in folder.glob(f"{glob.escape(pair.name)}.*") if path.suffix.lower() in _SUFFIXES)
    file = next((path for path in (*found, beside) if path is not None and path.is_file()), None)
    if file is None:
        return
    scores, losses = results.numbers(runs.Run(folder).scores(pair.name))
    settings = json.loads(images.read_metadata(file).get("nst_lightning", "{}"))
    yield Result(
        name=pair.name,
        pair=pair.name,
        seed=settings.get("seed", 0),
        values={},
        scores=scores,
        losses=losses,
        content=str(pair.content),
        style="|".join(map(str, pair.styles)),
        picture=str(file),
        settings=settings,
    )
