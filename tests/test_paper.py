"""Pictures for print: papers in words, and files of 16 bits with their resolution."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import png
import pytest
import tifffile
import torch
from PIL import Image
from torch import Tensor

from nst_lightning import images, recipe
from nst_lightning.__main__ import main
from nst_lightning.data import PairDataModule
from nst_lightning.errors import InputError, explained
from nst_lightning.image_files import ImageError, read_metadata
from nst_lightning.paper import Paper

FAST = (
    *("--steps", "3", "--style_layers", "relu1_1,relu2_1", "--content_layers", "relu2_1"),
    *("--scores", "off", "--style_loss", "gram"),
)


@pytest.mark.parametrize(
    ("text", "pixels"),
    [
        ("60x40cm@300dpi", (4724, 7087)),
        ("40x60cm@300dpi", (4724, 7087)),
        ("600x400mm@300DPI", (4724, 7087)),
        ("12x8in@300dpi", (2400, 3600)),
        ("12.5 x 8 in @ 100dpi", (800, 1250)),
        ("A2@200dpi", (3307, 4677)),
        ("a4@300dpi", (2480, 3508)),
    ],
)
def test_a_paper_has_pixels(text: str, pixels: tuple[int, int]) -> None:
    paper = Paper.of(text)
    assert (round(paper.short * paper.dpi), paper.side) == pixels


@pytest.mark.parametrize(
    "text",
    ["", "A7@300dpi", "A2", "60x40@300dpi", "60x40cm@0dpi", "60x40cm", "0x40cm@300dpi", "-6x4in@9dpi", "6cm@9dpi"],
)
def test_what_is_no_paper_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"^print must be "):
        Paper.of(text)


@pytest.mark.parametrize(("height", "width"), [(64, 96), (96, 64), (100, 100), (50, 200), (2000, 1001)])
def test_a_picture_fills_the_paper_and_stays_on_it(height: int, width: int) -> None:
    paper = Paper.of("60x40cm@72dpi")
    long = paper.long_side(height, width)
    found = sorted(images.fit(height, width, long, upscale=True))
    short = round(paper.short * paper.dpi)
    assert found[0] <= short and found[1] <= paper.side
    larger = sorted(images.fit(height, width, long + 2, upscale=True))
    assert larger[0] > short or larger[1] > paper.side


def test_a_size_beside_a_paper_is_refused(workplace: Path) -> None:
    with pytest.raises(InputError, match=r"^print A6@72dpi gives the size already: set size to null, got 64$"):
        PairDataModule("photo.png", "painting.png", size=64, print="A6@72dpi")
    Path("p.csv").write_text("content,style,size\nphoto.png,painting.png,64\n")
    with pytest.raises(
        InputError, match=r"^pair photo_painting: print A6@72dpi gives the size already, got a size of 64"
    ):
        PairDataModule(pairs="p.csv", print="A6@72dpi")
    with pytest.raises(InputError, match=r"images of 46811 px were asked for, 16384 are allowed"):
        PairDataModule("photo.png", "painting.png", print="A0@1000dpi")


# ---- files ----


def read_deep(file: Path) -> np.ndarray[Any, Any]:
    """The numbers (H, W, C) in a file of 16 bits."""
    if file.suffix == ".tif":
        found: np.ndarray[Any, Any] = tifffile.imread(file)
    else:
        width, height, rows, told = png.Reader(bytes=file.read_bytes()).read()
        assert told["bitdepth"] == 16
        found = np.array([list(row) for row in rows], np.uint16).reshape(height, width, -1)
    assert found.dtype == np.uint16
    return found


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("has_alpha", [False, True])
def test_sixteen_bits_come_back_with_resolution_profile_texts_and_alpha(
    tmp_path: Path, suffix: str, has_alpha: bool
) -> None:
    straight, opacity = torch.rand(1, 3, 20, 31), 0.5 + torch.rand(1, 1, 20, 31) / 2
    alpha: Tensor | None = opacity if has_alpha else None
    rgb = straight * opacity + 1 - opacity if has_alpha else straight
    texts = {recipe.TEXT: "{é}", "Software": "nst-lightning"}
    files = [images.write(tmp_path / f"{name}.{suffix}", rgb, alpha, texts, bits=16, dpi=240) for name in "ab"]
    found = read_deep(files[0])
    wanted = torch.cat([straight, opacity], 1) if has_alpha else straight
    np.testing.assert_allclose(found / 65535, wanted[0].permute(1, 2, 0).numpy(), rtol=0, atol=2 / 65535)
    assert len(np.unique(found[..., 0])) > 256
    assert files[0].read_bytes() == files[1].read_bytes()
    assert read_metadata(files[0]) == texts
    with Image.open(files[0]) as image:
        assert image.mode == ("RGBA" if has_alpha else "RGB")
        assert np.allclose(image.info["dpi"], 240, atol=0.01)
        profile = image.info["icc_profile"]
    with Image.open(images.write(tmp_path / "c.png", rgb)) as image:
        assert profile == image.info["icc_profile"]  # that of sRGB, see test_images
    read = images.read(files[0])
    assert float((read.rgb - rgb).abs().max()) < 2 / 255
    assert (read.alpha is not None) == has_alpha


@pytest.mark.parametrize("suffix", ["png", "tif", "jpg", "webp"])
def test_eight_bits_have_a_resolution_too(tmp_path: Path, suffix: str) -> None:
    with Image.open(images.write(tmp_path / f"a.{suffix}", torch.rand(3, 16, 16), dpi=240)) as image:
        assert np.allclose(image.info.get("dpi", (image.getexif().get(282),)), 240, atol=0.01)


def test_sixteen_bits_that_cannot_be_written_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        ImageError, match=r"a\.jpg: cannot have 16 bits a channel; 8 are allowed, and 16 as \.png, \.tif"
    ):
        images.write(tmp_path / "a.jpg", torch.rand(3, 16, 16), bits=16)
    monkeypatch.setitem(sys.modules, "png", None)
    with pytest.raises(ModuleNotFoundError) as caught:
        images.format_of("a.png", 16)
    assert explained(caught.value)[0].endswith("pip install 'nst-lightning[print]'")


# ---- runs ----


@pytest.mark.usefixtures("workplace")
def test_a_print_is_planned_told_painted_and_made_again(capfd: pytest.CaptureFixture[str]) -> None:
    options = ("--print", "3x6cm@50dpi", *FAST)  # 59 x 118 px, of which a photograph of 96 x 80 fills 70 x 59
    told = "print      70x58 px, 3.6x2.9 cm at 50 dpi"
    assert main(["plan", "photo.png", "painting.png", *options]) == 0
    assert told in capfd.readouterr().out
    assert main(["fit", "photo.png", "painting.png", "-o", "a.tif", "--bits", "16", *options]) == 0
    assert told in capfd.readouterr().err
    assert read_deep(Path("a.tif")).shape == (58, 70, 3)
    with Image.open("a.tif") as image:
        assert image.info["dpi"] == (50, 50)
    assert main(["reproduce", "a.tif", "-o", "b.tif"]) == 0
    assert Path("b.tif").read_bytes() == Path("a.tif").read_bytes()
    capfd.readouterr()
    assert main(["fit", "--resume", "a"]) == 0
    assert "a: nothing left to do" in capfd.readouterr().out
    # The print itself changes no pixel.
    assert main(["fit", "photo.png", "painting.png", "-o", "c.png", "--size", "70", *FAST]) == 0
    rounded = np.round(read_deep(Path("a.tif")) / 257)
    assert np.array_equal(rounded, np.array(Image.open("c.png")))


@pytest.mark.usefixtures("workplace")
def test_sixteen_bits_are_refused_before_the_first_step(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "photo.png", "painting.png", "-o", "a.webp", "--bits", "16", *FAST]) == 2
    assert "a.webp: cannot have 16 bits a channel" in capfd.readouterr().err
    assert not Path("a.webp").exists()
