"""Moments and central moment discrepancy against numpy and scipy in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import expit
from scipy.stats import moment
from torch import Tensor

from nst_lightning.losses import Additive, Cmd, Moments
from tests.losses.additive import assert_only_values_count, distance


def noise(height: int, width: int, seed: int) -> Tensor:
    return torch.randn(2, 5, height, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + seed


def of_moments(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.mean((x.mean(1) - y.mean(1)) ** 2) + np.mean((x.std(1) - y.std(1)) ** 2))


def of_cmd(x: np.ndarray, y: np.ndarray) -> float:
    p, q = expit(x / 3), expit(y / 3)
    apart = [p.mean(1) - q.mean(1), *(moment(p, k, axis=1) - moment(q, k, axis=1) for k in range(2, 6))]
    return float(sum(np.linalg.norm(each) for each in apart) / np.sqrt(len(x)))


CASES = [(Moments(), of_moments), (Cmd(3.0), of_cmd)]


@pytest.mark.parametrize(("loss", "formula"), CASES, ids=["moments", "cmd"])
def test_equals_the_formula(loss: Additive, formula: object) -> None:
    output, style = noise(4, 7, 1), noise(6, 8, 2)
    expected = [formula(x.flatten(1).numpy(), y.flatten(1).numpy()) for x, y in zip(output, style, strict=True)]  # type: ignore[operator]
    np.testing.assert_allclose(distance(loss, output, style), expected, rtol=1e-5)


@pytest.mark.parametrize("loss", [loss for loss, _ in CASES], ids=["moments", "cmd"])
def test_places_do_not_count_and_the_gradient_is_the_slope(loss: Additive) -> None:
    assert_only_values_count(loss, noise(4, 6, 1), noise(6, 8, 2), rtol=1e-9)


@pytest.mark.parametrize("loss", [loss for loss, _ in CASES], ids=["moments", "cmd"])
def test_the_slope_of_what_is_constant_or_equal_is_finite(loss: Additive) -> None:
    flat = torch.full((1, 5, 4, 4), 0.7, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(distance(loss, flat, flat.detach()).sum(), flat)
    assert gradient.isfinite().all()
    assert distance(loss, flat, flat.detach()).item() == 0
