"""`nst paint`, `nst_lightning.paint` and `--init painter:`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import nst_lightning
from nst_lightning import images
from nst_lightning.__main__ import main
from nst_lightning.image_files import read_metadata
from nst_lightning.painters import PainterNetwork, Trained, load


@pytest.fixture
def painter(workplace: Path) -> Path:
    torch.manual_seed(0)
    Trained(PainterNetwork(2, 4), ("dawn", "dusk"), {"crop": 64}).write(workplace / "p.safetensors")
    return workplace / "p.safetensors"


def paint(*words: str) -> int:
    return main(["paint", *words, "--painter=p.safetensors", "--accelerator=cpu"])


def test_photographs_are_painted(painter: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("photos").mkdir()
    opacity = np.tile(np.linspace(0, 255, 96, dtype=np.uint8), (80, 1))
    pixels = np.asarray(Image.open("photo.png").convert("RGB"))
    Image.fromarray(np.dstack([pixels, opacity])).save("photos/a.png")
    Path("photos/b.png").write_text("no picture")
    assert paint("photos", "-o", "out", "--styles", "dawn=1", "dusk=3", "--size=64") == 2
    told = capsys.readouterr()
    assert told.out == "out/a_dawn_dusk.png\n"
    assert "nst: error: photos/b.png: is not an image" in told.err
    assert told.err.endswith("nst: 1 of 2 photographs cannot be read and were skipped\n")
    picture = images.read("out/a_dawn_dusk.png")
    assert picture.size == (53, 64)
    assert picture.alpha is not None
    settings = json.loads(read_metadata("out/a_dawn_dusk.png")["nst_lightning"])
    assert settings["styles"] == {"dawn": 0.25, "dusk": 0.75}
    assert settings["painter"].startswith("p.safetensors sha256 ")


def test_python_paints_as_the_command_line_and_nothing_is_overwritten(
    painter: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert [paint("photo.png", "-o", "x.png", "--strength=0.5") for _ in range(2)] == [0, 0]
    assert capsys.readouterr().out == "x.png\nx-2.png\n"
    painted = nst_lightning.paint("photo.png", painter, strength=0.5, accelerator="cpu")
    assert np.array_equal(np.asarray(painted), np.asarray(Image.open("x.png")))
    assert np.array_equal(np.asarray(painted), np.asarray(Image.open("x-2.png")))
    assert isinstance(nst_lightning.paint(["photo.png"], painter, accelerator="cpu"), list)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["photo.png", "painting.png", "-o", "x.png"],
            "x.png: one file cannot hold 2 pictures; name a folder as output",
        ),
        (["photo.png", "--styles=noon=1"], "the painter has no style 'noon'; it has dawn, dusk"),
        (["photo.png", "--styles=noon"], "styles are given as NAME=WEIGHT, e.g. dawn=0.3 dusk=0.7, got 'noon'"),
        (["photo.png", "--size=8"], "size must be a whole number of pixels from 16, got 8"),
        (["photo.png", "-o", "x.gif"], "x.gif: has suffix '.gif'"),
    ],
)
def test_what_cannot_be_used_is_one_line(
    painter: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert paint(*words) == 2
    told = capsys.readouterr()
    assert told.err.startswith(f"nst: error: {message}")
    assert told.err.count("\n") == 1


def test_a_painters_picture_is_a_start(painter: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("pairs.csv").write_text("content,style,init\nphoto.png,painting.png,painter:p.safetensors\n")
    still = ["--size=64", "--steps=1", "--stages=1", "--optimizer=adam", "--model.optimizer.lr=1e-9", "--scores=off"]
    still += ["--style_layers=relu1_1", "--content_layers=relu1_1"]
    assert main(["fit", "--pairs=pairs.csv", *still, "-o", "run"]) == 0
    assert main(["fit", "photo.png", "painting.png", "--init=painter:bundled", *still, "-o", "own"]) == 0
    photograph = images.resize(images.read("photo.png").rgb, (53, 64)).clamp(0, 1)
    for file, folder in ((painter, "run"), ("bundled", "own")):
        start = images.read(f"{folder}/photo_painting.png").rgb
        torch.testing.assert_close(start, load(file).paint(photograph), rtol=0, atol=0.002)
    recipe = json.loads(read_metadata("run/photo_painting.png")["nst_lightning_run"])["configuration"]
    assert recipe["data"]["pairs"][0]["init"] == "painter:p.safetensors"
    assert main(["fit", "photo.png", "painting.png", "--init=painter:photo.png"]) == 2
    assert "photo.png: is no painter" in capsys.readouterr().err
