"""Tables and the figure, out of the files that runs left."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from nst_lightning.figures import LABEL_HEIGHT
from nst_lightning.study import experiment, plots, results, runner, tables
from nst_lightning.study.experiment import Experiment
from nst_lightning.study.results import Results
from nst_lightning.study.runner import Job
from nst_lightning.study.tables import interval

Written = Callable[[str], Path]
Scores = Mapping[str, float | None]
Pixels: TypeAlias = "npt.NDArray[np.uint8]"

pytestmark = pytest.mark.usefixtures("workplace")

BASE = (
    "title: Starts\nabout: What it begins with.\n"
    "base: {content: [chelsea, temple], style: [night_cafe, pere_tanguy], size: 64, content_layers: [relu4_2]}\n"
)
PAIRS = ("chelsea_night_cafe", "temple_pere_tanguy")
LABEL_WIDTH = 150  # px, the column of the rows' labels


def read(path: Path) -> tuple[Experiment, tuple[Job, ...]]:
    made = experiment.read(path, {})
    return made, runner.jobs(made, Path("out"))


def finish(made: Experiment, jobs: Sequence[Job], scores: Callable[[experiment.Cell], Scores | None]) -> Results:
    """Makes what finished runs leave, a cell of no scores being missing, and gathers it."""
    for job in jobs:
        for cell, picture in zip(job.cells, job.pictures, strict=True):
            of_cell = scores(cell)
            if of_cell is None:
                continue
            marker, listed = job.run.marker(cell.name), job.run.scores(cell.name)
            for file in (marker, listed):
                file.parent.mkdir(parents=True, exist_ok=True)
            marker.touch()
            listed.write_text(json.dumps({"pair": cell.name, **of_cell}))
            Image.new("RGB", (64, 48), colour(cell.name)).save(picture)
    return results.gather(made, jobs, {})


def rows(found: Results) -> list[Any]:
    """The lines of the means, each with its numbers by name."""
    return list(tables.means(found).itertuples(index=False))


def colour(name: str) -> tuple[int, int, int]:
    """A colour of each cell's own."""
    digest = hash_of(name)
    return 40 + digest % 150, 40 + digest // 150 % 150, 40 + digest // 22500 % 150


def hash_of(name: str) -> int:
    return sum(place * ord(letter) ** 2 for place, letter in enumerate(name, start=1)) * 7919


# ---- means ----


def test_seeds_are_averaged_before_pairs(written: Written) -> None:
    made, jobs = read(written(BASE + "axes: {init: [style]}\nseeds: [0, 1, 2]"))
    given = {(PAIRS[0], 0): 0.1, (PAIRS[0], 1): 0.2, (PAIRS[0], 2): 0.6, (PAIRS[1], 0): 0.5}
    found = finish(
        made,
        jobs,
        lambda cell: {"overall": given[cell.pair.name, cell.seed]} if (cell.pair.name, cell.seed) in given else None,
    )
    (mean,) = rows(found)
    # Over pairs 0.3 and 0.5: half width 12.706 (t of 1 degree of freedom) times 0.1.
    assert (mean.init, mean.score, mean.n) == ("style", "overall", 2)
    assert mean.mean == pytest.approx(0.4)
    assert (mean.low, mean.high) == pytest.approx((0.4 - 12.706 * 0.1, 0.4 + 12.706 * 0.1), abs=1e-3)
    assert (mean.mean, mean.low, mean.high) == pytest.approx(interval([0.3, 0.5]))


def test_what_is_undefined_is_left_out_and_counted(written: Written) -> None:
    made, jobs = read(written(BASE + "axes: {init: [style, content]}"))
    found = finish(
        made,
        jobs,
        lambda cell: {
            "outline": 0.25 if cell.values["init"] == "style" and cell.pair.name == PAIRS[1] else None,
            "leak": 0.0 if cell.pair.name == PAIRS[0] else 1.0,
        },
    )
    table = {(mean.init, mean.score): mean for mean in rows(found)}
    one, none, both = table["style", "outline"], table["content", "outline"], table["style", "leak"]
    assert (one.n, one.mean) == (1, 0.25)
    assert math.isnan(one.low) and math.isnan(one.high)
    assert none.n == 0
    assert math.isnan(none.mean)
    assert (both.n, both.mean) == (2, 0.5)


def test_a_score_that_only_some_cells_have_is_undefined_in_the_others(written: Written) -> None:
    """LPIPS, say, whose network came between two runs."""
    made, jobs = read(written(BASE + "axes: {init: [style]}"))
    found = finish(made, jobs, lambda cell: {"palette": 0.5, **({"lpips": 0.7} if cell.pair.name == PAIRS[0] else {})})
    assert [(mean.score, mean.n, mean.mean) for mean in rows(found)] == [
        ("palette", 2, 0.5),
        ("lpips", 1, 0.7),
    ]


def test_means_are_in_the_order_of_the_axes_values_whatever_the_runs(written: Written) -> None:
    made, jobs = read(written(BASE + "axes: {init: [style, content], style_layers: [2, 1]}"))
    found = finish(made, jobs[::-1], lambda cell: {"leak": 0.5})
    assert [(mean.init, mean.style_layers) for mean in rows(found)] == [
        ("style", "2"),
        ("style", "1"),
        ("content", "2"),
        ("content", "1"),
    ]


# ---- tables ----


def test_markdown_has_a_line_a_combination_and_a_column_a_score(written: Written) -> None:
    made, jobs = read(written(BASE + "axes: {init: [style, content], style_layers: [1]}"))
    found = finish(
        made,
        jobs,
        lambda cell: {
            "palette": 0.5 if cell.pair.name == PAIRS[0] else 0.7,
            "outline": None if cell.values["init"] == "content" else 0.25 if cell.pair.name == PAIRS[0] else None,
        },
    )
    assert tables.markdown(tables.texts(tables.means(found))).splitlines() == [
        "| init | style_layers | outline | palette |",
        "| --- | --- | --- | --- |",
        "| style | 1 | 0.250 | 0.600 [-0.671, 1.871] |",
        "| content | 1 | n/a | 0.600 [-0.671, 1.871] |",
    ]


def test_csv_has_a_line_a_cell_and_nothing_where_undefined(written: Written) -> None:
    made, jobs = read(written(BASE + "axes: {init: [style, content]}\nseeds: [3]"))
    found = finish(
        made,
        jobs,
        lambda cell: (
            None
            if cell.name == f"{PAIRS[1]}__init-content"
            else {"overall": 0.1, "outline": None, "loss/total": 2.5, "style/relu1_1": 9.0}
        ),
    )
    text = found.frame().to_csv(index=False, lineterminator="\n")
    assert text.splitlines()[0] == "init,pair,seed,loss_total,overall,outline"
    listed = list(csv.DictReader(io.StringIO(text)))
    assert [(row["init"], row["pair"]) for row in listed] == [
        ("style", PAIRS[0]),
        ("style", PAIRS[1]),
        ("content", PAIRS[0]),
    ]
    assert all(
        (row["seed"], row["loss_total"], row["overall"], row["outline"]) == ("3", "2.5", "0.1", "") for row in listed
    )


def test_json_has_what_a_report_reads(written: Written) -> None:
    made, jobs = read(written(BASE + "axes: {init: [style, content]}\nseeds: [3]"))
    found = finish(
        made,
        jobs,
        lambda cell: {"overall": 0.5, "outline": None, "loss/total": 2.5, "loss/tv": None},
    )
    (Path("out") / "plots").mkdir()
    (Path("out") / "plots/scores.png").touch()
    results.write(replace(found, failed={"backbone-vgg19": "no network"}), Path("out"))
    text = Path("out/results.json").read_text()
    assert "NaN" not in text
    told = json.loads(text)
    assert told.keys() == {
        *("title", "about", "command", "axes", "base", "versions", "machine", "failed", "cells", "plots")
    }
    assert (told["title"], told["about"]) == ("Starts", "What it begins with.")
    assert told["axes"] == {"init": ["style", "content"]}
    assert told["base"] == {"size": 64, "content_layers": ["relu4_2"]}
    assert {"nst-lightning", "torch", "lightning", "python"} <= told["versions"].keys()
    assert "cores" in told["machine"]
    assert told["failed"] == {"backbone-vgg19": "no network"}
    assert told["cells"][0] == {
        "name": f"{PAIRS[0]}__init-style",
        "values": {"init": "style"},
        "pair": PAIRS[0],
        "content": str(Path("data/content-images/chelsea.png")),
        "style": str(Path("data/style-images/night_cafe.png")),
        "seed": 3,
        "picture": f"runs/all/{PAIRS[0]}__init-style.png",
        "losses": {"total": 2.5, "tv": None},
        "scores": {"overall": 0.5, "outline": None},
        "settings": {},
    }
    assert told["plots"] == ["plots/scores.png"]
    again = results.read(Path("out"))
    assert repr(again) == repr(replace(found, failed=again.failed, plots=again.plots))  # NaN is no number's equal


def test_a_fit_without_scores_has_none(written: Written) -> None:
    made, jobs = read(written(BASE + "axes: {init: [style]}"))
    finish(made, jobs, lambda cell: {"overall": 0.5})
    for job in jobs:
        for cell in job.cells:
            job.run.scores(cell.name).unlink()
    found = results.gather(made, jobs, {})
    assert [each.scores for each in found.cells] == [{}, {}]
    assert tables.means(found).empty
    assert list(found.frame()) == ["init", "pair", "seed"]


# ---- the figure ----


def tile(sheet: Image.Image, column: int, row: int, top: int = 2 * LABEL_HEIGHT + 18) -> Pixels:
    """The pixels of a place of the grid, whose pictures are of 256 x 192 px and 4 px apart."""
    left, above = LABEL_WIDTH + column * 260, top + row * 196
    return np.asarray(sheet)[above : above + 192, left : left + 256]


def test_every_cells_picture_stands_at_its_place(written: Written) -> None:
    made, jobs = read(written(BASE + "axes: {init: [style, content, gaussian], style_layers: [1, 2]}\nseeds: [0, 1]"))
    found = finish(made, jobs, lambda cell: {"overall": 0.5})
    sheet = plots.grid(found)
    assert sheet.width == LABEL_WIDTH + (2 + 3) * 260
    assert 2 * LABEL_HEIGHT + 18 + 8 * 196 < sheet.height < 2 * LABEL_HEIGHT + 18 + 8 * 196 + 100
    names = {(*each.values.values(), each.pair, each.seed): each.name for each in found.cells}
    assert len(names) == len({colour(name) for name in names.values()}) == 24
    places = [(pair, layers, seed) for pair in PAIRS for layers in ("1", "2") for seed in (0, 1)]
    for place, (pair, layers, seed) in enumerate(places):
        for column, init in enumerate(("style", "content", "gaussian"), start=2):
            assert (tile(sheet, column, place) == colour(names[init, layers, pair, seed])).all()
        with Image.open(f"data/content-images/{pair.partition('_')[0]}.png") as content:
            expected = np.asarray(content.convert("RGB").resize((256, 192), Image.Resampling.LANCZOS), dtype=int)
        assert np.abs(tile(sheet, 0, place) - expected).max() <= 1
        style = tile(sheet, 1, place)  # 36 x 48 of 64 x 48 px, so 56 px at either side are left white
        assert style[:, :40].min() == style[:, -40:].min() == 255
        assert style[:, 70:-70].mean() < 250


def test_a_missing_cell_leaves_its_place_white(written: Written) -> None:
    made, jobs = read(written(BASE + "axes: {init: [style, content], style_layers: [1, 2]}"))
    missing = f"{PAIRS[0]}__init-style__style_layers-2"  # the first of its row
    found = finish(made, jobs, lambda cell: None if cell.name == missing else {"overall": 0.5})
    sheet = plots.grid(found)
    assert (tile(sheet, 2, 1) == 255).all()
    assert (tile(sheet, 3, 1) == colour(f"{PAIRS[0]}__init-content__style_layers-2")).all()
    assert (tile(sheet, 2, 2) == colour(f"{PAIRS[1]}__init-style__style_layers-1")).all()


def test_combinations_without_a_first_value_keep_their_rows(written: Written) -> None:
    made, jobs = read(written(BASE + "axes: {style_layers: [1, 2], init: [style, content]}"))
    found = finish(
        made, jobs, lambda cell: None if tuple(cell.values.values()) == ("1", "content") else {"overall": 0.5}
    )
    sheet = plots.grid(found)
    for row, pair in ((1, PAIRS[0]), (3, PAIRS[1])):
        assert (tile(sheet, 2, row) == 255).all()
        assert (tile(sheet, 3, row) == colour(f"{pair}__style_layers-2__init-content")).all()
