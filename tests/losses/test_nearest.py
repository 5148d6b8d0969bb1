"""Nearest neighbours against the papers' formulas, written position by position."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nst_lightning.losses import Features, Nearest, Statistic
from tests.losses.additive import distance

CHANNELS = 5


def noise(height: int, width: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, CHANNELS, height, width, generator=generator, dtype=torch.float64) + 1


class Whole(Nearest):
    """With every position of the test's images."""

    positions = bank = 48


def by_formula(output: Tensor, style: Tensor) -> float:
    own, other = (x[0].flatten(1).T - x[0].flatten(1).mean(dim=1) for x in (output, style))
    distances = [min(1 - (a @ b / (a.norm() * b.norm())).item() for b in other.unbind()) for a in own.unbind()]
    return float(sum(distances) / len(distances))


def test_every_position_against_its_nearest_by_the_papers_formula() -> None:
    output, style = noise(4, 7, 1), noise(6, 8, 2)
    assert distance(Whole(), output, style).item() == pytest.approx(by_formula(output, style), rel=1e-12)


def test_drawn_positions_are_those_of_the_whole_in_the_mean() -> None:
    class Few(Nearest):
        positions, bank = 16, 48

    output, style = noise(6, 8, 1), noise(6, 8, 2)
    found = [distance(Few(), output, style, draw).item() for draw in range(200)]
    mean, spread = torch.tensor(found).mean().item(), torch.tensor(found).std().item()
    assert mean == pytest.approx(by_formula(output, style), abs=4 * spread / len(found) ** 0.5)
    assert spread > 0


def test_neither_scale_nor_mean_nor_the_order_of_positions_counts() -> None:
    output, style = noise(4, 7, 1), noise(6, 8, 2)
    expected = distance(Whole(), output, style)
    turned = style.flatten(2)[..., torch.randperm(48, generator=torch.Generator().manual_seed(4))].view_as(style)
    torch.testing.assert_close(distance(Whole(), 3 * output + 7, turned), expected, rtol=1e-12, atol=0)


def test_gradient_by_finite_differences() -> None:
    style, loss = noise(6, 8, 2), Whole()
    assert torch.autograd.gradcheck(lambda x: distance(loss, x, style), noise(3, 4, 1).requires_grad_())


def test_many_positions_are_searched_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    output, style = noise(4, 7, 1), noise(6, 8, 2)
    expected = distance(Whole(), output, style)
    monkeypatch.setattr("nst_lightning.losses.nearest._AT_ONCE", 100)
    torch.testing.assert_close(distance(Whole(), output, style), expected, rtol=1e-14, atol=0)


@pytest.mark.parametrize(("weights", "counts"), [((1, 1), (24, 24)), ((1, 3), (12, 36)), ((0, 2), (0, 48))])
def test_of_two_styles_each_has_its_share_of_the_samples(weights: tuple[float, float], counts: tuple[int, int]) -> None:
    loss = Whole()
    kept = [loss.kept([Features.whole(torch.full((1, 2, 3, 4), float(value)))], 0) for value in (0, 1)]
    merged = Statistic.merged(kept, weights)
    assert [int((merged.samples["features"][0, 0] == value).sum()) for value in (0, 1)] == list(counts)
    assert merged.mean("features")[0, 0].item() == pytest.approx(weights[1] / sum(weights))
