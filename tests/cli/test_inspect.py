"""`nst inspect` as a person types it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from nst_lightning import image_files, images
from nst_lightning.__main__ import main
from nst_lightning.inspection import inspect


def run(options: list[str]) -> int:
    return main(["inspect", *options])


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a photograph and a painting where names are looked up."""
    monkeypatch.chdir(tmp_path)
    for kind, name in (("content", "photo"), ("style", "painting")):
        folder = Path(f"data/{kind}-images")
        folder.mkdir(parents=True)
        Image.effect_noise((40, 32), 80).convert("RGB").save(folder / f"{name}.png")
    return tmp_path


@pytest.mark.usefixtures("workplace")
def test_the_command_writes_its_pictures_and_never_over_earlier_ones(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["--image", "photo", "--layers", "relu1_1,relu2_1", "--size", "32", "--most", "2"]
    folder = Path("data/output-images/photo_inspect")
    names = [f"photo_{layer}_{kind}.png" for layer in ("relu1_1", "relu2_1") for kind in ("features", "gram")]
    assert run(command) == 0
    assert capsys.readouterr().out.splitlines() == [str(folder / name) for name in names]
    expected = inspect("data/content-images/photo.png", "relu1_1,relu2_1", size=32, most=2)
    for name, picture in zip(names, expected.values(), strict=True):
        assert (images.read(folder / name).rgb - picture).abs().max() < 1e-6
    settings = json.loads(image_files.read_metadata(folder / names[0])["nst_lightning"])
    assert settings["image"] == "data/content-images/photo.png"
    assert settings["size"] == 32
    earlier = [(folder / name).read_bytes() for name in names]
    assert run([*command[:-1], "1"]) == 0
    assert capsys.readouterr().out.splitlines() == [f"{folder}-2/{name}" for name in names]
    assert [(folder / name).read_bytes() for name in names] == earlier


@pytest.mark.usefixtures("workplace")
def test_a_painting_is_found_by_its_name_and_all_maps_can_be_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--layers", "relu1_1", "--size", "24", "--most", "all", "--output", "out"]
    assert run(["--image", "painting", *options]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "out/painting_relu1_1_features.png"
    picture = images.read("out/painting_relu1_1_features.png").rgb
    expected = inspect("data/style-images/painting.png", "relu1_1", size=24, most=None)["relu1_1_features"]
    assert (picture - expected).abs().max() < 1e-6


@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "no image was given; name a file with --image, e.g. one of data/content-images"),
        (
            ["--image", "nope"],
            "image nope is neither here nor in data/content-images or data/style-images; "
            "there are painting.png, photo.png",
        ),
        (["--image", "a/nope.png"], "a/nope.png: cannot be opened (No such file or directory); expected an image file"),
        (["--image", "data/*/*.png"], "image must be one file, got 2 in data/*/*.png"),
        (["--image", "photo", "--most", "some"], "argument --most: must be a whole number or all, got 'some'"),
        (["--image", "photo", "--most", "0"], "most must be at least 1, or all of them, got 0"),
        (["--image", "photo", "--size", "big"], "argument --size: invalid int value: 'big'"),
        (["--image", "photo", "--sise", "9"], "unrecognized arguments: --sise 9; did you mean --size?"),
        (
            ["--image", "photo", "--size", "8"],
            "an image of 8x6 px is too small for these layers: 16 px a side at least",
        ),
        (
            ["--image", "photo", "--output", "x.png"],
            "output must be a folder, for there are several pictures, got x.png",
        ),
    ],
)
def test_bad_input_ends_in_one_line_and_exit_code_2(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(options) == 2
    told = capsys.readouterr()
    assert told.err == f"nst: error: {message}\n"
    assert told.out == ""
    assert not Path("data/output-images").exists()


def test_help_speaks_of_pictures_and_not_of_python(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    told = capsys.readouterr().out
    for name in "image layers backbone weights size most output".split():
        assert re.search(rf"^  --{name} [A-Z]+ ", told, re.MULTILINE)
    assert "null" not in told
    assert "type:" not in told


def test_help_needs_no_torch() -> None:
    code = "import sys; from nst_lightning.cli import inspect; inspect.main(['--help'])"
    told = subprocess.run([sys.executable, "-X", "importtime", "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.startswith("usage: nst inspect IMAGE")
    assert not re.search(r"\| +(torch|PIL|numpy|matplotlib)$", told.stderr, re.MULTILINE)
