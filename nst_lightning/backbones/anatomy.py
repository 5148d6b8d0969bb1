"""What can be said of a backbone's layers without its weights: channels, stride and what of the image they see."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, NamedTuple

import torch
from torch import fx, nn
from torch.nn import functional as F
from torchvision.models.feature_extraction import create_feature_extractor

from nst_lightning.backbones.specs import Spec, spec_of
from nst_lightning.errors import InputError

_WINDOWED = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)
_WINDOWED_FUNCTIONS = (F.max_pool2d, F.avg_pool2d)
_POINTWISE = (nn.ReLU, nn.BatchNorm2d, nn.Dropout, nn.Identity)
_POINTWISE_FUNCTIONS = (F.relu, torch.relu, operator.add, operator.iadd, torch.add)
_LARGE = 1024  # px; a multiple of every stride


@dataclass(frozen=True)
class View:
    """What the positions of a feature map see along one axis, in pixels."""

    stride: int = 1  # the distance of two positions on the image
    first: int = 0  # the first pixel that position 0 sees; negative where padding moves it off the image
    last: int = 0  # the last one, included

    @property
    def field(self) -> int:
        """The number of pixels that a position sees."""
        return self.last - self.first + 1

    @property
    def before(self) -> int:
        """How many pixels before its own cell of `stride` pixels a position sees."""
        return max(0, -self.first)

    @property
    def after(self) -> int:
        """How many pixels after its own cell of `stride` pixels a position sees."""
        return max(0, self.last - self.stride + 1)

    def through(self, kernel: int, step: int, padding: int, dilation: int) -> View:
        """Returns what the output of a convolution or pooling sees, all in positions of this map."""
        reach = (kernel - 1) * dilation - padding
        return View(self.stride * step, self.first - padding * self.stride, self.last + reach * self.stride)

    def __or__(self, other: View) -> View:
        return View(max(self.stride, other.stride), min(self.first, other.first), max(self.last, other.last))


class Layer(NamedTuple):
    """The name of a layer in the field, the number of its channels, its stride and receptive field in pixels."""

    name: str
    channels: int
    stride: int
    receptive_field: int


def layers_of(backbone: str) -> tuple[Layer, ...]:
    """Returns the layers of a backbone that can be named, shallowest first.

    Receptive fields, along the path that sees most, follow equation 2 of Araujo, Norris and Sim (2019), *Computing
    Receptive Fields of Convolutional Neural Networks*.
    """
    spec = spec_of(backbone)
    with torch.device("meta"):
        network = spec.build().eval()
    nodes = {node: name for name, node in spec.layers.items()}
    traced = create_feature_extractor(network, nodes, suppress_diff_warning=True)
    features = traced(torch.empty(1, 3, _LARGE, _LARGE, device="meta"))
    return tuple(
        Layer(name, features[name].shape[1], max(view.stride for view in seen), max(view.field for view in seen))
        for name, seen in views(traced).items()
    )


def views(network: fx.GraphModule) -> dict[str, tuple[View, View]]:
    """Returns what every output sees along rows and columns, by all paths; an InputError where it may be no window."""
    *nodes, output = network.graph.nodes
    seen: dict[fx.Node, tuple[View, View]] = {}
    for node in nodes:
        if node.op == "placeholder":
            seen[node] = (View(), View())
        else:
            before = [seen[source] for source in node.all_input_nodes]
            rows, columns = (reduce(operator.or_, axis) for axis in zip(*before, strict=True))
            of_rows, of_columns = zip(*_window(network, node), strict=True)
            seen[node] = (rows.through(*of_rows), columns.through(*of_columns))
    return {name: seen[node] for name, node in output.args[0].items()}


def _window(network: fx.GraphModule, node: fx.Node) -> list[tuple[int, int]]:
    """Returns kernel size, step, padding and dilation of a node, of rows and columns each."""
    module = network.get_submodule(str(node.target)) if node.op == "call_module" else None
    joins_channels = node.target is torch.cat and 1 in (*node.args[1:], node.kwargs.get("dim"))
    given: dict[str, Any] = {"kernel_size": 1}
    if isinstance(module, _WINDOWED):
        given = vars(module)
    elif node.target in _WINDOWED_FUNCTIONS:
        given = {**dict(zip(("input", "kernel_size", "stride", "padding"), node.args, strict=False)), **node.kwargs}
    elif not (isinstance(module, _POINTWISE) or node.target in _POINTWISE_FUNCTIONS or joins_channels):
        kind = node.target if module is None else type(module).__name__
        allowed = "convolutions, poolings of a fixed window, ReLU, batch normalisation, sums and joins of channels"
        msg = f"{node.name} ({kind}) may see more than a window of its input; allowed before a layer are {allowed}"
        raise InputError(msg)
    kernel = given["kernel_size"]
    sizes = (kernel, given.get("stride") or kernel, given.get("padding", 0), given.get("dilation", 1))
    return [(int(size[0]), int(size[1])) if isinstance(size, (tuple, list)) else (size, size) for size in sizes]


def table(names: Sequence[str]) -> str:
    """Returns backbones with their weights and layers, as lines of text."""
    return "\n\n".join(_described(name, spec_of(name)) for name in names)


def _described(name: str, spec: Spec) -> str:
    origins = [f"{origin} (bundled)" for origin in spec.origins if origin != "torchvision"]
    rows: list[tuple[str | int, ...]] = [("layer", "channels", "stride", "field", "place, use")]
    for layer in layers_of(name):
        place = spec.ordinals.index(layer.name) if layer.name in spec.ordinals else ""
        uses = {"content": spec.content_layers, "style": spec.style_layers}
        rows.append((*layer, " ".join([str(place), *(use for use, layers in uses.items() if layer.name in layers)])))
    lines = [f"  {row[0]:<16}{row[1]:>9}{row[2]:>8}{row[3]:>7}  {row[4]}".rstrip() for row in rows]
    return "\n".join([f"{name}: weights {', '.join([*origins, 'torchvision (download)'])}", *lines])
