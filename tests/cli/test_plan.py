"""`nst plan` as a person types it: what it prints, that it writes nothing, and one line for what cannot be used."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nst_lightning.__main__ import main

FAST = ["--content_layers", "relu2_1", "--style_layers", "relu1_1,relu2_1", "--style_loss", "gram"]
JOB = ["--content", "photo.png", "--style", "painting.png", "--size", "32", "--steps", "4", *FAST]


pytestmark = pytest.mark.usefixtures("workplace")


def test_tells_what_a_run_would_take_and_writes_nothing(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(workplace.rglob("*"))
    several = ["--devices", "2", "--strategy", "pair_parallel", "--trainer.accelerator", "cpu"]
    assert main(["plan", *JOB, "--within", "1h", *several]) == 0
    told = capsys.readouterr()
    assert told.err == ""
    for line in (
        r"pairs +1 \(photo_painting\)",
        r"processes +2, pair_parallel, on cpu",
        r"pictures +in data/output-images/photo_painting",
        r" +1 +16x13 +1 x 1 +2 .*",
        r" +2 +32x27 +1 x 1 +2 .*",
        r"time on 2 processes +\d.*",
        r"within 1 h +1 device \(.*\)",
    ):
        assert re.search(rf"^{line}$", told.out, re.MULTILINE), (line, told.out)
    assert sorted(workplace.rglob("*")) == before


def test_the_plan_of_a_broken_off_run_is_what_is_left_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", *JOB, "--output", "run", "--trainer.max_steps", "3", "--checkpoint_minutes", "1e-9"]) == 3
    files = sorted(Path().rglob("*"))
    capsys.readouterr()
    assert main(["plan", "--resume", "run"]) == 0
    told = capsys.readouterr().out
    assert re.search(r"^steps +1$", told, re.MULTILINE)
    assert re.search(r"^ +2 +32x27 +1 x 1 +1 .*$", told, re.MULTILINE)
    assert sorted(Path().rglob("*")) == files
    assert main(["fit", "--resume", "run", "--trainer.max_steps", "-1"]) == 0
    capsys.readouterr()
    assert main(["plan", "--resume", "run"]) == 0
    assert capsys.readouterr().out == "nothing left to do\n"


BAD_INPUTS = {
    "no duration": (["--within", "soon"], r"within must be a time above 0, as 90s, 30m or 1h30m, got 'soon'"),
    "missing file": (["--content", "nope.jpg"], r"content image nope\.jpg is neither here nor in data/"),
    "unknown format": (["--output", "x.gif"], r"x\.gif: has suffix '\.gif'; allowed are \.png"),
    "unknown option": (["--sise", "3"], r"unknown option --sise: did you mean --size\?"),
    "several processes": (
        ["--trainer.accelerator", "cpu", "--devices", "2"],
        r"must be pair_parallel or tile_parallel",
    ),
    "whole images shared": (
        ["--trainer.accelerator", "cpu", "--devices", "2", "--strategy", "tile_parallel"],
        r"tile_parallel deals out tiles: set model\.tile",
    ),
    "no run to resume": (["--resume", "nowhere"], r"nowhere: is not the folder of a run"),
}


@pytest.mark.parametrize("case", BAD_INPUTS)
def test_bad_input_ends_in_one_line_and_exit_code_2(case: str, capfd: pytest.CaptureFixture[str]) -> None:
    options, message = BAD_INPUTS[case]
    before = sorted(Path().rglob("*"))
    assert main(["plan", *JOB, *options]) == 2
    told = capfd.readouterr()
    assert re.fullmatch(rf"nst: error: [^\n]*{message}[^\n]*\n", told.err), told.err
    assert told.out == ""
    assert sorted(Path().rglob("*")) == before


def test_has_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--help"]) == 0
    assert "usage: nst plan" in capsys.readouterr().out
