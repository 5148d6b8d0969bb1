"""Every shipped configuration runs, small and short."""

from __future__ import annotations

from pathlib import Path

import pytest

from nst_lightning.__main__ import main

ROOT = Path(__file__).parents[1]
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))


def test_there_are_configurations() -> None:
    assert ROOT / "configs/quickstart.yaml" in CONFIGS


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: str(path.relative_to(ROOT)))
def test_runs(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)  # the samples' names are looked up there
    assert (
        main(["fit", "--config", str(config), "--size", "64", "--steps", "4", "--output", str(tmp_path / "run")]) == 0
    )
    pictures = list((tmp_path / "run").glob("*.png"))
    assert len(pictures) == (6 if config.stem == "many_pairs" else 1)
    assert all(picture.stat().st_size > 1000 for picture in pictures)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: str(path.relative_to(ROOT)))
def test_begins_with_the_command_that_runs_it(config: Path) -> None:
    assert config.read_text().startswith(f"# nst fit --config {config.relative_to(ROOT).as_posix()}\n")
