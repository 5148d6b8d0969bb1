"""Losses where positions have weights: ones are none, what weighs 0 is never looked at, tiles and processes add up."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from nst_lightning.backbones import Backbone
from nst_lightning.losses import CONTENT_LOSSES, STYLE_LOSSES, Additive, Features, Loss, Matched, Objective
from nst_lightning.losses.base import drawn, resampled
from nst_lightning.regions import pooled
from nst_lightning.tiling import ALONE, EVERYWHERE, Evaluator, Share, Tiled, Weights, Whole
from tests.losses.test_protocol import STYLES, objective
from tests.processes import in_two, one_of_two
from tests.test_tiling import error, images, small

SIZE = (61, 83)
LOSSES = {
    **{name: partial(objective, loss) for name, loss in STYLES.items()},
    "self_similarity": partial(objective, STYLE_LOSSES["gram"], CONTENT_LOSSES["self_similarity"]),
}


def soft_masks(count: int) -> Tensor:
    """The content's weights, a region on the left with a soft edge, and a small one on the right, float64."""
    columns = torch.linspace(0, 1, SIZE[1], dtype=torch.float64)
    masks = torch.ones(count, 3, *SIZE, dtype=torch.float64)
    for index in range(count):
        left = ((0.6 - 0.1 * index - columns) * 5).clamp(0, 1)
        masks[index, 0] -= 0.5 * left
        masks[index, 1] *= left
        masks[index, 2] = 0.0
        masks[index, 2, 20 : 33 + 5 * index, 55:75] = 1.0
    return masks


def evaluated(goal: Objective, evaluator: Evaluator, where: Weights, dtype: torch.dtype) -> dict[str, Tensor]:
    """Values, and the gradient in which every term and image counts alike."""
    count = max([len(each) for each in where.values()], default=2)
    image, content = images(count, *SIZE, 1).to(dtype).requires_grad_(), images(count, *SIZE, 2).to(dtype)
    targets = evaluator.targets("content", [content], [1.0], 5, [where])
    style = 0.3 * images(count, *SIZE, 3).to(dtype)
    targets = goal.matched(targets | evaluator.targets("style", [style], [1.0], 5, [where]))
    values = evaluator.values(image, targets, 9, where)
    (gradient,) = torch.autograd.grad(torch.stack([value.double().log() for value in values.values()]).sum(), image)
    return {**{name: value.detach() for name, value in values.items()}, "gradient": gradient}


def weights(backbone: Backbone, goal: Objective, masks: Tensor) -> Weights:
    return pooled(backbone, goal.layers, masks, "even")


# ---- ones are none ----


@pytest.mark.parametrize(("dtype", "most"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
@pytest.mark.parametrize("name", list(LOSSES))
def test_a_mask_of_ones_is_none(name: str, dtype: torch.dtype, most: float, tmp_path: Path) -> None:
    goal = LOSSES[name]()
    backbone = small("vgg16", goal.layers, tmp_path).to(dtype)
    expected = evaluated(goal, Whole(backbone, goal), EVERYWHERE, dtype)
    in_one = goal.in_regions(1)
    ones = weights(backbone, goal, torch.ones(2, 2, *SIZE, dtype=dtype))
    found = evaluated(in_one, Whole(backbone, in_one), ones, dtype)
    assert found.keys() == expected.keys()
    exact = not {"matched", "strotss", "self_similarity"} & {name}  # which interpolate between positions
    for term, value in expected.items():
        assert torch.equal(found[term], value) if exact else error(found[term], value) < most, term


# ---- what weighs nothing is not looked at ----


def of_half(loss: Loss, values: Tensor, seed: int) -> list[Features]:
    """Features of which the left half counts; those of the right half are noise of a seed."""
    mask = torch.zeros(1, 1, *values.shape[2:], dtype=values.dtype)
    mask[..., : values.shape[3] // 2] = 1
    noise = 1e3 * torch.rand(values.shape, generator=torch.Generator().manual_seed(seed), dtype=values.dtype)
    own = Features.whole(torch.where(mask > 0, values, noise), mask)
    image = Features.whole(own.values[:, :3], mask)
    return [image, own, own] if loss.joint else [own]


@pytest.mark.parametrize("name", list(STYLE_LOSSES))
def test_nothing_leaves_its_region(name: str) -> None:
    loss = STYLE_LOSSES[name]()
    assert isinstance(loss, Additive)
    values = torch.rand(1, 5, 20, 30, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    one, other = (of_half(loss, values, seed) for seed in (2, 3))
    for statistic in (loss.statistic, loss.kept, *([loss.asked] if isinstance(loss, Matched) else [])):
        found, expected = statistic(one, 7), statistic(other, 7)
        of_samples = found.samples.get("weights", torch.ones(1, 1, 1)) > 0  # where a loss has its samples weighed
        for key, total in expected.sums.items():
            torch.testing.assert_close(found.sums[key], total, rtol=1e-9, atol=1e-9)
        for key, samples in expected.samples.items():
            inside = of_samples.expand_as(samples) if samples.shape[2] == of_samples.shape[2] else slice(None)
            torch.testing.assert_close(found.samples[key][inside], samples[inside], rtol=1e-6, atol=1e-8)


def test_strotss_draws_its_places_within_the_region() -> None:
    mask = torch.zeros(1, 1, 40, 50)
    mask[..., 7:19, 30:31] = 1.0
    mask[..., 25:27, 3:44] = 0.25
    places = Features.whole(torch.zeros(1, 3, 40, 50), mask).placed(2000, 3)[0]
    pixels = (places * torch.tensor([40, 50])).long()
    found = mask[0, 0, pixels[:, 0], pixels[:, 1]]
    assert bool((found > 0).all())
    share = 12 / (12 + 0.25 * 82)
    assert abs(float((found == 1).double().mean()) - share) < 0.04
    everywhere = Features.whole(torch.zeros(1, 3, 40, 50), torch.ones(1, 1, 40, 50)).placed(99, 3)[0]
    torch.testing.assert_close(everywhere, drawn(99, 3), rtol=1e-14, atol=1e-15)


def test_samples_are_taken_as_often_as_their_weight() -> None:
    index = resampled(torch.tensor([0.0, 1.0, 3.0, 0.0, 0.5, 0.0]), 9)
    assert index.bincount(minlength=6).tolist() == [0, 2, 6, 0, 1, 0]
    assert torch.equal(resampled(torch.ones(7), 7), torch.arange(7))


# ---- tiles, processes and batches ----


def in_tiles(name: str, folder: Path, share: Share) -> dict[str, Tensor]:
    goal = LOSSES[name]().in_regions(2)
    backbone = small("vgg16", goal.layers, folder)
    return evaluated(goal, Tiled(backbone, goal, 32, share), weights(backbone, goal, soft_masks(2)), torch.float64)


@pytest.mark.parametrize("name", list(LOSSES))
def test_tiles_equal_the_whole(name: str, tmp_path: Path) -> None:
    goal = LOSSES[name]().in_regions(2)
    backbone = small("vgg16", goal.layers, tmp_path)
    where = weights(backbone, goal, soft_masks(2))
    expected = evaluated(goal, Whole(backbone, goal), where, torch.float64)
    found = in_tiles(name, tmp_path, ALONE)
    assert found.keys() == expected.keys()
    for term, value in expected.items():
        assert error(found[term], value) < 1e-12, term


@pytest.mark.usefixtures("torchs_convolutions")
def test_tiles_equal_the_whole_in_float32() -> None:
    goal = LOSSES["gram"]().in_regions(2)
    backbone = Backbone("vgg16", goal.layers)
    where = weights(backbone, goal, soft_masks(1).float())
    expected = evaluated(goal, Whole(backbone, goal), where, torch.float32)
    found = evaluated(goal, Tiled(backbone, goal, 32), where, torch.float32)
    for term, value in expected.items():
        assert error(found[term], value) < 1e-6, term


SHARED = ("gram", "nearest", "self_similarity")  # sums, samples and maps; all losses are in `test_protocol`


def evaluate_on_a_rank(rank: int, folder: Path) -> None:
    own = folder / str(rank)
    own.mkdir()
    with one_of_two(rank, folder):
        torch.save({name: in_tiles(name, own, Share(rank, 2)) for name in SHARED}, own / "found.pt")


def test_two_processes_find_what_one_does(tmp_path: Path) -> None:
    in_two(evaluate_on_a_rank, tmp_path)
    ranks = [torch.load(tmp_path / rank / "found.pt") for rank in ("0", "1")]
    for name in SHARED:
        for term, value in in_tiles(name, tmp_path, ALONE).items():
            assert all(error(rank[name][term], value) < 1e-12 for rank in ranks), term


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("name", list(LOSSES))
def test_an_images_bits_do_not_depend_on_its_companions(name: str, tmp_path: Path) -> None:
    goal = LOSSES[name]().in_regions(2)
    backbone = small("vgg16", goal.layers, tmp_path).float()
    evaluator = Whole(backbone, goal)
    where = weights(backbone, goal, soft_masks(2).float())
    image = images(2, *SIZE, 1).float()

    def found(rows: slice) -> dict[str, Tensor]:
        own = {layer: each[rows] for layer, each in where.items()}
        targets = evaluator.targets("content", [image[rows].flip(3)], [1.0], 5, [own])
        targets |= evaluator.targets("style", [image[rows].flip(2)], [1.0], 5, [own])
        output = image[rows].clone().requires_grad_()
        values = evaluator.values(output, goal.matched(targets), 9, own)
        (gradient,) = torch.autograd.grad(torch.stack([*values.values()]).sum(), output)
        return {**values, "gradient": gradient}

    together, alone = found(slice(0, 2)), [found(slice(index, index + 1)) for index in range(2)]
    for term, value in together.items():
        assert torch.equal(value, torch.cat([each[term] for each in alone])), term


def test_terms_of_regions_have_names_of_their_own() -> None:
    goal = LOSSES["gram"]().in_regions(2)
    names = ["content/relu3_1", "style/relu1_1", "style/region2/relu1_1", "style/relu3_1", "style/region2/relu3_1"]
    assert [term.name for term in goal.terms] == [*names, "tv/image"]
