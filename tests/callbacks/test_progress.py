"""What the progress bar says."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from lightning.pytorch.callbacks import ModelCheckpoint

from nst_lightning.callbacks import ProgressBar
from nst_lightning.errors import InputError
from tests.callbacks.conftest import Run


def lines(told: str) -> list[str]:
    return [line for line in re.split(r"[\r\n]", told) if "image_image" in line]


def test_shows_pair_stage_step_loss_and_the_time_left(run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    run(ProgressBar(interval=0))
    shown = lines(capfd.readouterr().err)
    pair = r"(\d+x\d+) px \((\d)/2\), image_image_(\d) \(\4/2\)"
    pattern = r"^ *\d+%\|.{10}\| (\d+)/16, left \d:\d\d:\d\d, loss \S+, " + pair
    matches = [re.search(pattern, line) for line in shown]
    assert all(matches), shown
    seen = [match.groups() for match in matches if match is not None]
    steps = [int(groups[0]) for groups in seen]
    assert steps == sorted(steps)
    assert set(steps) == set(range(1, 17))
    assert {groups[1:] for groups in seen} == {
        (size, stage, pair) for pair in "12" for stage, size in (("1", "16x12"), ("2", "32x24"))
    }


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_a_narrow_terminal_shows_the_time_left_and_the_loss(
    columns: int, run: Run, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "get_terminal_size", lambda *_: os.terminal_size((columns, 30)))
    run(ProgressBar(interval=0))
    shown = [line for line in re.split(r"[\r\n]", capfd.readouterr().err) if "/16, " in line]
    assert all(len(line) <= columns for line in shown)
    ends = r"(, \d+x\d+ px \(\d/2\)(, image_image_\d \(\d/2\))?)?"
    assert all(re.search(rf"left \d:\d\d:\d\d, loss [^ ,]+{ends} *$", line) for line in shown)  # whole words


def test_an_unknown_score_is_refused_before_anything_is_painted() -> None:
    with pytest.raises(InputError, match=r"^show_score: unknown score 'nothing'; known are outline, .*overall$"):
        ProgressBar(shown="nothing")


def test_goes_on_with_the_right_count_after_a_resume(
    run: Run, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run(ModelCheckpoint(tmp_path / "kept", filename="{step}", every_n_train_steps=5, save_top_k=-1))
    capfd.readouterr()
    again = ModelCheckpoint(tmp_path / "again", every_n_train_steps=5)
    with pytest.warns(UserWarning, match="dirpath has changed"):
        run(ProgressBar(interval=0), again, ckpt_path=tmp_path / "kept" / "step=10.ckpt")
    shown = lines(capfd.readouterr().err)
    assert re.search(r" 69%\|.*\| 11/16, ", shown[0]), shown[0]
    assert re.search(r"100%\|.*\| 16/16, left 0:00:00", shown[-1])


def test_time_left_counts_pixels_and_not_steps(
    run: Run, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    clock = iter(range(1000))
    monkeypatch.setattr("nst_lightning.callbacks.progress.time.monotonic", lambda: float(next(clock)))
    run(ProgressBar(interval=0), batch_size=2)
    first = lines(capfd.readouterr().err)[0]
    # One step of 16x12 px in one second; what is left are 3 of that and 4 of 32x24 px, each four times as long.
    assert "left 0:00:19" in first


def test_is_silent_when_disabled(run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    bar = ProgressBar(interval=0)
    bar.disable()
    run(bar)
    assert "image_image" not in capfd.readouterr().err
