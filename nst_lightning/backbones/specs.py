"""The table of networks: their layers, the defaults of losses on them, and what goes with their weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from torch import nn
from torchvision import models
from torchvision.models._api import WeightsEnum

from nst_lightning.backbones import weights as weights_
from nst_lightning.errors import InputError


@dataclass(frozen=True)
class Origin:
    """What goes with weights of one origin: the network is fed (image - mean) / std, red first."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @property
    def unit(self) -> float:
        """How many times larger the features are than if the network were fed images normalised as ImageNet's are."""
        return sum(IMAGENET.std) / sum(self.std)


IMAGENET = Origin((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# As Caffe feeds its networks: pixels in [0, 255] minus a mean colour.
OXFORD = Origin((123.68 / 255, 116.779 / 255, 103.939 / 255), (1 / 255, 1 / 255, 1 / 255))
# Torchvision's InceptionV3 undoes ImageNet's normalisation inside (`transform_input`): what is left is this.
INCEPTION = Origin((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@dataclass(frozen=True)
class Spec:
    """What is known of a backbone."""

    build: Callable[[], nn.Module]  # makes the whole network without weights
    layers: Mapping[str, str]  # torchvision's node for every layer that can be named, shallowest first
    content_layers: tuple[str, ...]  # those that the content loss reads by default
    style_layers: tuple[str, ...]  # those that the style loss reads by default
    origins: Mapping[str, Origin]  # where weights can be had from, the default first; a file's are as torchvision's
    torchvision_weights: WeightsEnum
    bundled: weights_.Bundled | None = None  # what `oxford` stands for
    activations: weights_.Bundled | None = None  # the mean activation of each of its filters, by convolution

    @property
    def ordinals(self) -> tuple[str, ...]:
        """The study's table: the default layers by depth, which can be chosen by their place in it, from 0."""
        return tuple(layer for layer in self.layers if layer in {*self.content_layers, *self.style_layers})

    @property
    def default_weights(self) -> str:
        """The weights taken unless told otherwise."""
        return next(iter(self.origins))

    def origin(self, weights: str | None, pixel_range: float | None = None) -> Origin:
        """Returns what goes with the weights of a name or file, or with the default ones for None, see `Backbone`."""
        name = self.default_weights if weights is None else weights
        # The networks that Caffe trained are Oxford's.
        caffe = name.startswith(weights_.CAFFE)
        found = OXFORD if caffe else self.origins.get(name, self.origins[weights_.TORCHVISION])
        if pixel_range is None:
            return found
        if not (math.isfinite(pixel_range) and pixel_range > 0):
            raise InputError(f"pixel_range must be a finite number above 0, got {pixel_range}")
        red, green, blue = (255 * mean / pixel_range for mean in found.mean)
        return Origin((red, green, blue), (1 / pixel_range,) * 3)

    def content_at(self, place: int) -> tuple[str, ...]:
        """Returns the layer at a place of the study's table, counted from 0; an `InputError` if there is none."""
        table = self.ordinals
        if not 0 <= place < len(table):
            allowed = f"a place from 0 to {len(table) - 1} of the table {', '.join(table)}"
            raise InputError(f"content_layers must be {allowed}, got {place}")
        return (table[place],)

    def style_up_to(self, count: int) -> tuple[str, ...]:
        """Returns the style layers among the first `count` of the study's table; an `InputError` if it has fewer."""
        table = self.ordinals
        if not 1 <= count <= len(table):
            allowed = f"a number from 1 to {len(table)} of the table {', '.join(table)}"
            raise InputError(f"style_layers must be {allowed}, got {count}")
        return tuple(layer for layer in table[:count] if layer in self.style_layers)


def _vgg_layers(*convolutions: int) -> dict[str, str]:
    """Names the layers of a VGG with so many convolutions a block: conv1_1, relu1_1, ..., pool5."""
    names = []
    for block, count in enumerate(convolutions, start=1):
        names += [f"{kind}{block}_{depth}" for depth in range(1, count + 1) for kind in ("conv", "relu")]
        names.append(f"pool{block}")
    return {name: f"features.{index}" for index, name in enumerate(names)}


_VGG16 = Spec(
    build=models.vgg16,
    layers=_vgg_layers(2, 2, 3, 3, 3),
    # The predecessor calls it conv4_2, for VGG19 too, but the ReLU after it works in place and overwrites it.
    content_layers=("relu4_2",),
    style_layers=("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"),
    origins={weights_.OXFORD: OXFORD, weights_.TORCHVISION: IMAGENET},
    torchvision_weights=models.VGG16_Weights.IMAGENET1K_V1,
    bundled=weights_.VGG16,
    activations=weights_.VGG16_ACTIVATIONS,
)
_RESNET50_BLOCKS = [f"layer{stage}.{block}" for stage, count in enumerate((3, 4, 6, 3), 1) for block in range(count)]
_INCEPTION_LAYERS = (
    *("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "maxpool1", "Conv2d_3b_1x1", "Conv2d_4a_3x3", "maxpool2"),
    *("Mixed_5b", "Mixed_5c", "Mixed_5d", "Mixed_6a", "Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"),
    *("Mixed_7a", "Mixed_7b", "Mixed_7c"),
)

SPECS: Mapping[str, Spec] = {
    "vgg16": _VGG16,
    # The predecessor's network "with everything exposed": every ReLU, and the eight it had settled on.
    "vgg16_experimental": replace(
        _VGG16,
        layers={name: node for name, node in _VGG16.layers.items() if name.startswith("relu")},
        content_layers=("relu3_2",),
        style_layers=("relu1_1", "relu2_1", "relu2_2", "relu3_1", "relu3_2", "relu4_1", "relu4_3", "relu5_1"),
    ),
    "vgg19": replace(
        _VGG16,
        build=models.vgg19,
        layers=_vgg_layers(2, 2, 4, 4, 4),
        torchvision_weights=models.VGG19_Weights.IMAGENET1K_V1,
        bundled=weights_.VGG19,
        activations=weights_.VGG19_ACTIVATIONS,
    ),
    "resnet50": Spec(
        build=models.resnet50,
        layers={name: name for name in ("relu", "maxpool", *_RESNET50_BLOCKS)},
        content_layers=("layer3.5",),
        style_layers=("relu", "layer1.2", "layer2.3", "layer3.2", "layer4.2"),
        origins={weights_.TORCHVISION: IMAGENET},
        torchvision_weights=models.ResNet50_Weights.IMAGENET1K_V1,
    ),
    "inception_v3": Spec(
        build=partial(models.inception_v3, init_weights=False, transform_input=False),
        layers={name: name for name in _INCEPTION_LAYERS},
        content_layers=("Mixed_6e",),
        style_layers=("Conv2d_1a_3x3", "Conv2d_2b_3x3", "Conv2d_4a_3x3", "Mixed_5d", "Mixed_7c"),
        origins={weights_.TORCHVISION: INCEPTION},
        torchvision_weights=models.Inception_V3_Weights.IMAGENET1K_V1,
    ),
}


def spec_of(name: str) -> Spec:
    """Returns the spec of a backbone; an `InputError` lists the names there are."""
    if name not in SPECS:
        raise InputError(f"unknown backbone {name!r}; known are {', '.join(SPECS)}")
    return SPECS[name]
