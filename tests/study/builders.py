"""Predictions, and the results of sweeps made for them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from nst_lightning.study.predictions import Prediction
from nst_lightning.study.verdicts import Finding, check

BEST = Prediction("best", "A is best.", "sweep", "overall", "highest", "init", value="a")
RISE = Prediction("rise", "It rises.", "sweep", "overall", "rise", "init", values=("a", "b", "c"))
FALL = replace(RISE, id="fall", test="fall")
FLAT = Prediction("flat", "It is flat.", "sweep", "overall", "flat", "init", margin=0.1)
STEP = Prediction("step", "It steps.", "sweep", "overall", "step", "init", before=("a", "b"), after=("c",))
NOISE = np.random.default_rng(0).normal(0, 0.01, (12, 3))


def sweep(folder: Path, rows: Any, values: Sequence[object] = ("a", "b", "c"), figure: str = "sweep") -> Path:  # noqa: ANN401
    """Writes results of one seed: a row a pair, a column a value."""
    cells = [cell(f"pair{i}", value, score) for i, row in enumerate(rows) for value, score in zip(values, row)]  # noqa: B905
    return written(folder, cells, figure)


def around(*means: float) -> Any:  # noqa: ANN401
    """Scores of twelve pairs that vary a little around these means."""
    return NOISE + np.array(means)


def cell(pair: str, value: object, score: object, seed: int = 0, **others: object) -> dict[str, object]:
    values = {"init": str(value), **{name: str(other) for name, other in others.items()}}
    return {
        "name": f"{pair} {seed} {values}",
        "pair": pair,
        "seed": seed,
        "values": values,
        "scores": {"overall": score},
    }


def written(folder: Path, cells: object, figure: str = "sweep") -> Path:
    (folder / figure).mkdir(parents=True, exist_ok=True)
    (folder / figure / "results.json").write_text(json.dumps({"cells": cells}))
    return folder


def only(prediction: Prediction, folder: Path) -> Finding:
    (finding,) = check([prediction], folder)
    return finding


def greater(differences: Any) -> float:  # noqa: ANN401
    return float(stats.ttest_1samp(differences, 0, alternative="greater").pvalue)
