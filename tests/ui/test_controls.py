"""Controls: their defaults are those of `nst fit`, and a picture's settings come back as options that it takes."""

from __future__ import annotations

import re

import pytest

from nst_lightning.cli import arguments as typed
from nst_lightning.cli.options import known
from nst_lightning.errors import InputError
from nst_lightning.recipe import Recipe
from nst_lightning.ui import controls
from nst_lightning.ui.controls import CONTROLS

ROW = {"content": "/home/a.jpg", "style": "/home/b.jpg"}


def recipe(data: object, model: object, row: dict[str, object] | None = None) -> Recipe:
    """As a picture has it, which anyone may have written."""
    pairs = [{**ROW, **({} if row is None else row)}]
    return Recipe({"data": {**data, "pairs": pairs} if isinstance(data, dict) else data, "model": model}, {})


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
    model = {"backbone": "vgg19", "style_weight": 3e4, "init": "style", "convention": "absolute", "pooling": "max"}
    model |= {
        "seed": 4,
        "style_loss": "gram",
        "style_layers": {"relu1_1": 2.0},
        "tv_loss": "l1",
        "content_layers": None,
    }
    data = {"size": 96, "steps": 20, "stages": 3, "style_scale": 0.5, "upscale": False}
    found, others, lost = controls.restored(recipe(data, model, {"steps": 21}))
    assert (found["size"], found["steps"], found["stages"], found["seed"]) == (96, 21, 3, 4)
    assert (found["style_scale"], found["backbone"], found["style_weight"], found["init"]) == (
        0.5,
        "vgg19",
        3e4,
        "style",
    )
    assert others == ['--style_layers={"relu1_1": 2.0}', "--tv_loss=l1", "--convention=absolute"]
    assert lost == []
    words = controls.arguments(found, others)
    assert {"--size=96", "--steps=21", "--style_weight=30000", "--convention=absolute"} <= set(words)
    typed.read(words)


def test_what_cannot_come_back_is_named() -> None:
    model = {"optimizer": {"class_path": "os.system"}, "init": "/home/a.png", "pooling": "/etc"}
    found, others, lost = controls.restored(recipe({"size": 5000, "stages": [{"size": 9}]}, model))
    assert lost == ["optimizer", "size", "init", "stages", "pooling"]
    assert (found["init"], found["size"], found["stages"], others) == ("content", 512, 2, [])


@pytest.mark.parametrize("model", [None, [], "x", {"seed": [[]], "style_loss": {}, "pooling": {"a": [1]}}])
def test_what_others_wrote_does_no_harm(model: object) -> None:
    found, _, _ = controls.restored(recipe({"size": {}, "steps": "9" * 5000}, model))
    assert controls.arguments(found) == []
