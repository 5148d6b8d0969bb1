"""What is changed in torchvision's networks so that images can be optimised through them fast and exactly."""

from __future__ import annotations

import copy
import operator
import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node
from torchvision.models.feature_extraction import NodePathTracer

from nst_lightning.backbones.winograd import WinogradConvolution
from nst_lightning.errors import InputError

Pooling = Literal["max", "avg", "avg_plain", "l2"]
Border = Literal["zeros", "replicate"]
_TRACING = threading.Lock()


def extractor(network: nn.Module, nodes: Mapping[str, str], pooling: Pooling, border: Border) -> GraphModule:
    """Returns what computes some layers, given by torchvision's nodes, of a network on the meta device in eval mode."""
    for option, given, allowed in (("pooling", pooling, Pooling), ("border", border, Border)):
        if given not in get_args(allowed):
            raise InputError(f"unknown {option} {given!r}; known are {', '.join(get_args(allowed))}")
    traced = _traced(network, nodes)
    for node, module in _calls(traced, nn.MaxPool2d):
        if pooling == "l2":
            traced.set_submodule(str(node.target), L2Pooling(module.stride))
        elif pooling != "max":
            traced.set_submodule(str(node.target), AveragePooling(module, 1.0 if pooling == "avg_plain" else 2.0))
    for node, convolution in _calls(traced, nn.Conv2d):
        if node.all_input_nodes[0].op == "placeholder":
            traced.set_submodule(str(node.target), ImageConvolution(convolution, border))
    _pool_before_relu(traced)
    _work_in_place(traced)
    return traced


class _Tracer(NodePathTracer):
    """Traces its own thread only: torch.fx replaces the call of every nn.Module of the process while it traces."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # torchvision's is not annotated
        self._thread = threading.get_ident()

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: Any) -> Any:  # noqa: ANN401
        """Returns a module's proxy, or what it computes where another thread calls it."""
        if threading.get_ident() != self._thread:
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)


def _traced(network: nn.Module, nodes: Mapping[str, str]) -> GraphModule:
    """Returns the graph of some layers by torchvision's nodes, each the last operation of a node or of what is in it.

    As torchvision's `create_feature_extractor`, which no two threads may call and none beside a network at work.
    """
    tracer = _Tracer()
    with _TRACING:  # two at once would undo each other's replacements in the wrong order
        traced = GraphModule(network, tracer.trace(network))
    found: dict[str, Node] = {}
    for node in traced.graph.nodes:
        path = tracer.node_to_qualname.get(node, "").split(".")
        for depth in range(1, len(path) + 1):
            if (layer := nodes.get(".".join(path[:depth]))) is not None:
                found.pop(layer, None)  # so that the layers are in the order of their last operations
                found[layer] = node
    return _ending_in(traced, found)


def part(network: GraphModule, layers: tuple[str, ...]) -> GraphModule:
    """Returns what computes some outputs of a network and nothing that only others need, with the same modules."""
    trimmed = GraphModule(network, copy.deepcopy(network.graph))
    outputs: Any = trimmed.graph.output_node().args[0]
    return _ending_in(trimmed, {layer: outputs[layer] for layer in layers})


def filtered(network: GraphModule) -> GraphModule:
    """Returns a network of the same modules, but with minimal filtering for the convolutions that it suits."""
    faster = GraphModule(network, copy.deepcopy(network.graph))
    for node, convolution in _calls(network, nn.Conv2d):
        if type(convolution) is nn.Conv2d and WinogradConvolution.suits(convolution):
            faster.set_submodule(str(node.target), WinogradConvolution(convolution))
    return faster


def _ending_in(network: GraphModule, outputs: Mapping[str, Node]) -> GraphModule:
    """Lets a network return some of its nodes by name, and leaves out what is of no use for them."""
    network.graph.output_node().args = (dict(outputs),)
    network.graph.eliminate_dead_code()
    network.delete_all_unused_submodules()
    network.recompile()
    return network


def normalized(state: Mapping[str, Tensor], means: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns a VGG's convolutions, float32, so scaled that filters of some mean activations (C,) have one of 1.

    Gatys et al. (2016), section 2. Exact, for ReLUs and poolings scale with their input.
    """
    scaled, before = {}, torch.ones(1)
    for name in sorted(means, key=lambda name: int(name.rpartition(".")[2])):
        mean, weight, bias = means[name].float(), state[f"{name}.weight"].float(), state[f"{name}.bias"].float()
        scaled[f"{name}.weight"] = weight * before[:, None, None] / mean[:, None, None, None]
        scaled[f"{name}.bias"] = bias / mean
        before = mean
    return scaled


def freeze(network: nn.Module) -> None:
    """Turns parameters and buffers into buffers that no state dict holds."""
    for module in network.modules():
        for key, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
            delattr(module, key)
            module.register_buffer(key, tensor.detach(), persistent=False)


class AveragePooling(nn.AvgPool2d):
    """Average pooling times a factor, of 2 as crowsonkb has it, for the layers behind were trained on maxima."""

    def __init__(self, like: nn.MaxPool2d, scale: float) -> None:
        super().__init__(like.kernel_size, like.stride, like.padding)
        self.scale = scale

    def forward(self, input: Tensor) -> Tensor:
        """Returns the scaled averages, (N, C, H', W')."""
        return self.scale * super().forward(input)


class L2Pooling(nn.AvgPool2d):
    """The root of the mean square under a Hann window of 3x3, Henaff and Simoncelli (2016), section 2.1, times 1.56.

    Maxima alias, these do not. The factor is crowsonkb's 0.78, which he multiplies a root of a sum over 2x2 with.
    """

    def __init__(self, stride: int) -> None:
        super().__init__(3, stride, padding=1)

    def forward(self, input: Tensor) -> Tensor:
        """Returns the scaled roots, (N, C, H', W')."""
        channels = input.shape[1]
        row = input.new_full((3,), 0.25)  # not of a list, which a GPU has to wait for, nor by assigning a number
        row[1].fill_(0.5)
        window = (row[:, None] * row).expand(channels, 1, 3, 3)
        squares = nn.functional.conv2d(input.square(), window, stride=self.stride, padding=1, groups=channels)
        return 1.56 * (squares + torch.finfo(torch.float32).eps).sqrt()  # whose slope at 0 would not be finite


class ImageConvolution(nn.Conv2d):
    """A convolution of an image, computed in the image's own precision also under autocast, then rounded once.

    Rounded to bfloat16 an image has steps as large as those of an optimiser near its end: the loss would be that of
    another picture. Made like another one, on the meta device: the weights come later.
    """

    def __init__(self, like: nn.Conv2d, border: Border) -> None:
        shape = (like.in_channels, like.out_channels, like.kernel_size, like.stride, like.padding)
        biased = like.bias is not None
        super().__init__(*shape, bias=biased, padding_mode=border, device="meta")  # type: ignore[arg-type, unused-ignore]

    def forward(self, input: Tensor) -> Tensor:
        """Returns the convolution of images (N, C, H, W), in autocast's type where that is on."""
        kind = input.device.type
        if not torch.amp.is_autocast_available(kind) or not torch.is_autocast_enabled(kind):
            return super().forward(input)
        with torch.autocast(kind, enabled=False):
            output = super().forward(input)
        return output.to(torch.get_autocast_dtype(kind))


def _calls(network: GraphModule, kind: type[nn.Module]) -> list[tuple[Node, Any]]:
    """Returns the nodes that call modules of a kind, with these."""
    called = [node for node in network.graph.nodes if node.op == "call_module"]
    return [(node, module) for node in called if isinstance(module := network.get_submodule(node.target), kind)]


def _pool_before_relu(network: GraphModule) -> None:
    """Lets ReLUs that only a maximum over windows reads come after it: the same to the bit, on a quarter of a map."""
    relus = {node for node, _ in _calls(network, nn.ReLU)}
    for node, _ in _calls(network, nn.MaxPool2d):
        (before,) = node.all_input_nodes
        if before in relus and len(before.users) == 1:
            with network.graph.inserting_after(node):
                after = network.graph.call_module(str(before.target), (node,))
            node.replace_all_uses_with(after, delete_user_cb=partial(operator.is_not, after))
            node.args = (before.args[0], *node.args[1:])
            network.graph.erase_node(before)
    network.recompile()


def _work_in_place(network: GraphModule) -> None:
    """Lets the ReLUs work in place whose input nothing else reads, as a loss would: saves a feature map each."""
    calls = _calls(network, nn.ReLU)
    shared = {relu for node, relu in calls if len(node.all_input_nodes[0].users) > 1}
    for _, relu in calls:
        relu.inplace = relu not in shared
