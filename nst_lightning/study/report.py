"""What a report is about, read from disk: a sweep, several sweeps with their findings, or a run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from nst_lightning import image_files, pairs, runs
from nst_lightning.cards import is_card
from nst_lightning.errors import InputError
from nst_lightning.pairs import Pair
from nst_lightning.study import results, schema, verdicts
from nst_lightning.study.results import Result, Results


@dataclass(frozen=True)
class _Config:
    """What is read of a run's configuration."""

    data: Mapping[str, Any]
    output: str | None = None


@dataclass(frozen=True)
class Making:
    """How a run came to a picture, as far as it is still there: its losses by name, pictures on the way, and a film."""

    losses: Mapping[str, pd.DataFrame]
    steps: tuple[Path, ...]
    film: Path | None


@dataclass(frozen=True)
class Report:
    """All that a page shows, by `kind` a study, gallery, sweep or run; findings are texts, what is gone is empty.

    Makings are those of the pictures of runs, by the picture's file.
    """

    title: str
    kind: str
    sections: tuple[Results, ...]
    findings: pd.DataFrame | None = None
    makings: Mapping[str, Making] = field(default_factory=dict)


def read(folder: Path) -> Report:
    """Reads the results in the folder of a sweep, of a run of `nst fit`, or of several of either.

    Raises:
        InputError: If there are none, or a file of them is damaged; it names the file and the key.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: is no folder; name one that holds results")
    config = runs.Run(folder).config
    if (folder / results.FILE).is_file():
        sweep = _sweep(folder)
        return Report(sweep.title, "sweep", (sweep,), _findings(folder))
    if config.is_file():
        run = _run(folder)
        if not run.cells:
            raise InputError(f"{folder}: has no picture yet; expected <pair>.png, as nst fit writes a finished pair")
        return Report(_title(folder), "run", (run,), makings=_makings(folder, run))
    sweeps = [_sweep(path.parent) for path in sorted(folder.glob(f"*/{results.FILE}"))]
    painted = {path.parent: _run(path.parent) for path in sorted(folder.glob(f"*/{config.name}"))}
    painted = {each: run for each, run in painted.items() if run.cells}
    if not sweeps and not painted:
        expected = f"neither {results.FILE}, as a sweep has, nor {config.name}, as a run has, nor folders of such in it"
        made = next((f"; {page} is a page made of such" for page in sorted(folder.glob("*.html"))), "")
        raise InputError(f"{folder}: has no results: {expected}{made}")
    makings = {picture: made for each, run in painted.items() for picture, made in _makings(each, run).items()}
    kind = "study" if sweeps else "gallery"
    return Report(_title(folder), kind, (*sweeps, *painted.values()), _findings(folder), makings)


def _sweep(folder: Path) -> Results:
    found = results.read(folder)
    cells = tuple(_with_sources(cell, folder) for cell in found.cells)
    plots = tuple(str(folder / plot) for plot in found.plots)
    return replace(found, title=found.title or _title(folder), cells=cells, plots=plots)


def _with_sources(cell: Result, folder: Path) -> Result:
    """Returns a picture with those of its photographs and paintings that are on this machine."""

    def there(file: str) -> str:
        paths = (path for path in (folder / file, Path(file)) if file and path.is_file() and not is_card(path))
        return next(map(str, paths), "")

    return replace(cell, content=there(cell.content), style="|".join(filter(None, map(there, cell.style.split("|")))))


def _findings(folder: Path) -> pd.DataFrame | None:
    path = folder / verdicts.FILE
    if not path.is_file():
        return None
    found: verdicts.Findings = schema.structured(verdicts.Findings, schema.load(path, "findings"), path)
    return verdicts.texts(found.findings)


def _title(folder: Path) -> str:
    return folder.resolve().name.replace("_", " ") or str(folder)


def _run(folder: Path) -> Results:
    """Returns a run's finished pictures, which may be none."""
    path = runs.Run(folder).config
    given = schema.load(path, "the configuration of a run of nst fit")
    config: _Config = schema.structured(_Config, given, path)
    sources = _sources(config.data)
    files = {file.stem: file for file in sorted(folder.glob(runs.Run(folder).picture("*").name))}
    files = {name: files[name] for name in sources or files if name in files}
    beside = runs.file_beside(folder, config.output)
    if beside is not None and beside.is_file():  # the run was told to write one file
        files[next(iter(sources), beside.stem)] = beside
    cells = [_of_run(name, file, sources.get(name, Pair("", (), name)), folder) for name, file in files.items()]
    base = pd.json_normalize(given).iloc[0].dropna().to_dict()
    return Results(_title(folder), base=base, cells=tuple(cells))


def _makings(folder: Path, found: Results) -> dict[str, Making]:
    run = runs.Run(folder)
    makings = {}
    for cell in found.cells:
        steps = tuple(run.pictures_on_the_way(cell.name))
        film = next((path for suffix in (".mp4", ".webp") if (path := run.film(cell.name, suffix)).is_file()), None)
        makings[cell.picture] = Making(results.curves(run, cell.name), steps, film)
    return makings


def _sources(data: Mapping[str, Any]) -> dict[str, Pair]:
    """Returns the pairs of a run by name, none where their images are gone."""
    given = (data.get("content"), data.get("style"), data.get("pairing", "zip"), data.get("pairs"))
    try:
        return {pair.name: pair for pair in pairs.chosen(*given)}
    except InputError:
        return {}


def _of_run(name: str, file: Path, pair: Pair, folder: Path) -> Result:
    settings = json.loads(image_files.read_metadata(file).get("nst_lightning", "{}"))
    known = {"values": {}, "seed": settings.get("seed", 0), "settings": settings}
    return _with_sources(results.result(runs.Run(folder), name, pair, file, **known), folder)
