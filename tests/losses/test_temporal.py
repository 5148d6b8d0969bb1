"""The temporal loss against its formula, and in tiles."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nst_lightning.backbones import Backbone
from nst_lightning.losses import IMAGE, Content, Features, Objective, Temporal, Term
from nst_lightning.tiling import Evaluator, Tiled, Whole


def noise(seed: int, channels: int = 3, size: tuple[int, int] = (40, 56)) -> Tensor:
    return torch.rand(2, channels, *size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


IMAGES, BEFORE, WEIGHTS = noise(1), noise(2), noise(3, channels=1).round()


def value(image: Tensor, before: Tensor, weights: Tensor | None) -> Tensor:
    loss = Temporal()
    (maps,) = loss.maps([Features.whole(before, weights)])
    return loss.compare(loss.statistic([Features.whole(image)], [Features.whole(maps)], 0))


def test_it_is_the_papers_sum_over_all_pixels() -> None:
    for index in range(2):
        weighted = WEIGHTS[index] * (IMAGES[index] - BEFORE[index]) ** 2
        expected = weighted.sum().item() / (3 * 40 * 56)
        assert value(IMAGES, BEFORE, WEIGHTS)[index].item() == pytest.approx(expected, rel=1e-12)
    torch.testing.assert_close(value(IMAGES, BEFORE, None), (IMAGES - BEFORE).square().mean(dim=(1, 2, 3)))


def test_what_is_not_trusted_is_left_free() -> None:
    image = IMAGES.clone().requires_grad_()
    (slope,) = torch.autograd.grad(value(image, BEFORE, WEIGHTS).sum(), image)
    assert (slope[(WEIGHTS == 0).expand_as(slope)] == 0).all()
    assert (slope[(WEIGHTS == 1).expand_as(slope)] != 0).all()


def test_tiles_give_the_same_value_and_gradient() -> None:
    layers = ("relu1_1",)
    backbone = Backbone("vgg16", layers)
    terms = [Term("content", layers, Content(), 1.0), Term("temporal", (IMAGE,), Temporal(), 1.0)]
    objective = Objective(terms)
    kept = objective.kept("before", {IMAGE: Features.whole(BEFORE.float(), WEIGHTS.float())}, 0)
    temporal = objective.targets([kept], [1.0])

    def found(evaluator: Evaluator) -> tuple[Tensor, Tensor]:
        targets = {**evaluator.targets("content", [BEFORE.float()], [1.0], 0), **temporal}
        image = IMAGES.float().requires_grad_()
        values = evaluator.values(image, targets, 0)["temporal/image"]
        (slope,) = torch.autograd.grad(values.sum(), image)
        return values.detach(), slope

    whole, tiled = found(Whole(backbone, objective)), found(Tiled(backbone, objective, 16))
    for one, other in zip(whole, tiled, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-9)
