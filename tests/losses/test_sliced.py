"""Sliced Wasserstein and histograms against scipy's and the papers' formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import rankdata
from torch import Tensor

from nst_lightning.losses import Histogram, Sliced
from tests.losses.additive import assert_only_values_count, distance


def noise(height: int, width: int, seed: int) -> Tensor:
    return torch.randn(1, 5, height, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + seed


class AsManyAsThePainting(Sliced):
    positions = 48


class Exact(Histogram):
    positions = 48


def test_a_histogram_is_matched_rank_by_rank() -> None:
    output, style = noise(6, 8, 1), noise(6, 8, 2)
    expected = []
    for own, other in zip(output[0].flatten(1).numpy(), style[0].flatten(1).numpy(), strict=True):
        remapped = np.sort(other)[rankdata(own, method="ordinal") - 1]
        expected.append(np.mean((own - remapped) ** 2))
    assert distance(Exact(), output, style).item() == pytest.approx(np.mean(expected), rel=1e-12)


@pytest.mark.parametrize("draw", [0, 9])
def test_slices_are_compared_as_heitz_does(draw: int) -> None:
    output, style = noise(6, 8, 1), noise(6, 8, 2)
    directions = torch.randn(5, 5, generator=torch.Generator().manual_seed(draw), dtype=torch.float64)
    directions /= directions.norm(dim=1, keepdim=True)
    own, other = ((directions @ each[0].flatten(1)).sort().values for each in (output, style))
    expected = (own - other).square().mean().item()
    assert distance(AsManyAsThePainting(), output, style, draw).item() == pytest.approx(expected, rel=1e-10)


def test_a_painting_of_another_size_is_compared_by_quantiles() -> None:
    small, large = noise(3, 4, 1), noise(3, 4, 1).repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    assert distance(Exact(), small, large).item() == pytest.approx(0, abs=1e-12)
    assert distance(Exact(), large, small).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("loss", [Exact(), AsManyAsThePainting()], ids=["histogram", "sliced"])
def test_places_do_not_count_and_the_gradient_is_the_slope(loss: Histogram) -> None:
    style = noise(6, 8, 2)
    assert_only_values_count(loss, noise(4, 6, 1), style, rtol=1e-12)
    assert distance(loss, style, style).item() == pytest.approx(0, abs=1e-12)
