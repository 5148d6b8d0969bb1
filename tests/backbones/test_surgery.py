"""Networks that see images as finely as they are optimised."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nst_lightning import images
from nst_lightning.backbones import SPECS, Backbone
from nst_lightning.backbones.surgery import ImageConvolution
from nst_lightning.backbones.weights import OXFORD, load
from nst_lightning.errors import InputError


def image(seed: int) -> Tensor:
    """Smooth colours with a grain of a few levels of 255, as pictures have it."""
    generator = torch.Generator().manual_seed(seed)
    coarse = F.interpolate(torch.rand(1, 3, 5, 5, generator=generator), (40, 48), mode="bilinear")
    return (coarse + 3 / 255 * torch.randn(1, 3, 40, 48, generator=generator)).clamp(0, 1)


def test_the_image_is_not_rounded_under_autocast_and_its_features_are_once() -> None:
    backbone, output = Backbone("vgg16", ["relu1_1"]), image(0)
    buffers = dict(backbone.named_buffers())
    weight, bias = buffers["network.features.0.weight"].double(), buffers["network.features.0.bias"].double()
    exact = F.conv2d((output.double() - backbone.mean) / backbone.std, weight, bias, padding=1).relu()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = backbone(output)["relu1_1"]
    assert found.dtype == torch.bfloat16
    # Half a unit in the last of eight binary places, and the rounding of float32 sums.
    torch.testing.assert_close(found.double(), exact, rtol=2**-8, atol=1e-3)


def test_the_gradient_under_autocast_is_that_of_the_image_not_of_its_rounding() -> None:
    backbone, target = Backbone("vgg16", ["relu1_2"]), image(0)
    generator = torch.Generator().manual_seed(1)
    output = target + 0.2 / 255 * torch.randn(target.shape, generator=generator)

    def gradient(dtype: torch.dtype) -> Tensor:
        pixels = output.clone().requires_grad_()
        with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
            found, wanted = backbone(pixels)["relu1_2"], backbone(target)["relu1_2"]
        (slope,) = torch.autograd.grad((found.float() - wanted.float()).square().sum(), pixels)
        return slope

    exact = gradient(torch.float32)
    error = (gradient(torch.bfloat16) - exact).norm() / exact.norm()
    assert error < 0.5


@pytest.mark.parametrize("name", list(SPECS))
def test_only_the_convolution_of_the_image_is_in_full_precision(name: str, hub: Path) -> None:
    network = SPECS[name].build()
    file = hub / "checkpoints" / Path(SPECS[name].torchvision_weights.url).name
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(network.state_dict(), file)
    backbone = Backbone(name, SPECS[name].style_layers[:2], "torchvision")
    convolutions = [module for module in backbone.network.modules() if isinstance(module, nn.Conv2d)]
    exact = [module for module in convolutions if isinstance(module, ImageConvolution)]
    assert [module.in_channels for module in exact] == [3]
    assert len(convolutions) > 1
    first = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
    for attribute in ("out_channels", "kernel_size", "stride", "padding"):
        assert getattr(exact[0], attribute) == getattr(first, attribute)
    assert (exact[0].bias is None) == (first.bias is None)


PHOTOGRAPHS = sorted((Path(__file__).parents[2] / "data/content-images").glob("*.jpg"))


@pytest.mark.parametrize(("name", "layers"), [("vgg16", 7), ("vgg19", 4)])  # the deep ones take minutes
def test_the_mean_activations_are_those_of_the_photographs(name: str, layers: int) -> None:
    spec = SPECS[name]
    assert spec.activations is not None
    shipped = load(OXFORD, bundled=spec.activations)
    nodes = {layer: node for layer, node in spec.layers.items() if layer.startswith("relu")}
    seen = [*nodes][:layers]
    backbone = Backbone(name, seen)
    found: dict[str, list[Tensor]] = {layer: [] for layer in seen}
    for file in PHOTOGRAPHS:
        photograph = images.read(str(file)).rgb
        with torch.no_grad():
            features = backbone(images.resize(photograph, images.fit(photograph.shape[-2], photograph.shape[-1], 512)))
        for layer in seen:
            found[layer].append(features[layer].mean(dim=(0, 2, 3)))
    for layer, each in found.items():
        mean = torch.stack(each).mean(dim=0)
        convolution = f"features.{int(nodes[layer].removeprefix('features.')) - 1}"
        torch.testing.assert_close(
            shipped[convolution].float(), mean.clamp(min=0.01 * mean.mean()), rtol=2e-3, atol=0
        )  # half a unit of float16, and another processor's rounding


def test_scaled_filters_scale_their_features_and_no_other() -> None:
    layers = ("relu1_1", "relu2_2", "relu4_1")
    plain, scaled = Backbone("vgg16", layers), Backbone("vgg16", layers, normalized=True)
    assert SPECS["vgg16"].activations is not None
    means = load(OXFORD, bundled=SPECS["vgg16"].activations)
    with torch.no_grad():
        expected, found = plain(image(1).float()), scaled(image(1).float())
    for layer, convolution in (("relu1_1", 0), ("relu2_2", 7), ("relu4_1", 17)):
        mean = means[f"features.{convolution}"].float()[:, None, None]
        torch.testing.assert_close(found[layer], expected[layer] / mean, rtol=1e-4, atol=1e-4)


def test_activations_of_other_weights_are_not_known(tmp_path: Path) -> None:
    file = tmp_path / "own.pth"
    torch.save(load(OXFORD, bundled=SPECS["vgg16"].bundled), file)
    message = r"^normalized: the filters' mean activations are known for the oxford weights of VGGs only, got"
    with pytest.raises(InputError, match=message):
        Backbone("vgg16", ("relu1_1",), str(file), normalized=True)


def test_backbones_are_made_in_several_threads_while_another_uses_a_network_of_its_own() -> None:
    made, layers, other = threading.Event(), ["relu4_2", "relu1_1"], nn.Linear(2, 2)
    expected = Backbone("vgg16", layers)(image(0))

    def use() -> None:
        while not made.is_set():
            other(torch.zeros(1, 2))

    with ThreadPoolExecutor(4) as threads:
        using = threads.submit(use)
        try:
            for found in threads.map(lambda _: Backbone("vgg16", layers)(image(0)), range(3)):
                assert {name: torch.equal(found[name], expected[name]) for name in found} == dict.fromkeys(layers, True)
        finally:
            made.set()
        using.result()
    assert nn.Linear(2, 2)(torch.zeros(1, 2)).shape == (1, 2)
