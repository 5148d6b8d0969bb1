"""The command: which file it writes, and what it says of what cannot be used."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nst_lightning.__main__ import main


@pytest.mark.parametrize("kind", ["sweep", "study", "run"])
def test_writes_a_page_into_the_folder(
    kind: str, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = request.getfixturevalue(kind)
    assert main(["report", str(folder)]) == 0
    assert capsys.readouterr().out == f"{folder / 'report.html'}\n"
    assert (folder / "report.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_an_earlier_page_is_kept_unless_told_otherwise(run: Path, tmp_path: Path) -> None:
    page = tmp_path / "pages/of a run.html"
    for _ in range(2):
        assert main(["report", str(run), "--output", str(page)]) == 0
    assert sorted(path.name for path in page.parent.iterdir()) == ["of a run-2.html", "of a run.html"]
    page.write_text("old")
    assert main(["report", str(run), "--output", str(page), "--overwrite", "true"]) == 0
    assert page.read_text() != "old"
    assert len(list(page.parent.iterdir())) == 2


def test_wider_pictures_make_a_larger_page(run: Path) -> None:
    for width in ("16", "36"):
        assert main(["report", str(run), "--width", width]) == 0
    narrow, wide = ((run / name).read_text() for name in ("report.html", "report-2.html"))
    assert ('width="16"' in narrow, 'width="36"' in narrow) == (True, False)
    assert ('width="16"' in wide, 'width="36"' in wide) == (False, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "folder"),
        (["{run}/nowhere"], "is no folder"),
        (["{run}", "--width", "8"], "width must be 16 to 16384 pixels, got 8"),
        (["{run}", "--width", "wide"], "--width:"),
        (["{run}", "--output", "page.pdf"], "output must end with .html or .htm, got page.pdf"),
        (["{run}", "--output", "{run}/config.yaml/page.html"], "a file is in the way"),
        (["{run}", "--hue", "1"], "hue"),
    ],
)
def test_says_in_one_line_what_cannot_be_used(
    arguments: list[str], message: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(run.rglob("*"))
    assert main(["report", *(argument.format(run=run) for argument in arguments)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("nst: error: ") and captured.err.count("\n") == 1
    assert message in captured.err
    assert sorted(run.rglob("*")) == before


def test_a_picture_that_is_gone_is_named(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gone = next((sweep / "runs/0").iterdir())
    gone.unlink()
    assert main(["report", str(sweep)]) == (2 if "other__weight-10__init-style" not in gone.name else 0)
    assert gone.name in capsys.readouterr().err


def test_help_names_the_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "--help"]) == 0
    text = capsys.readouterr().out
    assert all(option in text for option in ("FOLDER", "--output", "--width", "--overwrite"))


PREDICTION = """- id: best
  claim: Content is best.
  figure: start
  score: overall
  test: highest
  axis: init
  value: content
"""


def test_predictions_are_checked_on_the_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cells = [
        {"name": f"{pair}{init}", "pair": pair, "seed": 0, "values": {"init": init}, "scores": {"overall": score}}
        for pair in ("one", "two", "three")
        for init, score in (("content", 0.5), ("style", 0.1 if pair == "one" else 0.2))
    ]
    (tmp_path / "study" / "start").mkdir(parents=True)
    results = {"title": "Start", "axes": {"init": ["content", "style"]}, "cells": cells}
    (tmp_path / "study" / "start" / "results.json").write_text(json.dumps(results))
    (tmp_path / "predictions.yaml").write_text(PREDICTION)
    command = [str(tmp_path / "study"), "--predictions", str(tmp_path / "predictions.yaml")]
    assert main(["report", *command]) == 0
    table, plain, html = (Path(line) for line in capsys.readouterr().out.splitlines())
    assert "**agrees**" in table.read_text()
    assert json.loads(plain.read_text())["findings"][0]["n"] == 3
    assert "Content is best." in html.read_text()
    plain.write_text("{}")
    assert main(["report", *command]) == 2
    assert "findings.json: holds other findings; say --overwrite true" in capsys.readouterr().err
    assert plain.read_text() == "{}"
    assert main(["report", *command, "--overwrite", "true"]) == 0
