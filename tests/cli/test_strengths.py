"""`nst strengths`: one row of a pair's strengths, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from nst_lightning.__main__ import main

PAIR = ("photo.png", "painting.png")
FAST = (
    "--size",
    "64",
    "--steps",
    "2",
    "--style_loss",
    "gram",
    "--content_layers",
    "relu2_1",
    "--style_layers",
    "relu1_1",
)


@pytest.mark.usefixtures("workplace")
def test_writes_one_row_and_never_over_another(capfd: pytest.CaptureFixture[str]) -> None:
    for name in ("row.png", "row-2.png"):
        assert main(["strengths", *PAIR, *FAST, "-o", "row.png"]) == 0
        said = capfd.readouterr()
        assert said.out == f"{name}\n"
        assert [
            line.split(" is style_weight ")[0] for line in said.err.splitlines() if " is style_weight " in line
        ] == [f"nst: strength {each}: strength {each}" for each in ("0", "0.25", "0.5", "0.75", "1")]
        with Image.open(name) as row:
            assert row.width == 5 * (64 + 4)
    assert sorted(path.name for path in Path().iterdir()) == ["painting.png", "photo.png", "row-2.png", "row.png"]


@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([*PAIR, "--strength", "0.5"], "paints the strengths from 0 to 1: leave out strength"),
        (["--content", *PAIR, "--style", "photo.png"], "nst strengths paints one pair, got 2"),
        ([*PAIR, "-o", "row.xyz"], "row.xyz"),
    ],
)
def test_what_cannot_be_used(arguments: list[str], told: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["strengths", *arguments]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert told in line
