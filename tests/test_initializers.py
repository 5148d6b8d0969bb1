"""The start image: its noise against the predecessor's, its seed, and its size."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from nst_lightning import images
from nst_lightning.errors import InputError
from nst_lightning.initializers import initial_image

NOISES = ["gaussian", "uniform"]


@pytest.fixture
def content() -> Tensor:
    return torch.rand(1, 3, 64, 48, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def style() -> Tensor:
    return torch.rand(1, 3, 30, 62, generator=torch.Generator().manual_seed(2))


def in_the_predecessors_space(image: Tensor) -> Tensor:
    """What its network sees: pixels times 255 minus the ImageNet mean."""
    return 255 * image - torch.tensor([123.675, 116.28, 103.53]).view(1, 3, 1, 1)


@pytest.mark.parametrize("seed", [0, 7])
def test_noise_is_the_predecessors_in_its_own_space(content: Tensor, style: Tensor, seed: int) -> None:
    # neural_style_transfer.py: np.random.normal(loc=0, scale=90.); reconstruct_...: np.random.uniform(-90., 90.)
    normal = torch.randn(content.shape, generator=torch.Generator().manual_seed(seed))
    unit = torch.rand(content.shape, generator=torch.Generator().manual_seed(seed))
    for name, expected in (("gaussian", 90 * normal), ("uniform", -90 + 180 * unit)):
        found = in_the_predecessors_space(initial_image(name, content, style, seed))
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("name", "std"), [("gaussian", 90), ("uniform", 90 / math.sqrt(3))])
def test_noise_has_mean_0_and_the_predecessors_deviation_in_every_channel(
    content: Tensor, style: Tensor, name: str, std: float
) -> None:
    noise = in_the_predecessors_space(initial_image(name, content, style, 3))[0].flatten(1)
    tolerance = 4 * std / math.sqrt(noise.shape[1])  # four standard errors
    assert noise.mean(1).abs().max() < tolerance
    assert (noise.std(1) - std).abs().max() < tolerance
    assert noise.corrcoef().fill_diagonal_(0).abs().max() < 4 / math.sqrt(noise.shape[1])


def test_uniform_noise_fills_its_range_and_does_not_leave_it(content: Tensor, style: Tensor) -> None:
    noise = in_the_predecessors_space(initial_image("uniform", content, style, 0))
    assert -90.001 < noise.min() < -89.9
    assert 89.9 < noise.max() < 90.001


@pytest.mark.parametrize("name", NOISES)
def test_noise_depends_on_its_seed_alone(content: Tensor, style: Tensor, name: str) -> None:
    torch.manual_seed(5)
    first = initial_image(name, content, style, 0)
    torch.manual_seed(6)
    before = torch.get_rng_state()
    assert torch.equal(initial_image(name, 1 - content, style, 0), first)
    assert torch.equal(torch.get_rng_state(), before)
    assert (initial_image(name, content, style, 1) - first).abs().mean() > 0.1


@pytest.mark.parametrize("name", NOISES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_noise_has_the_contents_shape_and_dtype(content: Tensor, style: Tensor, name: str, dtype: torch.dtype) -> None:
    noise = initial_image(name, content.to(dtype), style, 0)
    assert (noise.shape, noise.dtype) == (content.shape, dtype)


def test_content_is_a_copy(content: Tensor, style: Tensor) -> None:
    start = initial_image("content", content, style, 0)
    assert torch.equal(start, content)
    start.zero_()
    assert content.max() > 0.9


def test_style_is_resized_to_the_contents_size_and_held_in_range(content: Tensor, style: Tensor) -> None:
    hard = (style > 0.5).float()  # bicubic overshoots at its edges
    start = initial_image("style", content, hard, 0)
    resized = images.resize(hard, (64, 48))
    assert resized.max() > 1.01
    assert torch.equal(start, resized.clamp(0, 1))


def test_style_of_the_contents_size_is_a_copy(content: Tensor) -> None:
    style = 1 - content
    start = initial_image("style", content, style, 0)
    assert torch.equal(start, 1 - content)
    start.zero_()
    assert style.max() > 0.9


def test_an_unknown_name_is_refused_with_those_that_are_known(content: Tensor, style: Tensor) -> None:
    with pytest.raises(
        InputError, match=r"^unknown init 'noise'; known are content, .*, grey, painter:FILE, or a picture's file$"
    ):
        initial_image("noise", content, style, 0)


def test_blanks_are_of_the_styles_mean_colour_and_of_the_networks_grey(content: Tensor, style: Tensor) -> None:
    blank = initial_image("mean", content, style, 0)
    assert blank.shape == content.shape
    torch.testing.assert_close(blank[0, :, 5, 7], style.mean(dim=(0, 2, 3)))
    assert blank.std(dim=(2, 3)).max() < 1e-6
    assert in_the_predecessors_space(initial_image("grey", content, style, 0)).abs().max() < 1e-4


def test_a_picture_is_resized_to_the_contents_size(content: Tensor, style: Tensor, tmp_path: Path) -> None:
    images.write(tmp_path / "start.png", style)
    start = initial_image(str(tmp_path / "start.png"), content, style, 0)
    expected = images.resize(images.read(tmp_path / "start.png").rgb, (64, 48)).clamp(0, 1)
    assert torch.equal(start, expected)


def test_a_picture_that_cannot_be_read_is_refused(content: Tensor, style: Tensor, tmp_path: Path) -> None:
    (tmp_path / "start.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"start\.png"):
        initial_image(str(tmp_path / "start.png"), content, style, 0)
