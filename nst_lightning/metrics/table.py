"""Scores as a table to read, and as CSV and JSON files."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

HEADLINES = ("outline", "ms_ssim", "palette", "texture", "leak", "lpips", "feature_distance", "overall")
"""The scores of which a table for reading has a column; files have all."""
BETTER = {"outline": "+", "ms_ssim": "+", "palette": "+", "texture": "+", "overall": "+"}
"""What stands behind the names of scores that are better when they are higher."""

SUFFIXES = (".csv", ".json")
"""What `write` puts behind a path."""

Row = Mapping[str, str | float]


def text(rows: Mapping[str, Mapping[str, float]]) -> str:
    """Returns a table with a line a picture, by its name, and below several the mean of what is defined."""
    columns = [name for name in HEADLINES if any(name in values for values in rows.values())]
    lines = {name: [values.get(column, math.nan) for column in columns] for name, values in rows.items()}
    if len(lines) > 1:
        lines["mean"] = [_mean(column) for column in zip(*lines.values(), strict=True)]
    width = max(map(len, lines), default=0)
    heads = [column + BETTER.get(column, "-") for column in columns]
    table = [" ".join([" " * width, *(f"{head:>9}" for head in heads)])]
    for name, values in lines.items():
        cells = zip(heads, values, strict=True)
        table.append(" ".join([f"{name:<{width}}", *(f"{_cell(value):>{max(9, len(head))}}" for head, value in cells)]))
    return "\n".join(
        [*table, "+ higher is better, - lower is better; n/a: undefined, see nst_lightning/metrics/README.md"]
    )


def as_csv(rows: Sequence[Row]) -> str:
    """Returns rows as CSV; an undefined number is an empty cell."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({column: _plain(value, "") for column, value in row.items()} for row in rows)
    return stream.getvalue()


def as_json(rows: Sequence[Row] | Row) -> str:
    """Returns rows, or a single one, as JSON; an undefined number is null."""
    plain = _without_nan(rows) if isinstance(rows, Mapping) else [_without_nan(row) for row in rows]
    return json.dumps(plain, indent=1) + "\n"


def write(path: Path, rows: Sequence[Row]) -> list[Path]:
    """Writes rows to `<path>.csv` and `<path>.json`, and returns the two paths."""
    path.parent.mkdir(parents=True, exist_ok=True)
    written = [path.with_name(path.name + suffix) for suffix in SUFFIXES]
    for file, content in zip(written, (as_csv(rows), as_json(rows)), strict=True):
        file.write_text(content, encoding="utf-8")
    return written


def _without_nan(row: Row) -> dict[str, str | float | None]:
    return {column: _plain(value, None) for column, value in row.items()}


def _mean(values: Sequence[float]) -> float:
    defined = [value for value in values if math.isfinite(value)]
    return sum(defined) / len(defined) if defined else math.nan


def _cell(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "n/a"


def _plain(value: str | float, undefined: str | None) -> str | float | None:
    return undefined if isinstance(value, float) and not math.isfinite(value) else value
