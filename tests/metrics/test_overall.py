"""The one number of four: by hand, its bounds, and where it has none."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from torch import Tensor

from nst_lightning.errors import InputError
from nst_lightning.metrics.overall import Overall, overall_score
from tests.metrics.functions import leak, outline, palette_progress, texture_progress
from tests.metrics.test_outline import picture


def score(*parts: float) -> float:
    return overall_score(*(torch.tensor([part]) for part in parts)).item()


@pytest.mark.parametrize(
    ("outline", "palette", "texture", "leak", "expected"),
    [
        (1, 1, 1, 0, 1),
        (0.5, 0.5, 0.5, 0, 0.5),
        (0.8, 0.9, 0.6, 0.25, 0.5669643),  # 0.432^(1/3) = 0.7559526, times 3/4
        (1, 1, 0.125, 0.5, 0.25),
        (0.5, 0.5, 0.5, 1, 0),
        (0, 1, 1, 0, 0),
        (1, 0, 1, 0, 0),
        (1, 1, 0, 0, 0),
        (1, 1, -3, 0, 0),  # further from the style than the content was
        (1, -3, -3, 0, 0),  # not the product of two negative ones
    ],
)
def test_it_is_what_is_worked_out_by_hand(
    outline: float, palette: float, texture: float, leak: float, expected: float
) -> None:
    assert score(outline, palette, texture, leak) == pytest.approx(expected, abs=1e-6)


def test_it_is_within_0_and_1_and_rises_with_each_part_but_the_leak() -> None:
    values = (0.0, 0.1, 0.5, 1.0)
    for parts in product(values, (-2.0, *values), (-2.0, *values), values):
        found = score(*parts)
        assert 0 <= found <= 1
        for place in range(4):
            more = list(parts)
            more[place] = 1.0
            assert score(*more) <= found if place == 3 else score(*more) >= found


@pytest.mark.parametrize("place", range(4))
def test_without_one_of_its_parts_it_has_no_value(place: int) -> None:
    for others in (0.0, 0.5, 1.0):
        parts = [others] * 4
        parts[place] = math.nan
        assert math.isnan(score(*parts))


def test_images_of_a_batch_are_scored_one_by_one() -> None:
    parts = torch.rand(4, 5, generator=torch.Generator().manual_seed(0))
    found = overall_score(*parts)
    assert found.shape == (5,)
    assert found.tolist() == pytest.approx([score(*each) for each in parts.T.tolist()], abs=1e-6)


def images() -> dict[str, Tensor]:
    content = picture(1)
    return {"output": content * 0.7, "content": content, "style": picture(2, (40, 60)) * 0.4}


@pytest.mark.parametrize("short_side", [None, 32])
def test_the_metric_is_the_score_of_its_four_parts(short_side: int | None) -> None:
    given = images()
    output, content, style = given.values()
    expected = overall_score(
        outline(output, content, short_side),
        palette_progress(output, style, content, short_side),
        texture_progress(output, style, content, short_side),
        leak(output, style, short_side),
    )
    assert 0.05 < expected.item() < 0.95
    assert torch.equal(Overall(short_side)(**given), expected[0])


@pytest.mark.parametrize("flat", ["content", "style"])
def test_without_outlines_to_compare_it_is_undefined(flat: str) -> None:
    given = images()
    metric = Overall()
    metric.update(**{**given, flat: torch.full_like(given[flat], 0.5)})
    assert (metric.count.item(), metric.undefined.item()) == (0, 1)
    assert metric.compute().isnan()


def test_the_content_has_the_outputs_size() -> None:
    with pytest.raises(InputError, match=r"^the output has 64x48 px, .* 48x64 px: must be equal$"):
        Overall().update(**{**images(), "content": picture(1, (64, 48))})
