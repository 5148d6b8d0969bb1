"""Gradient descent on the levels of an image's Laplacian pyramid."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from nst_lightning.errors import InputError


class Pyramid(torch.optim.Optimizer):
    """Adam or RMSprop on the levels of a Laplacian pyramid, of which the parameter is the image (N, C, H, W).

    So large forms move as fast as fine ones: Kolkin et al. (2019), *STROTSS*, section 3.3 (5 levels, RMSprop), and
    Kolkin et al. (2022), *Neural Neighbor Style Transfer* (8 levels, Adam), with the settings of their code. A level is
    the image less its half size enlarged again, the last one is what is left.

    Args:
        params: One image parameter.
        lr: The learning rate, > 0.
        levels: The number of levels, >= 1; fewer where a level would have no pixel.
        method: `adam` or `rmsprop`, with torch's settings.

    Raises:
        InputError: If an argument is out of range.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 2e-3,
        levels: int = 8,
        method: Literal["adam", "rmsprop"] = "adam",
    ) -> None:
        if not lr > 0:
            raise InputError(f"lr must be above 0, got {lr}")
        if levels < 1:
            raise InputError(f"levels must be at least 1, got {levels}")
        if method not in {"adam", "rmsprop"}:
            raise InputError(f"unknown method {method!r}; known are adam, rmsprop")
        super().__init__(params, {"lr": lr})
        self.defaults |= {"levels": levels, "method": method}  # not in the groups, which checkpoints hold

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # noqa: ANN401 - torch's
        """Takes a step; the closure computes the loss and its gradient."""
        with torch.enable_grad():
            loss = None if closure is None else closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, parameter.grad, group["lr"])
        return loss

    def _move(self, parameter: Tensor, gradient: Tensor, lr: float) -> None:
        state = self.state[parameter]
        if not state:
            levels = analysis(parameter.detach(), self.defaults["levels"])
            nothing = [torch.zeros_like(level) for level in levels]
            state |= {"taken": 0, "levels": levels, "first": nothing, "second": [each.clone() for each in nothing]}
        leaves = [level.detach().requires_grad_() for level in state["levels"]]
        with torch.enable_grad():
            gradients = torch.autograd.grad(synthesis(leaves), leaves, gradient)
        state["taken"] += 1
        for level, of_level, first, second in zip(
            state["levels"], gradients, state["first"], state["second"], strict=True
        ):
            if self.defaults["method"] == "adam":
                first.lerp_(of_level, 0.1)
                second.mul_(0.999).addcmul_(of_level, of_level, value=0.001)
                taken = state["taken"]
                spread = (second / (1 - 0.999**taken)).sqrt_().add_(1e-8)
                level.addcdiv_(first, spread, value=-lr / (1 - 0.9**taken))
            else:
                second.mul_(0.99).addcmul_(of_level, of_level, value=0.01)
                level.addcdiv_(of_level, second.sqrt().add_(1e-8), value=-lr)
        parameter.copy_(synthesis(state["levels"]))


def analysis(image: Tensor, levels: int) -> list[Tensor]:
    """Returns the levels of images (N, C, H, W), the finest first; the last is a small image."""
    found: list[Tensor] = []
    while len(found) + 1 < levels and min(image.shape[-2:]) > 1:
        size = (image.shape[-2] // 2, image.shape[-1] // 2)
        smaller = interpolate(image, size, mode="bilinear")
        found.append(image - interpolate(smaller, image.shape[-2:], mode="bilinear"))
        image = smaller
    return [*found, image.clone()]


def synthesis(levels: Sequence[Tensor]) -> Tensor:
    """Returns the images of levels as of `analysis`."""
    *finer, image = levels
    for level in reversed(finer):
        image = level + interpolate(image, level.shape[-2:], mode="bilinear")
    return image
