"""Channels, strides and receptive fields against published figures and against the gradient itself."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.models import resnet50

from nst_lightning.backbones import SPECS, Backbone
from nst_lightning.backbones.anatomy import layers_of, table
from nst_lightning.errors import InputError


@pytest.mark.parametrize(
    ("backbone", "layer", "channels", "stride", "field"),
    [
        # A VGG's halo (field - stride) / 2 was measured in float64: relu5_1 needs 58 px in VGG16, 70 in VGG19.
        ("vgg16", "relu1_1", 64, 1, 3),
        ("vgg16", "relu5_1", 512, 16, 2 * 58 + 16),
        ("vgg19", "relu4_2", 512, 8, 2 * 38 + 8),
        ("vgg19", "relu5_1", 512, 16, 2 * 70 + 16),
        ("vgg16_experimental", "relu3_1", 256, 4, 2 * 10 + 4),
        # Araujo, Norris and Sim (2019), table of popular networks: 1311 for the last layer of InceptionV3.
        ("inception_v3", "Mixed_7c", 2048, 32, 1311),
        ("inception_v3", "Conv2d_4a_3x3", 192, 4, 23),
        ("resnet50", "relu", 64, 2, 7),
        ("resnet50", "layer1.2", 256, 4, 35),
    ],
)
def test_equals_published_figures(backbone: str, layer: str, channels: int, stride: int, field: int) -> None:
    found = {each.name: each for each in layers_of(backbone)}[layer]
    assert (found.channels, found.stride, found.receptive_field) == (channels, stride, field)


@pytest.mark.parametrize("layer", ["relu1_2", "relu2_1", "pool2"])
def test_the_gradient_of_one_position_reaches_the_field_and_no_further(layer: str) -> None:
    backbone = Backbone("vgg16", [layer], pooling="avg").double()
    image = torch.rand(1, 3, 64, 64, dtype=torch.float64, requires_grad=True)
    feature = backbone(image)[layer]
    middle = feature[0, :, feature.shape[2] // 2, feature.shape[3] // 2]
    (gradient,) = torch.autograd.grad(middle.sum(), image)
    rows = gradient.abs().sum(dim=(0, 1, 3)).nonzero()
    (found,) = [each for each in layers_of("vgg16") if each.name == layer]
    assert int(rows.max() - rows.min()) + 1 == found.receptive_field


def test_a_residual_blocks_field_is_that_of_its_longest_path(tmp_path: Path) -> None:
    network = resnet50()
    for parameter in network.parameters():
        nn.init.constant_(parameter, 0.05)  # positive throughout, so that no ReLU cuts a path
    torch.save(network.state_dict(), tmp_path / "w.pth")
    backbone = Backbone("resnet50", ["layer1.1"], str(tmp_path / "w.pth"), pooling="avg").double()
    image = torch.ones(1, 3, 96, 96, dtype=torch.float64, requires_grad=True)
    feature = backbone(image)["layer1.1"]
    (gradient,) = torch.autograd.grad(feature[0, :, 12, 12].sum(), image)
    rows = gradient.abs().sum(dim=(0, 1, 3)).nonzero()
    (found,) = [each for each in layers_of("resnet50") if each.name == "layer1.1"]
    assert int(rows.max() - rows.min()) + 1 == found.receptive_field == 27


def test_the_table_shows_every_backbone_and_layer() -> None:
    text = table([*SPECS])
    assert text.count(": weights ") == len(SPECS)
    assert "vgg16: weights oxford (bundled), torchvision (download)" in text
    assert "vgg19: weights oxford (bundled), torchvision (download)\n" in text
    assert re.search(r"\n  relu4_2 +512 +8 +84  4 content\n", text)
    for spec in SPECS.values():
        assert all(f"  {layer} " in text for layer in spec.layers)


def test_an_unknown_backbone_is_refused() -> None:
    with pytest.raises(InputError, match="unknown backbone 'vgg11'; known are vgg16, "):
        layers_of("vgg11")
