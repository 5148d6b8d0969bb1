"""What can be said of a backbone's layers without its weights: channels, stride and what of the image they see."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F
from torchvision.models.feature_extraction import create_feature_extractor

from nst_lightning.backbones import SPECS, spec_of
from nst_lightning.errors import InputError

_WINDOWED = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)
_WINDOWED_FUNCTIONS = (F.max_pool2d, F.avg_pool2d)
_POSITION_BY_POSITION = (nn.ReLU, nn.BatchNorm2d, nn.Dropout, nn.Identity)
_FUNCTIONS_POSITION_BY_POSITION = (F.relu, torch.relu, operator.add, operator.iadd, torch.add)
_LARGE = 1024  # px; a multiple of every stride


@dataclass(frozen=True)
class View:
    """What the positions of a feature map see along one axis: position i the pixels from i * stride + first.

    Attributes:
        stride: The distance of two positions on the image in pixels.
        first: The first pixel that position 0 sees; negative where padding moves it off the image.
        last: The last one, included.
    """

    stride: int = 1
    first: int = 0
    last: int = 0

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


@dataclass(frozen=True)
class Layer:
    """One layer of a backbone.

    Attributes:
        name: Its name in the field.
        channels: The number of its channels.
        stride: The distance of two of its positions on the image in pixels.
        receptive_field: The side of the square of pixels that one of its positions sees.
    """

    name: str
    channels: int
    stride: int
    receptive_field: int


def layers_of(backbone: str) -> tuple[Layer, ...]:
    """Returns the layers of a backbone that can be named, shallowest first.

    Receptive fields follow Araujo, Norris and Sim (2019), *Computing Receptive Fields of Convolutional Neural
    Networks*, equation 2, along the path that sees most.

    Raises:
        InputError: If there is no backbone of that name.
    """
    spec = spec_of(backbone)
    with torch.device("meta"):
        network = spec.build().eval()
    nodes = {node: name for name, node in spec.layers.items()}
    traced = create_feature_extractor(network, nodes, suppress_diff_warning=True)
    features = traced(torch.empty(1, 3, _LARGE, _LARGE, device="meta"))
    seen = views(traced)
    return tuple(
        Layer(
            name,
            features[name].shape[1],
            max(view.stride for view in seen[name]),
            max(view.field for view in seen[name]),
        )
        for name in spec.layers
    )


def views(network: fx.GraphModule) -> dict[str, tuple[View, View]]:
    """Returns what every output of a traced network sees along rows and columns, by its name.

    Where paths meet, the output sees all that any of them does.

    Raises:
        InputError: If the network has an operation that is not known to see a window of its input only.
    """
    seen: dict[fx.Node, tuple[View, View]] = {}
    for node in network.graph.nodes:
        if node.op == "output":
            (outputs,) = node.args
            return {name: seen[source] for name, source in outputs.items()}
        if node.op == "placeholder":
            seen[node] = (View(), View())
            continue
        kernel, step, padding, dilation = _window(network, node)
        rows, columns = (
            reduce(operator.or_, (seen[source][axis] for source in node.all_input_nodes)) for axis in (0, 1)
        )
        seen[node] = (
            rows.through(kernel[0], step[0], padding[0], dilation[0]),
            columns.through(kernel[1], step[1], padding[1], dilation[1]),
        )
    raise AssertionError  # a graph has an output


_Pair = tuple[int, int]
_POSITION = ((1, 1), (1, 1), (0, 0), (1, 1))  # a window of one position


def _window(network: fx.GraphModule, node: fx.Node) -> tuple[_Pair, _Pair, _Pair, _Pair]:
    """Returns kernel size, step, padding and dilation of a node, rows first."""
    if node.op == "call_module":
        module = network.get_submodule(str(node.target))
        if isinstance(module, _WINDOWED):
            return _both(module.kernel_size), _both(module.stride), _both(module.padding), _dilation(module)
        if isinstance(module, _POSITION_BY_POSITION):
            return _POSITION
    if node.op == "call_function":
        if node.target in _WINDOWED_FUNCTIONS:
            names = ("input", "kernel_size", "stride", "padding", "dilation")
            given = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
            kernel, padding = _both(given["kernel_size"]), _both(given.get("padding", 0))
            return kernel, _both(given.get("stride") or kernel), padding, _both(given.get("dilation", 1))
        if node.target in _FUNCTIONS_POSITION_BY_POSITION or _joins_channels(node):
            return _POSITION
    kind = type(network.get_submodule(str(node.target))).__name__ if node.op == "call_module" else node.target
    allowed = "convolutions, poolings of a fixed window, ReLU, batch normalisation, sums and joins of channels"
    msg = f"{node.name} ({kind}) may see more than a window of its input; allowed before a layer are {allowed}"
    raise InputError(msg)


def _both(size: Any) -> tuple[int, int]:  # noqa: ANN401 - torch takes a number or a pair, and so does FX
    return (int(size[0]), int(size[1])) if isinstance(size, (tuple, list)) else (int(size), int(size))


def _dilation(module: nn.Module) -> _Pair:
    return (1, 1) if isinstance(module, nn.AvgPool2d) else _both(module.dilation)


def _joins_channels(node: fx.Node) -> bool:
    given = {**dict(zip(("tensors", "dim"), node.args, strict=False)), **node.kwargs}
    return node.target is torch.cat and bool(given.get("dim") == 1)


def table() -> str:
    """Returns all backbones with their weights and layers, as lines of text."""
    return "\n\n".join(_described(name) for name in SPECS)


def _described(backbone: str) -> str:
    spec = SPECS[backbone]
    offline = [origin for origin in spec.origins if origin != "torchvision"]
    lines = [
        f"{backbone}: weights {', '.join([*(f'{origin} (bundled)' for origin in offline), 'torchvision (download)'])}",
        f"  {'layer':<16}{'channels':>9}{'stride':>8}{'field':>7}  place and default use",
    ]
    for layer in layers_of(backbone):
        place = str(spec.ordinals.index(layer.name)) if layer.name in spec.ordinals else ""
        uses = [
            use
            for use, names in (("content", spec.content_layers), ("style", spec.style_layers))
            if layer.name in names
        ]
        numbers = f"{layer.channels:>9}{layer.stride:>8}{layer.receptive_field:>7}"
        row = f"  {layer.name:<16}{numbers}  {place} {' '.join(uses)}"
        lines.append(row.rstrip())
    return "\n".join(lines)
