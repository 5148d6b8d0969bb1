"""Scores as a table to read, and as CSV and JSON files."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nst_lightning.metrics.base import known
from nst_lightning.terminal import folded

HEADLINES = tuple(score.name for score in known() if score.headline)
"""The scores of which a table for reading has a column; files have all."""
SUMMARY = tuple(score.name for score in sorted(known(), key=lambda score: not score.parts) if score.headline)
"""The same, those first that sum up others."""
DEFECTS = tuple(score.name for score in known() if score.limit is not None)
"""The scores of what is wrong, which such a table has below the others."""
BETTER = {score.name: "+" for score in known() if score.headline and score.higher_is_better}
"""What stands behind the names of scores that are better when they are higher."""

SUFFIXES = (".csv", ".json")  # what `write` puts behind a path

Row = Mapping[str, str | float]


def text(rows: Mapping[str, Mapping[str, float]]) -> str:
    """Returns a table with a line a picture, by its name, and below several the mean of what is defined.

    Defects are in a second one below it.
    """
    import pandas as pd  # takes half a second

    layout: dict[str, Any] = {"float_format": "{:.3f}".format, "na_rep": "n/a", "col_space": 9}
    layout["line_width"] = shutil.get_terminal_size((1000, 0)).columns
    shown = []
    for group in (HEADLINES, DEFECTS):
        columns = [name for name in group if any(name in values for values in rows.values())]
        table = pd.DataFrame.from_dict(rows, orient="index", columns=columns, dtype=float)
        if len(rows) > 1 and columns:
            table.loc["mean"] = table.mean()
        table.columns = [name + BETTER.get(name, "-") for name in columns]
        shown += [table.to_string(**layout)] if columns else []
    legend = "+ higher is better, - lower is better; n/a: undefined, see nst_lightning/metrics/README.md"
    return "\n".join([*shown, folded(legend)])


def warnings(rows: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Returns a line for each defect that is above its limit: the picture that has most of it, and what is done."""
    lines = []
    for score in known():
        limit = math.inf if score.limit is None else score.limit
        found = {name: values[score.name] for name, values in rows.items() if values.get(score.name, 0) > limit}
        if found:
            worst = max(found, key=lambda name: found[name])
            others = f" and {len(found) - 1} more" if len(found) > 1 else ""
            lines.append(f"{worst}{others}: {score.name} {found[worst]:.2f}, above {limit:g}; try {score.remedy}")
    return lines


def as_json(row: Row) -> str:
    """Returns a row as JSON; an undefined number is null."""
    return json.dumps(_without_nan(row), indent=1) + "\n"


def write(path: Path, rows: Sequence[Row]) -> list[Path]:
    """Writes rows to `<path>.csv` and `<path>.json`, an undefined number as nothing or null; returns the two paths."""
    import pandas as pd

    path.parent.mkdir(parents=True, exist_ok=True)
    plain = [_without_nan(row) for row in rows]
    table, plainest = (path.with_name(path.name + suffix) for suffix in SUFFIXES)
    pd.DataFrame(plain).map(inert).to_csv(table, index=False, lineterminator="\n", encoding="utf-8")
    plainest.write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")
    return [table, plainest]


def inert(value: object) -> object:
    """Returns a cell of a CSV file, a text such that no spreadsheet takes it for a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def _without_nan(row: Row) -> dict[str, str | float | None]:
    return {name: value if isinstance(value, str) or math.isfinite(value) else None for name, value in row.items()}
