"""The Wasserstein loss against scipy, finite differences and what it is by definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch import Tensor

from nst_lightning.losses import Wasserstein
from tests.losses.additive import distance


def values(seed: int, width: int = 9) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(6, 6, generator=generator, dtype=torch.float64)
    noise = torch.randn(2, 6, 7 * width, generator=generator, dtype=torch.float64)
    return (mixing @ noise + seed).view(2, 6, 7, width)


def by_definition(output: Tensor, style: Tensor) -> float:
    """Olkin and Pukelsheim (1982), equation 4, by scipy's roots."""
    (m, s), (n, t) = (
        (x.mean(axis=1), np.cov(x, bias=True) + (1e-4 + 1e-6 * np.square(x).mean(axis=1).sum()) * np.eye(len(x)))
        for x in (output.numpy(), style.numpy())
    )
    root = np.real(sqrtm(t))
    overlap = np.trace(np.real(sqrtm(root @ s @ root)))
    return float((np.square(m - n).sum() + np.trace(s) + np.trace(t) - 2 * overlap) / len(m))


def test_equals_the_definition() -> None:
    output, style = values(1), values(2, width=5)
    expected = [by_definition(output[index].flatten(1), style[index].flatten(1)) for index in range(2)]
    assert distance(Wasserstein(), output, style).tolist() == pytest.approx(expected, rel=1e-9)
    assert distance(Wasserstein(), output.float(), style.float()).tolist() == pytest.approx(expected, rel=1e-5)


def test_is_0_for_the_style_itself_and_symmetric() -> None:
    output, style = values(1), values(2)
    assert distance(Wasserstein(), style, style).abs().max() < 1e-9 * distance(Wasserstein(), output, style).min()
    torch.testing.assert_close(
        distance(Wasserstein(), output, style), distance(Wasserstein(), style, output), rtol=1e-9, atol=0
    )


def test_places_do_not_matter() -> None:
    output, style = values(1), values(2)
    torch.testing.assert_close(
        distance(Wasserstein(), output.flip(2, 3), style), distance(Wasserstein(), output, style), rtol=1e-12, atol=0
    )


@pytest.mark.parametrize("positions", [63, 4])  # with fewer positions than channels, covariances are singular
def test_gradient_equals_finite_differences(positions: int) -> None:
    output = values(1).flatten(2)[..., :positions].unsqueeze(2).requires_grad_()
    style = values(2)
    (gradient,) = torch.autograd.grad(distance(Wasserstein(), output, style).sum(), output)
    direction = torch.randn(output.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    step = 1e-6
    with torch.no_grad():
        ahead, behind = (distance(Wasserstein(), output + sign * step * direction, style).sum() for sign in (1, -1))
    assert (gradient * direction).sum().item() == pytest.approx(((ahead - behind) / (2 * step)).item(), rel=1e-5)


def test_covariances_that_rounding_leaves_singular_have_a_distance() -> None:
    # As many channels of a deep layer are: of large values, few positions, and all but multiples of each other.
    generator = torch.Generator().manual_seed(4)
    one = 1e3 * torch.rand(1, 1, 12, 8, generator=generator)
    output = (one * torch.rand(1, 256, 1, 1, generator=generator)).requires_grad_()
    style = 1e3 * torch.rand(1, 256, 9, 7, generator=generator).relu()
    (gradient,) = torch.autograd.grad(distance(Wasserstein(), output, style).sum(), output)
    assert gradient.isfinite().all()
    assert (
        distance(Wasserstein(), output, output.detach()).abs().item()
        < 1e-6 * distance(Wasserstein(), output, style).item()
    )
