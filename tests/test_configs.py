"""Every shipped configuration runs, small and short."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch

from nst_lightning.__main__ import main
from nst_lightning.study import experiment, runner
from nst_lightning.study.predictions import read_predictions
from tests.study.conftest import called_here

ROOT = Path(__file__).parents[1]
FIGURES = ROOT / "configs/figures"
PREDICTIONS = FIGURES / "predictions.yaml"
SWEEPS = [path for path in sorted(FIGURES.glob("*.yaml")) if path != PREDICTIONS]
PAINTER = ROOT / "configs/painter.yaml"
CONFIGS = [path for path in sorted((ROOT / "configs").rglob("*.yaml")) if path.parent != FIGURES and path != PAINTER]
FAILING = {  # runs without a network, by the sweep's name
    "backbone": ["backbone-resnet50", "backbone-inception_v3"],
}


@pytest.fixture
def runs_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep's runs are done in this process, where nothing is downloaded and the samples' names are looked up."""

    def no_network(url: str, **_: object) -> None:
        raise OSError("no network")

    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(runner, "_call", called_here)
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", no_network)


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_there_are_configurations() -> None:
    assert ROOT / "configs/quickstart.yaml" in CONFIGS
    assert FIGURES / "initialization.yaml" in SWEEPS


@pytest.mark.parametrize("config", CONFIGS, ids=named)
def test_runs(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)  # the samples' names are looked up there
    assert (
        main(["fit", "--config", str(config), "--size", "64", "--steps", "4", "--output", str(tmp_path / "run")]) == 0
    )
    pictures = list((tmp_path / "run").glob("*.png"))
    assert len(pictures) == (6 if config.stem == "many_pairs" else 1)
    assert all(picture.stat().st_size > 1000 for picture in pictures)


@pytest.mark.parametrize("config", CONFIGS, ids=named)
def test_begins_with_the_command_that_runs_it(config: Path) -> None:
    assert config.read_text().startswith(f"# nst fit --config {named(config)}\n")


def test_a_painter_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert PAINTER.read_text().startswith(f"# nst train --config {named(PAINTER)} ")
    small = ["--photographs=data/content-images", "--held_out=temple", "--steps=2", "--crop=32", "--workers=0"]
    file = tmp_path / "painter.safetensors"
    assert main(["train", "--config", str(PAINTER), *small, "--accelerator=cpu", "-o", str(file)]) == 0
    assert 500_000 < file.stat().st_size < 2_000_000


@pytest.mark.parametrize("path", SWEEPS, ids=named)
def test_a_sweep_begins_with_the_command_that_runs_it_and_is_short(path: Path) -> None:
    text = path.read_text()
    assert text.startswith(f"# nst sweep {named(path)}\n")
    assert len(text.splitlines()) < 20


@pytest.mark.parametrize("path", SWEEPS, ids=named)
def test_a_sweep_runs(path: Path, tmp_path: Path, runs_here: None, capfd: pytest.CaptureFixture[str]) -> None:
    """On one pair."""
    (tmp_path / "pairs.csv").write_text("content,style\ntemple,church_at_auvers\n")
    options = ("--pairs", str(tmp_path / "pairs.csv"), "--size", "64", "--steps", "4")
    code = main(["sweep", str(path), "--output", str(tmp_path / "out"), *options])
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("nst: error: ")]
    failing = FAILING.get(path.stem, [])
    cells = list(experiment.read(path, {"pairs": str(tmp_path / "pairs.csv")}).cells())
    expected = [cell for cell in cells if cell.group not in failing]
    assert code == (1 if failing else 0)
    assert [line.split()[2] for line in lines] == failing
    assert all(" was not run: cannot download " in line for line in lines)
    told = json.loads((tmp_path / "out/results.json").read_text())
    assert sorted(cell["name"] for cell in told["cells"]) == sorted(cell.name for cell in expected)
    assert all((tmp_path / "out" / cell["picture"]).stat().st_size > 1000 for cell in told["cells"])
    assert "plots/scores.png" in told["plots"]
    assert ("plots/losses.png" in told["plots"]) == (path.stem == "optimizer")
    assert (tmp_path / "out/grid.png").stat().st_size > 10_000
    with (tmp_path / "out/cells.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == len(expected)


def test_the_pairs_of_the_figures_are_six_of_the_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    found = {path.stem: experiment.read(path, {}).pairs for path in SWEEPS}
    assert len(found["initialization"]) == 6
    for pair in (pair for pairs in found.values() for pair in pairs):
        assert Path(str(pair.content)).is_file()
        assert all(Path(str(style)).is_file() for style in pair.styles)


def test_predictions_are_about_the_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    sweeps = {path.stem: experiment.read(path, {}) for path in SWEEPS}
    predictions = read_predictions(PREDICTIONS)
    assert predictions
    for prediction in predictions:
        values = sweeps[prediction.figure].axes[prediction.axis]
        own = () if prediction.value is None else (prediction.value,)
        named = (*own, *(prediction.values or ()), *prediction.before, *prediction.after)
        assert {str(value) for value in named} <= {value.label for value in values}
