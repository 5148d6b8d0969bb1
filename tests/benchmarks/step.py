"""One optimiser step on one image: seconds, peak memory, and the share of the time spent in convolutions.

    python -m tests.benchmarks.step [--size 512] [--steps 5] [--threads N]

Prints what one `training_step` with its backward pass and L-BFGS update costs beside the bare forward and backward
pass of the same network, in the same run, and the ratio of the two.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from nst_lightning.backbones import Backbone
from nst_lightning.losses import IMAGE
from nst_lightning.modules import StyleTransfer
from nst_lightning.optim import LBFGS
from tests.benchmarks.machine import machine


def median_seconds(step: Callable[[], object], steps: int) -> float:
    """Returns the median time of a step, after one that is not counted."""
    times = []
    for _ in range(steps + 1):
        began = time.perf_counter()
        step()
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])


def peak_mib() -> float:
    """Returns the process's peak resident memory in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def convolution_share(step: Callable[[], object]) -> float:
    """Returns the share of a step's CPU time that torch's profiler finds in convolutions."""
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        step()
    events = recorded.key_averages()
    total: float = sum(event.self_cpu_time_total for event in events)
    inside: float = sum(event.self_cpu_time_total for event in events if "conv" in event.key.lower())
    return inside / total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=512, help="height and width in pixels")
    parser.add_argument("--steps", type=int, default=5, help="counted steps; the median is printed")
    parser.add_argument("--threads", type=int, default=None)
    options = parser.parse_args()
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    print(machine())

    generator = torch.Generator().manual_seed(0)
    content, style, start = (torch.rand(1, 3, options.size, options.size, generator=generator) for _ in range(3))
    module = StyleTransfer()
    objective, backbone = module.objective, module.backbone
    assert isinstance(backbone, Backbone)
    image = nn.Parameter(start)
    optimizer = LBFGS([image])
    with torch.no_grad():
        targets = objective.targets("content", {IMAGE: content, **backbone(content)})
        targets |= objective.targets("style", {IMAGE: style, **backbone(style)})

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        features = {IMAGE: image, **backbone(image)}
        loss = objective.total(objective.scores(objective.statistics(features, targets), targets))
        torch.autograd.backward(loss.sum())
        return loss.detach()

    def step() -> object:
        return optimizer.step(closure)

    def bare() -> None:
        deepest = backbone(image)["relu5_1"]
        torch.autograd.grad(deepest.sum(), image)

    before = peak_mib()
    network = median_seconds(bare, options.steps)
    network_peak = peak_mib()
    whole = median_seconds(step, options.steps)
    whole_peak = peak_mib()
    print(f"image {options.size}x{options.size} px, VGG16 to relu5_1, float32, median of {options.steps} steps")
    print(f"network forward and backward   {network:7.3f} s   peak {network_peak:6.0f} MiB")
    print(f"whole step (losses, L-BFGS)    {whole:7.3f} s   peak {whole_peak:6.0f} MiB")
    print(f"memory before any step                       {before:6.0f} MiB")
    print(f"ratio whole step / network     {whole / network:7.3f}")
    print(f"share of convolutions          {convolution_share(step):7.1%}")


if __name__ == "__main__":
    main()
