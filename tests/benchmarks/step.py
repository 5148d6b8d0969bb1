"""One optimiser step on one image beside its convolutions alone, a bare torch loop, and Lightning's Trainer.

    python -m tests.benchmarks.step [--size 512] [--steps 7] [--style-loss gram] [--device cpu] [--precision 32-true]
        [--compile] [--profile]

The floor is what the network's convolutions take by themselves, forward and to their input, one after the other on
tensors of the same layout and type, the median of as many runs; so are the lines `by torch's own`. The bare loop is
the same mathematics as anyone would write it: torchvision's network, matrix products for the Grams, one evaluation a
step of `torch.optim.LBFGS`, in float32, nothing of this project; it runs in a process of its own. Every line is a
median; ratios are to the floor.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from itertools import pairwise
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.nn.grad import conv2d_input
from torch.profiler import ProfilerActivity, profile
from torchvision.models import vgg16

from nst_lightning import memory
from nst_lightning.backbones import OXFORD, Backbone
from nst_lightning.data import PairDataModule
from nst_lightning.modules import StyleTransfer
from nst_lightning.optim import LBFGS
from nst_lightning.tiling import Whole
from tests.benchmarks.contenders import bundled
from tests.benchmarks.evaluation import loss_of, targets_of
from tests.benchmarks.machine import machine
from tests.benchmarks.trainer import fit
from tests.benchmarks.winograd import torchs_convolutions

STYLE_LAYERS = (1, 6, 11, 18, 25)
CONTENT_LAYER = 20
UNCOUNTED = 3  # steps that warm up, and that a compiler takes


def wait(device: torch.device) -> None:
    """Returns when the device has nothing left to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def median_seconds(step: Callable[[], object], steps: int, device: torch.device) -> float:
    """Returns the median time of a step, after those that are not counted."""
    times = []
    for _ in range(steps + UNCOUNTED):
        wait(device)
        began = time.perf_counter()
        step()
        wait(device)
        times.append(time.perf_counter() - began)
    return statistics.median(times[UNCOUNTED:])


def peak_mib() -> float:
    """Returns the process's peak resident memory in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def convolutions(backbone: Backbone, image: Tensor, dtype: torch.dtype, repeats: int) -> list[tuple[float, float]]:
    """Returns seconds and GFLOP of every convolution on an image, forward and to its input, each run by itself."""
    seen: list[tuple[nn.Conv2d, torch.Size]] = []
    hooks = [
        module.register_forward_pre_hook(lambda module, inputs: seen.append((module, inputs[0].shape)))
        for module in backbone.modules()
        if isinstance(module, nn.Conv2d)
    ]
    with torch.no_grad():
        backbone(image)
    for hook in hooks:
        hook.remove()
    found = []
    for module, shape in seen:
        options: Any = {"padding": module.padding}
        given = torch.randn(shape, dtype=dtype, device=image.device).to(memory_format=torch.channels_last)
        weight = module.weight.detach().to(dtype)

        def forward(given: Tensor = given, weight: Tensor = weight, options: Any = options) -> Tensor:  # noqa: ANN401
            return nn.functional.conv2d(given, weight, **options)

        made = forward()

        def backward(
            gradient: Tensor = torch.randn_like(made),  # noqa: B008 - this layer's, not the last one's
            given: Tensor = given,
            weight: Tensor = weight,
            options: Any = options,  # noqa: ANN401
        ) -> None:
            conv2d_input(given.shape, weight, gradient, **options)  # type: ignore[no-untyped-call, unused-ignore]

        taken = sum(median_seconds(each, repeats, image.device) for each in (forward, backward))
        found.append((taken, 2 * 2 * made.numel() * weight[0].numel() / 1e9))
    return found


def of_convolutions(step: Callable[[], object], rows: int = 0) -> float:
    """Returns the share of a step's CPU time that torch's profiler finds in convolutions; prints the largest parts."""
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        step()
    events = recorded.key_averages()
    if rows:
        print(events.table(sort_by="self_cpu_time_total", row_limit=rows, max_name_column_width=40))
    total: float = sum(event.self_cpu_time_total for event in events)
    inside: float = sum(event.self_cpu_time_total for event in events if "conv" in event.key.lower())
    return inside / total


def pictures(size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Returns noise for a content image, a style image and a start, (1, 3, size, size) each."""
    generator = torch.Generator().manual_seed(0)
    content, style, start = (torch.rand(1, 3, size, size, generator=generator) for _ in range(3))
    return content, style, start


def bare(size: int, steps: int, device: torch.device) -> None:
    """Prints the seconds and peak memory of the bare loop."""
    with torch.device("meta"):  # its classifier, which is not used, has 0.5 GB
        network = vgg16()
    network.load_state_dict(bundled(), strict=False, assign=True)
    layers = network.features[: max(STYLE_LAYERS) + 1].eval().requires_grad_(False).to(device)
    for layer in layers:
        if isinstance(layer, nn.ReLU):
            layer.inplace = False
    mean = 255 * torch.tensor(OXFORD.mean, device=device).view(1, 3, 1, 1)

    def features(image: Tensor) -> dict[int, Tensor]:
        found, x = {}, 255 * image - mean
        for place, layer in enumerate(layers):
            x = found[place] = layer(x)
        return found

    def gram(feature: Tensor) -> Tensor:
        _, channels, height, width = feature.shape
        flat = feature.view(channels, height * width)
        return flat @ flat.T / (channels * height * width)

    content, style, start = (image.to(device) for image in pictures(size))
    with torch.no_grad():
        of_content = features(content)[CONTENT_LAYER]
        of_style = {place: gram(found) for place, found in features(style).items() if place in STYLE_LAYERS}
    image = nn.Parameter(start)
    optimizer: Any = torch.optim.LBFGS([image], max_iter=1, history_size=10, tolerance_change=-1, tolerance_grad=-1)

    def closure() -> Tensor:
        optimizer.zero_grad()
        found = features(image)
        loss = 1e5 * nn.functional.mse_loss(found[CONTENT_LAYER], of_content)
        for place, target in of_style.items():
            loss = loss + 20 * (gram(found[place]) - target).square().sum()
        across, down = image[..., 1:] - image[..., :-1], image[..., 1:, :] - image[..., :-1, :]
        loss = loss + 255 * (across.abs().sum() + down.abs().sum())
        torch.autograd.backward(loss)
        return loss

    seconds = median_seconds(lambda: optimizer.step(closure), steps, device)
    print(json.dumps([seconds, peak_mib()]))


class _Clock(L.Callback):
    """Notes when steps end."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: object) -> None:
        wait(pl_module.device)
        self.ends.append(time.perf_counter())


def through_trainer(module: StyleTransfer, size: int, steps: int, device: torch.device, precision: str) -> float:
    """Returns the median seconds from the end of one step to that of the next, in a run of the usual kind."""
    clock = _Clock()
    content, style, _ = pictures(size)
    given = content[0], style[0]
    data = PairDataModule(*given, size=size, steps=steps + UNCOUNTED, stages=1)  # type: ignore[arg-type] # see api
    fit(module, data, clock, device=device, precision=precision)
    return statistics.median(later - before for before, later in pairwise(clock.ends[UNCOUNTED - 1 :]))


def work(
    module: StyleTransfer, content: Tensor, style: Tensor, start: Tensor, precision: torch.autocast
) -> tuple[Callable[[], object], Callable[[], object]]:
    """Returns what takes a step with a module's losses, and what computes its network forward and backward."""
    image = nn.Parameter(start.clone())
    optimizer = LBFGS([image])
    evaluator = Whole(module.backbone, module.objective, module.problem.compile)
    with precision:
        loss_at = loss_of(module.objective, evaluator, targets_of(module.objective, evaluator, content, style))

    def closure() -> Tensor:
        optimizer.zero_grad()
        with precision:
            loss = loss_at(image)
        torch.autograd.backward(loss.sum())
        return loss.detach()

    def network() -> None:
        with precision:
            deepest = module.backbone(image, filtered=True)["relu5_1"]
        torch.autograd.grad(deepest.sum(), image)

    return lambda: optimizer.step(closure), network


def report(rows: dict[str, float], single: list[tuple[float, float]]) -> None:
    """Prints the seconds of every row beside the floor, and what part of the hardware's rate they are."""
    floor = sum(seconds for seconds, _ in single)
    for name, seconds in {"its convolutions alone": floor, **rows}.items():
        print(f"{name:32}{seconds:8.4f} s{seconds / floor:8.2f} x the floor")
    peak = max(gflop / seconds for seconds, gflop in single)
    whole = sum(gflop for _, gflop in single)
    step, taken = rows["step"], rows["step through Trainer"]
    print(f"roofline: {whole:.1f} GFLOP of convolutions; best layer {peak:.0f} GFLOP/s, all {whole / floor:.0f}")
    print(f"the step through Trainer: {floor / taken:.1%} of the floor, {whole / taken / peak:.1%} of the best layer's")
    print(f"Lightning: {1 - step / taken:.1%} of the step; bare loop / ours {rows['bare loop, float32'] / taken:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=512, help="height and width in pixels")
    parser.add_argument("--steps", type=int, default=7, help="counted steps; the median is printed")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--style-loss", default="gram", help="the bare loop's is always gram")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"), help="cpu or cuda")
    parser.add_argument("--precision", choices=("32-true", "bf16-mixed"), default="32-true")
    parser.add_argument("--compile", action="store_true", help="as with nst fit --compile true")
    parser.add_argument("--profile", action="store_true", help="print where a step's time goes")
    parser.add_argument("--bare", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    device = options.device
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    if options.bare:
        bare(options.size, options.steps, device)
        return
    command = [sys.executable, "-m", "tests.benchmarks.step", "--bare", "--size", str(options.size)]
    command += ["--device", str(device), "--steps", str(options.steps)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    bare_seconds, bare_peak = json.loads(done.stdout)
    print(f"{machine(device)}; {options.size}x{options.size} px, VGG16 to relu5_1, {options.precision}")

    memory.reuse_freed()
    dtype = torch.float32 if options.precision == "32-true" else torch.bfloat16
    precision = torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16)
    content, style, start = (image.to(device) for image in pictures(options.size))
    rows: dict[str, float] = {}
    for name, context in (("", nullcontext()), (" by torch's own", torchs_convolutions())):
        with context:
            module = StyleTransfer(style_loss=options.style_loss, compile=options.compile).to(device)
            step, network = work(module, content, style, start, precision)
            if not rows:
                single, ours = convolutions(module.backbone, start, dtype, options.steps), step
            rows |= {
                f"network{name}": median_seconds(network, options.steps, device),
                f"step{name}": median_seconds(step, options.steps, device),
                f"step through Trainer{name}": through_trainer(
                    module, options.size, options.steps, device, options.precision
                ),
            }
    rows["bare loop, float32"] = bare_seconds
    report(rows, single)
    print(f"share of convolutions, the Grams' among them: {of_convolutions(ours, 25 if options.profile else 0):.1%}")
    print(f"peak memory of the host: {peak_mib():.0f} MiB, bare loop {bare_peak:.0f} MiB")


if __name__ == "__main__":
    main()
