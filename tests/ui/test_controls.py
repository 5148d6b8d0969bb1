"""Controls: their defaults are those of `nst fit`, and a picture's settings come back as options that it takes."""

from __future__ import annotations

import json
import re

import pytest

from nst_lightning.cli import arguments as typed
from nst_lightning.cli.options import known
from nst_lightning.errors import InputError
from nst_lightning.ui import controls
from nst_lightning.ui.controls import CONTROLS

PAINTED = {
    "stages": "32 px x 6, 64 px x 7", "style_scale": 0.5, "backbone": "vgg19", "style_weight": 30000.0, "seed": 4,
    "content_layers": "relu4_2", "style_loss": "gram", "init": "style", "convention": "absolute", "pooling": "max",
    "optimizer": "LBFGS(lr=1.0)", "pixel_range": None, "tile": "off",
}  # fmt: skip


def test_defaults_are_those_of_nst_fit_and_then_no_option_is_needed() -> None:
    found = controls.defaults()
    assert (found["style_weight"], found["content_weight"], found["style_loss"]) == (2.5, 1, "gram,matched,nearest")
    assert (found["size"], found["steps"], found["stages"], found["init"]) == (512, 240, 2, "content")
    assert controls.arguments(found) == []
    assert all(control.low <= control.number(found[name]) for name, control in CONTROLS.items() if not control.choices)
    assert set(CONTROLS) <= set(known())


def test_what_differs_becomes_options_that_nst_fit_reads() -> None:
    words = controls.arguments({**controls.defaults(), "style_weight": 4, "size": 64, "preset": "study"})
    assert words == ["--style_weight=4", "--size=64", "--preset=study"]
    assert dict(typed.read(words).options) == {"model.style_weight": ("4",), "data.size": ("64",)}


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("size", 10_000, "Size: must be 32 to 2048, got 10000"),
        ("steps", "many", "How long: must be 2 to 1000, got 'many'"),
        ("style_weight", float("nan"), "Strength of the painting: must be"),
        ("style_weight", None, "Strength of the painting: must be"),
        ("init", "/etc/passwd", "Start from: must be one of content, style"),
        ("style_loss", "gram\n--output=x", "Manner: must be one of"),
    ],
)
def test_what_no_control_can_be_set_to_is_refused(name: str, value: object, said: str) -> None:
    with pytest.raises(InputError, match=re.escape(said)):
        controls.arguments({**controls.defaults(), name: value})


@pytest.mark.parametrize("other", ["--output=x", "--weights=x", "--pooling=/x", "--trainer.callbacks=x", "--config=a"])
def test_a_picture_brings_along_no_paths_and_no_classes(other: str) -> None:
    with pytest.raises(InputError, match="is not a setting that a picture may bring along"):
        controls.arguments(controls.defaults(), [other])


def test_a_pictures_settings_come_back() -> None:
    found, others, lost = controls.restored({"nst_lightning": json.dumps(PAINTED)})
    assert (found["size"], found["steps"], found["stages"], found["seed"]) == (64, 13, 2, 4)
    assert (found["style_scale"], found["backbone"], found["style_weight"], found["init"]) == (
        0.5,
        "vgg19",
        3e4,
        "style",
    )
    assert (others, lost) == (["--convention=absolute"], [])
    words = controls.arguments(found, others)
    assert {"--size=64", "--steps=13", "--style_weight=30000", "--convention=absolute"} <= set(words)
    typed.read(words)


def test_the_whole_configuration_goes_before_what_is_written_for_reading() -> None:
    run = {"data": {"size": 96, "steps": 20, "stages": 3}, "model": {"style_layers": {"relu1_1": 2.0}, "tv_loss": "l1"}}
    texts = {"nst_lightning": json.dumps(PAINTED), "nst_lightning_run": json.dumps(run)}
    found, others, _ = controls.restored(texts)
    assert (found["size"], found["steps"], found["stages"]) == (96, 20, 3)
    assert '--style_layers={"relu1_1": 2.0}' in others
    assert "--tv_loss=l1" in others
    typed.read(controls.arguments(found, others))


def test_what_cannot_come_back_is_named() -> None:
    settings = {**PAINTED, "optimizer": "Adam(lr=0.02)", "init": "/home/a.png", "stages": "5000 px x 9"}
    found, _, lost = controls.restored({"nst_lightning": json.dumps(settings)})
    assert lost == ["optimizer Adam(lr=0.02)", "size 5000", "init /home/a.png"]
    assert (found["init"], found["size"]) == ("content", 512)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000])
def test_a_picture_without_settings_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="has no settings in it"):
        controls.restored({"nst_lightning": text})
