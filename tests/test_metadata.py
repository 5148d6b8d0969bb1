"""A picture's metadata and the saved configuration tell whatever may change a pixel: every option in turn."""

from __future__ import annotations

import inspect
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from nst_lightning import image_files
from nst_lightning.__main__ import main
from nst_lightning.backbones import SPECS
from nst_lightning.data import PairDataModule
from nst_lightning.modules import StyleTransfer

BASE = {
    "size": "48",
    "steps": "2",
    "stages": "1",
    "content_layers": "relu2_1",
    "style_layers": "relu1_1,relu2_1",
    "init": "gaussian",
    "scores": "off",
}
# Another value for every option that may change a pixel.
CHANGES = {
    "backbone": "vgg16_experimental",
    "weights": "w.pth",
    "pooling": "avg",
    "content_layers": "relu1_1",
    "style_layers": "{relu1_1: 2, relu2_1: 1}",
    "content_weight": "1e4",
    "style_weight": "3",
    "tv_weight": "2",
    "temporal_weight": "2",
    "init": "uniform",
    "optimizer": "adam",
    "seed": "1",
    "tile": "32",
    "style_loss": "wasserstein",
    "content_loss": "self_similarity",
    "tv_loss": "l1",
    "style_rotations": True,
    "convention": "absolute",
    "border": "replicate",
    "normalized": "true",
    "pixel_range": "256",
    "compile": "true",
    "size": "40",
    "steps": "3",
    "stages": "2",
    "style_scale": "0.5",
    "style_weights": "1",
    "mask_edge": "inside",
    "colors": "luminance",
    "print": "2x1cm@100dpi",
    "upscale": "true",
    "strength": "0.5",
    "precision": "bf16-mixed",
}
# What says which images there are and how the work is dealt out: an image's result does not depend on it, or its
# name says it.
OF_IMAGES = {"content", "style", "pairing", "pairs", "batch_size", "resume"}
OF_IMAGES |= {"content_mask", "style_mask", "regions", "content_weights", "keep_outside"}


@pytest.fixture(scope="module", autouse=True)
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Any:  # noqa: ANN401 - a generator
    """A working directory with two small pictures and weights."""
    folder = tmp_path_factory.mktemp("metadata")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "compile", lambda function, **_: function)  # what it gives is not looked at here
        patch.chdir(folder)
        for name, seed in (("photo", 1), ("painting", 2)):
            pixels = np.random.default_rng(seed).integers(0, 256, (40, 44, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(f"{name}.png")
        torch.manual_seed(0)
        state = SPECS["vgg16"].build().state_dict()
        torch.save({key: value for key, value in state.items() if not key.startswith("classifier")}, "w.pth")
        yield
        written.cache_clear()


@cache
def written(option: str | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """The metadata of the picture that is painted with another value of an option, and the run's configuration."""
    options = {**BASE, **({} if option is None else {option: CHANGES[option]})}
    if option == "print":  # instead of a size
        options["size"] = "null"
    name = "base" if option is None else option
    given = [f"--{key}={value}" for key, value in options.items()]
    assert main(["fit", "--content", "photo.png", "--style", "painting.png", "--output", name, *given]) == 0
    told = image_files.read_metadata(Path(name) / "photo_painting.png")["nst_lightning"]
    return json.loads(told), yaml.safe_load((Path(name) / "config.yaml").read_text())


def test_every_option_of_model_and_data_is_among_those_that_are_changed() -> None:
    options = {*inspect.signature(StyleTransfer).parameters, *inspect.signature(PairDataModule).parameters}
    assert options | {"precision"} == CHANGES.keys() | OF_IMAGES | {"graph"}  # which needs a GPU


@pytest.mark.parametrize("option", CHANGES)
def test_the_metadata_tell_an_option_that_may_change_a_pixel(option: str) -> None:
    (before, _), (after, _) = written(None), written(option)
    assert {key: value for key, value in before.items() if key != "step"} != {
        key: value for key, value in after.items() if key != "step"
    }


@pytest.mark.parametrize("option", CHANGES)
def test_the_saved_configuration_tells_an_option(option: str) -> None:
    (_, before), (_, after) = written(None), written(option)
    (group,) = [group for group in ("model", "data", "trainer") if option in after[group]]
    assert after[group][option] != before[group].get(option)  # what is null is left out


def test_one_option_changes_one_key_of_the_configuration() -> None:
    (_, before), (_, after) = written(None), written("seed")
    changed = {
        f"{group}.{key}"
        for group in ("model", "data", "trainer")
        for key in {*before[group], *after[group]}
        if before[group].get(key) != after[group].get(key)
    }
    assert changed == {"model.seed"}
