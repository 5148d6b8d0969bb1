"""Presets: their total loss and its gradient by the formulas of the projects' code, and their options."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.linalg import sqrtm
from torch import Tensor, nn
from torch.nn.functional import mse_loss, pad

from nst_lightning import images, presets
from nst_lightning.__main__ import main
from nst_lightning.api import stylize
from nst_lightning.backbones import spec_of
from nst_lightning.backbones.weights import load
from nst_lightning.errors import InputError
from nst_lightning.losses import IMAGE
from nst_lightning.modules import StyleTransfer
from nst_lightning.tiling import Whole

OFFLINE = {"backbone": "vgg16", "weights": "oxford"}
STYLE = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
Features = Mapping[str, Tensor]
Formula = Callable[[Features, Features, Features], Tensor]


def noise(height: int, width: int, seed: int) -> Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed))


def features(image: Tensor, border: str) -> Features:
    """Those of torchvision's own VGG16 in float64 with Oxford's weights, fed pixels minus Oxford's mean colour."""
    spec = spec_of("vgg16")
    network = spec.build().eval()
    network.load_state_dict(load("oxford", bundled=spec.bundled), strict=False)
    layers = {node: name for name, node in spec.layers.items()}
    x = 255 * image - torch.tensor([123.68, 116.779, 103.939], dtype=torch.float64).view(1, 3, 1, 1)
    found = {IMAGE: image}
    stack = network.double().get_submodule("features")
    for index, layer in enumerate([*stack.children()][:26]):
        if index == 0 and border == "replicate":
            x = pad(x, (1, 1, 1, 1), "replicate")
            layer.padding = (0, 0)  # type: ignore[assignment]
        x = nn.functional.relu(x) if isinstance(layer, nn.ReLU) else layer(x)
        found[layers[f"features.{index}"]] = x
    return found


def gram(feature: Tensor) -> Tensor:
    flat = feature[0].flatten(1)
    return flat @ flat.T / flat.shape[1]


def sum_of_differences(image: Tensor) -> Tensor:
    return image.diff(dim=2).abs().sum() + image.diff(dim=3).abs().sum()


def gordicaleksa(style_weight: float) -> Formula:
    def formula(output: Features, content: Features, painting: Features) -> Tensor:
        layers = [
            ((gram(output[layer]) - gram(painting[layer])) / output[layer].shape[1]).square().sum() for layer in STYLE
        ]
        style = torch.stack(layers).sum() / 5
        smoothness = sum_of_differences(255 * output[IMAGE])
        return 1e5 * mse_loss(output["relu4_2"], content["relu4_2"]) + style_weight * style + smoothness

    return formula


def neural_style_pt(output: Features, content: Features, painting: Features) -> Tensor:
    total = 5 * mse_loss(output["relu4_2"], content["relu4_2"])
    for layer in STYLE:
        channels = output[layer].shape[1]
        total = total + 100 * mse_loss(gram(output[layer]) / channels, gram(painting[layer]) / channels)
    return total + 1e-3 * sum_of_differences(255 * output[IMAGE])


def pystiche(output: Features, content: Features, painting: Features) -> Tensor:
    layers = [mse_loss(gram(output[layer]), gram(painting[layer])) for layer in STYLE]
    return mse_loss(output["relu4_2"], content["relu4_2"]) + 1e3 * torch.stack(layers).mean()


def crowsonkb(output: Features, content: Features, painting: Features) -> Tensor:
    total = 0.015 * mse_loss(output["relu4_2"], content["relu4_2"])
    for layer, weight in zip(STYLE, (256, 64, 16, 4, 1), strict=True):
        (mean, covariance), (of_mean, of_covariance) = moments(output[layer]), moments(painting[layer])
        root = torch.from_numpy(sqrtm(of_covariance.detach().numpy()).real)
        values = torch.linalg.eigvalsh(root @ covariance @ root).clamp(min=1e-300)
        gauss = covariance.trace() + of_covariance.trace() - 2 * values.sqrt().sum()
        total = total + weight / 341 * ((mean - of_mean).square().mean() + gauss / len(mean))
    wide = pad(output[IMAGE], (1, 1, 1, 1), "replicate")
    right, down = wide[..., 1:-1, 2:] - output[IMAGE], wide[..., 2:, 1:-1] - output[IMAGE]
    one, other = wide[..., 1:, 1:] - wide[..., :-1, :-1], wide[..., 1:, :-1] - wide[..., :-1, 1:]
    stencil = sum(each.square().mean() / share for each, share in ((right, 3), (down, 3), (one, 12), (other, 12)))
    return total + 2 * 2 * torch.as_tensor(stencil)


def moments(feature: Tensor) -> tuple[Tensor, Tensor]:
    flat = feature[0].flatten(1)
    # What is added to the diagonal beside crowsonkb's 1e-4 is ours, see the preset.
    added = 1e-4 + 1e-6 * flat.square().mean(dim=1).sum()
    return flat.mean(dim=1), torch.cov(flat, correction=0) + added * torch.eye(len(flat), dtype=flat.dtype)


FORMULAS: dict[str, Formula] = {
    "study": gordicaleksa(1e2),
    "gordicaleksa": gordicaleksa(3e4),
    "neural_style_pt": neural_style_pt,
    "pystiche": pystiche,
    "crowsonkb": crowsonkb,
}


def test_every_preset_has_a_formula_here() -> None:
    assert sorted(FORMULAS) == presets.names()


@pytest.mark.parametrize("name", FORMULAS)
def test_total_loss_and_gradient_are_those_of_the_projects_code(name: str) -> None:
    model = {key: value for key, value in presets.options(name).items() if key not in {"stages", "optimizer"}}
    module = StyleTransfer(**{**model, **OFFLINE})
    content, painting = noise(40, 48, 1), noise(64, 56, 2)
    image = (0.5 * content + 0.5 * noise(40, 48, 3)).requires_grad_()
    evaluator = Whole(module.backbone, module.objective)
    targets = evaluator.targets("content", [content], [1.0], 0) | evaluator.targets("style", [painting], [1.0], 0)
    groups = {group: torch.tensor([weight]) for group, weight in module.problem.weights.items()}
    total = module.objective.total(evaluator.values(image, targets, 0), module.objective.weights(targets, groups))
    (gradient,) = torch.autograd.grad(total.sum(), image)
    exact = image.detach().double().requires_grad_()
    border = str(model.get("border", "zeros"))
    expected = FORMULAS[name](*(features(each, border) for each in (exact, content.double(), painting.double())))
    (slope,) = torch.autograd.grad(expected, exact)
    assert total.item() == pytest.approx(expected.item(), rel=1e-5)
    assert ((gradient.double() - slope).norm() / slope.norm()).item() < (1e-3 if name == "crowsonkb" else 1e-5)


def stylized(name: str, **options: Any) -> Tensor:
    own = {**OFFLINE, "preset": name, "size": 96, "steps": 10, "progress": False, **options}
    return images.read(stylize(noise(96, 80, 1)[0], noise(48, 40, 2)[0], **own)).rgb


@pytest.mark.parametrize("name", FORMULAS)
def test_paints_and_options_beside_a_preset_go_before_it(name: str) -> None:
    picture = stylized(name)
    assert picture.shape == (1, 3, 96, 80)
    assert (picture - stylized(name, style_weight=0.0)).abs().mean() > 1e-3


def test_the_command_line_takes_a_preset_with_options_beside_it(tmp_path: Path) -> None:
    for name, seed in (("content", 1), ("style", 2)):
        images.write(tmp_path / f"{name}.png", noise(96, 80, seed))
    given = ["--content", str(tmp_path / "content.png"), "--style", str(tmp_path / "style.png"), "--scores", "off"]
    small = ["--size", "96", "--steps", "5", "--backbone", "vgg16", "--weights", "oxford"]
    output = tmp_path / "run"
    assert main(["fit", *small, *given, "--preset", "crowsonkb", "--tv_weight=3", "--output", str(output)]) == 0
    saved = (output / "config.yaml").read_text()
    assert "tv_weight: 3" in saved
    assert "style_loss: wasserstein" in saved
    assert "backbone: vgg16" in saved


def test_an_unknown_preset_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(InputError, match=r"^unknown preset 'gatys'; known are crowsonkb, gordicaleksa, .*study$"):
        presets.options("gatys")
