"""How much memory a step takes on this device, measured on small images, and the tile that fits."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nst_lightning import memory, tiling
from nst_lightning.backbones import Backbone
from nst_lightning.losses import Objective


@dataclass(frozen=True)
class Footprint:
    """Bytes of a step on one image, as lines over pixels.

    Attributes:
        evaluation: Of the targets, the features, and the gradient of what is evaluated at once.
        state: Of the image, its gradient and its optimiser's memory.
        maps: Of the targets that grow with the image.
    """

    evaluation: memory.Line
    state: memory.Line
    maps: memory.Line

    def of_step(self, pixels: int, tile_pixels: int | None = None) -> int:
        """Returns the bytes of a step on an image of so many pixels.

        Args:
            pixels: Of the image.
            tile_pixels: Of a tile with its halo, None where the image is evaluated at once.
        """
        if tile_pixels is None:
            return self.evaluation.at(pixels) + self.state.at(pixels)
        return self.evaluation.at(tile_pixels) + self.maps.at(pixels) + self.state.at(pixels)


def measure(
    backbone: Backbone,
    objective: Objective,
    make_optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer],
    context: Callable[[], AbstractContextManager[object]],
) -> Footprint:
    """Measures what a step takes on the backbone's device.

    Args:
        backbone: The network, where it is to work.
        objective: The losses.
        make_optimizer: Makes the optimiser of a list with the one parameter.
        context: The precision that the features are computed in.
    """
    device = backbone.mean.device
    # Below, Gram matrices outweigh the features, or an image is computed as two.
    side = max(128, backbone.min_side, math.isqrt(backbone.small) + 1)
    small, large = side**2, (2 * side) ** 2

    def of_pixels(work: Callable[[Tensor], object]) -> Callable[[int], int]:
        def peak(pixels: int) -> int:
            side = round(pixels**0.5)
            image = torch.rand(1, 3, side, side, device=device)
            return memory.peak_bytes(lambda: work(image), device)

        return peak

    def targets(image: Tensor) -> dict[str, Tensor]:
        with context():
            evaluator = tiling.Whole(backbone, objective)
            return {**evaluator.targets("content", image), **evaluator.targets("style", image)}

    def evaluate(image: Tensor) -> None:
        image.requires_grad_()
        against = targets(image)
        with context():
            total = objective.total(tiling.Whole(backbone, objective).scores(image, against))
        torch.autograd.backward(total.sum())

    def optimise(image: Tensor) -> None:
        parameter = nn.Parameter(image.clone())
        optimizer = make_optimizer([parameter])

        def closure() -> float:
            optimizer.zero_grad()
            loss = parameter.square().sum()
            torch.autograd.backward(loss)
            return loss.item()

        optimizer.step(closure)
        optimizer.step(closure)

    def kept(pixels: int) -> int:
        side = round(pixels**0.5)
        found = targets(torch.rand(1, 3, side, side, device=device))
        return sum(found[term.name].nbytes for term in objective.terms if term.loss.spatial)

    return Footprint(
        evaluation=memory.fit_line(of_pixels(evaluate), small, large),
        state=memory.fit_line(of_pixels(optimise), small, large),
        maps=memory.fit_line(kept, small, large),
    )
