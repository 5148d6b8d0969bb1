"""Images rebuilt from single layers: the module, `reconstruct`, and `nst reconstruct`."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import nst_lightning
from nst_lightning import images
from nst_lightning.__main__ import main
from nst_lightning.api import rebuilt
from nst_lightning.backbones import SPECS, Backbone
from nst_lightning.errors import InputError
from nst_lightning.losses import Features, Gram
from nst_lightning.modules import Reconstruction
from nst_lightning.optim import Adam
from tests.test_tiling import random_state

SAMPLES = Path(__file__).parents[1] / "data"


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    with Image.open(SAMPLES / "content-images/chelsea.jpg") as image:
        image.resize((48, 40)).save(path)
    return path


def decibel(picture: Any, original: Path) -> float:  # noqa: ANN401 - anything numpy reads
    """Peak signal-to-noise ratio, from its definition."""
    with Image.open(original) as image:
        error = np.asarray(picture, dtype=float) - np.asarray(image, dtype=float)
    return float(10 * np.log10(255**2 / np.square(error).mean()))


def test_a_shallow_layer_gives_the_image_back_and_a_deeper_one_less(photo: Path) -> None:
    pictures = nst_lightning.reconstruct(photo, ["relu1_1", "relu2_2", "relu3_3"], size=48, steps=40, progress=False)
    ratios = [decibel(picture, photo) for picture in pictures.values()]
    assert list(pictures) == ["relu1_1", "relu2_2", "relu3_3"]
    assert ratios[0] > 28
    assert ratios == sorted(ratios, reverse=True)


def gram_distance(picture: Image.Image, photo: Path, layer: str) -> float:
    backbone, loss = Backbone("vgg16", [layer]), Gram()

    def gram(source: images.Source) -> Tensor:
        features = Features.whole(backbone(images.read(source).rgb)[layer])
        (target,) = loss.target(loss.statistic([features], 0))
        return target

    with torch.no_grad():
        target = gram(photo)
        return ((gram(picture) - target).square().sum() / target.square().sum()).item()


def test_the_style_gives_its_gram_matrices_back_but_not_the_image(photo: Path) -> None:
    pictures = nst_lightning.reconstruct(photo, ["relu1_1", "relu2_1"], "style", size=48, steps=60, progress=False)
    with Image.open(io.BytesIO(pictures._repr_png_())) as strip:  # as a notebook asks for it
        assert strip.width > 2 * 256
    for layer in ("relu1_1", "relu2_1"):  # the second picture sees both
        assert gram_distance(pictures["relu2_1"], photo, layer) < 1e-2
    assert decibel(pictures["relu2_1"], photo) < 20


def test_from_the_style_each_picture_sees_the_layers_before_its_own() -> None:
    def seen(layers: list[str], source: str) -> dict[str, list[str]]:
        found = {}

        def run(layer: str, of: list[str]) -> Reconstruction:
            found[layer] = of
            return Reconstruction("relu1_1")

        assert [layer for layer, _ in rebuilt(layers, source, run)] == layers
        return found

    assert seen(["a", "b", "c"], "style") == {"a": ["a"], "b": ["a", "b"], "c": ["a", "b", "c"]}
    assert seen(["a", "b"], "content") == {"a": ["a"], "b": ["b"]}


def test_has_one_loss_and_no_other_unless_asked_for() -> None:
    assert Reconstruction("relu1_1").problem.weighed.groups == ("content",)
    smooth = Reconstruction(["relu1_1", "relu1_2"], "style", tv_weight=2.0)
    assert smooth.problem.weighed.groups == ("style", "tv")
    assert {term.name: term.share for term in smooth.objective.terms} == {
        "style/relu1_1": 0.5,
        "style/relu1_2": 0.5,
        "tv/image": 1.0,
    }


def test_an_optimizer_can_be_named(photo: Path) -> None:
    named, made = (
        nst_lightning.reconstruct(photo, ["relu1_1"], size=48, steps=3, progress=False, optimizer=optimizer)["relu1_1"]
        for optimizer in ("adam", Adam)
    )
    assert named.tobytes() == made.tobytes()


def test_an_unknown_representation_is_refused() -> None:
    with pytest.raises(InputError, match="unknown representation 'colour'; known are content, style"):
        Reconstruction("relu1_1", "colour")  # type: ignore[arg-type]


def run(photo: Path, *options: str) -> int:
    return main(
        ["reconstruct", "--image", str(photo), "--layers", "relu1_1,relu2_1", "--size", "48", "--steps", "6", *options]
    )


@pytest.mark.parametrize("source", ["content", "style"])
def test_the_command_writes_a_picture_a_layer_and_a_labelled_strip(
    source: str, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(photo, "--from", source) == 0
    folder = Path(f"data/output-images/photo_from_{source}")
    assert sorted(path.name for path in folder.glob("*.png")) == ["relu1_1.png", "relu2_1.png", "strip.png"]
    told = capsys.readouterr().out
    for layer in ("relu1_1", "relu2_1"):
        ratios = re.findall(rf"{layer}: PSNR (\S+) dB", told)
        with Image.open(folder / f"{layer}.png") as picture:
            expected = [decibel(picture, photo)] if source == "content" else []
        assert [float(ratio) for ratio in ratios] == pytest.approx(expected, abs=0.01)
    with Image.open(folder / "strip.png") as strip:
        assert strip.width == 3 * (48 + 4)
    before = (folder / "strip.png").read_bytes()
    assert run(photo, "--from", source, "--seed", "3") == 0
    assert (folder / "strip.png").read_bytes() == before
    assert folder.with_name(f"{folder.name}-2").is_dir()


def test_each_layer_can_have_its_film(photo: Path, tmp_path: Path) -> None:
    assert run(photo, "--video", "webp", "--output", str(tmp_path / "run")) == 0
    for layer in ("relu1_1", "relu2_1"):
        with Image.open(tmp_path / "run" / layer / "photo_photo.webp") as film:
            assert film.size == (48, 40)
            assert 4 <= getattr(film, "n_frames") <= 6  # noqa: B009 - of 6 steps; WebP joins frames that are alike


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--layers", "relu9_1"], "unknown layer 'relu9_1' of vgg16"),
        (["--from", "colour"], "--from.*invalid choice: 'colour'"),
        (["--image", "nope.png"], r"image nope\.png is neither here nor in data/content-images"),
        (["--backbone", "vgg11"], "unknown backbone 'vgg11'"),
        (["--size", "-3"], "size must be at least 1, got -3"),
        (["--image", "*.png"], r"image \*\.png stands for 2 files; name one"),
        (["--sise", "3"], r"unknown option --sise: did you mean --size\?"),
    ],
)
def test_bad_input_ends_in_one_line_and_exit_code_2(
    options: list[str],
    message: str,
    photo: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (20, 20)).save("other.png")
    assert run(photo, *options) == 2
    assert re.fullmatch(rf"nst: error: [^\n]*{message}[^\n]*\n", capsys.readouterr().err)


@pytest.mark.parametrize("name", SPECS)
def test_both_jobs_run_on_every_backbone_and_the_image_moves(name: str, photo: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    spec = SPECS[name]
    weights = tmp_path / "weights.pth"
    torch.save(random_state(spec.build), weights)
    common = ["--backbone", name, "--weights", str(weights), "--size", "96", "--steps", "3", "--data.upscale", "true"]
    common += ["--scores", "off"]
    fitted = tmp_path / "fit.png"
    arguments = ["--content", str(photo), "--style", str(photo), "--init", "uniform", "--stages", "1"]
    assert main(["fit", *arguments, *common, "--save_every", "1", "--output", str(fitted)]) == 0
    layer = spec.style_layers[1]
    assert (
        main(["reconstruct", "--image", str(photo), "--layers", layer, *common, "--output", str(tmp_path / "r")]) == 0
    )
    (start,) = tmp_path.glob("fit/steps/*/000001.png")
    assert Image.open(start).tobytes() != Image.open(fitted).tobytes()
    assert (tmp_path / "r" / f"{layer}.png").is_file()
