"""Convolutions 3x3 by Winograd's minimal filtering beside torch's own: seconds and rounding, by channels and size.

    python -m tests.benchmarks.winograd [--repeats 9] [--size 512]

Each line is one convolution of a VGG at 512 px, and some at smaller sizes, forward and to its input: the median of the
runs, and the norm of the error against float64 over that of the result. The last two are such errors of the gradient of
the whole objective, of Gram matrices to relu5_1 and the content, at a size.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from nst_lightning import images, memory
from nst_lightning.backbones.winograd import Filtering, WinogradConvolution, transformed
from nst_lightning.modules import StyleTransfer
from nst_lightning.tiling import Whole
from tests.benchmarks.contenders import CONTENT, STYLE
from tests.benchmarks.evaluation import loss_of, targets_of
from tests.benchmarks.machine import machine
from tests.benchmarks.scores import median_seconds

SHAPES = [  # input channels, output channels, side of the map
    *[(64, 64, 512), (64, 128, 256), (128, 128, 256), (128, 256, 128), (256, 256, 128), (256, 512, 64), (512, 512, 64)],
    *[(512, 512, 32), (128, 128, 64), (256, 256, 32), (512, 512, 16), (512, 512, 8)],
]


@contextmanager
def torchs_convolutions() -> Iterator[None]:
    """Has networks that are first used meanwhile convolve by torch's own convolutions alone."""
    with mock.patch.object(WinogradConvolution, "suits", staticmethod(lambda like: False)):
        yield


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
        cells.append((forward, back, error(found.detach(), exact.detach())))
    (ours, our_back, our_error), (theirs, their_back, their_error) = cells[1], cells[0]
    times = f"{theirs * 1e3:8.1f}{ours * 1e3:8.1f}{ours / theirs:7.2f}"
    times += f"{their_back * 1e3:10.1f}{our_back * 1e3:8.1f}{our_back / their_back:7.2f}"
    print(f"{inputs:4} -> {outputs:4} at {side:4}{times}{their_error:12.1e}{our_error:9.1e}", flush=True)


def of_the_objective(size: int) -> None:
    """Prints the errors of the gradient of the whole objective, by torch's convolutions and ours."""
    pictures = [images.resize(images.read(str(file)).rgb, (size, size)).clamp(0, 1) for file in (CONTENT, STYLE)]
    start = 0.5 * pictures[0] + 0.5 * torch.rand(pictures[0].shape, generator=torch.Generator().manual_seed(0))

    def gradient(dtype: torch.dtype) -> Tensor:
        module = StyleTransfer(style_loss="gram").to(dtype)
        content, style, image = (each.to(dtype) for each in (*pictures, start))
        evaluator = Whole(module.backbone, module.objective)
        loss_at = loss_of(module.objective, evaluator, targets_of(module.objective, evaluator, content, style))
        (found,) = torch.autograd.grad(loss_at(image.requires_grad_()).sum(), image)
        return found

    right = gradient(torch.float64)
    with torchs_convolutions():
        theirs = error(gradient(torch.float32), right)
    ours = error(gradient(torch.float32), right)
    print(f"gradient of the objective at {size} px: torch's {theirs:.1e}, ours {ours:.1e}, ratio {ours / theirs:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9, help="counted runs; the median is printed")
    parser.add_argument("--size", type=int, default=512, help="of the whole objective's image, in pixels")
    options = parser.parse_args()
    memory.reuse_freed()
    print(machine(torch.device("cpu")), torch.backends.cpu.get_cpu_capability())
    print(f"{'':17}forward ms, torch, ours, ratio    to the input          error, torch, ours")
    for shape in SHAPES:
        compare(*shape, options.repeats)
    of_the_objective(options.size)


if __name__ == "__main__":
    main()
