from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy.fft import idctn
from scipy.signal import correlate
from scipy.stats import wasserstein_distance
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from nst_lightning import images
from nst_lightning.errors import InputError
from nst_lightning.metrics.lab import lab
from nst_lightning.metrics.texture import TEXTURE_FLOOR, Texture, TextureDistance, texture_of
from tests.metrics.functions import (
    seen,
    texture_distance,
    texture_distance_score,
    texture_levels,
    texture_levels_score,
    texture_progress,
    texture_progress_score,
)

from .variants import PAIRS, read_pair, recoloured, shuffled

Array = npt.NDArray[np.float64]


def rand(*size: int, seed: int = 0) -> Tensor:
    return torch.rand(size, generator=torch.Generator().manual_seed(seed))


def grey(*size: int, seed: int = 0) -> Tensor:
    return rand(size[0], 1, *size[1:], seed=seed).expand(-1, 3, -1, -1)


def enlarged(image: Tensor, factor: int) -> Tensor:
    return image.repeat_interleave(factor, dim=-1).repeat_interleave(factor, dim=-2)


def reference_responses(lightness: Array) -> list[list[Array]]:
    """The absolute responses of every filter at every level of one picture, in float64."""
    levels = []
    for stride in (3, 3, 1):
        if min(lightness.shape) < 8:
            break
        filters = []
        for number in range(1, 64):
            coefficients = np.zeros((8, 8))
            coefficients[number % 8, number // 8] = 1  # the order does not matter, as filters are averaged
            kernel = idctn(coefficients, norm="ortho")
            filters.append(np.abs(correlate(lightness, kernel, mode="valid", method="direct")[::stride, ::stride]))
        levels.append([each.ravel() for each in filters])
        height, width = (side // 2 * 2 for side in lightness.shape)
        even = lightness[:height, :width]
        lightness = (even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2]) / 4
    return levels


def reference(output: Tensor, style: Tensor) -> list[float]:
    """The definition for one picture of each in CIELAB, in float64, a level each."""
    places = (np.arange(512) + 0.5) / 512
    both = [reference_responses(each[0].double().numpy()) for each in (output, style)]
    levels = []
    for ours, theirs in zip(*both, strict=False):
        ratios = []
        for our, their in zip(ours, theirs, strict=True):
            one, other = (np.quantile(each, places, method="hazen") for each in (our, their))
            if other.mean() >= 0.01:
                ratios.append(np.abs(one - other).mean() / (one.mean() + other.mean()) * 2)
        levels.append(float(np.mean(ratios)))
    return levels


@pytest.fixture(scope="module")
def distances() -> list[dict[str, Tensor]]:
    """The distance from the style of some variants at each level, for each of the pairs."""
    found = []
    for pair in PAIRS:
        content, style = read_pair(*pair, 256)
        of_style = texture_of(*seen(style))
        stretched = images.resize(style, (content.shape[-2], content.shape[-1])).clamp(0, 1)
        pictures = {
            "style": stretched,
            "larger patches": shuffled(stretched, 32),
            "shuffled": shuffled(stretched),
            "recoloured": recoloured(content, style),
            "blend": (content + stretched) / 2,
            "content": content,
        }
        found.append({n: texture_levels_score(texture_of(*seen(each)), of_style)[0] for n, each in pictures.items()})
    return found


def test_is_the_definition_computed_slowly() -> None:
    output, style = seen(rand(2, 3, 40, 61), rand(2, 3, 75, 37, seed=1) ** 2)
    found = texture_levels_score(texture_of(output), texture_of(style))
    assert found.shape == (2, 3)
    expected = [reference(output[i], style[i]) for i in range(2)]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_pictures_are_the_definition_computed_slowly() -> None:
    content, style = read_pair(*PAIRS[2], 96)
    ours, theirs = seen(content, style)
    expected = reference(ours[0], theirs[0])
    np.testing.assert_allclose(texture_levels(content, style)[0], expected, rtol=1e-4)
    assert texture_distance(content, style).item() == pytest.approx(np.mean(expected), rel=1e-4)


def test_is_scipys_exact_distance_of_responses_with_either_sign_but_for_the_quantiles() -> None:
    content, style = read_pair(*PAIRS[1], 128)
    ours, theirs = seen(content, style)
    both = [reference_responses(each[0, 0].double().numpy()) for each in (ours, theirs)]
    exact = [
        np.mean(
            [
                wasserstein_distance(np.concatenate([our, -our]), np.concatenate([their, -their]))
                * 2 / (our.mean() + their.mean())
                for our, their in zip(*level, strict=True)
            ]
        )
        for level in zip(*both, strict=True)
    ]  # fmt: skip
    np.testing.assert_allclose(texture_levels(content, style)[0], exact, rtol=5e-3)


def test_same_image_has_no_distance_and_progress_1() -> None:
    style, content = rand(1, 3, 64, 72), rand(1, 3, 64, 72, seed=1) ** 3
    assert texture_levels(style, style).tolist() == [[0, 0, 0]]
    assert texture_distance(style, style).tolist() == [0]
    assert texture_progress(style, style, content).tolist() == [1]


def test_content_has_progress_0() -> None:
    style, content = rand(1, 3, 48, 60), rand(1, 3, 64, 72, seed=1) ** 3
    assert texture_progress(content, style, content).tolist() == [0]


def test_flat_image_is_as_far_as_can_be() -> None:
    levels = texture_levels(torch.full((1, 3, 40, 40), 0.5), grey(1, 40, 40))
    assert levels[0].tolist() == pytest.approx([2, 2, 2], rel=1e-4)


@pytest.mark.parametrize("factor", [0.25, 0.5, 3.0])
def test_weaker_or_stronger_texture_is_the_ratio_apart(factor: float) -> None:
    image = lab(rand(1, 3, 48, 48))
    # Responses k times as large: the distance is |k - 1| m, of a mean of (k + 1) m / 2.
    expected = 2 * abs(factor - 1) / (factor + 1)
    found = texture_levels_score(texture_of(image * factor), texture_of(image))
    assert found[0].tolist() == pytest.approx([expected] * 3, rel=1e-4)


def test_stays_within_its_bounds() -> None:
    style = rand(1, 3, 40, 40) * 0.1
    for other in (rand(1, 3, 40, 40, seed=1), (rand(1, 3, 40, 40, seed=2) > 0.99).float(), torch.zeros(1, 3, 40, 40)):
        assert 0 < texture_distance(other, style).item() <= 2
        assert texture_progress(other, style, rand(1, 3, 40, 40, seed=3) ** 2).item() < 1


def test_colour_and_brightness_alone_change_nothing() -> None:
    image = lab(rand(1, 3, 40, 40))
    moved = image + torch.tensor([5.0, 20.0, -30.0])[:, None, None]
    torch.testing.assert_close(
        texture_levels_score(texture_of(moved), texture_of(image)), torch.zeros(1, 3), rtol=0, atol=1e-5
    )


def test_the_negative_of_a_texture_is_the_same_texture() -> None:
    image = lab(rand(1, 3, 40, 40))
    assert texture_levels_score(texture_of(-image), texture_of(image)).tolist() == [[0, 0, 0]]


@pytest.mark.parametrize("destroyed", [0, 1, 2])
def test_levels_react_where_texture_was_destroyed(destroyed: int) -> None:
    # A texture of squares of 1, 2 or 4 px; its means at the squares are what the coarser levels see.
    texture = enlarged(grey(1, 160 >> destroyed, 160 >> destroyed), 1 << destroyed)
    side = 2 << destroyed
    coarser = enlarged(torch.nn.functional.avg_pool2d(texture, side), side)
    style, output = (lab(each) for each in (texture, coarser))
    levels = texture_levels_score(texture_of(output), texture_of(style))[0]
    assert levels.argmax() <= destroyed
    assert levels[destroyed] > 0.4
    assert (levels[destroyed + 1 :] < 0.7 * levels[destroyed]).all()


def test_coarse_texture_alone_differs_at_the_coarse_level() -> None:
    fine = grey(1, 192, 192) * 0.6
    coarse = torch.nn.functional.interpolate(grey(1, 12, 12, seed=1) * 0.4, scale_factor=16, mode="bicubic")
    levels = texture_levels((fine + coarse).clamp(0, 1), fine + 0.2)[0]
    assert levels[2] > 2 * levels[0]


def test_small_images_have_fewer_levels() -> None:
    style = rand(1, 3, 64, 64)
    for side, levels in ((8, 1), (15, 1), (16, 2), (31, 2), (32, 3), (64, 3)):
        there = [True] * levels + [False] * (3 - levels)
        assert texture_of(style[..., :side]).shape == (1, 3, 63, 512)
        assert texture_of(style[..., :side]).isfinite().all(3).all(2).tolist() == [there]
        assert texture_of(style[..., :side]).isnan().any(3).any(2).tolist() == [[not each for each in there]]
        assert texture_levels(style[..., :side], style).isfinite().tolist() == [there]
        assert texture_levels(style, style[..., :side, :]).isfinite().tolist() == [there]


def test_progress_compares_the_levels_that_all_have() -> None:
    output, style, content = rand(1, 3, 40, 40), rand(1, 3, 40, 40, seed=1) ** 2, rand(1, 3, 20, 20, seed=2) ** 3
    ours, theirs, base = (texture_of(each) for each in seen(output, style, content))
    assert [each[0, :, 0, 0].isfinite().sum() for each in (ours, theirs, base)] == [3, 3, 2]
    expected = 1 - texture_distance_score(ours[:, :2], theirs[:, :2]) / texture_distance_score(base, theirs)
    assert torch.equal(texture_progress(output, style, content), expected)


def test_what_has_no_window_has_no_number() -> None:
    assert texture_of(rand(2, 3, 7, 30)).isnan().all()
    assert texture_distance(rand(2, 3, 7, 30), rand(2, 3, 30, 30)).isnan().tolist() == [True, True]
    assert texture_progress(rand(1, 3, 30, 30), rand(1, 3, 30, 5), rand(1, 3, 30, 30)).isnan().all()
    assert texture_progress(rand(1, 3, 30, 30), rand(1, 3, 30, 30), rand(1, 3, 5, 30)).isnan().all()


def test_rejects_unlike_numbers() -> None:
    with pytest.raises(InputError, match="2 outputs cannot be compared with 1 images: must be as many"):
        texture_distance(rand(2, 3, 16, 16), rand(1, 3, 16, 16))
    with pytest.raises(InputError, match="2 outputs cannot be compared with 1 images: must be as many"):
        texture_progress(rand(2, 3, 16, 16), rand(2, 3, 16, 16), rand(1, 3, 16, 16))


def test_filters_without_response_in_the_style_are_left_out() -> None:
    # Stripes along the height: only the 7 filters that vary along the width alone see them.
    style = grey(1, 1, 40).expand(1, 3, 40, 40)
    crossed = (style + style.mT) / 2
    halved = lab(style) * 0.5
    assert texture_levels_score(texture_of(halved), texture_of(lab(style)))[0].tolist() == pytest.approx([2 / 3] * 3)
    assert texture_distance(crossed, style).isfinite().all()
    assert texture_distance(style, crossed).item() > 1.5


def test_levels_without_texture_in_the_style_are_left_out() -> None:
    board = (torch.arange(40)[:, None] + torch.arange(40)) % 2  # whose means of 2 x 2 px are all the same
    style = board.float().expand(1, 3, 40, 40)
    levels = texture_levels(grey(1, 40, 40), style)
    assert levels.isnan().tolist() == [[False, True, True]]
    assert texture_distance(grey(1, 40, 40), style).item() == levels[0, 0]


def test_flat_style_has_no_number() -> None:
    output, flat = rand(1, 3, 32, 32), torch.full((1, 3, 32, 32), 0.3)
    assert texture_distance(output, flat).isnan().all()
    assert texture_distance(flat, flat).isnan().all()
    assert texture_progress(output, flat, output).isnan().all()
    metric = TextureDistance()
    metric.update(output=output, style=flat)
    metric.update(output=flat, style=output)
    assert (metric.count.item(), metric.undefined.item()) == (1, 1)
    assert metric.compute().item() == pytest.approx(2)


def test_progress_is_undefined_where_content_has_the_styles_texture() -> None:
    image = rand(1, 3, 40, 40)
    assert texture_progress(image**2, image, image).isnan().all()
    image, style = lab(image), texture_of(lab(image))
    for factor in (1.04, 1.06):  # which is about the distance from 1
        baseline = texture_distance_score(texture_of(image * factor), style)
        undefined = baseline.item() < TEXTURE_FLOOR
        assert texture_progress_score(torch.zeros(1), baseline).isnan().item() == undefined == (factor == 1.04)


def test_images_of_a_batch_do_not_mix() -> None:
    output, style, content = rand(2, 3, 40, 50), rand(2, 3, 36, 44, seed=1) ** 2, rand(2, 3, 40, 50, seed=2) ** 3
    together = texture_progress(output, style, content)
    alone = [texture_progress(output[[i]], style[[i]], content[[i]]) for i in range(2)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-6, atol=0)
    separate = [texture_levels(output[[i]], style[[i]]) for i in range(2)]
    torch.testing.assert_close(texture_levels(output, style), torch.cat(separate), rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_types_are_scored_in_float32(dtype: torch.dtype) -> None:
    output, style = (torch.randint(0, 2, (1, 3, 32, 32), generator=torch.Generator().manual_seed(i)) for i in (0, 1))
    found = texture_distance(output.to(dtype), style.to(dtype))
    assert found.dtype == torch.float32
    assert torch.equal(found, texture_distance(output.float(), style.float()))


def test_autocast_does_not_round() -> None:
    image, style = lab(rand(1, 3, 40, 40)), lab(rand(1, 3, 40, 40, seed=1) ** 2)
    expected = texture_levels_score(texture_of(image), texture_of(style))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(texture_levels_score(texture_of(image), texture_of(style)), expected)


def test_nothing_holds_a_graph() -> None:
    output = rand(1, 3, 32, 32).requires_grad_()
    assert not any(level.requires_grad for level in texture_of(output))
    assert not texture_distance(output, rand(1, 3, 32, 32, seed=1)).requires_grad


def test_metrics_take_a_working_size() -> None:
    output, style = read_pair(*PAIRS[1], 200)
    levels = texture_levels(output, style, short_side=64)[0]
    assert not torch.equal(levels, texture_levels(output, style, short_side=None)[0])
    assert TextureDistance(short_side=64)(output=output, style=style) == levels.mean()
    assert Texture(short_side=64)(output=output, style=style, content=output) == 0


def test_patches_keep_the_texture_of_the_levels_that_fit_into_them(distances: list[dict[str, Tensor]]) -> None:
    # Patches of 16 px, windows of 8, 16 and 32 px.
    for each in distances:
        patches, *others = (each[name][:2] for name in ("shuffled", "recoloured", "blend", "content"))
        assert patches.mean() < min(other.mean() for other in others)
        assert each["shuffled"][0] < each["shuffled"][2]


def test_larger_patches_keep_more_of_every_pair(distances: list[dict[str, Tensor]]) -> None:
    for each in distances:
        mean = {name: levels.mean().item() for name, levels in each.items()}
        rest = [mean[name] for name in mean if name not in ("style", "larger patches")]
        assert mean["style"] < mean["larger patches"] < min(rest)


def test_blurring_takes_the_finest_level_first() -> None:
    _, style = read_pair(*PAIRS[0], 256)
    levels = texture_levels(gaussian_blur(style, [7, 7], [1.0, 1.0]), style)[0]
    assert levels[0] > 1.5 * levels[1] > 3 * levels[2]
