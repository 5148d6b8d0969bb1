"""Pictures as the scores see them: against the formulas of the CIE in float64, published values, and written bytes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from nst_lightning import images
from nst_lightning.errors import InputError
from nst_lightning.metrics.lab import SHORT_SIDE, as_written, lab
from tests.metrics.functions import seen, working_size

Array = npt.NDArray[np.float64]
PRIMARIES = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
"""The chromaticities of red, green and blue (IEC 61966-2-1)."""
WHITE = (0.3127, 0.3290)


def rand(*size: int, seed: int = 0) -> Tensor:
    return torch.rand(size, generator=torch.Generator().manual_seed(seed))


def colour(*rgb: float) -> Tensor:
    return torch.tensor(rgb)[None, :, None, None]


def from_chromaticity(x: float, y: float) -> Array:
    return np.array([x / y, 1, (1 - x - y) / y])


def reference(rgb: Array) -> Array:
    """CIELAB of sRGB, (3, ...), by way of the primaries."""
    white = from_chromaticity(*WHITE)
    primaries = np.stack([from_chromaticity(*each) for each in PRIMARIES], axis=1)
    to_xyz = primaries * np.linalg.solve(primaries, white)
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    relative = np.tensordot(to_xyz, linear, axes=1) / white.reshape(3, *[1] * (rgb.ndim - 1))
    x, y, z = np.where(relative > (6 / 29) ** 3, np.cbrt(relative), relative / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)])


# ---- CIELAB ----


@pytest.mark.parametrize("power", [1, 4], ids=["any", "dark"])  # of dark ones most are on the straight parts
def test_it_is_the_formulas_of_the_cie(power: int) -> None:
    rgb = rand(2, 3, 40, 50) ** power
    for one, other in zip(lab(rgb), rgb, strict=True):
        np.testing.assert_allclose(one.numpy(), reference(other.double().numpy()), atol=0.02)


@pytest.mark.parametrize(
    ("rgb", "expected"),
    [
        ((1, 1, 1), (100, 0, 0)),
        ((0, 0, 0), (0, 0, 0)),
        ((1, 0, 0), (53.24, 80.09, 67.20)),
        ((0, 1, 0), (87.73, -86.18, 83.18)),
        ((0, 0, 1), (32.30, 79.19, -107.86)),
        ((0.5, 0.5, 0.5), (53.39, 0, 0)),
    ],
)
def test_published_values(rgb: tuple[float, ...], expected: tuple[float, ...]) -> None:
    assert lab(colour(*map(float, rgb))).flatten().tolist() == pytest.approx(expected, abs=0.02)


def test_the_straight_and_the_curved_parts_meet() -> None:
    for value in (0.04045, 0.0031308 * 12.92, 0.09556):  # where sRGB, and the lightness at (6 / 29)^3, change over
        below, above = (lab(colour(*[value * factor] * 3)) for factor in (0.999, 1.001))
        assert (above - below)[0, 0].item() == pytest.approx(0.002 * value * 100, abs=0.05)


def test_autocast_does_not_round() -> None:
    rgb = rand(1, 3, 20, 30)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = seen(rgb)[0]
    assert found.dtype == torch.float32
    assert torch.equal(found, seen(rgb)[0])


# ---- as a file holds them ----


def test_rounding_is_that_of_the_written_file() -> None:
    rgb = rand(1, 3, 60, 70) * 1.2 - 0.1  # some beyond either end
    written = np.asarray(images.to_pil(rgb))
    assert (as_written(rgb)[0].permute(1, 2, 0) * 255).round().byte().numpy().tolist() == written.tolist()
    assert as_written(rgb).min() == 0
    assert as_written(rgb).max() == 1
    assert torch.equal(as_written(as_written(rgb)), as_written(rgb))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_any_float_becomes_float32(dtype: torch.dtype) -> None:
    rgb = rand(1, 3, 8, 9).to(dtype)
    assert as_written(rgb).dtype == torch.float32
    assert torch.equal(as_written(rgb), as_written(rgb.float()))


def test_nothing_holds_a_graph_and_nothing_is_changed() -> None:
    rgb = (rand(1, 3, 40, 40) * 2).requires_grad_()
    before = rgb.detach().clone()
    assert not any(each.requires_grad for each in (*seen(rgb, rgb, short_side=20), *working_size(rgb), as_written(rgb)))
    assert torch.equal(rgb, before)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (torch.zeros(3, 4, 5), r"torch\.float32 \(3, 4, 5\)"),
        (torch.zeros(1, 1, 4, 5), r"torch\.float32 \(1, 1, 4, 5\)"),
        (torch.zeros(1, 3, 0, 5), r"torch\.float32 \(1, 3, 0, 5\)"),
        (torch.zeros(0, 3, 4, 5), r"torch\.float32 \(0, 3, 4, 5\)"),
        (torch.zeros(1, 3, 4, 5, dtype=torch.uint8), r"torch\.uint8 \(1, 3, 4, 5\)"),
    ],
)
def test_what_is_no_picture_is_refused(wrong: Tensor, named: str) -> None:
    message = rf"^images to be scored must be float \(N, 3, H, W\) in \[0, 1\], got {named}$"
    with pytest.raises(InputError, match=message):
        as_written(wrong)
    with pytest.raises(InputError, match=message):
        working_size(rand(1, 3, 4, 4), wrong)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_refused(value: float) -> None:
    rgb = rand(1, 3, 4, 4)
    rgb[0, 1, 2, 3] = value
    with pytest.raises(InputError, match=r"^images to be scored must be finite$"):
        seen(rgb)


# ---- the working size ----


@pytest.mark.parametrize(
    ("size", "short_side", "expected", "others"),
    [
        ((512, 768), SHORT_SIDE, (256, 384), (50, 100)),  # half
        ((768, 512), SHORT_SIDE, (384, 256), (50, 100)),
        ((300, 400), 100, (100, 133), (33, 67)),  # a third, rounded
        ((256, 900), SHORT_SIDE, (256, 900), (100, 200)),
        ((40, 30), SHORT_SIDE, (40, 30), (100, 200)),  # never enlarged
        ((900, 900), None, (900, 900), (100, 200)),
        ((900, 900), 1, (1, 1), (1, 1)),  # not less than a pixel
    ],
)
def test_all_are_reduced_by_the_outputs_factor(
    size: tuple[int, int], short_side: int | None, expected: tuple[int, int], others: tuple[int, int]
) -> None:
    output, other = working_size(rand(1, 3, *size), rand(2, 3, 100, 200), short_side=short_side)
    assert output.shape == (1, 3, *expected)
    assert other.shape == (2, 3, *others)


def test_it_is_written_first_and_reduced_then() -> None:
    rgb = rand(1, 3, 40, 60).round()  # black and white, where bicubic interpolation overshoots
    (found,) = working_size(rgb * 1.5, short_side=30)
    assert torch.equal(found, images.resize(as_written(rgb * 1.5), (30, 45)).clamp(0, 1))
    assert found.min() >= 0
    assert found.max() <= 1
    assert torch.equal(working_size(rgb, short_side=40)[0], as_written(rgb))


def test_seen_is_cielab_at_the_working_size() -> None:
    given = rand(1, 3, 40, 60), rand(1, 3, 50, 20, seed=1)
    for found, sized in zip(seen(*given, short_side=20), working_size(*given, short_side=20), strict=True):
        assert torch.equal(found, lab(sized))
