"""The losses against the predecessor's formulas, finite differences and the sums of parts."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import vgg16

from nst_lightning.backbones import Backbone
from nst_lightning.backbones.weights import VGG16, load
from nst_lightning.errors import InputError
from nst_lightning.losses import IMAGE, Content, Features, Gram, Objective, Statistic, Target, Term, TotalVariation
from nst_lightning.modules import StyleTransfer

STYLE_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
CONTENT_LAYER = "relu4_2"
INDEX = {"relu1_1": 1, "relu2_1": 6, "relu3_1": 11, "relu4_1": 18, "relu4_2": 20, "relu5_1": 25}


def images(count: int, height: int, width: int, seed: int) -> Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(seed))


def random_features(*shape: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def objective() -> Objective:
    return Objective(
        [
            Term("content", (CONTENT_LAYER,), Content(), 1.0),
            *(Term("style", (layer,), Gram(), 1 / 5) for layer in STYLE_LAYERS),
            Term("tv", (IMAGE,), TotalVariation(), 1.0),
        ]
    )


def weights(content: float, style: float, tv: float, count: int = 1) -> dict[str, Tensor]:
    groups = {"content": content, "style": style, "tv": tv}
    return {group: torch.full((count,), weight) for group, weight in groups.items()}


def whole(features: Mapping[str, Tensor]) -> dict[str, Features]:
    return {layer: Features.whole(values) for layer, values in features.items()}


def targets_of(goal: Objective, content: Mapping[str, Tensor], style: Mapping[str, Tensor]) -> dict[str, Target]:
    found = [goal.kept("content", whole(content), 0), goal.kept("style", whole(style), 0)]
    return goal.targets(found[:1], [1.0]) | goal.targets(found[1:], [1.0])


class Predecessor:
    """gordicaleksa's build_loss written out from its formulas, on torchvision's own network, in float64."""

    def __init__(self) -> None:
        network = vgg16()
        network.load_state_dict(load("oxford", bundled=VGG16), strict=False)
        self.layers = network.features.double().eval()
        for layer in self.layers:
            if isinstance(layer, nn.ReLU):
                layer.inplace = False

    def features(self, image: Tensor) -> dict[str, Tensor]:
        x = 255 * image.double() - torch.tensor([123.68, 116.779, 103.939], dtype=torch.float64).view(1, 3, 1, 1)
        found = {}
        for index, layer in enumerate(self.layers):
            x = layer(x)
            found.update({name: x for name, place in INDEX.items() if place == index})
        return found

    def losses(self, image: Tensor, content: Tensor, style: Tensor) -> dict[str, Tensor]:
        def gram(features: Tensor) -> Tensor:
            _, channels, height, width = features.shape
            flat = features.reshape(channels, height * width)
            return flat.mm(flat.t()) / (channels * height * width)

        ours, theirs, painting = self.features(image), self.features(content), self.features(style)
        content_loss = nn.functional.mse_loss(ours[CONTENT_LAYER], theirs[CONTENT_LAYER], reduction="mean")
        style_loss = sum(
            nn.functional.mse_loss(gram(painting[layer]), gram(ours[layer]), reduction="sum") for layer in STYLE_LAYERS
        ) / len(STYLE_LAYERS)
        pixels = 255 * image.double()
        variation = (pixels[..., 1:] - pixels[..., :-1]).abs().sum() + (
            pixels[..., 1:, :] - pixels[..., :-1, :]
        ).abs().sum()
        total = 1e5 * content_loss + 3e4 * style_loss + variation
        return {
            "content": 1e5 * content_loss,
            "style": torch.as_tensor(3e4 * style_loss),
            "tv": variation,
            "total": total,
        }


def test_losses_equal_the_predecessors_formulas() -> None:
    backbone = Backbone("vgg16", (CONTENT_LAYER, *STYLE_LAYERS))
    ours, content, style = images(2, 48, 64, 1), images(2, 48, 64, 2), images(2, 64, 40, 3)
    goal = objective()

    def features(image: Tensor) -> dict[str, Tensor]:
        return {IMAGE: image, **backbone(image)}

    with torch.no_grad():
        targets = targets_of(goal, features(content), features(style))
        values = goal.values(whole(features(ours)), targets, 0)
        losses = goal.contributions(values, goal.weights(targets, weights(1e5, 3e4, 1.0, 2)))
        predecessor = Predecessor()
        for index in range(2):
            one = slice(index, index + 1)
            expected = predecessor.losses(ours[one], content[one], style[one])
            for name, value in expected.items():
                assert losses[name][index].item() == pytest.approx(value.item(), rel=1e-5), name


def test_the_style_weight_is_shared_out_evenly_between_layers() -> None:
    module = StyleTransfer(content_layers="relu1_1", style_layers="relu1_1,relu1_2", style_loss="gram")
    shares = {term.name: term.share for term in module.objective.terms}
    assert shares == {"content/relu1_1": 1.0, "style/relu1_1": 0.5, "style/relu1_2": 0.5, "tv/image": 1.0}


def test_gradient_equals_finite_differences_in_float64() -> None:
    backbone = Backbone("vgg16", ("relu1_1", "relu2_1")).double()
    content, style = images(1, 20, 24, 4).double(), images(1, 24, 20, 5).double()
    goal = Objective(
        [
            Term("content", ("relu2_1",), Content(), 1.0),
            Term("style", ("relu1_1",), Gram(), 100 / 101),
            Term("style", ("relu2_1",), Gram(), 1 / 101),
            Term("tv", (IMAGE,), TotalVariation(), 1.0),
        ]
    )
    targets = targets_of(goal, backbone(content), backbone(style))

    def loss(image: Tensor) -> Tensor:
        values = goal.values(whole({IMAGE: image, **backbone(image)}), targets, 0)
        return goal.total(values, goal.weights(targets, weights(1e-2, 1e-4, 1e-1))).sum()

    image = images(1, 20, 24, 6).double().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(image), image)
    step = 1e-7
    generator = torch.Generator().manual_seed(7)
    for _ in range(8):
        direction = torch.randn(image.shape, generator=generator, dtype=torch.float64)
        with torch.no_grad():
            slope = (loss(image + step * direction) - loss(image - step * direction)) / (2 * step)
        # ReLU and |.| are not smooth at a few of the points, so single kinks stay in the difference.
        assert (gradient * direction).sum().item() == pytest.approx(slope.item(), rel=1e-5)


def summed(loss: Content | Gram, feature: Tensor, other: Tensor) -> Tensor:
    """The only sum of a loss's statistic; what a content loss compares with is a map."""
    statistic = statistic_of(loss, Features.whole(feature), Features.whole(other))
    (total,) = statistic.sums.values()
    return total


def statistic_of(loss: Content | Gram, feature: Features, other: Features) -> Statistic:
    return loss.statistic([feature], 0) if isinstance(loss, Gram) else loss.statistic([feature], [other], 0)


def test_the_gram_matrixs_own_backward_equals_autograds() -> None:
    feature = images(2, 6, 5, 8).double().requires_grad_()
    flat, weight = feature.flatten(2), torch.arange(18.0, dtype=torch.float64).view(2, 3, 3)
    (expected,) = torch.autograd.grad(((flat @ flat.transpose(1, 2)) * weight).sum(), feature)
    total = summed(Gram(), feature, feature)
    (actual,) = torch.autograd.grad((total * weight).sum(), feature)
    torch.testing.assert_close(actual, expected, rtol=1e-14, atol=0)


@pytest.mark.parametrize("loss", [Content(), Gram()])
@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize(("count", "channels", "height", "width"), [(1, 64, 24, 20), (3, 7, 5, 9), (2, 3, 1, 1)])
def test_float32_statistics_and_gradients_equal_autograds_in_float64(
    loss: Content | Gram, memory_format: torch.memory_format, count: int, channels: int, height: int, width: int
) -> None:
    feature, other = (100 * random_features(count, channels, height, width, seed=seed).relu() for seed in (1, 2))
    weight = random_features(*summed(loss, feature, other).shape, seed=3)
    given = feature.to(memory_format=memory_format).requires_grad_()
    total = summed(loss, given, other.to(memory_format=memory_format))
    (gradient,) = torch.autograd.grad((weight * total).sum(), given)
    exact = feature.double().requires_grad_()
    if isinstance(loss, Gram):
        expected = torch.einsum("nchw,ndhw->ncd", exact, exact)
    else:
        expected = (exact - other.double()).square().sum(dim=(2, 3))
    (of_exact,) = torch.autograd.grad((weight * expected).sum(), exact)
    for found, reference in ((total, expected), (gradient, of_exact)):
        torch.testing.assert_close(
            found.double(), reference, rtol=1e-5, atol=1e-6 * float(reference.detach().abs().max())
        )


@pytest.mark.parametrize("loss", [Content(), Gram()])
def test_the_gradient_is_in_the_layout_of_the_features(loss: Content | Gram) -> None:
    # Added to that of the next convolution in another layout, it took longer than the Gram matrix itself.
    feature = random_features(2, 8, 6, 5, seed=1).to(memory_format=torch.channels_last).requires_grad_()
    total = summed(loss, feature, feature.detach())
    (gradient,) = torch.autograd.grad(total.sum(), feature)
    assert gradient.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("loss", [Content(), Gram()])
def test_statistics_of_two_halves_add_up_to_that_of_the_whole(loss: Content | Gram) -> None:
    feature, other = random_features(2, 5, 6, 8, seed=1), random_features(2, 5, 6, 8, seed=2)
    halves = [
        statistic_of(loss, *(Features(each[..., part], (6, 8), (0, part.start)) for each in (feature, other)))
        for part in (slice(0, 3), slice(3, 8))
    ]
    both, expected = halves[0] + halves[1], statistic_of(loss, Features.whole(feature), Features.whole(other))
    for name, total in expected.sums.items():
        torch.testing.assert_close(both.sums[name], total)
    assert both.weight.tolist() == expected.weight.tolist() == [48.0, 48.0]


def test_an_images_values_do_not_depend_on_its_batch() -> None:
    goal = Objective([Term("content", ("a",), Content(), 1.0), Term("style", ("a",), Gram(), 1.0)])
    feature, source = random_features(3, 8, 7, 9, seed=3), random_features(3, 8, 7, 9, seed=4)

    def total(rows: slice) -> Tensor:
        targets = targets_of(goal, {"a": source[rows]}, {"a": source[rows]})
        values = goal.values(whole({"a": feature[rows]}), targets, 0)
        return goal.total(values, goal.weights(targets, weights(2.0, 3.0, 0.0, len(feature[rows]))))

    alone = torch.cat([total(slice(index, index + 1)) for index in range(3)])
    torch.testing.assert_close(total(slice(0, 3)), alone, rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_features_give_finite_float32_sums(dtype: torch.dtype) -> None:
    feature = (1e3 * random_features(1, 4, 16, 16, seed=5)).to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        total = summed(Gram(), feature, feature)
    assert total.dtype == torch.float32
    expected = torch.einsum("nchw,ndhw->ncd", feature.double(), feature.double())
    assert expected.max() > torch.finfo(torch.float16).max  # what a float16 Gram could not hold
    torch.testing.assert_close(total.double(), expected, rtol=1e-5, atol=1.0)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("dtype", "precision", "size"), [(torch.bfloat16, 2**-8, 1.0), (torch.float16, 2**-11, 1e6)])
def test_the_gradient_of_half_precision_features_is_theirs_but_for_rounding(
    dtype: torch.dtype, precision: float, size: float, memory_format: torch.memory_format
) -> None:
    feature = (random_features(2, 5, 12, 9, seed=5) / size).to(dtype, memory_format=memory_format).requires_grad_()
    # In float16 beyond its largest number.
    slope = size * torch.randn(2, 5, 5, generator=torch.Generator().manual_seed(6))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        total = summed(Gram(), feature, feature)
    (gradient,) = torch.autograd.grad((total * slope).sum(), feature)
    assert gradient.dtype == dtype
    both = slope.double() + slope.double().transpose(1, 2)
    expected = torch.einsum("ncd,ndhw->nchw", both, feature.detach().double())
    assert (gradient.double() - expected).norm() < precision * expected.norm()


def test_total_variation_of_a_checkerboard() -> None:
    board = torch.zeros(1, 3, 4, 5)
    board[..., ::2, ::2] = 1
    board[..., 1::2, 1::2] = 1
    # Every one of the 4*4 + 3*5 neighbouring pairs of each channel differs by 255.
    assert TotalVariation().compare([Features.whole(board)], ()).item() == 255 * 3 * 31


def test_contributions_sum_to_the_total() -> None:
    goal = objective()
    given = goal.weights({}, weights(2.0, 3.0, 5.0, 2))
    values = {term.name: torch.rand(2, generator=torch.Generator().manual_seed(8)) for term in goal.terms}
    parts = goal.contributions(values, given)
    torch.testing.assert_close(parts["content"] + parts["style"] + parts["tv"], parts["total"])
    torch.testing.assert_close(parts["total"], goal.total(values, given))


def test_layers_come_in_the_order_of_use_and_without_the_image() -> None:
    assert objective().layers == (CONTENT_LAYER, *STYLE_LAYERS)


def test_terms_have_different_names() -> None:
    with pytest.raises(InputError, match=re.escape("stands twice among the terms: style/a, style/a")):
        Objective([Term("style", ("a",), Gram(), 0.5), Term("style", ("a",), Gram(), 0.5)])


def test_statistics_of_unlike_shape_do_not_add() -> None:
    with pytest.raises(RuntimeError, match="must match"):
        Statistic({"x": torch.zeros(1, 2)}, torch.ones(1)) + Statistic({"x": torch.zeros(1, 3)}, torch.ones(1))
