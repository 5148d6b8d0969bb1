"""Results of a sweep, a study and a run as they lie on disk, with tiny pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from nst_lightning import images

SIDE = (36, 24)
WEIGHTS = [1, 10]


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
    numbers = {"n": 2, "effect": -0.25, "low": -0.5, "high": -0.125, "p": 0.03125}
    undefined = dict.fromkeys(numbers)
    findings = [
        {"id": "a", **finding, **numbers, "verdict": "agrees"},
        {"id": "b", **finding, **undefined, "verdict": "not run here"},
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
    means: list[tuple[Any, ...]] = [(1, "outline", 2, 0.5, 0.25, 0.75), (1, "ms_ssim", 1, 0.125, None, None)]
    means += [(10, "outline", 2, 0.375, 0.3, 0.5), (10, "ms_ssim", 0, None, None, None)]
    keys = ("score", "n", "mean", "low", "high")
    table = [
        {"values": {"style_weight": weight, "init": "style"}, **dict(zip(keys, numbers, strict=True))}
        for weight, *numbers in means
    ]
    results = {
        "title": "What a <weight> does",
        "about": "About it.",
        "axes": {"style_weight": WEIGHTS, "init": ["content", "style"]},
        "versions": {"torch": "9.9.9"},
        "machine": "an abacus",
        "seconds": 75.5,
        "date": "2026-11-24",
        "base": {"pooling": "max", "tv_weight": 1.0},
        "cells": cells,
        "table": table,
        "plots": [str(picture(folder / "plots/scores.png", 90).relative_to(folder))],
        "grid": "grid.png",
    }
    (folder / "results.json").write_text(json.dumps({**results, **changes}))
    return folder
