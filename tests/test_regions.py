"""Regions: what masks say, what layers make of them, how pairs name them, and what is painted where."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from nst_lightning import images, recipe
from nst_lightning.__main__ import main
from nst_lightning.api import quiet
from nst_lightning.batches import Step
from nst_lightning.callbacks.checkpoints import sums
from nst_lightning.data import PairDataModule
from nst_lightning.errors import InputError
from nst_lightning.image_files import read_metadata
from nst_lightning.modules import StyleTransfer
from nst_lightning.pairs import Pair, chosen, read_pairs
from nst_lightning.regions import Mask, pooled, resized
from nst_lightning.schedule import Stage
from tests.test_tiling import objective, small

SHALLOW: dict[str, Any] = {"content_layers": "relu2_1", "style_layers": "relu1_1,relu2_1", "style_loss": "gram"}
STAGES = [Stage(24, 3), Stage(48, 3)]


def noise(seed: int, height: int = 36, width: int = 48) -> Tensor:
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed))


def halves(height: int = 36, width: int = 48) -> np.ndarray[Any, Any]:
    """A mask in colours: blue on the left, red on the right, a white line at the bottom."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2, 2] = pixels[:, width // 2 :, 0] = 255
    pixels[-4:] = 255
    return pixels


# ---- masks ----


def mask_of(mask: Image.Image, image: Image.Image | None = None, **colours: Any) -> Tensor:
    return Mask(mask, **colours).of(Image.new("RGB", mask.size) if image is None else image, images.read)


def test_white_counts_grey_counts_in_part_and_transparent_does_not() -> None:
    pixels = np.zeros((20, 30), np.uint8)
    pixels[:, 10:], pixels[:, 20:] = 51, 255
    found = mask_of(Image.fromarray(pixels))
    assert found.shape == (1, 1, 20, 30)
    torch.testing.assert_close(found[0, 0, 0, [0, 10, 20]], torch.tensor([0.0, 0.2, 1.0]))
    with_alpha = Image.fromarray(np.dstack([np.full((20, 30), 255, np.uint8), pixels]))
    torch.testing.assert_close(mask_of(with_alpha), found)


def test_a_colour_counts_where_it_is_nearest_also_in_a_file_that_was_compressed(tmp_path: Path) -> None:
    Image.fromarray(halves()).resize((480, 360)).save(tmp_path / "m.jpg", quality=70)
    for colour, inside in (("blue", (100, 100)), ("#FF0000", (100, 300))):
        found = mask_of(Image.open(tmp_path / "m.jpg"), colour=colour, colours=("blue", "#FF0000"))[0, 0]
        assert found[inside] == 1
        assert not found[340:].any()
        assert abs(float(found.mean()) - 0.5 * 32 / 36) < 0.02
        assert {*found.flatten().tolist()} == {0.0, 1.0}


def test_alpha_is_that_of_the_image_itself() -> None:
    pixels = np.full((20, 30, 4), 255, np.uint8)
    pixels[:, 10:, 3] = 0
    assert Mask("alpha").of(Image.fromarray(pixels), images.read).mean() == pytest.approx(1 / 3)
    with pytest.raises(InputError, match=r"^image: is opaque throughout: its alpha is no mask$"):
        Mask("alpha").of(Image.new("RGB", (30, 20)), images.read)


def test_a_mask_at_the_images_aspect_ratio_is_resized_softly() -> None:
    mask = Image.fromarray(np.kron([[0, 255]], np.ones((20, 15))).astype(np.uint8))
    found = mask_of(mask, Image.new("RGB", (91, 60)))
    at_size = resized(found, (60, 91))
    assert at_size.shape == (1, 1, 60, 91)
    assert 0 < float(at_size[0, 0, 30, 45]) < 1
    torch.testing.assert_close(at_size + resized(1 - found, (60, 91)), torch.ones(1, 1, 60, 91))


@pytest.mark.parametrize(
    ("mask", "colours", "message"),
    [
        (Image.new("L", (30, 30), 255), {}, r"the mask must be 30x20 px, .* got 30x30$"),
        (Image.new("L", (30, 20)), {}, r"the mask is black throughout: its region has no pixels$"),
        (Image.fromarray(halves(20, 30)), {}, r"the mask is in colours: name that of each style's region with --reg"),
        (
            Image.fromarray(halves(20, 30)),
            {"colour": "green", "colours": ("green", "red")},
            r"the region green has no pixels; the mask has also #0000ff, #ffffff$",
        ),
    ],
)
def test_a_mask_that_cannot_be_used_is_refused(mask: Image.Image, colours: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        mask_of(mask, Image.new("RGB", (30, 20)), **colours)


# ---- what layers make of them ----


def test_masks_are_pooled_as_features_are(tmp_path: Path) -> None:
    goal = objective("relu3_1", ("relu1_1", "relu2_1", "relu3_1"))
    backbone = small("vgg16", goal.layers, tmp_path)
    masks = torch.rand(1, 2, 61, 83, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = pooled(backbone, goal.layers, masks, "even")
    for layer, stride in (("relu1_1", 1), ("relu2_1", 2), ("relu3_1", 4)):
        torch.testing.assert_close(found[layer], F.avg_pool2d(masks, stride))
    assert torch.equal(found["image"], masks)


def test_inside_is_what_sees_its_region_alone_and_grown_what_sees_any_of_it(tmp_path: Path) -> None:
    backbone = small("vgg16", ("relu3_1",), tmp_path)
    mask = torch.zeros(1, 1, 80, 96, dtype=torch.float64)
    mask[..., 10:75, 20:90] = 1
    image = torch.rand(1, 3, 80, 96, dtype=torch.float64)
    noisy = torch.where(mask == 1, image, torch.rand_like(image))
    before, after = (backbone(each)["relu3_1"] for each in (image, noisy))
    untouched = (before == after).all(dim=1)[0]
    both = mask.expand(-1, 2, -1, -1)
    inside = pooled(backbone, ("relu3_1",), both, "inside")["relu3_1"][0, 1] == 1
    assert inside.any()
    assert bool((untouched | ~inside).all())
    noisy = torch.where(mask == 0, image, torch.rand_like(image))
    changed = (backbone(noisy)["relu3_1"] != before).any(dim=1)[0]
    grown = pooled(backbone, ("relu3_1",), both, "grown")["relu3_1"][0, 1] == 1
    assert bool((grown | ~changed).all())
    assert not bool(grown.all())
    small_one = torch.zeros_like(both)
    small_one[..., 40:48, 40:48] = 1  # no position sees it alone
    even = pooled(backbone, ("relu3_1",), small_one, "even")["relu3_1"]
    assert torch.equal(pooled(backbone, ("relu3_1",), small_one, "inside")["relu3_1"], even)


# ---- pairs ----


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a photograph, two paintings, and their masks."""
    monkeypatch.chdir(tmp_path)
    for name, seed in (("photo", 1), ("a", 2), ("b", 3)):
        images.write(f"{name}.png", noise(seed))
    Image.fromarray(halves()).save("halves.png")
    grey = np.where(np.arange(48) < 24, 255, 0).astype(np.uint8)[None].repeat(36, 0)
    Image.fromarray(grey).save("left.png")
    Image.fromarray(255 - grey).save("right.png")
    return tmp_path


def test_masks_bring_all_styles_into_one_picture(files: Path) -> None:
    (pair,) = chosen("photo.png", ["a.png", "b.png"], of_styles={"content_mask": "halves.png", "regions": "blue,red"})
    assert pair.name == "photo_a_b"
    assert [mask.colour for mask in pair.regions_of_content] == ["blue", "red"]
    masks = {"content_mask": ["left.png", "right.png"], "style_mask": ["none", "left.png"], "content_weights": [1, 0.5]}
    (pair,) = chosen("photo.png", ["a.png", "b.png"], of_styles=masks)
    assert [mask is None for _, mask in pair.masked_styles] == [True, False]
    assert [*sums(pair)][-3:] == ["mask 1", "mask 2", "mask 3"]
    (again,) = read_pairs([pair.row])
    assert again.row == pair.row
    assert {name: pair.row[name] for name in masks} == {
        "content_mask": "left.png|right.png",
        "style_mask": "none|left.png",
        "content_weights": "1.0|0.5",
    }
    assert pair.settings["content_mask"] == "left.png|right.png"


def test_a_row_names_its_masks(files: Path) -> None:
    Path("pairs.csv").write_text(
        "content,style,content_mask,regions,name\n"
        "photo.png,a.png|b.png,halves.png,blue|#ff0000,two\nphoto.png,a.png,alpha,,one\nphoto.png,a.png,,,none\n"
    )
    two, one, none = read_pairs("pairs.csv")
    assert two.regions == ("blue", "#ff0000")
    assert two.content_mask == (Path("halves.png"),)
    assert (one.content_mask, none.content_mask) == (("alpha",), ())


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ({"content_mask": ("left.png",)}, r"masks must be one for each of 2 styles, or in colours, .*; got 1$"),
        ({"regions": ("blue", "red")}, r"regions are colours in masks: name those with content_mask$"),
        ({"content_mask": ("m.png",), "regions": ("blue",)}, r"regions must name a colour for each of 2 styles, got b"),
        ({"content_mask": ("m.png",), "regions": ("blue", "blue")}, r"regions must name a colour for each of 2"),
        ({"content_mask": ("m.png",), "regions": ("blue", "bleu")}, r"regions must be colours, .* got 'bleu'$"),
        ({"content_mask": ("m.png", "n.png"), "regions": ("blue", "red")}, r"masks in colours must be one for the"),
        ({"content_weights": (1.0, 2.0)}, r"content_weights must be a finite number, 0 or above, for each region"),
    ],
)
def test_masks_unlike_the_styles_are_refused(masks: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Pair("p.png", ("a.png", "b.png"), "p", **masks)


def test_masks_are_of_one_content_image(files: Path) -> None:
    with pytest.raises(InputError, match=r"^content_mask: masks are of one content image, got 2: name each with its"):
        chosen(["photo.png", "a.png"], "b.png", of_styles={"content_mask": "left.png"})
    with pytest.raises(InputError, match=r"^keep_outside: there are no regions to be outside of: name a content_mask$"):
        PairDataModule("photo.png", "a.png", keep_outside=True)
    with pytest.raises(InputError, match=r"^content_mask image nowhere is neither here nor in data/content-masks"):
        PairDataModule("photo.png", "a.png", content_mask="nowhere")


# ---- what is painted ----


class Finished(L.Callback):
    """Keeps the finished pictures by their pairs' names."""

    def __init__(self) -> None:
        self.pictures: dict[str, Tensor] = {}

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: Step, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, StyleTransfer)
        if batch.is_last:
            self.pictures.update(zip(batch.batch.names, pl_module.result.clone(), strict=True))


def fitted(
    folder: Path,
    data: PairDataModule,
    ckpt: Path | None = None,
    callbacks: list[L.Callback] | None = None,
    **model: Any,
) -> L.Trainer:
    with quiet():
        trainer = L.Trainer(
            accelerator="cpu",
            max_epochs=1,
            logger=False,
            enable_checkpointing=callbacks is not None and any(isinstance(each, ModelCheckpoint) for each in callbacks),
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
            callbacks=callbacks,
        )
        trainer.fit(StyleTransfer(**{**SHALLOW, **model}), datamodule=data, ckpt_path=ckpt)
    return trainer


def painted(folder: Path, data: PairDataModule, **model: Any) -> Tensor:
    module = fitted(folder, data, **model).lightning_module
    assert isinstance(module, StyleTransfer)
    return module.result


def of_halves(**options: Any) -> PairDataModule:
    given = {"content_mask": [Image.fromarray(halves())], "regions": ["blue", "red"], "stages": STAGES, **options}
    return PairDataModule([noise(1)], [noise(2), 0.2 * noise(3)], **given)  # type: ignore[list-item]


@pytest.mark.usefixtures("one_thread")
def test_a_mask_of_ones_paints_what_none_does(tmp_path: Path) -> None:
    for loss in ("gram", "gram,matched,nearest"):
        model = {"style_loss": loss, "style_layers": "relu1_1,relu2_1"}
        ones = PairDataModule([noise(1)], [noise(2)], stages=STAGES, content_mask=[Image.new("L", (48, 36), 255)])  # type: ignore[list-item]
        plain = PairDataModule([noise(1)], [noise(2)], stages=STAGES)  # type: ignore[list-item]
        found, expected = painted(tmp_path, ones, **model), painted(tmp_path, plain, **model)
        assert torch.equal(found, expected) if loss == "gram" else float((found - expected).abs().max()) < 1e-3


@pytest.mark.usefixtures("one_thread")
def test_each_half_is_painted_in_its_style_and_the_outside_stays(tmp_path: Path) -> None:
    data = of_halves(keep_outside=True, stages=[Stage(24, 12), Stage(48, 12)])
    picture = painted(tmp_path, data, style_weight=100.0)[0]
    content = noise(1)
    assert torch.equal(picture[:, -4:], content[:, -4:])
    assert not torch.equal(picture[:, :-4], content[:, :-4])
    dark, light = picture[:, :-6, 30:].mean(), picture[:, :-6, :18].mean()
    assert float(dark) < float(light) - 0.1


@pytest.mark.usefixtures("one_thread")
def test_a_picture_depends_on_no_companion_whatever_its_regions(tmp_path: Path) -> None:
    for name, picture in (("photo", noise(1)), ("other", noise(4)), ("a", noise(2)), ("b", 0.2 * noise(3))):
        images.write(tmp_path / f"{name}.png", picture)
    Image.fromarray(halves()).save(tmp_path / "halves.png")
    Image.fromarray(halves()[::-1, ::-1].copy()).save(tmp_path / "turned.png")
    rows: list[dict[str, Any]] = [
        {"content": "photo.png", "style": "a.png|b.png", "content_mask": "halves.png", "regions": "blue|red"},
        {"content": "other.png", "style": "a.png"},
        {"content": "other.png", "style": "b.png|a.png", "content_mask": "turned.png", "regions": "blue|red"},
        {"content": "other.png", "style": "a.png", "content_mask": "halves.png", "regions": "white"},
    ]
    rows = [
        {
            name: "|".join(str(tmp_path / each) if "." in each else each for each in cell.split("|"))
            for name, cell in row.items()
        }
        | {"name": str(n)}
        for n, row in enumerate(rows)
    ]

    def found(rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        results = Finished()
        fitted(tmp_path, PairDataModule(pairs=rows, batch_size=4, stages=STAGES), callbacks=[results])
        return results.pictures

    together = found(rows)
    for row in rows:
        assert torch.equal(found([row])[row["name"]], together[row["name"]]), row


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
@pytest.mark.usefixtures("one_thread")
def test_a_run_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    expected = painted(tmp_path, of_halves(keep_outside=True))
    keep = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    fitted(tmp_path, of_halves(keep_outside=True), callbacks=[keep])
    for step in (2, 3, 5):
        resumed = fitted(tmp_path, of_halves(keep_outside=True), tmp_path / f"step={step}.ckpt").lightning_module
        assert isinstance(resumed, StyleTransfer)
        assert torch.equal(resumed.result, expected), step


def test_a_command_paints_regions_and_the_picture_says_so(files: Path, capfd: pytest.CaptureFixture[str]) -> None:
    fast = ["--size=48", "--steps=2", "--stages=1", "--content_layers=relu1_1", "--style_layers=relu1_1"]
    masks = ["--content_mask", "halves.png", "--regions", "#0000ff", "red"]
    assert main(["fit", "photo.png", "a.png", "b.png", *masks, *fast, "--scores=off", "-o=out.png"]) == 0
    made = recipe.read("out.png")
    assert made.configuration["data"]["pairs"][0]["regions"] == '"#0000ff"|"red"'
    assert {"content image", "style image 2", "mask 1"} <= made.sums.keys()
    told = json.loads(read_metadata("out.png")["nst_lightning"])
    assert (told["content_mask"], told["regions"]) == ("halves.png", "#0000ff|red")
    assert main(["reproduce", "out.png", "-o=again.png"]) == 0
    assert "the same pixels" in capfd.readouterr().out
    Image.fromarray(255 - halves()).save("halves.png")
    assert main(["reproduce", "out.png", "-o=again2.png"]) == 2
    assert main(["fit", "photo.png", "a.png", "b.png", *masks[:-1], *fast, "-o=bad.png"]) == 2
    told_lines = capfd.readouterr().err.strip().splitlines()
    assert told_lines[-1].startswith("nst: error: pair photo_a_b: regions must name a colour for each of 2 styles")
