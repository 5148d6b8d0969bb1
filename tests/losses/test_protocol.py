"""The protocol: what adds up over positions, tiles, processes and weighted styles; losses of any kind, in tiles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from nst_lightning import losses
from nst_lightning.backbones import Backbone
from nst_lightning.errors import InputError
from nst_lightning.losses import (
    CONTENT_LOSSES,
    IMAGE,
    STYLE_LOSSES,
    Additive,
    Content,
    Features,
    Global,
    Gram,
    Loss,
    Objective,
    Pointwise,
    Source,
    Statistic,
    Target,
    Term,
    TotalVariation,
)
from nst_lightning.losses.base import drawn, full_precision
from nst_lightning.tiling import ALONE, Evaluator, Share, Tiled, Whole
from tests.processes import in_two, one_of_two
from tests.test_tiling import error, images, small

LAYERS = ("relu1_1", "relu3_1")


class Hypercolumns(Additive):
    """The mean Gram matrix of features sampled at random places of several layers and of the image."""

    source: ClassVar[Source | None] = "style"

    def statistic(self, features: Sequence[Features], draw: int) -> Statistic:
        places = drawn(50, draw)
        samples = torch.cat([layer.between(places) for layer in features], dim=1)
        return Statistic({}, features[0].weight, {"places": samples})

    def target(self, statistic: Statistic) -> Target:
        return (self._gram(statistic),)

    def compare(self, statistic: Statistic, target: Target, draw: int) -> Tensor:
        return (self._gram(statistic) - target[0]).square().mean(dim=(1, 2))

    @staticmethod
    def _gram(statistic: Statistic) -> Tensor:
        samples = statistic.samples["places"]
        return samples @ samples.transpose(1, 2) / samples.shape[2]


class SampledContent(Pointwise):
    """Squared difference to the content at random places only."""

    source: ClassVar[Source | None] = "content"

    def maps(self, features: Sequence[Features]) -> Target:
        return tuple(full_precision(layer.values.detach()) for layer in features)

    def statistic(self, features: Sequence[Features], maps: Sequence[Features], draw: int) -> Statistic:
        places = drawn(40, draw)
        apart = [own.at(places) - other.at(places) for own, other in zip(features, maps, strict=True)]
        return Statistic({"squares": torch.cat(apart, dim=1).square().sum(dim=2)}, features[0].weight)

    def compare(self, statistic: Statistic) -> Tensor:
        return statistic.sums["squares"].sum(dim=1)


class Spread(Global):
    """The difference of the features' medians: of no two tiles can it be put together."""

    source: ClassVar[Source | None] = "style"

    def target(self, features: Sequence[Features]) -> Target:
        return (self._median(features),)

    def compare(self, features: Sequence[Features], target: Target) -> Tensor:
        return (self._median(features) - target[0]).square().sum(dim=1)

    @staticmethod
    def _median(features: Sequence[Features]) -> Tensor:
        return features[0].values.flatten(2).median(dim=2).values


def terms(group: str, loss: Loss, layers: tuple[str, ...]) -> list[Term]:
    if loss.joint:
        return [Term(group, (IMAGE, *layers), loss, 1.0, label="joint")]
    return [Term(group, (layer,), loss, 1 / len(layers)) for layer in layers]


def objective(style: Callable[[], Loss], content: Callable[[], Loss] = Content) -> Objective:
    smoothness = Term("tv", (IMAGE,), TotalVariation(), 1.0)
    return Objective([*terms("content", content(), ("relu3_1",)), *terms("style", style(), LAYERS), smoothness])


class Strotss(losses.Strotss):
    """With as many positions of the style as of the output, which are the same where the images are."""

    bank = 1024


STYLES: dict[str, type[Loss]] = {**STYLE_LOSSES, "strotss": Strotss}
# Without those that draw samples, which count alike.
SUMMED = [Content, *(loss for name, loss in STYLES.items() if name not in {"strotss", "matched"})]


def sampled() -> Objective:
    return Objective(
        [
            Term("content", ("relu2_1", "relu3_1"), SampledContent(), 1.0),
            Term("style", (IMAGE, "relu1_1", "relu3_1"), Hypercolumns(), 1.0),
        ]
    )


OBJECTIVES: dict[str, Callable[[], Objective]] = {
    **{name: partial(objective, loss) for name, loss in STYLES.items()},
    **{name: partial(objective, Gram, loss) for name, loss in CONTENT_LOSSES.items()},
    "sampled": sampled,
}
WEIGHTS = (0.7, 0.3)


def evaluated(
    goal: Objective, evaluator: Evaluator, count: int, dtype: torch.dtype
) -> tuple[dict[str, Tensor], Tensor]:
    """Values of a batch against two weighted styles, and the gradient in which every term and image counts alike."""
    image, content = images(count, 61, 83, 1).to(dtype).requires_grad_(), images(count, 61, 83, 2).to(dtype)
    # Dark, for of two statistics that are all but equal the difference would be their rounding.
    styles = [0.3 * images(count, 56, 90, 3).to(dtype), 0.2 * images(count, 75, 48, 4).to(dtype)]
    targets = evaluator.targets("content", [content], [1.0], 5) | evaluator.targets("style", styles, WEIGHTS, 5)
    targets = goal.matched(targets)
    values = evaluator.values(image, targets, 9)
    (gradient,) = torch.autograd.grad(torch.stack([value.double().log() for value in values.values()]).sum(), image)
    return {name: value.detach() for name, value in values.items()}, gradient


@pytest.mark.usefixtures("torchs_convolutions")
@pytest.mark.parametrize(("dtype", "most"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
@pytest.mark.parametrize("name", list(OBJECTIVES))
def test_a_batch_in_tiles_against_two_weighted_styles_equals_the_whole(
    name: str, dtype: torch.dtype, most: float, tmp_path: Path
) -> None:
    goal = OBJECTIVES[name]()
    # In float32 at full width: of few channels the network's own rounding, which is another on a crop, says more.
    in_float64 = dtype == torch.float64
    backbone = small("vgg16", goal.layers, tmp_path) if in_float64 else Backbone("vgg16", goal.layers)
    expected, of_whole = evaluated(goal, Whole(backbone, goal), 2, dtype)
    found, gradient = evaluated(goal, Tiled(backbone, goal, 32), 2, dtype)
    assert found.keys() == expected.keys()
    for term, value in found.items():
        assert error(value, expected[term]) < most, term
    # A difference that is all but 0 has either sign by float32's rounding, and the gradient of its absolute value too.
    assert error(gradient, of_whole) < (100 * most if name == "self_similarity" and not in_float64 else most)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("name", list(OBJECTIVES))
def test_an_images_bits_do_not_depend_on_its_companions(name: str) -> None:
    goal = OBJECTIVES[name]()
    evaluator = Whole(Backbone("vgg16", goal.layers), goal)
    image, style = images(3, 40, 52, 1).float(), [images(3, 44, 36, 3).float(), images(3, 30, 48, 4).float()]

    def found(rows: slice) -> tuple[dict[str, Tensor], Tensor]:
        targets = evaluator.targets("content", [image[rows].flip(3)], [1.0], 5)
        targets |= evaluator.targets("style", [each[rows] for each in style], WEIGHTS, 5)
        output = image[rows].clone().requires_grad_()
        values = evaluator.values(output, goal.matched(targets), 9)
        (gradient,) = torch.autograd.grad(torch.stack([*values.values()]).sum(), output)
        return values, gradient

    (together, gradient), alone = found(slice(0, 3)), [found(slice(index, index + 1)) for index in range(3)]
    assert torch.equal(gradient, torch.cat([of_one for _, of_one in alone]))
    for term, value in together.items():
        assert torch.equal(value, torch.cat([values[term] for values, _ in alone])), term


def evaluate_on_a_rank(rank: int, folder: Path) -> None:
    own = folder / str(rank)
    own.mkdir()
    with one_of_two(rank, folder):
        torch.save({name: in_tiles(name, own, Share(rank, 2)) for name in OBJECTIVES}, own / "found.pt")


def in_tiles(name: str, folder: Path, share: Share) -> tuple[dict[str, Tensor], Tensor]:
    goal = OBJECTIVES[name]()
    return evaluated(goal, Tiled(small("vgg16", goal.layers, folder), goal, 32, share), 2, torch.float64)


def test_two_processes_find_what_one_does(tmp_path: Path) -> None:
    in_two(evaluate_on_a_rank, tmp_path)
    ranks = [torch.load(tmp_path / rank / "found.pt") for rank in ("0", "1")]
    for name in OBJECTIVES:
        expected, of_one = in_tiles(name, tmp_path, ALONE)
        for found, gradient in (rank[name] for rank in ranks):
            assert error(gradient, of_one) < 1e-12
            assert all(error(found[term], value) < 1e-12 for term, value in expected.items())


@pytest.mark.parametrize("name", list(STYLES))
def test_a_painting_is_nearest_to_itself_also_in_tiles(name: str, tmp_path: Path) -> None:
    goal = objective(STYLES[name]).only(["style"])
    backbone = small("vgg16", goal.layers, tmp_path)
    painting, another = images(1, 61, 83, 1) ** 2, images(1, 61, 83, 2)
    whole, tiled = Whole(backbone, goal), Tiled(backbone, goal, 16)
    targets, of_whole = (
        goal.matched(
            {
                name: target
                for source in goal.sources
                for name, target in each.targets(source, [painting], [1.0], 0).items()
            }
        )
        for each in (tiled, whole)
    )
    for term, target in targets.items():
        for found, expected in zip(target, of_whole[term], strict=True):
            assert error(found, expected) < 1e-12
    itself, other = (
        sum(value.item() for value in whole.values(image, targets, 0).values()) for image in (painting, another)
    )
    # STROTSS takes no two colours to be nearer than this.
    least = (1e-5 / 3) ** 0.5 if name == "strotss" else 0.0
    assert abs(itself - least) < 1e-9 * other


# ---- weights ----


def features(weights: Tensor | None = None, seed: int = 1) -> Features:
    values = torch.randn(2, 5, 6, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return Features.whole(values, weights)


def masked(left: float, right: float) -> Tensor:
    mask = torch.full((1, 1, 6, 8), left, dtype=torch.float64)
    mask[..., 3:] = right
    return mask


def statistics(loss: Loss, own: Features, other: Features) -> Statistic:
    if isinstance(loss, Additive):
        return loss.statistic([own], 0)
    assert isinstance(loss, Pointwise)
    return loss.statistic([own], [other], 0)


@pytest.mark.parametrize("loss", SUMMED)
def test_a_weight_of_1_is_none_and_of_0_leaves_a_position_out(loss: type[Loss]) -> None:
    own, other = features(), features(seed=2)
    plain = statistics(loss(), own, other)
    ones = statistics(loss(), features(masked(1, 1)), other)
    left = statistics(loss(), features(masked(1, 0)), other)
    cut = [Features(each.values[..., :3], (6, 8)) for each in (own, other)]
    of_left = statistics(loss(), *cut)
    for found, expected in ((ones, plain), (left, of_left)):
        torch.testing.assert_close(found.weight, expected.weight, rtol=1e-14, atol=0)
        for name, total in expected.sums.items():
            torch.testing.assert_close(found.sums[name], total, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("loss", SUMMED)
def test_soft_weights_add_up(loss: type[Loss]) -> None:
    other = features(seed=2)
    parts = [statistics(loss(), features(masked(*sides)), other) for sides in ((0.3, 1.0), (0.7, 0.0))]
    both, whole = parts[0] + parts[1], statistics(loss(), features(), other)
    torch.testing.assert_close(both.weight, whole.weight, rtol=1e-14, atol=0)
    for name, total in whole.sums.items():
        torch.testing.assert_close(both.sums[name], total, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("loss", [loss for name, loss in STYLE_LOSSES.items() if name != "matched"])
def test_styles_are_merged_as_statistics_whatever_their_sizes(loss: type[Additive]) -> None:
    style_loss = loss()
    first = style_loss.statistic([features()], 0)
    small_one = style_loss.statistic([Features.whole(features().values[..., :4, :5])], 0)

    def target(*weights: float) -> Tensor:
        return style_loss.target(Statistic.merged([first, small_one], weights))[0]

    torch.testing.assert_close(target(1.0, 0.0), style_loss.target(first)[0], rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(target(7.0, 3.0), target(0.7, 0.3), rtol=1e-14, atol=0)
    same = Statistic.merged([first, first], (0.5, 0.5))
    torch.testing.assert_close(style_loss.target(same)[0], style_loss.target(first)[0], rtol=1e-12, atol=1e-14)


# ---- what does not add up says so ----


def test_a_loss_that_does_not_add_up_is_refused_with_tiles_by_name(tmp_path: Path) -> None:
    goal = objective(Spread)
    backbone = small("vgg16", goal.layers, tmp_path)
    with pytest.raises(InputError, match=r"^style/relu1_1: Spread needs the whole image at once: set tile to off$"):
        Tiled(backbone, goal, 32)


def test_a_loss_that_does_not_add_up_is_evaluated_whole_and_merges_no_styles(tmp_path: Path) -> None:
    goal = objective(Spread).only(["style"])
    whole = Whole(small("vgg16", goal.layers, tmp_path), goal)
    style = images(1, 30, 40, 1)
    targets = whole.targets("style", [style], [1.0], 0)
    assert all(value.item() == 0 for value in whole.values(style, targets, 0).values())
    with pytest.raises(InputError, match=r"^style/relu1_1: Spread cannot merge 2 style images: give one$"):
        whole.targets("style", [style, style], [0.5, 0.5], 0)


def test_places_are_the_same_for_one_number_and_others_for_another() -> None:
    assert torch.equal(drawn(9, 4), drawn(9, 4))
    assert not torch.equal(drawn(9, 4), drawn(9, 5))
    assert drawn(9, 4).shape == (9, 2)
