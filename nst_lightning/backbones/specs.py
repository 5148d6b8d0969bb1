"""The table of networks: their layers, the defaults of losses on them, and what goes with their weights.

Another network is an entry of `SPECS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial

from torch import nn
from torchvision.models import (
    Inception_V3_Weights,
    ResNet50_Weights,
    VGG16_Weights,
    VGG19_Weights,
    inception_v3,
    resnet50,
    vgg16,
    vgg19,
)
from torchvision.models._api import WeightsEnum

from nst_lightning.backbones import weights as weights_
from nst_lightning.errors import InputError


@dataclass(frozen=True)
class Origin:
    """What goes with weights of one origin.

    The input scale is the affine map from sRGB in [0, 1] to what the network is fed: (image - mean) / std.

    Attributes:
        mean: Of the input scale, per channel, red first.
        std: Of the input scale, per channel, red first.
        content_weight: The content weight unless told otherwise.
        style_weight: The style weight unless told otherwise. Both belong to the weights because content losses
            grow with the second power of the features' magnitude, Gram losses with the fourth.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    content_weight: float
    style_weight: float


def _pixels(red: float, green: float, blue: float, style_weight: float) -> Origin:
    """Returns the origin of a network fed as Caffe's are: pixels in [0, 255] minus a mean colour."""
    return Origin((red / 255, green / 255, blue / 255), (1 / 255, 1 / 255, 1 / 255), 1e5, style_weight)


# 10,000 : 10 between content and style, where the study's pictures were best, is where these weights' are too.
OXFORD = _pixels(123.68, 116.779, 103.939, style_weight=1e2)
# Torchvision's VGGs were trained on (image - mean) / std; the study's predecessor feeds them pixels in [0, 255]
# minus torchvision's mean all the same, and its weights of content and style mean something on that scale only.
PREDECESSOR = _pixels(123.675, 116.28, 103.53, style_weight=3e4)
# Networks with batch normalisation have to be fed the scale they were trained on. Their default weights carry the
# predecessor's over to it as if the network were linear: features about 58 times smaller, to the second and fourth
# power. No weights of theirs are bundled, so that is by calculation and not by eye.
_SMALLER = 255 * 0.226
_TRAINED = {"content_weight": 1e5 * _SMALLER**2, "style_weight": 3e4 * _SMALLER**4}
IMAGENET = Origin((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), **_TRAINED)
# Torchvision's InceptionV3 undoes ImageNet's normalisation inside (`transform_input`): what is left is this.
INCEPTION = Origin((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), **_TRAINED)


@dataclass(frozen=True)
class Spec:
    """What is known of a backbone.

    Attributes:
        build: Makes the whole network without weights.
        layers: Torchvision's node for every layer that can be named, shallowest first.
        ordinals: The study's table: the layers that can be chosen by their place in it, counted from 0.
        content_layers: The layers that the content loss reads unless told otherwise.
        style_layers: The layers that the style loss reads unless told otherwise, all in the study's table.
        origins: Where weights can be had from, the default first; a file is taken for one of torchvision's.
        torchvision_weights: The entry of torchvision's weights API.
    """

    build: Callable[[], nn.Module]
    layers: Mapping[str, str]
    ordinals: tuple[str, ...]
    content_layers: tuple[str, ...]
    style_layers: tuple[str, ...]
    origins: Mapping[str, Origin]
    torchvision_weights: WeightsEnum

    @property
    def default_weights(self) -> str:
        """The weights taken unless told otherwise."""
        return next(iter(self.origins))

    def origin(self, weights: str | None) -> Origin:
        """Returns what goes with the weights of a name, of a file, or with the default ones for None."""
        name = self.default_weights if weights is None else weights
        if name.startswith(weights_.CAFFE):
            return OXFORD  # the networks that Caffe trained are Oxford's
        return self.origins.get(name, self.origins[weights_.TORCHVISION])

    def content_at(self, place: int) -> tuple[str, ...]:
        """Returns the layer at a place of the study's table, counted from 0 as the study counted content layers.

        Raises:
            InputError: If the table has no such place.
        """
        if not 0 <= place < len(self.ordinals):
            msg = f"content_layers must be a place from 0 to {len(self.ordinals) - 1} of {self._table}, got {place}"
            raise InputError(msg)
        return (self.ordinals[place],)

    def style_up_to(self, count: int) -> tuple[str, ...]:
        """Returns the style layers among the first `count` of the study's table.

        Raises:
            InputError: If the table is not that long, or `count` is below 1.
        """
        if not 1 <= count <= len(self.ordinals):
            msg = f"style_layers must be a number from 1 to {len(self.ordinals)} of {self._table}, got {count}"
            raise InputError(msg)
        return tuple(layer for layer in self.ordinals[:count] if layer in self.style_layers)

    @property
    def _table(self) -> str:
        return f"the table {', '.join(self.ordinals)}"


def _vgg_layers(*convolutions: int) -> dict[str, str]:
    """Names the layers of a VGG with so many convolutions a block: conv1_1, relu1_1, ..., pool5."""
    names = []
    for block, count in enumerate(convolutions, start=1):
        names += [f"{kind}{block}_{depth}" for depth in range(1, count + 1) for kind in ("conv", "relu")]
        names.append(f"pool{block}")
    return {name: f"features.{index}" for index, name in enumerate(names)}


def _without(layers: Iterable[str], layer: str) -> tuple[str, ...]:
    return tuple(each for each in layers if each != layer)


_VGG16_LAYERS = _vgg_layers(2, 2, 3, 3, 3)
_VGG16_ORIGINS = {weights_.OXFORD: OXFORD, weights_.TORCHVISION: PREDECESSOR}
# The predecessor's table for VGG19, its place 4 called conv4_2. What the predecessor read there was relu4_2, for the
# ReLU after it works in place and overwrites the convolution's output.
_GATYS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu4_2", "relu5_1")
_EXPERIMENTAL = ("relu1_1", "relu2_1", "relu2_2", "relu3_1", "relu3_2", "relu4_1", "relu4_3", "relu5_1")
_RESNET50_BLOCKS = [f"layer{stage}.{block}" for stage, count in enumerate((3, 4, 6, 3), 1) for block in range(count)]
_RESNET50 = ("relu", "layer1.2", "layer2.3", "layer3.2", "layer3.5", "layer4.2")
_INCEPTION_LAYERS = (
    *("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "maxpool1", "Conv2d_3b_1x1", "Conv2d_4a_3x3", "maxpool2"),
    *("Mixed_5b", "Mixed_5c", "Mixed_5d", "Mixed_6a", "Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"),
    *("Mixed_7a", "Mixed_7b", "Mixed_7c"),
)
_INCEPTION = ("Conv2d_1a_3x3", "Conv2d_2b_3x3", "Conv2d_4a_3x3", "Mixed_5d", "Mixed_6e", "Mixed_7c")

SPECS: Mapping[str, Spec] = {
    "vgg16": Spec(
        build=vgg16,
        layers=_VGG16_LAYERS,
        ordinals=_GATYS,
        content_layers=("relu4_2",),
        style_layers=_without(_GATYS, "relu4_2"),
        origins=_VGG16_ORIGINS,
        torchvision_weights=VGG16_Weights.IMAGENET1K_V1,
    ),
    # The predecessor's network "with everything exposed": every ReLU, and the eight it had settled on.
    "vgg16_experimental": Spec(
        build=vgg16,
        layers={name: node for name, node in _VGG16_LAYERS.items() if name.startswith("relu")},
        ordinals=_EXPERIMENTAL,
        content_layers=("relu3_2",),
        style_layers=_EXPERIMENTAL,
        origins=_VGG16_ORIGINS,
        torchvision_weights=VGG16_Weights.IMAGENET1K_V1,
    ),
    "vgg19": Spec(
        build=vgg19,
        layers=_vgg_layers(2, 2, 4, 4, 4),
        ordinals=_GATYS,
        content_layers=("relu4_2",),
        style_layers=_without(_GATYS, "relu4_2"),
        origins={weights_.TORCHVISION: PREDECESSOR},
        torchvision_weights=VGG19_Weights.IMAGENET1K_V1,
    ),
    "resnet50": Spec(
        build=resnet50,
        layers={name: name for name in ("relu", "maxpool", *_RESNET50_BLOCKS)},
        ordinals=_RESNET50,
        content_layers=("layer3.5",),
        style_layers=_without(_RESNET50, "layer3.5"),
        origins={weights_.TORCHVISION: IMAGENET},
        torchvision_weights=ResNet50_Weights.IMAGENET1K_V1,
    ),
    "inception_v3": Spec(
        build=partial(inception_v3, init_weights=False, transform_input=False),
        layers={name: name for name in _INCEPTION_LAYERS},
        ordinals=_INCEPTION,
        content_layers=("Mixed_6e",),
        style_layers=_without(_INCEPTION, "Mixed_6e"),
        origins={weights_.TORCHVISION: INCEPTION},
        torchvision_weights=Inception_V3_Weights.IMAGENET1K_V1,
    ),
}


def spec_of(name: str) -> Spec:
    """Returns the spec of a backbone.

    Raises:
        InputError: If there is no backbone of that name; lists those there are.
    """
    if name not in SPECS:
        msg = f"unknown backbone {name!r}; known are {', '.join(SPECS)}"
        raise InputError(msg)
    return SPECS[name]
