"""Pairs, their names and files, the batches they form, and the order of a run's steps."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from nst_lightning import images
from nst_lightning.data import Batch, Images, Pair, PairDataModule, Timeline, find, pair_up
from nst_lightning.errors import InputError
from nst_lightning.schedule import Stage

SAMPLES = Path("samples")


def noise(height: int, width: int, seed: int = 0, channels: int = 3) -> Tensor:
    return torch.rand(channels, height, width, generator=torch.Generator().manual_seed(seed))


# ---- looking up names ----


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content_jpeg: Path, content_png: Path) -> Path:
    """A working directory with b.png in it, and a.jpg, b.png and b.tar.jpg among its samples."""
    for name in ("b.png", "samples/a.jpg", "samples/b.png", "samples/b.tar.jpg"):
        target = tmp_path / name
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(content_jpeg if target.suffix == ".jpg" else content_png, target)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("workspace")
@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("a.jpg", [SAMPLES / "a.jpg"]),
        ("a", [SAMPLES / "a.jpg"]),
        ("b", [SAMPLES / "b.png"]),
        ("b.tar", [SAMPLES / "b.tar.jpg"]),
        ("b.png", [Path("b.png")]),
        (Path("a"), [SAMPLES / "a.jpg"]),
        (["b.png", "a", "a"], [Path("b.png"), SAMPLES / "a.jpg", SAMPLES / "a.jpg"]),
        (("a", "samples/b.png"), [SAMPLES / "a.jpg", SAMPLES / "b.png"]),
        # Reading these says what is wrong with them.
        ("elsewhere/a.jpg", [Path("elsewhere/a.jpg")]),
        ("samples", [SAMPLES]),
        ("", [Path()]),
    ],
)
def test_a_name_is_looked_up_here_and_then_among_the_samples(given: Images, found: list[Path]) -> None:
    assert find("content", given, SAMPLES) == found


def test_a_folder_of_the_same_name_does_not_hide_a_sample(workspace: Path) -> None:
    for folder in ("a", "samples/a", "samples/a.d"):
        (workspace / folder).mkdir()
    assert find("content", "a", SAMPLES) == [SAMPLES / "a.jpg"]


def test_an_absolute_path_is_taken_as_it_is(workspace: Path) -> None:
    assert find("content", str(workspace / "b.png"), SAMPLES) == [workspace / "b.png"]


def test_images_in_memory_are_taken_as_they_are() -> None:
    tensor, picture = noise(20, 20), Image.new("RGB", (20, 20))
    assert [id(source) for source in find("content", [tensor, picture], SAMPLES)] == [id(tensor), id(picture)]


@pytest.mark.usefixtures("workspace")
@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, "no style image was given; name a file with --style, e.g. one of samples"),
        (["a", None], "no style image was given; name a file with --style, e.g. one of samples"),
        ([], "style is an empty list; name an image, or several"),
        *(
            (name, f"style image {name} is neither here nor in samples; there are a.jpg, b.png, b.tar.jpg")
            for name in ("nobody", "a.png", "*", "[a]", "**", "b.tar.j", "x" * 300)
        ),
    ],
)
def test_a_name_that_stands_for_no_file_is_refused_with_those_there_are(given: Images, message: str) -> None:
    with pytest.raises(InputError) as caught:
        find("style", given, SAMPLES)
    assert str(caught.value) == message


def test_a_missing_folder_of_samples_lists_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^content image a is neither here nor in .*nowhere$"):
        find("content", "a", tmp_path / "nowhere")


# ---- pairing ----


@pytest.mark.parametrize(
    ("contents", "styles", "names"),
    [
        (["a.jpg"], ["x.jpg"], ["a_x"]),
        (["a.jpg", "b.jpg"], ["x.jpg", "y.jpg"], ["a_x", "b_y"]),
        (["a.jpg", "b.jpg"], ["x.jpg"], ["a_x", "b_x"]),
        (["a.jpg"], ["x.jpg", "y.jpg"], ["a_x", "a_y"]),
        (["a.jpg", "sub/a.png", "b.jpg"], ["x.jpg"], ["a_x_1", "a_x_2", "b_x"]),
        (["a", "b", "a", "a"], ["x", "x", "x", "x_1"], ["a_x_2", "b_x", "a_x_3", "a_x_1"]),
        (["a.b.jpg"], [Path("some/where/x")], ["a.b_x"]),
    ],
)
def test_pairs_are_formed_in_order_under_names_of_their_own(
    contents: list[images.Source], styles: list[images.Source], names: list[str]
) -> None:
    pairs = pair_up(contents, styles)
    assert [pair.name for pair in pairs] == names
    assert len(set(names)) == len(names)
    assert [pair.content for pair in pairs] == contents * (len(pairs) // len(contents))
    assert [pair.styles for pair in pairs] == [(style,) for style in styles * (len(pairs) // len(styles))]


def test_images_in_memory_are_called_image() -> None:
    assert [pair.name for pair in pair_up([noise(16, 16), "a.png"], [noise(16, 16)])] == ["image_image", "a_image"]


@pytest.mark.parametrize(("contents", "styles"), [(2, 3), (3, 2)])
def test_several_of_both_have_to_be_equally_many(contents: int, styles: int) -> None:
    message = f"^{contents} content images and {styles} style images: as many of both, or one of either$"
    with pytest.raises(InputError, match=message):
        pair_up(["a.jpg"] * contents, ["x.jpg"] * styles)


# ---- batches ----


def batch_of(
    *contents: images.Source,
    styles: tuple[images.Source, ...] = (noise(80, 64),),
    style_scale: float = 1.0,
    upscale: bool = False,
) -> Batch:
    height, width = images.read(contents[0]).rgb.shape[-2:]
    return Batch([Pair(content, styles, "pair") for content in contents], (height, width), style_scale, upscale)


@pytest.mark.parametrize(
    ("size", "upscale", "expected"),
    [
        (48, False, (32, 48)),
        (96, False, (64, 96)),
        (192, False, (64, 96)),
        (192, True, (128, 192)),
        (48, True, (32, 48)),
    ],
)
def test_contents_have_the_stages_size_and_are_not_enlarged_unless_asked_for(
    content_png: Path, size: int, upscale: bool, expected: tuple[int, int]
) -> None:
    sources: tuple[images.Source, ...] = (content_png, noise(64, 96))
    batch, stage = batch_of(*sources, upscale=upscale), Stage(size, 1)
    contents = batch.contents(stage)
    assert batch.output_size(stage) == expected
    assert batch.pixels(stage) == 2 * expected[0] * expected[1]
    assert contents.shape == (2, 3, *expected)
    assert contents.dtype == torch.float32
    for content, source in zip(contents, sources, strict=True):
        assert torch.equal(content, images.resize(images.read(source).rgb, expected)[0].clamp(0, 1))


@pytest.mark.parametrize(
    ("size", "style_scale", "upscale", "expected"),
    [
        (40, 1.0, False, (40, 32)),
        (40, 0.5, False, (20, 16)),
        (40, 2.0, False, (80, 64)),
        (40, 4.0, False, (80, 64)),
        (40, 4.0, True, (160, 128)),
        (96, 1.0, False, (80, 64)),
        (96, 1.0, True, (96, 77)),
        (40, 0.001, False, (1, 1)),
    ],
)
def test_styles_have_the_stages_size_times_their_scale(
    style_png: Path, size: int, style_scale: float, upscale: bool, expected: tuple[int, int]
) -> None:
    batch = batch_of(noise(64, 96), noise(64, 96), styles=(style_png,), style_scale=style_scale, upscale=upscale)
    for (style,) in batch.styles(Stage(size, 1)):
        assert torch.equal(style, images.resize(images.read(style_png).rgb, expected).clamp(0, 1))
        assert style.shape == (1, 3, *expected)


def test_every_style_of_a_pair_keeps_its_own_shape() -> None:
    batch = batch_of(noise(64, 96), styles=(noise(80, 64), noise(40, 20)))
    assert [[tuple(style.shape) for style in styles] for styles in batch.styles(Stage(40, 1))] == [
        [(1, 3, 40, 32), (1, 3, 40, 20)]
    ]


def test_resizing_leaves_no_value_outside_the_range() -> None:
    hard = (noise(64, 64, channels=4) > 0.5).float()
    batch, stage = batch_of(hard, styles=(hard[:3],)), Stage(47, 1)
    assert images.resize(hard[None], (47, 47)).max() > 1.01  # bicubic overshoots
    alpha, style, content = batch.alphas(stage)[0], batch.styles(stage)[0][0], batch.contents(stage)
    assert alpha is not None
    for image in (alpha, style, content):
        assert image.min() == 0
        assert image.max() == 1


def test_alphas_are_the_contents_opacity_at_the_stages_size(tmp_path: Path) -> None:
    pixels = (noise(64, 96, channels=4) * 255).byte()
    path = tmp_path / "transparent.png"
    Image.fromarray(pixels.permute(1, 2, 0).numpy(), "RGBA").save(path)
    alpha, opaque = batch_of(path, noise(64, 96)).alphas(Stage(48, 1))
    assert opaque is None
    assert alpha is not None
    expected = images.resize(pixels[None, 3:].float() / 255, (32, 48)).clamp(0, 1)
    torch.testing.assert_close(alpha, expected, rtol=0, atol=1e-6)


# ---- the order of steps ----

STAGES = (Stage(32, 2), Stage(64, 1), Stage(96, 3))


def timeline(start: int = 0) -> Timeline:
    sizes = [(64, 96), (48, 48)]
    batches = [Batch([Pair("c", ("s",), "p")] * count, size, 1.0, False) for count, size in enumerate(sizes, start=1)]
    return Timeline(batches, STAGES, start)


def test_goes_batch_by_batch_and_stage_by_stage() -> None:
    steps = list(timeline())
    assert len(steps) == len(timeline()) == 12
    assert timeline().steps_per_batch == 6
    assert [step.position for step in steps] == [(b, s) for b in (0, 1) for s in (0, 0, 1, 2, 2, 2)]
    assert [step.index for step in steps] == [0, 1, 2, 3, 4, 5] * 2
    assert [step.is_last for step in steps] == [False, False, False, False, False, True] * 2
    assert [step.stage.size for step in steps] == [32, 32, 64, 96, 96, 96] * 2
    assert [len(step.batch.pairs) for step in steps] == [1] * 6 + [2] * 6
    assert all(step.stages == STAGES for step in steps)


@pytest.mark.parametrize("start", [0, 1, 6, 11, 12])
def test_a_resume_goes_on_where_it_stopped_and_keeps_the_length(start: int) -> None:
    def places(line: Timeline) -> list[tuple[tuple[int, int], int]]:
        return [(step.position, step.index) for step in line]

    resumed = timeline(start)
    assert len(resumed) == 12
    assert places(resumed) == places(timeline())[start:]
    assert places(resumed) == places(resumed)  # it can be gone through again
    assert resumed.state_dict() == {}
    resumed.load_state_dict({})


def test_cost_is_the_sum_of_the_steps_pixels() -> None:
    line = timeline()
    pixels = [step.batch.pixels(step.stage) for step in line]
    assert pixels[:3] == [21 * 32, 21 * 32, 43 * 64]
    for first in range(13):
        for last in range(first, 13):
            assert line.cost(first, last) == sum(pixels[first:last])


# ---- the data module ----


def module_of(content: Images, style: Images, **options: Any) -> PairDataModule:
    """Its annotations are those of the command line, which has no images in memory."""
    sources: dict[str, Any] = {"content": content, "style": style}
    return PairDataModule(**sources, **options)


def test_stages_come_from_size_and_steps_or_are_given() -> None:
    given = partial(module_of, noise(32, 32), noise(32, 32), size=64, steps=7)
    assert given().stages == (Stage(32, 3), Stage(64, 4))
    assert given(stages=1).stages == (Stage(64, 7),)
    listed = given(stages=list(STAGES))
    assert listed.stages == STAGES
    assert listed.settings == {"stages": "32 px x 2, 64 px x 1, 96 px x 3", "style_scale": 1.0}


def test_names_are_looked_up_in_the_folders_of_samples(workspace: Path, style_png: Path) -> None:
    for folder, name in (("content-images", "a.jpg"), ("style-images", "x.png")):
        (workspace / "data" / folder).mkdir(parents=True)
        shutil.copyfile(style_png, workspace / "data" / folder / name)
    (pair,) = PairDataModule("a", "x").pairs
    assert (pair.content, pair.styles) == (Path("data/content-images/a.jpg"), (Path("data/style-images/x.png"),))
    with pytest.raises(InputError, match=r"^content image x is neither here nor in data/content-images; .* a\.jpg$"):
        PairDataModule("x", "x")
    with pytest.raises(InputError, match=r"^no style image was given; name a file with --style"):
        PairDataModule("a")


SQUARE, TALL, WIDE = (32, 32), (48, 32), (32, 48)


@pytest.mark.parametrize(
    ("batch_size", "expected"),
    [
        (1, [[0], [1], [2], [3], [4], [5]]),
        (2, [[0, 2], [4], [1], [3, 5]]),
        (3, [[0, 2, 4], [1], [3, 5]]),
        (9, [[0, 2, 4], [1], [3, 5]]),
    ],
)
def test_pairs_of_one_size_share_batches(batch_size: int, expected: list[list[int]]) -> None:
    sizes = [SQUARE, WIDE, SQUARE, TALL, SQUARE, TALL]
    data = module_of([noise(*size) for size in sizes], noise(40, 40), batch_size=batch_size, style_scale=0.5)
    assert not data.batches
    data.setup("fit")
    assert [[data.pairs.index(pair) for pair in batch.pairs] for batch in data.batches] == expected
    for batch, (first, *_) in zip(data.batches, expected, strict=True):
        assert (batch.source_size, batch.style_scale, batch.upscale) == (sizes[first], 0.5, False)


def test_the_loader_goes_over_the_batches_from_the_trainers_step() -> None:
    data = module_of([noise(32, 32), noise(32, 48)], noise(32, 32), size=32, steps=4, upscale=True)
    data.setup("fit")
    assert [step.position for step in data.train_dataloader()] == [(b, s) for b in (0, 1) for s in (0, 0, 1, 1)]
    data.trainer = SimpleNamespace(global_step=5)  # type: ignore[assignment]
    loader = data.train_dataloader()
    assert [(step.position, step.index) for step in loader] == [((1, 0), 1), ((1, 1), 2), ((1, 1), 3)]
    step = loader.step(0)
    assert step.batch.upscale
    assert data.transfer_batch_to_device(step, torch.device("meta"), 0) is step


@pytest.mark.parametrize("broken", ["content", "style"])
def test_an_image_that_cannot_be_read_ends_the_run_before_it_begins(
    tmp_path: Path, content_png: Path, broken: str
) -> None:
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(content_png.read_bytes()[:500])
    sources: dict[str, Images] = {"content": content_png, "style": content_png, broken: [content_png, damaged]}
    data = module_of(**sources)
    with pytest.raises(images.ImageError, match=r"damaged\.png: cannot be decoded"):
        data.setup("fit")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"style_scale": 0.0}, "style_scale must be a finite number above 0, got 0.0"),
        ({"style_scale": -1.0}, "style_scale must be a finite number above 0, got -1.0"),
        ({"style_scale": float("nan")}, "style_scale must be a finite number above 0, got nan"),
        ({"style_scale": float("inf")}, "style_scale must be a finite number above 0, got inf"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"stages": []}, "stages is an empty list: there is nothing to do"),
        ({"stages": 0}, "stages must be at least 1, got 0"),
        ({"size": 0}, "size must be at least 1, got 0"),
        ({"steps": 1}, r"steps must be at least the number of stages \(2\), got 1"),
    ],
)
def test_settings_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"^{message}$"):
        module_of(noise(32, 32), noise(32, 32), **options)
