"""What can be said of a backbone's layers without its weights: channels, stride and receptive field."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F
from torchvision.models.feature_extraction import create_feature_extractor

from nst_lightning.backbones import SPECS, spec_of

_WINDOWED = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)
_WINDOWED_FUNCTIONS = (F.max_pool2d, F.avg_pool2d)
_LARGE = 1024  # px; a multiple of every stride


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
    seen = _receptive_fields(traced)
    return tuple(Layer(name, features[name].shape[1], *seen[name]) for name in spec.layers)


def _receptive_fields(network: fx.GraphModule) -> dict[str, tuple[int, int]]:
    """Returns stride and receptive field of every output of a traced network, by its name."""
    seen: dict[fx.Node, tuple[int, int, int]] = {}  # stride, and height and width of the field
    for node in network.graph.nodes:
        if node.op == "output":
            (outputs,) = node.args
            return {name: (seen[source][0], max(seen[source][1:])) for name, source in outputs.items()}
        sources = [seen[source] for source in node.all_input_nodes]
        stride, height, width = (max((source[part] for source in sources), default=1) for part in range(3))
        (tall, wide), step = _window(network, node)
        seen[node] = (stride * step, height + (tall - 1) * stride, width + (wide - 1) * stride)
    raise AssertionError  # a graph has an output


def _window(network: fx.GraphModule, node: fx.Node) -> tuple[tuple[int, int], int]:
    """Returns kernel size and stride of a node, 1 where it works position by position."""
    if node.op == "call_module":
        module = network.get_submodule(str(node.target))
        if isinstance(module, _WINDOWED):
            return _both(module.kernel_size), max(_both(module.stride))
    if node.op == "call_function" and node.target in _WINDOWED_FUNCTIONS:
        arguments = {**dict(zip(("input", "kernel_size", "stride"), node.args, strict=False)), **node.kwargs}
        kernel = _both(arguments["kernel_size"])
        return kernel, max(_both(arguments.get("stride", kernel)))
    return (1, 1), 1


def _both(size: Any) -> tuple[int, int]:  # noqa: ANN401 - torch takes a number or a pair, and so does FX
    return (int(size[0]), int(size[1])) if isinstance(size, (tuple, list)) else (int(size), int(size))


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
