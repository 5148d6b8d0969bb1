"""Matched hypercolumns against the formulas of NNST's code, written with torch's own resizing."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from nst_lightning.losses import Features, MatchedColumns, Statistic

SIZES = ((1, 20, 28), (3, 20, 28), (6, 10, 14), (4, 5, 7))  # channels, height and width; the first is the image's
POSITIONS = 5 * 7


def noise(seed: int) -> list[Features]:
    generator = torch.Generator().manual_seed(seed)
    return [Features.whole(torch.rand(2, *size, generator=generator, dtype=torch.float64)) for size in SIZES]


def columns(features: list[Features]) -> Tensor:
    """The hypercolumns (N, K, C) of a quarter of the size."""
    layers = [each.values / each.values.shape[1] for each in features[1:]]
    resized = [interpolate(layer, (5, 7), mode="bilinear", align_corners=True) for layer in layers]
    return torch.cat(resized, dim=1).flatten(2).mT


def by_formula(output: list[Features], content: list[Features], style: list[Features]) -> Tensor:
    found = []
    for own, query, bank in zip(columns(output), columns(content), columns(style), strict=True):
        asked, centred = query - query.mean(dim=0), bank - bank.mean(dim=0)
        lengths = asked.norm(dim=1)[:, None] * centred.norm(dim=1)
        target = bank[(1 - asked @ centred.T / lengths).argmin(dim=1)]
        found.append((1 - torch.cosine_similarity(own, target, dim=1)).mean())
    return torch.stack(found)


class Few(MatchedColumns):
    positions = POSITIONS


def distance(output: list[Features], content: list[Features], style: list[Features]) -> Tensor:
    loss = Few()
    query, bank = loss.target(loss.asked(content, 0)), loss.target(loss.kept(style, 0))
    return loss.compare(loss.statistic(output, 0), loss.matched(query, bank), 0)


def test_equals_the_formula_of_its_code() -> None:
    output, content, style = (noise(seed) for seed in (1, 2, 3))
    torch.testing.assert_close(distance(output, content, style), by_formula(output, content, style), rtol=1e-10, atol=0)


def test_a_painting_of_itself_is_at_no_distance() -> None:
    style = noise(3)
    assert distance(style, style, style).abs().max() < 1e-12
    assert distance(noise(1), style, style).min() > 1e-3


def test_how_strong_the_features_are_does_not_count() -> None:
    output, content, style = (noise(seed) for seed in (1, 2, 3))
    strong = [[Features.whole(40 * each.values) for each in one] for one in (output, content, style)]
    torch.testing.assert_close(distance(*strong), distance(output, content, style), rtol=1e-12, atol=0)


def test_gradient_by_finite_differences() -> None:
    output, content, style = (noise(seed) for seed in (1, 2, 3))

    def of(layer: Tensor) -> Tensor:
        return distance([*output[:2], Features.whole(layer), output[3]], content, style)

    assert torch.autograd.gradcheck(of, output[2].values.clone().requires_grad_(), fast_mode=True)


def test_large_images_are_seen_on_a_coarser_grid() -> None:
    class Fewer(MatchedColumns):
        positions = 12

    loss = Fewer()
    assert loss.statistic(noise(1), 0).samples["columns"].shape == (2, 13, 12)  # every second of 5 x 7
    assert loss.kept(noise(1), 0).samples["columns"].shape == (2, 13, 12)


def test_of_two_styles_each_has_its_share_of_the_bank() -> None:
    loss = Few()
    kept = [loss.kept([Features.whole(torch.full((1, *size), value)) for size in SIZES], 0) for value in (0.0, 1.0)]
    merged = Statistic.merged(kept, (1, 3)).samples["columns"][0, 0]
    assert [int((merged == value).sum()) for value in (0.0, 1 / 3)] == [9, 26]
