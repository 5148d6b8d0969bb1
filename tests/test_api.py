"""`stylize` from Python: the same result as the command line, from files, PIL images and tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import nst_lightning
from nst_lightning.__main__ import main
from nst_lightning.errors import InputError

OPTIONS: dict[str, Any] = {"size": 32, "steps": 6, "content_layers": "relu2_1", "style_layers": "relu1_1,relu2_1"}


@pytest.fixture
def pictures(tmp_path: Path) -> tuple[Path, Path]:
    paths = (tmp_path / "photo.png", tmp_path / "painting.png")
    for seed, path in enumerate(paths):
        Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 48, 3), dtype=np.uint8)).save(path)
    return paths


def pixels(content: Any, style: Any, **options: Any) -> np.ndarray[Any, Any]:  # noqa: ANN401 - any source
    return np.asarray(nst_lightning.stylize(content, style, progress=False, **{**OPTIONS, **options}))


@pytest.mark.parametrize("extra", [{}, {"init": "gaussian", "seed": 5, "optimizer": "adam", "style_weight": 3e2}])
def test_gives_what_the_command_line_gives(extra: dict[str, Any], pictures: tuple[Path, Path], tmp_path: Path) -> None:
    content, style = pictures
    options = [text for name, value in {**OPTIONS, **extra}.items() for text in (f"--{name}", str(value))]
    output = tmp_path / "out.png"
    assert main(["fit", "--content", str(content), "--style", str(style), "--output", str(output), *options]) == 0
    with Image.open(output) as written:
        assert np.array_equal(pixels(content, style, **extra), np.asarray(written))


def test_takes_files_pil_images_and_tensors_alike(pictures: tuple[Path, Path]) -> None:
    content, style = pictures
    expected = pixels(content, str(style))
    with Image.open(content) as photo, Image.open(style) as painting:
        assert np.array_equal(pixels(photo, painting), expected)
        tensors = [torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1) / 255 for image in (photo, painting)]
    assert np.array_equal(pixels(*tensors), expected)


def test_returns_an_rgb_image_of_the_size_asked_for(pictures: tuple[Path, Path]) -> None:
    picture = nst_lightning.stylize(*pictures, progress=False, **OPTIONS)
    assert isinstance(picture, Image.Image)
    assert (picture.mode, picture.size) == ("RGB", (32, 27))


def test_names_the_options_it_knows(pictures: tuple[Path, Path]) -> None:
    with pytest.raises(InputError, match=r"unknown option 'styleweight'; known are .*style_weight"):
        pixels(*pictures, styleweight=3)
    with pytest.raises(InputError, match=r"unknown optimizer 'sgdd'; known are lbfgs, adam"):
        pixels(*pictures, optimizer="sgdd")


def test_the_package_names_its_public_things_and_no_others() -> None:
    assert nst_lightning.StyleTransfer.__module__ == "nst_lightning.modules.style_transfer"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = nst_lightning.nothing
