"""STROTSS' losses against its formulas, on hypercolumns sampled by torch's own bilinear interpolation."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from nst_lightning.losses import Features, SelfSimilarity, Strotss
from nst_lightning.losses.base import drawn
from nst_lightning.losses.strotss import hypercolumns

UNIT = 57.0


def noise(seed: int, *shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def layers(seed: int) -> list[Features]:
    """An image, and two layers of a network."""
    maps = noise(seed, 1, 3, 24, 32), UNIT * noise(seed + 1, 1, 4, 24, 32), UNIT * noise(seed + 2, 1, 6, 12, 16)
    return [Features.whole(values) for values in maps]


def columns(features: list[Features], places: Tensor, unit: float = UNIT) -> Tensor:
    """(C, K): what `grid_sample` finds at places whose corners are the map's first and behind its last position."""
    found = []
    for index, layer in enumerate(features):
        height, width = layer.size
        rows, across = places[:, 0] * height, places[:, 1] * width
        grid = torch.stack([2 * across / (width - 1) - 1, 2 * rows / (height - 1) - 1], dim=1)[None, None]
        sampled = F.grid_sample(layer.values, grid, align_corners=True, padding_mode="border")[0, :, 0]
        found.append(sampled if index == 0 else sampled / unit)
    return torch.cat(found)


def test_hypercolumns_are_interpolated_as_torch_does() -> None:
    features, places = layers(1), drawn(50, 3)
    torch.testing.assert_close(hypercolumns(features, places, UNIT)[0], columns(features, places), rtol=1e-12, atol=0)


def cosines(x: Tensor, y: Tensor) -> Tensor:
    found: Tensor = 1 - (x.T @ y) / (x.norm(dim=0)[:, None] * y.norm(dim=0))
    return found


def relaxed(costs: Tensor) -> Tensor:
    return torch.maximum(costs.min(dim=1).values.mean(), costs.min(dim=0).values.mean())


def style_loss(x: Tensor, s: Tensor) -> Tensor:
    matrix = torch.tensor(
        [[0.577350, 0.577350, 0.577350], [-0.577350, 0.788675, -0.211325], [-0.577350, -0.211325, 0.788675]],
        dtype=torch.float64,
    )
    p, q = (matrix @ each[:3] for each in (x, s))
    apart = (p[:, :, None] - q[:, None]).square().sum(dim=0).clamp(1e-5, 1e5)
    moments = (x.mean(dim=1) - s.mean(dim=1)).abs().mean() + (torch.cov(x) - torch.cov(s)).abs().mean()
    return relaxed(cosines(x, s)) + moments + relaxed(cosines(p, q) + (apart / 3).sqrt())


def test_style_equals_the_papers_three_terms_and_so_does_its_gradient() -> None:
    output, style, loss = layers(1), layers(7), Strotss(UNIT)
    leaves = [layer.values.requires_grad_() for layer in output]
    found = loss.compare(loss.statistic(output, 5), loss.target(loss.kept(style, 0)), 5)
    expected = style_loss(columns(output, drawn(1024, 5)), columns(style, drawn(5000, 0)))
    assert found.item() == pytest.approx(expected.item(), rel=1e-10)
    for ours, theirs in zip(torch.autograd.grad(found, leaves), torch.autograd.grad(expected, leaves), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("draw", [0, 3, 11])
def test_content_equals_the_papers_formula_at_the_positions_of_a_draw(draw: int) -> None:
    output, content, loss = layers(1), layers(7), SelfSimilarity(UNIT)
    target = loss.target(loss.kept(content, 0))
    found = loss.compare(loss.statistic(output, draw), target, draw)
    places = drawn(8 * 1024, 0)[draw % 8 * 1024 :][:1024]
    x, c = (cosines(*[columns(each, places)] * 2) for each in (output, content))
    expected = (x / x.sum(dim=0) - c / c.sum(dim=0)).abs().sum() / 1024
    assert found.item() == pytest.approx(expected.item(), rel=1e-10)
    itself = loss.compare(loss.statistic(content, draw), target, draw)
    assert itself.item() == 0


def test_content_does_not_see_how_strong_the_features_are() -> None:
    content, loss = layers(1), SelfSimilarity(UNIT)
    target = loss.target(loss.kept(content, 0))
    strong = [Features.whole(3 * layer.values) for layer in content]
    assert loss.compare(loss.statistic(strong, 2), target, 2).item() == pytest.approx(0, abs=1e-9)
