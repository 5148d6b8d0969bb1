"""The frozen networks whose features the losses compare: a table of specs and one module.

A backbone takes sRGB images in [0, 1]; the scale that its weights were trained on is part of the spec.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torchvision.models import VGG16_Weights, VGG19_Weights, vgg16, vgg19
from torchvision.models._api import WeightsEnum
from torchvision.models.feature_extraction import create_feature_extractor

from nst_lightning import weights as weights_
from nst_lightning.errors import InputError

Pooling = Literal["max", "avg"]


@dataclass(frozen=True)
class Origin:
    """What goes with weights of one origin.

    The input scale is the affine map from sRGB in [0, 1] to what the network is fed: (image - mean) / std.

    Attributes:
        mean: Of the input scale, per channel, red first.
        std: Of the input scale, per channel, red first.
        style_weight: The style weight that goes with a content weight of 1e5 unless told otherwise. It belongs
            to the weights because Gram scores grow with the fourth power of the features' magnitude, content
            scores with the second.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    style_weight: float


def _pixels(red: float, green: float, blue: float, style_weight: float) -> Origin:
    """Returns the origin of a network fed as Caffe's are: pixels in [0, 255] minus a mean colour."""
    return Origin((red / 255, green / 255, blue / 255), (1 / 255, 1 / 255, 1 / 255), style_weight)


# 10,000 : 10 between content and style, where the study's pictures were best, is where these weights' are too.
OXFORD = _pixels(123.68, 116.779, 103.939, style_weight=1e2)
# Torchvision's VGGs were trained on (image - mean) / std; the study's predecessor feeds them pixels in [0, 255]
# minus torchvision's mean all the same, and its weights of content and style mean something on that scale only.
PREDECESSOR = _pixels(123.675, 116.28, 103.53, style_weight=3e4)


@dataclass(frozen=True)
class Spec:
    """What is known of a backbone.

    Attributes:
        build: Makes the whole network without weights.
        layers: Torchvision's node for every layer that can be named, shallowest first.
        content_layers: The layers that the content loss reads unless told otherwise.
        style_layers: The layers that the style loss reads unless told otherwise.
        origins: Where weights can be had from, the default first; a file is taken for one of torchvision's.
        torchvision_weights: The entry of torchvision's weights API.
    """

    build: Callable[[], nn.Module]
    layers: Mapping[str, str]
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
        return self.origins.get(name, self.origins[weights_.TORCHVISION])


def _vgg_layers(convolutions: tuple[int, ...]) -> dict[str, str]:
    """Names the layers of a VGG with so many convolutions a block: conv1_1, relu1_1, ..., pool5."""
    names = []
    for block, count in enumerate(convolutions, start=1):
        for depth in range(1, count + 1):
            names += [f"conv{block}_{depth}", f"relu{block}_{depth}"]
        names.append(f"pool{block}")
    return {name: f"features.{index}" for index, name in enumerate(names)}


_VGG16_LAYERS = _vgg_layers((2, 2, 3, 3, 3))
_VGG16_ORIGINS = {weights_.OXFORD: OXFORD, weights_.TORCHVISION: PREDECESSOR}
_GATYS_STYLE = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")

SPECS: Mapping[str, Spec] = {
    "vgg16": Spec(
        build=vgg16,
        layers=_VGG16_LAYERS,
        content_layers=("relu4_2",),
        style_layers=_GATYS_STYLE,
        origins=_VGG16_ORIGINS,
        torchvision_weights=VGG16_Weights.IMAGENET1K_V1,
    ),
    # The predecessor's network "with everything exposed": every ReLU, and the eight it had settled on.
    "vgg16_experimental": Spec(
        build=vgg16,
        layers={name: node for name, node in _VGG16_LAYERS.items() if name.startswith("relu")},
        content_layers=("relu3_2",),
        style_layers=("relu1_1", "relu2_1", "relu2_2", "relu3_1", "relu3_2", "relu4_1", "relu4_3", "relu5_1"),
        origins=_VGG16_ORIGINS,
        torchvision_weights=VGG16_Weights.IMAGENET1K_V1,
    ),
    # The predecessor calls its content layer conv4_2; what it read was relu4_2, for the ReLU after it worked
    # in place and overwrote it.
    "vgg19": Spec(
        build=vgg19,
        layers=_vgg_layers((2, 2, 4, 4, 4)),
        content_layers=("relu4_2",),
        style_layers=_GATYS_STYLE,
        origins={weights_.TORCHVISION: PREDECESSOR},
        torchvision_weights=VGG19_Weights.IMAGENET1K_V1,
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


class Backbone(nn.Module):
    """A frozen network, trimmed after the deepest layer that is read.

    It has no parameters and no state dict: its weights are non-persistent buffers, so that they follow `.to()`
    but are never optimised and never in a checkpoint. It is in eval mode for good.

    Attributes:
        origin: Where the weights are from: `oxford`, `torchvision` or a file's path.
        min_side: The smallest height and width of an image in pixels.

    Args:
        name: A key of `SPECS`.
        layers: The names of the layers to return.
        weights: `oxford`, `torchvision`, a file's path, or None for the backbone's default.
        pooling: `max`, or `avg` as Gatys et al. (2016), section 2, suggest for synthesis.

    Raises:
        InputError: If the backbone or a layer is unknown, or the pooling is neither.
        WeightsError: If the weights cannot be had or do not fit.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, name: str, layers: Iterable[str], weights: str | None = None, pooling: Pooling = "max") -> None:
        super().__init__()
        spec = spec_of(name)
        nodes = _nodes(name, spec, tuple(layers))
        origin = spec.default_weights if weights is None else weights
        self.origin = origin
        if origin in {weights_.OXFORD, weights_.TORCHVISION} and origin not in spec.origins:
            msg = f"no {origin} weights for {name}; allowed are {', '.join(spec.origins)} or a file's path"
            raise weights_.WeightsError(msg)
        with torch.device("meta"):
            whole = spec.build().eval()
        expected = whole.state_dict()
        _replace_pooling_and_inplace(whole, pooling)
        self.network = create_feature_extractor(whole, nodes, suppress_diff_warning=True)
        state = weights_.load(origin, spec.torchvision_weights)
        needed = self.network.state_dict().keys()
        weights_.check(state, expected, set(needed), origin)
        self.network.load_state_dict({key: state[key] for key in needed}, assign=True)
        _freeze(self.network)
        of = spec.origin(origin)
        self.register_buffer("mean", torch.tensor(of.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(of.std).view(1, 3, 1, 1), persistent=False)
        self.min_side = 2 ** sum(isinstance(module, (nn.MaxPool2d, nn.AvgPool2d)) for module in self.modules())
        super().train(False)

    def train(self, mode: bool = True) -> Backbone:
        """Leaves the network in eval mode, whatever is asked for."""
        return super().train(False)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Returns the features of sRGB images (N, 3, H, W) in [0, 1], by layer, (N, C, H', W') each.

        Raises:
            InputError: If the image is smaller than the network can halve.
        """
        height, width = image.shape[-2:]
        if min(height, width) < self.min_side:
            msg = f"an image of {width}x{height} px is too small for these layers: {self.min_side} px a side at least"
            raise InputError(msg)
        features: dict[str, Tensor] = self.network((image - self.mean) / self.std)
        return features


def _nodes(name: str, spec: Spec, layers: tuple[str, ...]) -> dict[str, str]:
    unknown = [layer for layer in layers if layer not in spec.layers]
    if unknown:
        msg = f"unknown layer {unknown[0]!r} of {name}; known are {', '.join(spec.layers)}"
        raise InputError(msg)
    if not layers:
        msg = f"no layer of {name} was asked for; known are {', '.join(spec.layers)}"
        raise InputError(msg)
    return {spec.layers[layer]: layer for layer in layers}


def _replace_pooling_and_inplace(network: nn.Module, pooling: Pooling) -> None:
    if pooling not in {"max", "avg"}:
        msg = f"unknown pooling {pooling!r}; known are max, avg"
        raise InputError(msg)
    for parent in list(network.modules()):
        for key, child in list(parent.named_children()):
            if isinstance(child, nn.ReLU):
                # An in-place ReLU would overwrite the convolution's output under the loss that reads it.
                setattr(parent, key, nn.ReLU(inplace=False))
            elif isinstance(child, nn.MaxPool2d) and pooling == "avg":
                setattr(parent, key, nn.AvgPool2d(child.kernel_size, child.stride, child.padding))


def _freeze(network: nn.Module) -> None:
    for module in network.modules():
        for key, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
            delattr(module, key)
            module.register_buffer(key, tensor.detach(), persistent=False)
