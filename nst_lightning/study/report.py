"""What a report is about, read from disk: a sweep, several sweeps with their findings, or a run."""

from __future__ import annotations

import glob
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from nst_lightning import images, pairs, runs
from nst_lightning.errors import InputError
from nst_lightning.pairs import Pair
from nst_lightning.study import results, schema, verdicts
from nst_lightning.study.results import Result, Results

_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff")


@dataclass(frozen=True)
class Section:
    """What a page tells of one sweep or run.

    Attributes:
        results: Its pictures, scores and plots, whose files are found from here; those that are gone are left out.
        facts: Names with values, or a text, by heading.
    """

    results: Results
    facts: Mapping[str, Mapping[str, Any] | str] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """All that a page shows: `kind` is study, sweep or run, `findings` a table of texts, None where there is none."""

    title: str
    kind: str
    sections: tuple[Section, ...]
    findings: pd.DataFrame | None = None


def read(folder: Path) -> Report:
    """Reads the results in a folder.

    Args:
        folder: The folder of a sweep, of several sweeps, or of a run of `nst fit`.

    Raises:
        InputError: If there are none, or a file of them is damaged; it names the file and the key.
    """
    if not folder.is_dir():
        msg = f"{folder}: is no folder; name one that holds results"
        raise InputError(msg)
    config = runs.Run(folder).config
    if (folder / results.FILE).is_file():
        section = _sweep(folder)
        return Report(section.results.title, "sweep", (section,), _findings(folder))
    if config.is_file():
        section = _run(folder)
        return Report(section.results.title, "run", (section,))
    folders = sorted(entry.parent for entry in folder.glob(f"*/{results.FILE}"))
    if not folders:
        msg = f"{folder}: has no results: neither {results.FILE}, as a sweep has, nor {config.name}, as a run has, nor "
        raise InputError(f"{msg}sweeps in it")
    return Report(_title(folder), "study", tuple(map(_sweep, folders)), _findings(folder))


def _sweep(folder: Path) -> Section:
    found = results.read(folder)
    facts = {
        "What varies": {axis: ", ".join(labels) for axis, labels in found.axes.items()},
        "What is the same": found.base,
        "Versions": found.versions,
        "What failed": found.failed,
    }
    cells = tuple(_with_sources(cell, folder) for cell in found.cells)
    plots = tuple(str(folder / plot) for plot in found.plots)
    found = replace(found, title=found.title or _title(folder), cells=cells, plots=plots)
    return Section(found, {title: values for title, values in facts.items() if values})


def _with_sources(cell: Result, folder: Path) -> Result:
    """Returns a picture with those of its photographs and paintings that are on this machine."""
    content, *styles = (_there(file, folder) for file in (cell.content, *cell.style.split("|")))
    return replace(cell, content=content, style="|".join(filter(None, styles)))


def _there(file: str, folder: Path) -> str:
    return next((str(path) for path in (folder / file, Path(file)) if file and path.is_file()), "")


def _findings(folder: Path) -> pd.DataFrame | None:
    path = folder / verdicts.FILE
    if not path.is_file():
        return None
    found: verdicts.Findings = schema.structured(verdicts.Findings, schema.load(path, "findings"), path)
    return verdicts.texts(found.findings)


def _title(folder: Path) -> str:
    return folder.resolve().name.replace("_", " ") or str(folder)


# ---- runs ----


def _run(folder: Path) -> Section:
    path = runs.Run(folder).config
    config = schema.load(path, "the configuration of a run of nst fit")
    if not isinstance(config, dict) or not isinstance(config.get("data"), dict):
        msg = f"{path}: data must name the images, got none; is this the folder of a run of nst fit?"
        raise InputError(msg)
    beside = runs.file_beside(folder, str(config.get("output") or ""))
    cells = tuple(cell for pair in _pairs(config["data"], folder) for cell in _of_run(pair, beside, folder))
    if not cells:
        msg = f"{folder}: has no picture yet; expected <pair>.png, as nst fit writes it when a pair is finished"
        raise InputError(msg)
    missing = any(cell.content == "" or cell.style == "" for cell in cells)
    about = f"Some photographs or paintings are no longer where {path.name} has them." if missing else ""
    first = cells[0].settings
    common = {name: first[name] for name in first if all(cell.settings.get(name) == first[name] for cell in cells)}
    facts: dict[str, Mapping[str, Any] | str] = {"Settings": common, "Configuration": path.read_text(encoding="utf-8")}
    return Section(Results(_title(folder), about, cells=cells), facts)


def _pairs(data: Mapping[str, Any], folder: Path) -> Sequence[Pair]:
    """Returns the pairs of a run; where their images are gone, those that pictures tell of, without images."""
    try:
        if data.get("pairs") is not None:
            return pairs.read_pairs(data["pairs"])
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
    style = "|".join(map(str, pair.styles))
    made = Result(
        pair.name, pair.name, settings.get("seed", 0), {}, scores, losses, str(pair.content), style, str(file), settings
    )
    yield _with_sources(made, folder)
