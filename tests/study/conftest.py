"""What tests of the study share: small samples, runs in this process, which has torch already, and results on disk."""

from __future__ import annotations

import io
import json
import textwrap
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from torch.utils.tensorboard.summary import scalar

from nst_lightning import images
from nst_lightning.__main__ import main
from nst_lightning.callbacks.tensorboard import EventFile
from nst_lightning.runs import Run
from nst_lightning.study import runner
from tests.conftest import SAMPLES

SIZES = {"content": (64, 48), "style": (48, 64)}


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with two small samples of each kind."""
    monkeypatch.chdir(tmp_path)
    for kind, names in (("content", ("chelsea", "temple")), ("style", ("night_cafe", "pere_tanguy"))):
        folder = tmp_path / f"data/{kind}-images"
        folder.mkdir(parents=True)
        for name in names:
            with Image.open(SAMPLES / f"{kind}-images/{name}.jpg") as image:
                image.convert("RGB").resize(SIZES[kind]).save(folder / f"{name}.png")
    return tmp_path


def called_here(command: Sequence[str]) -> str | None:
    """Does what `runner._call` does, in this process."""
    assert list(command[1:3]) == ["-m", "nst_lightning"]
    said = io.StringIO()
    with redirect_stdout(io.StringIO()), redirect_stderr(said):
        code = main(list(command[3:]))
    return None if code == 0 else said.getvalue().splitlines()[-1].removeprefix("nst: error: ")


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that were run, in this process."""
    run: list[list[str]] = []

    def call(command: Sequence[str]) -> str | None:
        run.append(list(command))
        return called_here(command)

    monkeypatch.setattr(runner, "_call", call)
    return run


@pytest.fixture
def written(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a sweep's file in a folder that is not the working directory."""

    def write(text: str, name: str = "sweep.yaml") -> Path:
        path = tmp_path / "sweeps" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return path

    return write


# ---- results as they lie on disk, with tiny pictures ----

SIDE = (36, 24)
WEIGHTS = ["1", "10"]


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """The folder of a sweep of two axes and two pairs; an undefined score, and a cell without a picture."""
    return write_sweep(tmp_path / "sweep")


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """The folder of two sweeps and their findings."""
    for name in ("2-second", "1-first"):
        write_sweep(tmp_path / "study" / name, title=f"Title of {name}")
    (tmp_path / "study/empty").mkdir()
    finding = {"claim": "More is <b>more</b>", "figure": "Fig. 3", "prediction": "rises", "why": "It does."}
    numbers = {"effect": -0.25, "low": -0.5, "high": -0.125, "p": 0.03125, "corrected": 0.0625}
    undefined = dict.fromkeys(numbers)
    findings = [
        {"id": "a", **finding, "n": 2, **numbers, "verdict": "agrees"},
        {"id": "b", **finding, "n": 0, **undefined, "verdict": "not run here"},
    ]
    (tmp_path / "study/findings.json").write_text(json.dumps({"findings": findings}))
    return tmp_path / "study"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run of one pair."""
    folder = tmp_path / "run"
    content, style = picture(tmp_path / "temple.png", 40), picture(tmp_path / "church.png", 80)
    settings = {"seed": 7, "style_layers": "relu1_1,relu2_1", "step": 20}
    rgb = images.read(content).rgb
    images.write(folder / "temple_church.png", rgb, metadata={"nst_lightning": json.dumps(settings)})
    (folder / "config.yaml").write_text(f"data:\n  content: {content}\n  style: {style}\n  pairing: zip\n")
    (folder / "scores").mkdir()
    scores = {"pair": "temple_church", "outline": 0.4375, "ms_ssim": None, "texture_distance_1": 0.5, "loss/total": 2e9}
    (folder / "scores/temple_church.json").write_text(json.dumps(scores))
    return folder


@pytest.fixture
def made(run: Path) -> Path:
    """The same, with the curves of its losses, a film and pictures on the way."""
    files = Run(run)
    for step in (20, 10):
        picture(files.picture_at("temple_church", step), step)
    picture(files.film("temple_church", ".webp"), 9)
    events = EventFile(files.tensorboard("temple_church"), 0)
    for step in (1, 2):
        events.add(step, scalar("loss/total", 8.0 / step), scalar("score/leak", 0.5))  # type: ignore[no-untyped-call]
    return run


def picture(path: Path, shade: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", SIDE, (shade, 120, 200 - shade)).save(path)
    return path


def write_sweep(folder: Path, **changes: Any) -> Path:
    content, style = picture(folder / "in/temple.png", 10), picture(folder / "in/church.png", 20)
    cells: list[dict[str, Any]] = []
    for weight in WEIGHTS:
        for init in ("content", "style"):
            for pair in ("temple_church", "other"):
                number = len(cells)
                name = f"{pair}__weight-{weight}__init-{init}"
                cells.append(
                    {
                        "name": name,
                        "values": {"style_weight": weight, "init": init},
                        "pair": pair,
                        "content": str(content),
                        "style": f"in/church.png|{style}|gone.png",
                        "seed": 0,
                        "picture": str(picture(folder / f"runs/0/{name}.png", 30 * number).relative_to(folder)),
                        "losses": {"total": 1.5e10 / (number + 1)},
                        "scores": {
                            "outline": (number * 5 % 8) / 16,
                            "ms_ssim": None if number % 3 == 0 else number / 64,
                        },
                        "settings": {"backbone": "vgg16"},
                    }
                )
    cells[-1]["picture"] = None
    results = {
        "title": "What a <weight> does",
        "about": "About it.",
        "axes": {"style_weight": WEIGHTS, "init": ["content", "style"]},
        "versions": {"torch": "9.9.9"},
        "machine": "an abacus",
        "base": {"pooling": "max", "tv_weight": 1.0},
        "cells": cells,
        "plots": [str(picture(folder / "plots/scores.png", 90).relative_to(folder))],
    }
    (folder / "results.json").write_text(json.dumps({**results, **changes}))
    return folder
