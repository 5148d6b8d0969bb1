from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy.stats import wasserstein_distance
from torch import Tensor

from nst_lightning.errors import InputError
from nst_lightning.metrics.distributions import QUANTILES, quantiles
from nst_lightning.metrics.lab import lab
from nst_lightning.metrics.palette import (
    DIRECTIONS,
    PALETTE_FLOOR,
    Palette,
    PaletteDistance,
    directions,
    palette_of,
)
from tests.metrics.functions import palette_distance, palette_distance_score, palette_progress, seen

from .variants import PAIRS, read_pair


def rand(*size: int, seed: int = 0) -> Tensor:
    return torch.rand(size, generator=torch.Generator().manual_seed(seed))


def half_sphere() -> npt.NDArray[np.float64]:
    golden = math.pi * (3 - math.sqrt(5))
    along = [(number + 0.5) / 16 for number in range(16)]
    return np.array(
        [(z, math.sin(math.acos(z)) * math.cos(i * golden), math.sin(math.acos(z)) * math.sin(i * golden))
         for i, z in enumerate(along)]
    )  # fmt: skip


def reference(output: Tensor, style: Tensor) -> list[float]:
    """The definition, in float64."""
    places = (np.arange(512) + 0.5) / 512
    found = []
    for one, other in zip(output.double().numpy(), style.double().numpy(), strict=True):
        per_direction = [
            np.abs(
                np.quantile(np.tensordot(axis, one, 1), places, method="hazen")
                - np.quantile(np.tensordot(axis, other, 1), places, method="hazen")
            ).mean()
            for axis in half_sphere()
        ]
        found.append(2 * float(np.mean(per_direction)))
    return found


@pytest.mark.parametrize("count", [1, 2, 3, 511, 512, 1000])
def test_quantiles_are_numpys(count: int) -> None:
    sample = rand(2, 3, count)
    expected = np.quantile(sample.double().numpy(), (np.arange(512) + 0.5) / 512, axis=-1, method="hazen")
    torch.testing.assert_close(
        quantiles(sample).double(), torch.from_numpy(np.moveaxis(expected, 0, -1)), rtol=0, atol=1e-6
    )


def test_directions_are_unit_vectors_spread_evenly() -> None:
    vectors = directions()
    assert vectors.shape == (DIRECTIONS, 3) == (16, 3)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(16, dtype=torch.float64))
    np.testing.assert_allclose(vectors.numpy(), half_sphere(), atol=1e-12)
    # Twice the mean projection of any unit vector, which is 1 over the whole sphere, is within 8 % of it.
    axes = torch.nn.functional.normalize(torch.randn(10_000, 3, generator=torch.Generator().manual_seed(0)), dim=1)
    lengths = 2 * (axes.double() @ vectors.T).abs().mean(dim=1)
    assert 0.92 < lengths.min() and lengths.max() < 1.08


def test_is_the_definition_computed_slowly() -> None:
    output, style = seen(rand(2, 3, 20, 31), rand(2, 3, 45, 17, seed=1) ** 2)
    found = palette_distance_score(palette_of(output), palette_of(style))
    np.testing.assert_allclose(found, reference(output, style), rtol=1e-5)


def test_is_scipys_exact_distance_but_for_the_quantiles() -> None:
    content, style = read_pair(*PAIRS[0], 128)
    ours, theirs = seen(content, style)
    flat = [each[0].flatten(1).double().numpy() for each in (ours, theirs)]
    exact = [wasserstein_distance(axis @ flat[0], axis @ flat[1]) for axis in half_sphere()]
    by_direction = (palette_of(ours) - palette_of(theirs)).abs().mean(dim=2)[0]
    np.testing.assert_allclose(by_direction, exact, rtol=2e-3)
    assert palette_distance(content, style).item() == pytest.approx(2 * np.mean(exact), rel=1e-3)


def test_of_512_pixels_it_is_scipys_exact_distance() -> None:
    count = QUANTILES
    ours, theirs = (rand(1, 3, 1, count, seed=seed) * 100 for seed in (0, 1))
    exact = [
        wasserstein_distance(axis @ ours[0, :, 0].double().numpy(), axis @ theirs[0, :, 0].double().numpy())
        for axis in half_sphere()
    ]
    found = palette_distance_score(palette_of(ours), palette_of(theirs))
    assert found.item() == pytest.approx(2 * np.mean(exact), rel=1e-5)


def test_same_image_has_no_distance_and_progress_1() -> None:
    style, content = rand(1, 3, 32, 40), rand(1, 3, 32, 40, seed=1) ** 2
    assert palette_distance(style, style).tolist() == [0]
    assert palette_progress(style, style, content).tolist() == [1]


def test_content_has_progress_0() -> None:
    style, content = rand(1, 3, 32, 40), rand(1, 3, 24, 40, seed=1) ** 2
    assert palette_progress(content, style, content).tolist() == [0]


@pytest.mark.parametrize("shift", [-20.0, 0.5, 7.0])
def test_shift_in_lightness_is_the_distance(shift: float) -> None:
    image = lab(rand(1, 3, 24, 30))
    shifted = image + torch.tensor([shift, 0, 0])[:, None, None]
    found = palette_distance_score(palette_of(shifted), palette_of(image))
    assert found.item() == pytest.approx(abs(shift), rel=1e-4)


@pytest.mark.parametrize("shift", [(0.0, 10.0, 0.0), (0.0, 0.0, -10.0), (0.0, 6.0, 8.0), (6.0, 0.0, 8.0)])
def test_shift_in_colour_is_nearly_the_distance(shift: tuple[float, float, float]) -> None:
    image = lab(rand(1, 3, 24, 30))
    shifted = image + torch.tensor(shift)[:, None, None]
    found = palette_distance_score(palette_of(shifted), palette_of(image))
    assert found.item() == pytest.approx(10, rel=0.08)


def test_greys_are_their_difference_of_lightness_apart() -> None:
    dark, light = (torch.full((1, 3, 16, 16), value / 255) for value in (51, 204))
    expected = (lab(light) - lab(dark))[0, 0, 0, 0].item()
    assert palette_distance(dark, light).item() == pytest.approx(expected, rel=1e-4)


def test_part_of_the_pixels_is_part_of_the_way() -> None:
    content, style = torch.zeros(1, 3, 32, 32), torch.ones(1, 3, 32, 32)
    for columns in (0, 8, 24, 32):
        output = content.clone()
        output[..., :columns] = 1
        assert palette_progress(output, style, content).item() == pytest.approx(columns / 32, abs=1e-3)


def test_where_pixels_are_does_not_matter() -> None:
    image, style = rand(1, 3, 30, 40), rand(1, 3, 20, 20, seed=1) ** 2
    order = torch.randperm(1200, generator=torch.Generator().manual_seed(2))
    moved = image.flatten(2)[..., order].reshape(1, 3, 40, 30)
    torch.testing.assert_close(palette_distance(moved, style), palette_distance(image, style), rtol=1e-6, atol=0)
    colours = lab(image)
    assert torch.equal(palette_of(colours.flatten(2)[..., order].reshape(1, 3, 40, 30)), palette_of(colours))


def test_distance_is_symmetric() -> None:
    one, other = rand(1, 3, 30, 40), rand(1, 3, 20, 20, seed=1) ** 2
    torch.testing.assert_close(palette_distance(one, other), palette_distance(other, one))


def test_progress_is_undefined_where_content_has_the_styles_palette() -> None:
    image = rand(1, 3, 32, 32)
    other = (image * 0.5).clamp(0, 1)
    assert palette_progress(other, image, image).isnan().tolist() == [True]
    metric = Palette()
    metric.update(output=other, style=image, content=image)
    metric.update(output=other, style=image, content=other)
    assert (metric.count.item(), metric.undefined.item(), metric.compute().item()) == (1, 1, 0)


def test_progress_is_undefined_below_the_floor_only() -> None:
    style = torch.full((1, 3, 16, 16), 128 / 255)
    for value in (129, 130, 131, 132):
        content = torch.full((1, 3, 16, 16), value / 255)
        expected = palette_distance(content, style).item() < PALETTE_FLOOR
        assert palette_progress(style, style, content).isnan().item() == expected == (value < 131)


def test_images_of_a_batch_do_not_mix() -> None:
    output, style, content = rand(2, 3, 30, 40), rand(2, 3, 20, 24, seed=1) ** 2, rand(2, 3, 30, 40, seed=2) ** 3
    together = palette_progress(output, style, content)
    alone = [palette_progress(output[[i]], style[[i]], content[[i]]) for i in range(2)]
    assert torch.equal(together, torch.cat(alone))
    assert torch.equal(
        palette_distance(output, style), torch.cat([palette_distance(output[[i]], style[[i]]) for i in range(2)])
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_types_are_scored_in_float32(dtype: torch.dtype) -> None:
    output, style = (torch.randint(0, 2, (1, 3, 16, 16), generator=torch.Generator().manual_seed(i)) for i in (0, 1))
    found = palette_distance(output.to(dtype), style.to(dtype))
    assert found.dtype == torch.float32
    assert torch.equal(found, palette_distance(output.float(), style.float()))


def test_autocast_does_not_round() -> None:
    image, style = lab(rand(1, 3, 16, 16)), lab(rand(1, 3, 16, 16, seed=1) ** 2)
    expected = palette_distance_score(palette_of(image), palette_of(style))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(palette_distance_score(palette_of(image), palette_of(style)), expected)


def test_nothing_holds_a_graph() -> None:
    output = rand(1, 3, 16, 16).requires_grad_()
    assert not palette_of(output).requires_grad
    assert not palette_distance(output, rand(1, 3, 16, 16, seed=1)).requires_grad


def test_larger_outputs_are_reduced_first() -> None:
    output, style = read_pair(*PAIRS[1], 200)
    reduced = palette_distance(output, style, short_side=64)
    assert reduced != palette_distance(output, style, short_side=None)
    metric = PaletteDistance(short_side=64)
    assert metric(output=output, style=style) == reduced
    assert Palette(short_side=64)(output=output, style=style, content=output) == 0


def test_rejects_unlike_numbers_and_no_images() -> None:
    with pytest.raises(InputError, match="2 outputs cannot be compared with 1 images: must be as many"):
        palette_distance(rand(2, 3, 16, 16), rand(1, 3, 16, 16))
    with pytest.raises(InputError, match="1 outputs cannot be compared with 2 images"):
        palette_progress(rand(1, 3, 16, 16), rand(2, 3, 16, 16), rand(1, 3, 16, 16))
    with pytest.raises(InputError, match=r"images to be scored must be float \(N, 3, H, W\)"):
        palette_distance(rand(1, 1, 16, 16), rand(1, 3, 16, 16))
