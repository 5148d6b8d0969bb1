"""What the optimisers make of the same number of evaluations, on sample images.

    python -m tests.benchmarks.optimizers [--size 128] [--evaluations 100]

Prints each one's loss after that many evaluations of the network, as a ratio to that of the default optimiser, from
three starts: the photograph, noise, and a hostile one (strong noise, style weight times 1e6).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from nst_lightning import images
from nst_lightning.modules import StyleTransfer
from nst_lightning.optim import LBFGS, Adam
from nst_lightning.tiling import Whole
from tests.benchmarks.evaluation import WEIGHTS, loss_of, targets_of
from tests.benchmarks.machine import machine
from tests.benchmarks.preconditioner import Smoothness

Loss = Callable[[Tensor], Tensor]

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "LBFGS (default)": LBFGS,
    "LBFGS, 30 pairs": partial(LBFGS, history_size=30),
    "LBFGS, smoothness 1": partial(LBFGS, precondition=Smoothness(1.0)),
    "LBFGS, no safeguard": partial(LBFGS, safeguard=False),
    "torch LBFGS, strong Wolfe": partial(torch.optim.LBFGS, max_iter=10_000, line_search_fn="strong_wolfe"),
    "Adam, lr 10/255": Adam,
    "Adam, lr 0.02": partial(Adam, lr=0.02),
}


class Spent(Exception):
    """Raised by a closure when its evaluations are used up."""


def least_loss(make: Callable[..., torch.optim.Optimizer], start: Tensor, loss: Loss, evaluations: int) -> float:
    """Returns the least loss that an optimiser sees within so many evaluations."""
    image = nn.Parameter(start.clone())
    optimizer: Any = make([image])
    seen: list[float] = []

    def closure() -> Tensor:
        if len(seen) == evaluations:
            raise Spent
        optimizer.zero_grad()
        value = loss(image)
        torch.autograd.backward(value.sum())
        seen.append(value.item())
        return value.detach()

    try:
        while True:
            optimizer.step(closure)
    except Spent:
        return min((value for value in seen if value == value), default=float("nan"))


def _sample(name: str, size: int) -> Tensor:
    image = images.read(f"data/{name}").rgb
    height, width = image.shape[-2:]
    return images.resize(image, images.fit(height, width, size)).clamp(0, 1)


def problem(size: int, style_weight: float) -> tuple[Tensor, Loss]:
    """Returns the photograph and the default objective with that style weight."""
    content, style = (
        _sample(name, size) for name in ("content-images/temple.jpg", "style-images/church_at_auvers.jpg")
    )
    module = StyleTransfer()
    evaluator = Whole(module.backbone, module.objective)
    targets = targets_of(module.objective, evaluator, content, style)
    return content, loss_of(module.objective, evaluator, targets, {**WEIGHTS, "style": style_weight})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=128, help="long side in pixels")
    parser.add_argument("--evaluations", type=int, default=100)
    options = parser.parse_args()
    print(f"{machine()}; {options.size} px, {options.evaluations} evaluations; ratio to the default optimiser's loss")

    content, loss = problem(options.size, 1e2)
    _, hostile_loss = problem(options.size, 1e8)
    noise = torch.randn(content.shape, generator=torch.Generator().manual_seed(0))
    starts = {
        "photograph": (content, loss),
        "noise": (0.5 + 90 / 255 * noise, loss),
        "hostile": (0.5 + 3 * noise, hostile_loss),
    }
    print(f"{'':28}" + "".join(f"{name:>14}" for name in starts) + f"{'seconds':>10}")
    default: list[float] = []
    for name, make in OPTIMIZERS.items():
        began = time.perf_counter()
        losses = [least_loss(make, start, objective, options.evaluations) for start, objective in starts.values()]
        default = default if default else losses
        ratios = "".join(f"{value / ours:14.3f}" for value, ours in zip(losses, default, strict=True))
        print(f"{name:28}{ratios}{time.perf_counter() - began:10.1f}", flush=True)


if __name__ == "__main__":
    main()
