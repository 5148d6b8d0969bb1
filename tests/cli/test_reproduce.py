"""`nst reproduce`: the same file again, from the picture alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from nst_lightning import images, recipe
from nst_lightning.__main__ import main
from nst_lightning.image_files import ImageError, read_metadata

FAST = (
    *("--size", "40", "--steps", "3", "--style_layers", "relu1_1,relu2_1", "--content_layers", "relu2_1"),
    *("--scores", "off"),
)
LIST = """content,style,name,style_weights,content_weight,size,steps,init,seed
photo.png,painting.png|photo.png,two,1|3,2,32,2,gaussian,7
photo.png,painting.png,other,,,,,painting.png,
"""


@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize("suffix", ["png", "webp"])
def test_a_picture_is_made_again_to_the_byte(capfd: pytest.CaptureFixture[str], suffix: str) -> None:
    other = ("--optimizer", "adam", "--model.optimizer.lr", "0.05", "--seed", "5", "--init", "uniform")
    assert main(["fit", "photo.png", "painting.png", "-o", f"a.{suffix}", *FAST, *other]) == 0
    assert main(["reproduce", f"a.{suffix}", "-o", f"b/a.{suffix}"]) == 0
    assert Path(f"b/a.{suffix}").read_bytes() == Path(f"a.{suffix}").read_bytes()
    assert capfd.readouterr().out.endswith(f"b/a.{suffix}: the same pixels as a.{suffix}\n")


@pytest.mark.usefixtures("workplace")
def test_a_pair_of_a_list_is_made_again_with_what_it_has_of_its_own(capfd: pytest.CaptureFixture[str]) -> None:
    Path("p.csv").write_text(LIST)
    assert main(["fit", "--pairs", "p.csv", "-o", "run", "--batch_size", "2", *FAST]) == 0
    Path("p.csv").unlink()
    for name in ("two", "other"):
        assert main(["reproduce", f"run/{name}.png", "-o", f"{name}.png"]) == 0
        assert Path(f"{name}.png").read_bytes() == Path(f"run/{name}.png").read_bytes()
    assert main(["fit", "-c", "run/two.png", "-o", "again.png"]) == 0  # a picture is a configuration, too
    assert Path("again.png").read_bytes() == Path("run/two.png").read_bytes()


@pytest.mark.usefixtures("workplace")
def test_what_has_changed_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "photo.png", "painting.png", "-o", "a.png", *FAST]) == 0
    assert main(["reproduce", "a.png", "--style_weight", "1e3", "--overwrite", "-o", "c.png"]) == 0
    assert "c.png: its pixels differ from a.png by " in capfd.readouterr().out
    assert main(["reproduce", "a.png", "--size", "32", "-o", "d.png"]) == 0
    assert "d.png: of another size than a.png" in capfd.readouterr().out

    Path("photo.png").rename("moved.png")
    assert main(["reproduce", "a.png"]) == 2
    assert "content image 'photo.png' is neither in" in capfd.readouterr().err
    assert main(["reproduce", "a.png", "--content", "moved.png", "-o", "e.png"]) == 0
    assert "e.png: the same pixels as a.png" in capfd.readouterr().out
    assert main(["reproduce", "a.png", "--content", "painting.png"]) == 2
    assert "these are not the images that the picture was made from (content image was sha256" in capfd.readouterr().err


@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "no picture was given: nst reproduce PICTURE"),
        (["gone.png"], "gone.png: cannot be opened"),
        (["photo.png"], "photo.png: does not say how it was made"),
        (["evil.png"], "model.optimizer is os.system, which --safe refuses"),
        (["wrong.png"], "wrong.png: model must be settings by name, got 3"),
    ],
)
def test_what_cannot_be_made_again(arguments: list[str], told: str, capfd: pytest.CaptureFixture[str]) -> None:
    row = {"content": "photo.png", "style": "painting.png"}
    for name, model in (("evil", {"optimizer": "os.system"}), ("wrong", 3)):
        text = recipe.Recipe({"data": {"pairs": [row]}, "model": model}, {}).text()
        images.write(f"{name}.png", torch.rand(3, 32, 32), metadata={recipe.TEXT: text})
    assert main(["reproduce", *arguments]) == 2
    assert told in capfd.readouterr().err


def test_images_that_were_in_another_folder_are_looked_up_by_their_names(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (workplace / "photos").mkdir()
    (workplace / "photo.png").rename("photos/photo.png")
    assert main(["fit", "photos/photo.png", "painting.png", "-o", "a.png", *FAST]) == 0
    monkeypatch.chdir("photos")
    (workplace / "painting.png").rename("painting.png")
    assert main(["reproduce", "../a.png", "-o", "b.png"]) == 0
    assert Image.open("b.png").tobytes() == Image.open("../a.png").tobytes()


@pytest.mark.usefixtures("workplace")
def test_a_picture_on_the_way_does_not_say_how_it_was_made() -> None:
    assert main(["fit", "photo.png", "painting.png", "-o", "a.png", "--save_every", "2", *FAST]) == 0
    assert recipe.TEXT in read_metadata("a.png")
    with pytest.raises(ImageError, match="does not say how it was made"):
        recipe.read("a/steps/photo_painting/000002.png")
