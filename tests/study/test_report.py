"""Results on disk, whole, with parts missing, and damaged."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from nst_lightning import runs
from nst_lightning.errors import InputError
from nst_lightning.study.report import Making, read
from tests.study.conftest import picture


def test_a_sweep_is_its_results_with_the_files_that_are_there(sweep: Path) -> None:
    page = read(sweep)
    (found,) = page.sections
    assert (page.kind, page.title, found.about) == ("sweep", "What a <weight> does", "About it.")
    assert found.axes == {"style_weight": ("1", "10"), "init": ("content", "style")}
    first, last = found.cells[0], found.cells[-1]
    assert (first.content, first.style) == (str(sweep / "in/temple.png"), "|".join([str(sweep / "in/church.png")] * 2))
    assert (first.picture, last.picture) == (str(sweep / "runs/0/temple_church__weight-1__init-content.png"), "")
    assert found.plots == (str(sweep / "plots/scores.png"),)
    assert (found.base, found.versions) == ({"pooling": "max", "tv_weight": 1.0}, {"torch": "9.9.9"})


def test_what_is_optional_may_be_missing(tmp_path: Path) -> None:
    cell = {"name": "a", "pair": "a", "seed": 0, "values": {"layers": "relu1_1"}, "scores": {"psnr": 21.5}}
    picture(tmp_path / "a.png", 3)
    (tmp_path / "results.json").write_text(json.dumps({"cells": [{**cell, "picture": "a.png"}], "machine": None}))
    (section,) = read(tmp_path).sections
    assert section.axes == {"layers": ("relu1_1",)}
    assert (section.cells[0].content, section.cells[0].style) == ("", "")


def test_numbers_that_are_not_finite_are_undefined(sweep: Path) -> None:
    text = (sweep / "results.json").read_text()
    (sweep / "results.json").write_text(text.replace('"outline": 0.0,', '"outline": NaN,'))
    scores = read(sweep).sections[0].cells[0].scores
    assert math.isnan(scores["outline"]) and math.isnan(scores["ms_ssim"])


def test_a_study_is_its_sweeps_by_name_and_its_findings(study: Path) -> None:
    page = read(study)
    assert [section.title for section in page.sections] == ["Title of 1-first", "Title of 2-second"]
    assert page.findings is not None
    assert list(page.findings["effect"]) == ["-0.250 [-0.500, -0.125]", "n/a"]
    assert list(page.findings["verdict"]) == ["agrees", "not run here"]
    (study / "findings.json").unlink()
    assert read(study).findings is None


def test_a_run_is_its_pictures_with_their_images_scores_and_settings(run: Path) -> None:
    page = read(run)
    (section,) = page.sections
    (cell,) = section.cells
    assert (page.kind, page.title, cell.pair, cell.seed) == ("run", "run", "temple_church", 7)
    assert cell.picture == str(run / "temple_church.png")
    assert (cell.content, cell.style) == (str(run.parent / "temple.png"), str(run.parent / "church.png"))
    assert cell.losses == {"total": 2e9}
    assert (cell.scores["outline"], cell.scores["texture_distance_1"]) == (0.4375, 0.5)
    assert math.isnan(cell.scores["ms_ssim"])
    assert cell.settings == {"seed": 7, "style_layers": "relu1_1,relu2_1", "step": 20}
    assert section.base["data.pairing"] == "zip"


def test_a_run_of_a_list_of_pairs(run: Path) -> None:
    csv = run.parent / "pairs.csv"
    csv.write_text("content,style,name\ntemple.png,church.png|church.png,one\ntemple.png,church.png,two\n")
    (run / "config.yaml").write_text(f"data:\n  pairs: {csv}\n")
    for name in ("one", "two"):
        picture(run / f"{name}.png", 9)
    (section,) = read(run).sections
    assert [(cell.name, cell.style.count("|")) for cell in section.cells] == [("one", 1), ("two", 0)]


def test_a_run_whose_picture_is_beside_its_folder(run: Path) -> None:
    (run / "temple_church.png").rename(run.parent / "run.png")
    (run / "config.yaml").write_text((run / "config.yaml").read_text() + "output: somewhere/run.png\n")
    assert read(run).sections[0].cells[0].picture == str(run.parent / "run.png")


def test_a_preview_or_a_film_is_not_taken_for_the_picture(run: Path) -> None:
    made = runs.Run(run)
    for beside in (made.preview(0), made.preview(1), made.film("temple_church", ".webp")):
        picture(beside, 9)
    assert [cell.picture for cell in read(run).sections[0].cells] == [str(made.picture("temple_church"))]
    made.picture("temple_church").unlink()
    for config in ((run / "config.yaml").read_text(), "data: {content: gone.png, style: gone.png}"):
        (run / "config.yaml").write_text(config)
        with pytest.raises(InputError, match=r"run: has no picture yet"):
            read(run)


def test_a_run_brings_its_losses_its_film_and_the_pictures_on_the_way(made: Path) -> None:
    for folder in (made, made.parent):
        ((file, making),) = read(folder).makings.items()
        assert file == str(made / "temple_church.png")
        assert [path.name for path in making.steps] == ["000010.png", "000020.png"]
        assert making.film == made / "temple_church.webp"
        assert {name: list(points["value"]) for name, points in making.losses.items()} == {"total": [8.0, 4.0]}


def test_a_run_may_have_nothing_but_its_picture(run: Path) -> None:
    assert [*read(run).makings.values()] == [Making({}, (), None)]


@pytest.mark.parametrize("gone", ["content: gone.png", "content: gone/gone.png"])
def test_a_run_whose_images_are_gone_still_shows_its_picture(gone: str, run: Path) -> None:
    config = run / "config.yaml"
    config.write_text(re.sub("content: .*", gone, config.read_text()))
    if "/" in gone:  # a path is not looked up: the pair's name follows from it
        (run / "temple_church.png").rename(run / "gone_church.png")
    (section,) = read(run).sections
    assert section.cells[0].content == ""


def change(path: Path, *keys: str | int, to: Any) -> None:  # noqa: ANN401 - whatever JSON holds
    data = place = json.loads(path.read_text())
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = to
    path.write_text(json.dumps(data))


@pytest.mark.parametrize(
    ("keys", "to", "message"),
    [
        (("title",), 3, r"results\.json: title must be a text, got 3$"),
        (("axes",), [], r"results\.json: axes must be an object, got \[\]$"),
        (("axes", "init"), "content", r'results\.json: axes\.init must be a list, got "content"$'),
        (("cells",), {}, r"results\.json: cells must be a list, got {}$"),
        (("cells", 1), 5, r"results\.json: cells\[1\] must be an object, got 5$"),
        (("cells", 1, "name"), None, r"results\.json: cells\[1\]\.name is missing; expected a text$"),
        (("cells", 2, "scores", "outline"), "x", r'cells\[2\]\.scores\.outline must be a number, got "x"$'),
        (("cells", 2, "scores", "outline"), True, r"cells\[2\]\.scores\.outline must be a number, got true$"),
        (("cells", 2, "picture"), 1, r"cells\[2\]\.picture must be a text, got 1$"),
        (("cells", 2, "seed"), 1.5, r"cells\[2\]\.seed must be a whole number, got 1\.5$"),
        (("cells", 2, "pair"), None, r"cells\[2\]\.pair is missing; expected a text$"),
        (("plots",), [1], r"plots\[0\] must be a text, got 1$"),
    ],
)
def test_names_the_file_and_the_key_that_are_damaged(
    keys: tuple[str | int, ...], to: object, message: str, sweep: Path
) -> None:
    change(sweep / "results.json", *keys, to=to)
    with pytest.raises(InputError, match=message) as caught:
        read(sweep)
    assert str(caught.value).startswith(str(sweep))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("results.json", '{"title": ', r"results\.json: is no JSON \(.*\)$"),
        ("results.json", "[1]", r"results\.json: must be an object, got \[1\]$"),
        ("results.json", b"\xff", r"results\.json: cannot be read \(UnicodeDecodeError\)"),
    ],
)
def test_refuses_what_is_no_json(name: str, text: str | bytes, message: str, sweep: Path) -> None:
    (sweep / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=message):
        read(sweep)


def test_refuses_damaged_findings(study: Path) -> None:
    change(study / "findings.json", "findings", 1, "verdict", to="maybe")
    with pytest.raises(InputError, match=r"findings\[1\]\.verdict must be one of agrees, .*, got .maybe.$"):
        read(study)
    change(study / "findings.json", "findings", to=None)
    with pytest.raises(InputError, match=r"findings is missing; expected a list$"):
        read(study)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("data: [", r"config\.yaml: is no YAML"),
        ("trainer: {}", r"config\.yaml: data is missing; expected an object"),
    ],
)
def test_refuses_a_damaged_configuration(config: str, message: str, run: Path) -> None:
    (run / "config.yaml").write_text(config)
    with pytest.raises(InputError, match=message) as caught:
        read(run)
    assert "\n" not in str(caught.value)


def test_refuses_folders_without_results(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere: is no folder; name one that holds results$"):
        read(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty: has no results: neither results\.json.*nor config\.yaml"):
        read(tmp_path / "empty")
    (tmp_path / "empty/report.html").touch()
    with pytest.raises(InputError, match=r"folders of such in it; .*empty/report\.html is a page made of such$"):
        read(tmp_path / "empty")
    (run / "temple_church.png").unlink()
    with pytest.raises(InputError, match=r"run: has no picture yet"):
        read(run)
