"""Results on disk, read into what a page shows: those of a sweep, of several sweeps, or of one run."""

from __future__ import annotations

import glob
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from nst_lightning import images, pairs, runs
from nst_lightning.errors import InputError
from nst_lightning.metrics import table as scores
from nst_lightning.pairs import Pair
from nst_lightning.report.page import Entry, Facts, Page, Result, Section, Shot, Table, Value, spoken, words

SWEEP = "results.json"
FINDINGS = "findings.json"
RUN = "config.yaml"

VERDICTS = ("agrees", "disagrees", "undecided", "not run here")

_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff")


def read(folder: Path, made: str = "") -> Page:
    """Reads the results in a folder.

    Args:
        folder: The folder of a sweep, of several sweeps, or of a run of `nst fit`.
        made: By what the page is made and when.

    Raises:
        InputError: If there are none, or a file of them is damaged; it names the file and the key.
    """
    if not os.path.isdir(folder):
        msg = f"{folder}: is no folder; name one that holds results"
        raise InputError(msg)
    if (folder / SWEEP).is_file():
        section = sweep(folder)
        return Page(section.title, "sweep", (section,), section.about, _findings(folder), made)
    if (folder / RUN).is_file():
        section = run(folder)
        return Page(section.title, "run", (section,), section.about, (), made)
    folders = sorted(entry.parent for entry in folder.glob(f"*/{SWEEP}"))
    if not folders:
        msg = f"{folder}: has no results: neither {SWEEP}, as a sweep has, nor {RUN}, as a run has, nor sweeps in it"
        raise InputError(msg)
    return Page(_title(folder), "study", tuple(map(sweep, folders)), "", _findings(folder), made)


# ---- sweeps ----


def sweep(folder: Path) -> Section:
    """Reads the results of a sweep.

    Args:
        folder: Its folder, with a file results.json.

    Raises:
        InputError: If that file cannot be read or is not as a sweep writes it.
    """
    root = _Node.of_file(folder / SWEEP)
    axes = {axis: tuple(node.items()) for axis, node in root.child("axes", dict, {}).children()}
    values = {axis: tuple(words(_value(each)) for each in nodes) for axis, nodes in axes.items()}
    nodes = root.child("cells", list, []).items()
    cells = [_cell(node, folder) for node in nodes]
    for cell in cells:
        for axis, value in cell.values.items():
            known = values.get(axis, ())
            values[axis] = known if words(value) in known else (*known, words(value))
    seen: set[str] = set()
    for node, cell in zip(nodes, cells, strict=True):
        if cell.name in seen:
            raise node.error("name", f"must differ from every other, got {cell.name!r} again")
        seen.add(cell.name)
    results = tuple(_result(cell, list(values), _seeds_vary(cells)) for cell in cells)
    plots = [folder / node.text() for node in root.child("plots", list, []).items()]
    shown = any(result.shot is not None for result in results)
    if not shown and (grid := root.child("grid", str, "").text()):
        plots.insert(0, folder / grid)
    first = next(iter(values), None)
    return Section(
        title=root.child("title", str, "").text() or _title(folder),
        about=root.child("about", str, "").text(),
        results=results,
        axis="" if first is None else spoken(first),
        columns=() if first is None else values[first],
        tables=tuple(each for each in (_means(root, list(values)), _numbers(cells, list(values))) if each.rows),
        plots=tuple(Shot(path, spoken(path.stem)) for path in plots),
        facts=tuple(_sweep_facts(root, values)),
        summary=tuple(_summary(root, cells)),
    )


@dataclass(frozen=True)
class _Cell:
    """A cell of a sweep, or a picture of a run."""

    name: str
    pair: str
    values: Mapping[str, Value]
    seed: Value
    shot: Path | None
    content: Path | None
    styles: tuple[Path, ...]
    losses: Mapping[str, float | int | None]
    scores: Mapping[str, float | int | None]
    settings: Mapping[str, Value]


def _cell(node: _Node, folder: Path) -> _Cell:
    picture = node.child("picture", str, "").text()
    style = node.child("style", str, "").text()
    return _Cell(
        name=node.child("name", str).text(),
        pair=node.child("pair", str, "").text() or node.child("name", str).text(),
        values=node.child("values", dict, {}).values(),
        seed=_value(node.child("seed", None, None)),
        shot=folder / picture if picture else None,
        content=_there(node.child("content", str, "").text(), folder),
        styles=tuple(path for each in style.split("|") if (path := _there(each.strip(), folder)) is not None),
        losses=node.child("losses", dict, {}).numbers(),
        scores=node.child("scores", dict, {}).numbers(),
        settings=node.child("settings", dict, {}).values(),
    )


def _there(name: str, folder: Path) -> Path | None:
    """Returns a photograph's or a painting's file; None if it is not on this machine, as after a move."""
    return next((path for path in (folder / name, Path(name)) if name and os.path.isfile(path)), None)


def _result(cell: _Cell, axes: Sequence[str], seeds: bool) -> Result:
    """Returns a cell as the grid shows it: the first axis is its columns, the others are its lines."""
    told = {axis: words(cell.values[axis]) for axis in axes if axis in cell.values}
    line = [f"{spoken(axis)} {value}" for axis, value in told.items() if axis != axes[0]]
    if seeds and cell.seed is not None and "seed" not in told:
        line.append(f"seed {words(cell.seed)}")
    pair = _pair_title(cell)
    varied = ", ".join([*(f"{spoken(axis)} {value}" for axis, value in told.items() if axis == axes[0]), *line])
    own = {
        "file": None if cell.shot is None else cell.shot.name,
        **{spoken(axis): value for axis, value in cell.values.items()},
        **({} if cell.seed is None or "seed" in cell.values else {"seed": cell.seed}),
        **cell.scores,
        **{f"{spoken(name)} loss": value for name, value in cell.losses.items()},
    }
    settings = {spoken(name): value for name, value in cell.settings.items() if spoken(name) not in own}
    alt = f"{pair}, {varied}" if varied else f"{pair}, painted"
    return Result(
        name=cell.name,
        title=f"{pair}, {varied}" if varied else pair,
        pair=pair,
        line=", ".join(line),
        column=told.get(axes[0], "") if axes else "",
        shot=None if cell.shot is None else Shot(cell.shot, alt),
        content=None if cell.content is None else Shot(cell.content, f"photograph: {spoken(cell.content.stem)}"),
        styles=tuple(Shot(style, f"painting: {spoken(style.stem)}") for style in cell.styles),
        facts={**own, **settings},
    )


def _pair_title(cell: _Cell) -> str:
    """Returns what a pair is called: after its images where the pair is, else as it is."""
    stems = [path.stem for path in (cell.content, *cell.styles) if path is not None]
    return " × ".join(map(spoken, stems)) if cell.pair == "_".join(stems) else spoken(cell.pair)


def _seeds_vary(cells: Sequence[_Cell]) -> bool:
    return len({words(cell.seed) for cell in cells}) > 1


def _means(root: _Node, axes: Sequence[str]) -> Table:
    """Returns the means over the pairs: a line for each combination of values, a column for each score."""
    lines: dict[tuple[str, ...], dict[str, tuple[int | float | None, Entry]]] = {}
    given: dict[tuple[str, ...], Mapping[str, Value]] = {}
    for node in root.child("table", list, []).items():
        values = node.child("values", dict, {}).values()
        key = tuple(words(values.get(axis)) for axis in axes)
        mean, low, high = (node.child(name, float, None).number() for name in ("mean", "low", "high"))
        count = node.child("n", int, None).number()
        given.setdefault(key, values)
        lines.setdefault(key, {})[node.child("score", str).text()] = count, Entry(mean, low, high)
    names = _ordered({name: None for line in lines.values() for name in line})
    rows = []
    for key, line in lines.items():
        most = max((count for count, _ in line.values() if count is not None), default=None)
        # A score that is undefined for some of the pairs says of how many it is.
        means = [
            replace(entry, note="" if count in (most, None) else f"n {count}")
            for count, entry in (line.get(name, (None, Entry(None))) for name in names)
        ]
        rows.append((*(Entry(given[key].get(axis)) for axis in axes), Entry(most), *means))
    note = "Means over the pairs; below each its 95 % interval."
    return Table("Means", (*map(spoken, axes), "n", *names), tuple(rows), note, "intervals")


def _numbers(cells: Sequence[_Cell], axes: Sequence[str]) -> Table:
    """Returns the headline scores and the losses of every picture; its other scores stand beside it."""
    scored = _ordered({name: None for cell in cells for name in cell.scores})
    scored = [name for name in scored if name in (*scores.HEADLINES, "psnr")] or scored
    losses = list(dict.fromkeys(name for cell in cells for name in cell.losses))
    seeds = "seed" not in axes and any(cell.seed is not None for cell in cells)
    rows = [
        (
            Entry(_pair_title(cell), opens=cell.name),
            *(Entry(cell.values.get(axis)) for axis in axes),
            *([Entry(cell.seed)] if seeds else []),
            *(Entry(cell.scores.get(name)) for name in scored),
            *(Entry(cell.losses.get(name)) for name in losses),
        )
        for cell in cells
    ]
    columns = ("picture", *map(spoken, axes), *(["seed"] if seeds else []), *scored, *(f"{n} loss" for n in losses))
    return Table("Every picture", columns, tuple(rows))


def _ordered(names: Mapping[str, None]) -> list[str]:
    """Returns scores in the order that all tables of the project have, unknown ones last."""
    return [*(name for name in scores.HEADLINES if name in names), *(n for n in names if n not in scores.HEADLINES)]


def _sweep_facts(root: _Node, values: Mapping[str, Sequence[str]]) -> Iterator[Facts]:
    for title, facts in (
        ("What varies", {spoken(axis): ", ".join(each) for axis, each in values.items()}),
        ("What is the same", root.child("base", dict, {}).values()),
        ("Versions", root.child("versions", dict, {}).values()),
        ("What failed", root.child("failed", dict, {}).values()),
    ):
        if facts:
            yield Facts(title, facts)


def _summary(root: _Node, cells: Sequence[_Cell]) -> Iterator[str]:
    if date := root.child("date", str, "").text():
        yield date
    if cells:
        yield _counted(sum(cell.shot is not None for cell in cells), "picture")
        yield _counted(len({cell.pair for cell in cells}), "pair")
    seeds = sorted({words(cell.seed) for cell in cells if cell.seed is not None}, key=lambda each: (len(each), each))
    if seeds:
        yield f"{'seed' if len(seeds) == 1 else 'seeds'} {', '.join(seeds)}"
    if (seconds := root.child("seconds", float, None).number()) is not None:
        yield _duration(seconds)
    if machine := root.child("machine", str, "").text():
        yield machine


def _counted(count: int, name: str) -> str:
    return f"{count} {name}{'' if count == 1 else 's'}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.3g} s"


def _title(folder: Path) -> str:
    return spoken(folder.resolve().name) or str(folder)


# ---- findings ----


def _findings(folder: Path) -> tuple[Table, ...]:
    """Returns the table of what was found against what was claimed; nothing where there is no such file."""
    path = folder / FINDINGS
    if not path.is_file():
        return ()
    rows = []
    for node in _Node.of_file(path).child("findings", list).items():
        verdict = node.child("verdict", str).text()
        if verdict not in VERDICTS:
            raise node.error("verdict", f"must be one of {', '.join(VERDICTS)}, got {verdict!r}")
        low, high = (node.child(name, float, None).number() for name in ("low", "high"))
        rows.append(
            (
                Entry(node.child("claim", str).text(), note=words(_value(node.child("id", None, "")))),
                Entry(_value(node.child("figure", None, ""))),
                Entry(node.child("prediction", str, "").text()),
                Entry(node.child("n", int, None).number()),
                Entry(node.child("effect", float, None).number(), low, high),
                Entry(node.child("p", float, None).number()),
                Entry(node.child("corrected", float, None).number()),
                Entry(verdict),
                Entry(node.child("why", str, "").text()),
            )
        )
    columns = ("claim", "figure", "prediction", "n", "effect", "p", "corrected", "verdict", "why")
    return (Table("Findings", columns, tuple(rows), kind="findings"),) if rows else ()


# ---- runs ----


def run(folder: Path) -> Section:
    """Reads the results of a run of `nst fit`.

    Args:
        folder: Its folder, with a file config.yaml.

    Raises:
        InputError: If a file in it is damaged, or there is no picture.
    """
    path = folder / RUN
    text, config = _config(path)
    beside = runs.file_beside(folder, str(config.get("output") or ""))
    cells = [_of_run(pair, beside, folder) for pair in _pairs(config, folder)]
    cells = [cell for cell in cells if cell.shot is not None]
    if not cells:
        msg = f"{folder}: has no picture yet; expected <pair>.png, as nst fit writes it when a pair is finished"
        raise InputError(msg)
    seeds = sorted({words(cell.seed) for cell in cells if cell.seed is not None})
    missing = any(cell.content is None or not cell.styles for cell in cells)
    return Section(
        title=_title(folder) if len(cells) > 1 else _pair_title(cells[0]),
        about="Some photographs or paintings are no longer where config.yaml has them." if missing else "",
        results=tuple(_result(cell, [], False) for cell in cells),
        tables=(_numbers(cells, []),),
        facts=(*_settings(cells), Facts(f"Configuration, {RUN}", text=text)),
        summary=(_counted(len(cells), "picture"), *([f"seed {', '.join(seeds)}"] if seeds else [])),
    )


def _settings(cells: Sequence[_Cell]) -> Iterator[Facts]:
    """Yields what all pictures were painted with; what one has of its own stands beside that picture."""
    common = {
        spoken(name): value
        for name, value in cells[0].settings.items()
        if all(name in cell.settings and cell.settings[name] == value for cell in cells)
    }
    if common:
        yield Facts("Settings" if len(cells) == 1 else "Settings of all pictures", common)


def _config(path: Path) -> tuple[str, Mapping[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8")
        config = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        msg = f"{path}: cannot be read as YAML ({' '.join(str(error).split())})"
        raise InputError(msg) from error
    if not isinstance(config, dict) or not isinstance(config.get("data"), dict):
        msg = f"{path}: data must name the images, got none; is this the folder of a run of nst fit?"
        raise InputError(msg)
    return text, config


def _pairs(config: Mapping[str, Any], folder: Path) -> Sequence[Pair]:
    """Returns the pairs of a run; where their images are gone, those that pictures tell of, without images."""
    data = config["data"]
    try:
        if data.get("pairs") is not None:
            return pairs.read_pairs(data["pairs"])
        contents = pairs.find("content", data.get("content"), pairs.CONTENT_FOLDER)
        styles = pairs.find("style", data.get("style"), pairs.STYLE_FOLDER)
        return pairs.pair_up(contents, styles, data.get("pairing", "zip"))
    except InputError:
        files = sorted(entry for entry in folder.iterdir() if entry.suffix.lower() in _SUFFIXES)
        return [Pair("", (), entry.stem) for entry in files]


def _of_run(pair: Pair, beside: Path | None, folder: Path) -> _Cell:
    file = folder / "scores" / f"{pair.name}.json"
    numbers = _Node.of_file(file).numbers("pair") if file.is_file() else {}
    shot = _picture(pair.name, beside, folder)
    settings: Mapping[str, Value] = {}
    if shot is not None and (text := images.read_metadata(shot).get("nst_lightning")):
        settings = _Node.of_text(text, f"{shot}: its metadata").values()
    styles = (_there(str(style), folder) for style in pair.styles)
    return _Cell(
        name=pair.name,
        pair=pair.name,
        values={},
        seed=settings.get("seed"),
        shot=shot,
        content=_there(str(pair.content), folder),
        styles=tuple(style for style in styles if style is not None),
        losses={name.removeprefix("loss/"): value for name, value in numbers.items() if name.startswith("loss/")},
        scores={name: value for name, value in numbers.items() if not name.startswith("loss/")},
        settings=settings,
    )


def _picture(name: str, beside: Path | None, folder: Path) -> Path | None:
    """Returns a pair's picture: in the run's folder, or beside it where the run was told to write one file."""
    found = [path for path in folder.glob(f"{glob.escape(name)}.*") if path.suffix.lower() in _SUFFIXES]
    return next((path for path in (*sorted(found), beside) if path is not None and path.is_file()), None)


# ---- JSON ----


class _Node:
    """A part of a JSON file that knows where it stands, so that what is wrong with it can be said in one line."""

    def __init__(self, value: Any, file: str, key: str) -> None:  # noqa: ANN401 - whatever JSON holds
        self.value = value
        self.file = file
        self.key = key

    @classmethod
    def of_file(cls, path: Path) -> _Node:
        """Reads a file whose text is an object."""
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            msg = f"{path}: cannot be read ({error})"
            raise InputError(msg) from error
        return cls.of_text(text, str(path))

    @classmethod
    def of_text(cls, text: str, file: str) -> _Node:
        """Reads a text that is an object."""
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            msg = f"{file}: is not JSON ({error}); is it damaged?"
            raise InputError(msg) from error
        if not isinstance(value, dict):
            msg = f"{file}: must hold an object, got {_shown(value)}"
            raise InputError(msg)
        return cls(value, file, "")

    def error(self, name: str, text: str) -> InputError:
        """Returns an error about a key below this one."""
        return InputError(f"{self.file}: {self._below(name)} {text}")

    def child(self, name: str, kind: type | None, *default: Any) -> _Node:
        """Returns what stands under a key; the default where the key is missing or null, if there is one."""
        value = self.value.get(name) if isinstance(self.value, dict) else None
        if value is None:
            if not default:
                raise self.error(name, f"is missing; expected {_KINDS[kind]}")
            return _Node(default[0], self.file, self._below(name))
        allowed = (int, float) if kind is float else kind
        if allowed is not None and (not isinstance(value, allowed) or (isinstance(value, bool) and kind is not bool)):
            raise self.error(name, f"must be {_KINDS[kind]}, got {_shown(value)}")
        return _Node(value, self.file, self._below(name))

    def children(self) -> list[tuple[str, _Node]]:
        """Returns the lists below an object, by key."""
        return [(name, self.child(name, list)) for name in self.value]

    def items(self) -> list[_Node]:
        """Returns the entries of a list."""
        return [_Node(value, self.file, f"{self.key}[{index}]") for index, value in enumerate(self.value)]

    def text(self) -> str:
        """Returns a text."""
        if not isinstance(self.value, str):
            raise InputError(f"{self.file}: {self.key} must be a text, got {_shown(self.value)}")
        return self.value

    def number(self) -> int | float | None:
        """Returns a number; None for null and for what is not finite."""
        value: int | float | None = self.value
        return value if value is not None and math.isfinite(value) else None

    def numbers(self, *others: str) -> dict[str, int | float | None]:
        """Returns the numbers of an object without some other keys, each as `number` does."""
        return {name: self.child(name, float, None).number() for name in self.value if name not in others}

    def values(self) -> dict[str, Value]:
        """Returns what an object holds, in words where it is no number."""
        return {name: _value(self.child(name, None, None)) for name in self.value}

    def _below(self, name: str) -> str:
        return f"{self.key}.{name}" if self.key else name


_KINDS: dict[type | None, str] = {
    None: "a value",
    dict: "an object",
    float: "a number",
    int: "a whole number",
    list: "a list",
    str: "a text",
}


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _value(node: _Node) -> Value:
    value = node.value
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return node.number()
    if isinstance(value, list):
        return ", ".join(words(_value(each)) for each in node.items())
    return json.dumps(value, ensure_ascii=False)
