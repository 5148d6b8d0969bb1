"""Tables of scores: to read, as CSV and as JSON."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

from nst_lightning.metrics import table

ROWS: dict[str, dict[str, float]] = {
    "a": {"outline": 0.5, "texture_distance_1": 0.125, "leak": 0.25, "feature_distance": 1.5, "overall": math.nan},
    "longer, by far": {"outline": 0.75, "leak": math.nan, "feature_distance": 12.0, "overall": math.nan},
}


def cells(line: str, width: int) -> list[str]:
    return line[width:].split()


def test_the_table_has_a_line_a_picture_and_the_mean_of_what_is_defined() -> None:
    heads, first, second, mean, legend = table.text(ROWS).splitlines()
    width = len("longer, by far")
    assert heads.split() == ["outline+", "leak-", "feature_distance-", "overall+"]
    assert (first[:width].strip(), cells(first, width)) == ("a", ["0.500", "0.250", "1.500", "n/a"])
    assert (second[:width], cells(second, width)) == ("longer, by far", ["0.750", "n/a", "12.000", "n/a"])
    assert (mean[:width].strip(), cells(mean, width)) == ("mean", ["0.625", "0.250", "6.750", "n/a"])
    assert len({len(line) for line in (heads, first, second, mean)}) == 1
    assert legend.startswith("+ higher is better, - lower is better; n/a: undefined")


def test_defects_have_a_table_of_their_own_below() -> None:
    both = {"a": {"grid": 0.5, "outline": 0.25, "blotches": math.nan}, "b": {"grid": 0.25, "outline": 0.75}}
    lines = [line.split() for line in table.text(both).splitlines()[:-1]]
    assert lines[:4] == [["outline+"], ["a", "0.250"], ["b", "0.750"], ["mean", "0.500"]]
    assert lines[4:] == [["grid-", "blotches-"], ["a", "0.500", "n/a"], ["b", "0.250", "n/a"], ["mean", "0.375", "n/a"]]
    assert [line.split() for line in table.text({"a": {"grid": 0.5}}).splitlines()[:-1]] == [["grid-"], ["a", "0.500"]]


def test_a_defect_beyond_its_limit_is_one_line_with_the_worst_picture_and_a_remedy() -> None:
    rows = {"a": {"grid": 0.6, "border": 0.4}, "b": {"grid": 0.8, "clipped": math.nan}, "c": {"blotches": 0.61}}
    assert table.warnings(rows) == [
        "b and 1 more: grid 0.80, above 0.55; try --pooling l2 or avg, or a little more --tv_weight",
        "c: blotches 0.61, above 0.6; try more --content_weight or fewer --stages",
    ]
    assert table.warnings({"a": {"outline": 0.1, "grid": 0.55, "border": 0.4, "clipped": 0.03}}) == []


def test_a_single_picture_has_no_mean() -> None:
    assert len(table.text({"a": ROWS["a"]}).splitlines()) == 3


def test_csv_and_json_give_the_numbers_back_and_leave_undefined_ones_empty(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"output": f"{name}.png", **values} for name, values in ROWS.items()]
    rows[0]["outline"] = 1 / 3
    paths = table.write(tmp_path / "new" / "of.2026", rows)
    assert [str(path.relative_to(tmp_path)) for path in paths] == ["new/of.2026.csv", "new/of.2026.json"]
    assert json.loads(paths[1].read_text()) == [
        {name: None if value != value else value for name, value in row.items()} for row in rows
    ]
    read = list(csv.DictReader(io.StringIO(paths[0].read_text())))
    for row, found in zip(rows, read, strict=True):
        assert found["output"] == row["output"]
        for name in ("outline", "texture_distance_1", "leak", "feature_distance", "overall"):
            value = row.get(name, math.nan)
            assert found[name] == "" if math.isnan(value) else float(found[name]) == value


def test_a_single_row_is_a_json_object() -> None:
    assert json.loads(table.as_json({"pair": "a", "leak": math.nan, "outline": 0.1})) == {
        "pair": "a",
        "leak": None,
        "outline": 0.1,
    }


def test_no_text_in_a_csv_file_is_a_formula_to_a_spreadsheet(tmp_path: Path) -> None:
    names = ["=1+1", "+1", "-1", "@SUM(1)", "\t=1", "a=1", "a-1"]
    paths = table.write(tmp_path / "of", [{"output": name, "outline": -0.5} for name in names])
    found = list(csv.DictReader(io.StringIO(paths[0].read_text(encoding="utf-8"))))
    assert [row["output"] for row in found] == [f"'{name}" for name in names[:5]] + names[5:]
    assert {row["outline"] for row in found} == {"-0.5"}
    assert [row["output"] for row in json.loads(paths[1].read_text(encoding="utf-8"))] == names
