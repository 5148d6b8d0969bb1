"""The frozen network whose features the losses compare."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable
from contextlib import ExitStack
from copy import deepcopy
from hashlib import sha256
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.func import functional_call

from nst_lightning.backbones import surgery
from nst_lightning.backbones import weights as weights_
from nst_lightning.backbones.specs import Spec, spec_of
from nst_lightning.backbones.surgery import Border, Pooling
from nst_lightning.errors import InputError

# Up to so many values of a single image's map, torch convolves it on the CPU by other code than a batch's
# (`ConvParams::use_mkldnn` in ATen's Convolution.cpp).
_ALONE = 20480
_LARGE = 1024  # px; a multiple of every stride


class Backbone(nn.Module):
    """A frozen network, trimmed after the deepest layer that is read, in eval mode for good.

    It has no parameters and no state dict: its weights are non-persistent buffers, so that they follow `.to()`
    but are never optimised and never in a checkpoint.

    Args:
        name, layers: A key of `SPECS`, and the names of the layers to return.
        weights: `oxford`, `torchvision`, a file's path, or None for the backbone's default.
        pooling: `max`, `avg_plain` as Gatys et al. (2016), section 2, suggest for synthesis, `avg`, twice that, or
            `l2`, see `surgery`.
        border: What the first convolution sees beyond the image: `zeros` or `replicate`, its outermost pixels.
        pixel_range: None feeds the network what its weights were trained on; a number r, r times the image less the
            weights' mean colour on 0 to 255.
        normalized: Whether the bundled weights are scaled as Gatys et al. (2016) did, see `surgery`.

    Raises:
        InputError: If one of them is unknown; as `WeightsError`, if the weights cannot be had or do not fit.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        name: str,
        layers: Iterable[str],
        weights: str | None = None,
        pooling: Pooling = "max",
        border: Border = "zeros",
        pixel_range: float | None = None,
        normalized: bool = False,
    ) -> None:
        super().__init__()
        spec = spec_of(name)
        nodes = _nodes(name, spec, tuple(layers))
        self.origin = spec.default_weights if weights is None else weights
        if self.origin in {weights_.OXFORD, weights_.TORCHVISION} and self.origin not in spec.origins:
            allowed = ", ".join(spec.origins)
            raise weights_.WeightsError(f"no {self.origin} weights for {name}; allowed are {allowed} or a file's path")
        with torch.device("meta"):
            whole = spec.build().eval()
        expected = whole.state_dict()
        self.settings: dict[str, Any] = {"backbone": name, "weights": self.origin, "pooling": pooling, "border": border}
        self.settings |= {"pixel_range": pixel_range, "normalized": normalized}  # options that make it again
        self.network = surgery.extractor(whole, nodes, pooling, border)
        shapes = _without_norms(self.network)
        self.min_side = _min_side(shapes)  # the smallest height and width of an image in pixels
        # Up to so many pixels a single image is computed on a CPU as if it had a companion: bit for bit as in a batch.
        self.small = math.ceil(_ALONE / _values_per_pixel(shapes))
        state = weights_.load(self.origin, spec.torchvision_weights, spec.bundled)
        needed = self.network.state_dict().keys()
        # Other libraries leave out a count that only training reads.
        counts = [key for key in needed if key.endswith("num_batches_tracked")]
        state = {**dict.fromkeys(counts, torch.tensor(0)), **state}
        weights_.check(state, expected, set(needed), self.origin)
        if normalized:
            if self.origin != weights_.OXFORD:  # which only VGGs have
                fault = f"known for the oxford weights of VGGs only, got {self.origin} of {name}"
                raise InputError(f"normalized: the filters' mean activations are {fault}")
            state = surgery.normalized(state, weights_.load(weights_.OXFORD, bundled=spec.activations))
        in_float32 = {key: state[key].float() if state[key].is_floating_point() else state[key] for key in needed}
        self.network.load_state_dict(in_float32, assign=True)
        surgery.freeze(self.network)
        origin = spec.origin(self.origin, pixel_range)
        for scale, given in (("mean", origin.mean), ("std", origin.std)):
            self.register_buffer(scale, torch.tensor(given).view(1, 3, 1, 1), persistent=False)
        # Of the network's own modules, so not registered; True, by minimal filtering.
        self._parts: dict[tuple[bool, tuple[str, ...] | None], fx.GraphModule] = {}
        self.to(memory_format=torch.channels_last)  # what oneDNN and tensor cores work in: 7 % less time on a CPU
        super().train(False)

    def train(self, mode: bool = True) -> Backbone:
        """Leaves the network in eval mode, whatever is asked for."""
        return super().train(False)

    def forward(
        self, image: Tensor, layers: tuple[str, ...] | None = None, filtered: bool = False
    ) -> dict[str, Tensor]:
        """Returns the features of sRGB images (N, 3, H, W) in [0, 1] by layer, (N, C, H', W') each.

        Of some layers only what these need is computed; `filtered`, in float32 on a CPU by minimal filtering, whose
        rounding depends on where an image begins. An `InputError` if smaller than the network can halve.
        """
        height, width = image.shape[-2:]
        if min(height, width) < self.min_side:
            allowed = f"{self.min_side} px a side at least"
            raise InputError(f"an image of {width}x{height} px is too small for these layers: {allowed}")
        network = self._part(filtered, layers)
        scaled = ((image - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        small = len(image) == 1 and image.device.type == "cpu" and height * width <= self.small
        features: dict[str, Tensor] = network(scaled.expand(2, -1, -1, -1) if small else scaled)
        return {layer: feature[:1] for layer, feature in features.items()} if small else features

    def _part(self, filtered: bool, layers: tuple[str, ...] | None) -> fx.GraphModule:
        key = filtered, layers
        if key == (False, None):
            return self.network
        if key not in self._parts:  # of one filtered network, so that its filters are transformed once
            if layers is None:
                self._parts[key] = surgery.filtered(self.network)
            else:
                self._parts[key] = surgery.part(self._part(filtered, None), layers)
        return self._parts[key]

    def fingerprint(self, layer: str) -> str:
        """Returns the sum of what a layer is computed from: the scale of the input and all weights up to it."""
        found = sha256()
        of_part = sorted(surgery.part(self.network, (layer,)).named_buffers())
        for tensor in (self.mean, self.std, *(tensor for _, tensor in of_part)):
            found.update(tensor.float().cpu().contiguous().numpy().tobytes())
        return found.hexdigest()[:12]

    def shapes(self, image: torch.Size, layers: tuple[str, ...]) -> dict[str, torch.Size]:
        """Returns the shapes of some layers' features of images of a shape; asks the network itself, without data."""
        buffers = {name: buffer.to("meta") for name, buffer in self.named_buffers()}
        with torch.no_grad():
            features = functional_call(self, buffers, (torch.empty(image, device="meta"), layers))
        return {layer: feature.shape for layer, feature in features.items()}


def _nodes(name: str, spec: Spec, layers: tuple[str, ...]) -> dict[str, str]:
    """Returns the layers that are asked for by torchvision's nodes, or refuses them."""
    unknown = [f"unknown layer {layer!r} of {name}" for layer in layers if layer not in spec.layers]
    if unknown or not layers:
        fault = unknown[0] if unknown else f"no layer of {name} was asked for"
        raise InputError(f"{fault}; known are {', '.join(spec.layers)}")
    return {spec.layers[layer]: layer for layer in layers}


def _without_norms(network: fx.GraphModule) -> fx.GraphModule:
    """Returns a copy whose features have the same shapes; on the meta device batch norms take nine tenths of a pass."""
    copied = deepcopy(network)
    for name, module in network.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            copied.set_submodule(name, nn.Identity())
    return copied


def _values_per_pixel(network: nn.Module) -> float:
    """Returns the values that the smallest input of a convolution has for each pixel of a large image."""
    values: list[int] = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        values.append(inputs[0].numel())

    with ExitStack() as hooks:  # not one for all modules, which would see those of other threads
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                hooks.enter_context(module.register_forward_pre_hook(note))
        network(torch.empty(1, 3, _LARGE, _LARGE, device="meta"))
    return min(values) / _LARGE**2


def _min_side(network: nn.Module) -> int:
    """Returns the side of the smallest square that a network on the meta device takes, up to 512 pixels."""

    def takes(side: int) -> bool:
        try:
            network(torch.empty(1, 3, side, side, device="meta"))
        except RuntimeError:
            return False
        return True

    return 1 + bisect_left(range(1, 512), True, key=takes)
