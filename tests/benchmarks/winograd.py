"""Convolutions 3x3 by Winograd's minimal filtering beside torch's own: seconds and rounding, by channels and size.

    python -m tests.benchmarks.winograd [--repeats 9]

Each line is one convolution of a VGG at 512 px, and some at smaller sizes, forward and to its input: the median of the
runs, and the norm of the error against float64 over that of the result.

"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from nst_lightning import memory
from nst_lightning.backbones import Backbone
from tests.benchmarks.filtering import Filtering, WinogradConvolution, transformed
from tests.benchmarks.machine import machine
from tests.benchmarks.scores import median_seconds

SHAPES = [  # input channels, output channels, side of the map
    *[(64, 64, 512), (64, 128, 256), (128, 128, 256), (128, 256, 128), (256, 256, 128), (256, 512, 64), (512, 512, 64)],
    *[(512, 512, 32), (128, 128, 64), (256, 256, 32), (512, 512, 16), (512, 512, 8)],
]


def filter_convolutions(backbone: Backbone) -> None:
    """Puts minimal filtering in place of a network's convolutions that it suits."""
    for name, module in list(backbone.network.named_modules()):
        if type(module) is nn.Conv2d and WinogradConvolution.suits(module):
            filtering = WinogradConvolution(module)
            for key, values in module.named_buffers():
                delattr(filtering, key)
                filtering.register_buffer(key, values, persistent=False)
            backbone.network.set_submodule(name, filtering)


def error(found: Tensor, right: Tensor) -> float:
    """Returns the norm of an error over that of what is right."""
    return float((found.double() - right).norm() / right.norm())


def compare(inputs: int, outputs: int, side: int, repeats: int) -> None:
    """Prints a convolution's seconds and errors both ways."""
    image = torch.rand(1, inputs, side, side).to(memory_format=torch.channels_last).requires_grad_()
    weight = torch.randn(outputs, inputs, 3, 3).to(memory_format=torch.channels_last)
    bias, filters = torch.randn(outputs), transformed(weight)
    cells = []
    exact = conv2d(image.double(), weight.double(), bias.double(), padding=1)
    gradient = torch.randn(exact.shape).to(memory_format=torch.channels_last)

    def by_torch() -> Tensor:
        return conv2d(image, weight, bias, padding=1)

    def filtered() -> Tensor:
        found: Tensor = Filtering.apply(image, filters, bias, 1)
        return found

    for convolve in (by_torch, filtered):
        found = convolve()
        with torch.no_grad():
            forward = median_seconds(convolve, repeats)

        def backward(found: Tensor = found) -> object:
            return torch.autograd.grad(found, image, gradient, retain_graph=True)

        back = median_seconds(backward, repeats)
        cells.append((forward, back, error(found, exact)))
    (ours, our_back, our_error), (theirs, their_back, their_error) = cells[1], cells[0]
    times = f"{theirs * 1e3:8.1f}{ours * 1e3:8.1f}{ours / theirs:7.2f}"
    times += f"{their_back * 1e3:10.1f}{our_back * 1e3:8.1f}{our_back / their_back:7.2f}"
    print(f"{inputs:4} -> {outputs:4} at {side:4}{times}{their_error:12.1e}{our_error:9.1e}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9, help="counted runs; the median is printed")
    options = parser.parse_args()
    memory.reuse_freed()
    print(machine(torch.device("cpu")), torch.backends.cpu.get_cpu_capability())
    print(f"{'':17}forward ms, torch, ours, ratio    to the input          error, torch, ours")
    for shape in SHAPES:
        compare(*shape, options.repeats)


if __name__ == "__main__":
    main()
