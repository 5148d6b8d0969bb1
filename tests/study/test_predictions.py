"""Predictions that are read, and those that are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from nst_lightning.errors import InputError
from nst_lightning.study.predictions import Prediction, read_predictions

SHIPPED = Path(__file__).parents[2] / "configs/figures/predictions.yaml"
GOOD = {"id": "x", "claim": "c", "figure": "f", "score": "s", "test": "rise", "axis": "a"}
OF = "id, claim, figure, score, test, axis"


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({}, r"must be a list of predictions, at least one"),
        ([], r"must be a list of predictions, at least one"),
        (["x"], 'entry 1: must be an object, got "x"'),
        ([{"claim": "c"}], "entry 1: id is missing; expected a text"),
        ([GOOD, GOOD], "entry 2: id 'x' is taken; give each an id of its own"),
        ([{**GOOD, "figure": 3}], "entry 1: figure must be a text, got 3"),
        ([{**GOOD, "test": "best"}], 'entry 1: test must be one of highest, rise, fall, flat, step, got "best"'),
        ([{**GOOD, "margins": 1}], f"entry 1: unknown key 'margins'; known are {OF}, value, values, before, after"),
        ([{**GOOD, "values": [1, 2, [3]]}], r"values\[2\] must be a text or a whole number or a number, got \[3\]"),
        ([{**GOOD, "values": "abc"}], 'values must be a list, got "abc"'),
        ([{**GOOD, "values": [1, 2, 3, "3.0"]}], "values, before and after must have each value once"),
        ([{**GOOD, "effect": -1}], "effect must be a finite number, 0 or above, got -1"),
        ([{**GOOD, "effect": True}], "effect must be a number, got true"),
        ([{**GOOD, "test": "flat"}], "margin must be a finite number, above 0, got nan"),
        ([{**GOOD, "test": "flat", "margin": 0}], "margin must be a finite number, above 0, got 0"),
        ([{**GOOD, "test": "highest"}], "entry 1: value is missing; expected a word or a number"),
        (
            [{**GOOD, "test": "highest", "value": 1, "values": [2, 3]}],
            "value must be among values, got 1; those are 2, 3",
        ),
        (
            [{**GOOD, "test": "step", "before": [1]}],
            "before and after must each be a list of words or numbers, at least one",
        ),
        (
            [{**GOOD, "test": "step", "before": [1, 2], "after": [2]}],
            "values, before and after must have each value once",
        ),
    ],
)
def test_predictions_that_are_none(entries: object, message: str, tmp_path: Path) -> None:
    path = tmp_path / "predictions.yaml"
    path.write_text(yaml.safe_dump(entries))
    with pytest.raises(InputError, match=f"^{path}: .*{message}"):
        read_predictions(path)


def test_predictions_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot be read \(FileNotFoundError\)"):
        read_predictions(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("- {")
    with pytest.raises(InputError, match=r"bad\.yaml: is no YAML \("):
        read_predictions(tmp_path / "bad.yaml")


def test_the_shipped_predictions_are_read() -> None:
    predictions = {each.id: each for each in read_predictions(SHIPPED)}
    assert len(predictions) == 19
    assert predictions["init-content-best"] == Prediction(
        "init-content-best",
        "Content initialisation alone satisfies the heuristics.",
        "initialization",
        "overall",
        "highest",
        "init",
        "content",
        ("content", "style", "gaussian", "uniform"),
    )
    assert predictions["style-layers-texture"].before == (1, 2, 3)
    assert predictions["content-layer-palette"].margin == 0.1
