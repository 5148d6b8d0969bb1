"""Whose colours a picture is in: the formulas, written again, and what a run makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from nst_lightning import api, images
from nst_lightning.__main__ import main
from nst_lightning.api import quiet
from nst_lightning.colors import COLORS, from_oklab, linear, luminance, matched, to_oklab
from nst_lightning.data import PairDataModule
from nst_lightning.errors import InputError
from nst_lightning.image_files import read_metadata
from nst_lightning.modules import StyleTransfer

CHROMA = np.array([[0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])  # I and Q of YIQ, which a grey has none of
FAST = ("--size", "48", "--steps", "3", "--style_layers", "relu1_1,relu2_1", "--content_layers", "relu2_1")
GRAM = ("--style_loss", "gram")
SHALLOW: dict[str, Any] = {"content_layers": "relu2_1", "style_layers": "relu1_1,relu2_1", "style_loss": "gram"}


def sample(folder: str, name: str, side: int = 64) -> Tensor:
    rgb = images.read(Path(__file__).parents[1] / f"data/{folder}-images/{name}.jpg").rgb
    return images.resize(rgb, images.fit(rgb.shape[-2], rgb.shape[-1], side)).clamp(0, 1)


def moments(image: Tensor) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    pixels = image[0].flatten(1).double().numpy()
    return pixels.mean(axis=1), np.cov(pixels, bias=True)


@pytest.mark.parametrize("painting", ["church_at_auvers", "langlois_bridge", "pere_tanguy"])
@pytest.mark.parametrize("photograph", ["temple", "astronaut"])
def test_matched_colours_have_the_mean_and_the_covariance_of_the_photograph(painting: str, photograph: str) -> None:
    found, wanted = matched(style := sample("style", painting), content := sample("content", photograph)), content
    for one, other in zip(moments(found), moments(wanted), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-4)
    assert found.dtype == torch.float64
    # Of all linear maps with this property only Monge's is symmetric and positive.
    centred = [(each[0].flatten(1).double() - each[0].flatten(1).double().mean(1, True)) for each in (style, found)]
    change = torch.linalg.lstsq(centred[0].T, centred[1].T).solution
    torch.testing.assert_close(change, change.T, rtol=0, atol=1e-9)
    assert bool((torch.linalg.eigvalsh(change) > 0).all())


def test_matched_luminance_is_shifted_and_scaled() -> None:
    painting, photograph = (
        luminance(sample(*each)).double() for each in (("style", "night_cafe"), ("content", "temple"))
    )
    ratio = photograph.std(correction=0) / painting.std(correction=0)
    expected = ratio * (painting - painting.mean()) + photograph.mean()  # Gatys et al. (2017), equation 10
    torch.testing.assert_close(matched(painting, photograph), expected, rtol=0, atol=1e-9)


def test_a_grey_painting_gets_no_colourful_noise() -> None:
    grey = luminance(sample("style", "night_cafe")).repeat(1, 3, 1, 1)
    noisy = grey + 0.001 * torch.randn(grey.shape, generator=torch.Generator().manual_seed(0))
    found = matched(noisy, sample("content", "temple"))
    chroma = torch.tensor(CHROMA, dtype=found.dtype) @ (found[0].flatten(1) - found.mean(dim=(0, 2, 3))[:, None])
    assert float(chroma.std()) < 0.05
    assert bool(matched(torch.full((1, 3, 8, 8), 0.5), torch.rand(1, 3, 8, 8)).isfinite().all())


def test_oklab_is_that_of_ottosson() -> None:
    # XYZ to OkLab of his table: white is (1, 0, 0); red by the reference code.
    known = {(1.0, 1.0, 1.0): (1.0, 0.0, 0.0), (1.0, 0.0, 0.0): (0.627955, 0.224863, 0.125846)}
    for rgb, lab in known.items():
        found = to_oklab(torch.tensor(rgb, dtype=torch.float64).view(1, 3, 1, 1))
        np.testing.assert_allclose(found.flatten().numpy(), lab, atol=1e-5)
    image = torch.rand(1, 3, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(from_oklab(to_oklab(image)), linear(image), rtol=0, atol=1e-9)


def test_luminance_leaves_the_chroma_even_of_what_would_leave_the_screens_colours() -> None:
    photograph = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    photograph[:, :, :8] = photograph[:, :, :8].round()  # pure colours
    picture = COLORS["luminance"].picture
    assert picture is not None
    for image in (torch.rand(1, 3, 32, 32), torch.zeros(1, 3, 32, 32), torch.ones(1, 3, 32, 32)):
        found = picture(image, photograph)
        assert 0 <= float(found.min()) and float(found.max()) <= 1
        differs = CHROMA @ (found - photograph)[0].flatten(1).double().numpy()
        assert np.abs(differs).max() < 1e-6
    grey = torch.full((1, 3, 4, 4), 0.5)
    assert torch.allclose(luminance(picture(torch.full((1, 3, 4, 4), 0.8), grey)), torch.tensor(0.8))


def test_content_keeps_the_lightness_of_the_picture_and_the_colours_of_the_photograph() -> None:
    image, photograph = (0.3 + 0.4 * torch.rand(1, 3, 8, 8, dtype=torch.float64) for _ in range(2))
    photograph = 0.5 + 0.2 * (photograph - 0.5)  # pale, so that nothing is clipped
    picture = COLORS["content"].picture
    assert picture is not None
    found = to_oklab(picture(image, photograph))
    torch.testing.assert_close(found[:, :1], to_oklab(image)[:, :1], rtol=0, atol=1e-6)
    torch.testing.assert_close(found[:, 1:], to_oklab(photograph)[:, 1:], rtol=0, atol=1e-6)


# ---- runs ----


@pytest.mark.usefixtures("workplace")
def test_a_file_has_the_chroma_of_the_photograph_and_everything_shows_the_same() -> None:
    options = ("--colors", "luminance", "--save_every", "3", "--scores", "palette")
    assert main(["fit", "photo.png", "painting.png", "-o", "a.png", *FAST, *GRAM, *options]) == 0
    photograph = images.resize(images.read("photo.png").rgb, (40, 48)).clamp(0, 1)
    written = images.read("a.png").rgb
    assert np.abs(CHROMA @ (written - photograph)[0].flatten(1).double().numpy()).max() <= 1 / 255
    assert float((luminance(written) - luminance(photograph)).abs().mean()) > 1 / 255  # it was painted
    assert '"colors": "luminance"' in read_metadata("a.png")["nst_lightning"]
    assert main(["reproduce", "a.png", "-o", "b.png"]) == 0
    assert Path("b.png").read_bytes() == Path("a.png").read_bytes()
    shown = api.stylize(
        "photo.png", "painting.png", size=48, steps=3, progress=False, accelerator="cpu", colors="luminance", **SHALLOW
    )
    assert shown.tobytes() == Image.open("a.png").tobytes()


def trained(root: Path, data: PairDataModule, **options: Any) -> dict[str, Tensor]:
    module = StyleTransfer(**SHALLOW, **options)
    with quiet():
        trainer = L.Trainer(
            accelerator="cpu",
            max_epochs=1,
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=False,
            default_root_dir=root,
        )
        trainer.fit(module, datamodule=data)
    return dict(zip(data.batches[-1].names, module.result, strict=True))


LIST = "content,style,name,colors\n" + "".join(f"photo.png,painting.png,{name},{name}\n" for name in COLORS)


@pytest.mark.usefixtures("one_thread")
def test_pairs_of_a_batch_have_colours_of_their_own(workplace: Path) -> None:
    Path("p.csv").write_text(LIST)
    small: dict[str, Any] = {"size": 48, "steps": 3, "stages": 1}
    together = trained(workplace, PairDataModule(pairs="p.csv", batch_size=4, **small))
    assert len({picture.numpy().tobytes() for picture in together.values()}) == 4
    for name, picture in together.items():
        alone = trained(workplace, PairDataModule("photo.png", "painting.png", colors=name, **small))  # type: ignore[arg-type]
        assert torch.equal(next(iter(alone.values())), picture)


@pytest.mark.usefixtures("workplace")
def test_a_run_of_other_colours_is_not_gone_on_with(capfd: pytest.CaptureFixture[str]) -> None:
    run = ("fit", "photo.png", "painting.png", "-o", "run", *FAST, *GRAM, "--scores", "off", "--colors", "matched")
    assert main([*run, "--trainer.max_steps", "1", "--checkpoint_minutes", "1e-9"]) == 3
    assert main(["fit", "--resume", "run", "--trainer.max_steps", "-1", "--colors", "style"]) == 2
    assert "colors was matched, now style" in capfd.readouterr().err
    assert main(["fit", "--resume", "run", "--trainer.max_steps", "-1"]) == 0
    assert main([*run[:4], "whole", *run[5:]]) == 0
    first, second = (Image.open(f"{name}/photo_painting.png").tobytes() for name in ("run", "whole"))
    assert first == second


def test_unknown_colours_are_one_line(workplace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match=r"^unknown colors 'red'; known are style, content, matched, luminance$"):
        PairDataModule("photo.png", "painting.png", colors="red")  # type: ignore[arg-type]
    assert main(["fit", "photo.png", "painting.png", "--colors", "red"]) == 2
    assert len(capfd.readouterr().err.splitlines()) == 1
    Path("p.csv").write_text("content,style,colors\nphoto.png,painting.png,red\n")
    with pytest.raises(
        InputError, match=r"line 2: colors must be one of style, content, matched, luminance, got 'red'"
    ):
        PairDataModule(pairs="p.csv")
