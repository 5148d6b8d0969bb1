"""How an image is to be evaluated within the memory there is: whole or in tiles, measured on small images."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Literal

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn

from nst_lightning import memory
from nst_lightning.backbones import Backbone
from nst_lightning.data import Worker
from nst_lightning.errors import InputError
from nst_lightning.losses import Objective, Pointwise, Target
from nst_lightning.memory import Footprint
from nst_lightning.tiling import Evaluator, Tiled, Whole

Tile = int | Literal["off", "auto"]
"""The side of the tiles in pixels; `auto` for the largest that fits, and none where the whole image does; or `off`."""

_MAPS_SHARE = 1 / 8  # of the memory that may be planned with, above which content targets are kept in half the bytes


class Sizing:
    """Chooses tiles by what a step takes in memory.

    Args:
        backbone: The frozen network.
        objective: The losses that are evaluated.
        make_optimizer: Makes the optimiser of a list with the one parameter; its memory counts.
        tile: The side of the tiles.

    Attributes:
        objective: See above.
        tile: See above.

    Raises:
        InputError: If the tile is none of those.
    """

    def __init__(
        self, backbone: Backbone, objective: Objective, make_optimizer: OptimizerCallable, tile: Tile = "off"
    ) -> None:
        if (isinstance(tile, int) and tile < 1) or (isinstance(tile, str) and tile not in {"off", "auto"}):
            msg = f"tile must be off, auto or a number of pixels from 1, got {tile}"
            raise InputError(msg)
        self.tile = tile
        self._backbone = backbone
        self.objective = objective
        self._make_optimizer = make_optimizer
        self._footprints: dict[tuple[torch.device, str], Footprint] = {}

    def check(self, worker: Worker) -> None:
        """Refuses to deal out tiles where there are none.

        Raises:
            InputError: If the processes work on tiles and the tile is off.
        """
        if self.tile == "off" and worker.deals_tiles:
            msg = "trainer.strategy tile_parallel deals out tiles: set model.tile to auto or a number of pixels"
            raise InputError(msg)

    def footprint(self, worker: Worker) -> Footprint:
        """Returns what a step takes in memory, measured at the first call for a device and precision."""
        key = worker.device, worker.precision
        if key not in self._footprints:
            self._backbone.to(worker.device)
            self._footprints[key] = self._measured(worker)
        return self._footprints[key]

    def bytes_of_step(self, worker: Worker, pixels: int, count: int = 1) -> int:
        """Returns the bytes that a step on images of so many pixels takes; arguments as of `tile_for`."""
        tile = self.tile_for(worker, pixels, count)
        at_once = None if tile is None else min(pixels, self.tiled(tile).plan.crop ** 2)
        return count * self.footprint(worker).of_step(pixels, at_once)

    def tile_for(self, worker: Worker, pixels: int, count: int) -> int | None:
        """Returns the side of the tiles that images are evaluated in, None where they are evaluated whole.

        Args:
            worker: What evaluates them.
            pixels: Of each image.
            count: The number of images that are optimised together.
        """
        if self.tile == "off":
            return None
        if isinstance(self.tile, int):
            return self.tile
        free, needed = worker.memory, self.footprint(worker)
        if not worker.deals_tiles and count * needed.of_step(pixels) <= free:
            return None
        kept = needed.state.at(pixels) + needed.maps.at(pixels)
        crop = math.isqrt(max(0, needed.evaluation.pixels_within(free // count - kept)))
        plan = self.tiled(1).plan
        tile = max(1, crop - plan.before - plan.after)
        if worker.deals_tiles:  # a tile for every process, the same size in all
            tile = worker.agree(max(1, min(tile, math.isqrt(pixels // worker.share.world))))
        return tile

    def rounds_maps(self, worker: Worker, pixels: int, count: int) -> bool:
        """Whether targets that are maps are so large that they are to be kept in half the bytes; arguments as above."""
        large = count * self.footprint(worker).maps.at(pixels) > _MAPS_SHARE * worker.memory
        return bool(worker.agree(large))

    def tiled(self, tile: int) -> Tiled:
        """Returns what evaluates in tiles of a size, by itself."""
        return Tiled(self._backbone, self.objective, tile)

    def trial(self, worker: Worker, evaluator: Evaluator, image: Tensor) -> Callable[[Tensor], Tensor]:
        """Returns what evaluates images (N, 3, H, W) with their gradient, as a step does, and gives their losses (N,).

        Args:
            worker: What computes it.
            evaluator: How images are evaluated.
            image: What they are compared with, as content and as style, of their shape.
        """
        targets = self._targets(worker, evaluator, image)
        weights = {group: image.new_ones(len(image)) for group in self.objective.groups}

        def evaluate(output: Tensor) -> Tensor:
            with worker.context():
                total = self.objective.total(evaluator.values(output, targets, 0), weights)
            torch.autograd.backward(total.sum())
            return total.detach()

        return evaluate

    def optimised(self, image: Tensor, evaluate: Callable[[Tensor], Tensor]) -> Iterator[None]:
        """Takes steps from images for as long as they are asked for.

        Args:
            image: What to start from, (N, 3, H, W).
            evaluate: Calls backward on the images' losses and returns them, (N,).
        """
        parameter = nn.Parameter(image.clone())
        optimizer = self._make_optimizer([parameter])

        def closure() -> Tensor:
            optimizer.zero_grad()
            return evaluate(parameter)

        while True:
            optimizer.step(closure)  # type: ignore[arg-type] # torch wants a number, which would make a GPU wait
            yield

    def _measured(self, worker: Worker) -> Footprint:
        # Below, Gram matrices outweigh the features, or an image is computed as two.
        side = max(128, self._backbone.min_side, math.isqrt(self._backbone.small) + 1)

        def line(measure: Callable[[Tensor], int]) -> memory.Line:
            def at(pixels: int) -> int:
                return measure(torch.rand(1, 3, *[math.isqrt(pixels)] * 2, device=worker.device))

            return memory.Line.through(at, side**2, (2 * side) ** 2)

        def peak(work: Callable[[Tensor], object]) -> Callable[[Tensor], int]:
            return lambda image: memory.peak_bytes(lambda: work(image), worker.device)

        return Footprint(
            evaluation=line(peak(lambda image: self._evaluate(worker, image))),
            state=line(peak(self._optimise)),
            maps=line(lambda image: self._bytes_of_maps(worker, image)),
        )

    def _targets(self, worker: Worker, evaluator: Evaluator, image: Tensor) -> dict[str, Target]:
        with worker.context():
            return {
                name: target
                for source in sorted(self.objective.sources)
                for name, target in evaluator.targets(source, [image], [1.0], 0).items()
            }

    def _evaluate(self, worker: Worker, image: Tensor) -> None:
        image.requires_grad_()
        self.trial(worker, Whole(self._backbone, self.objective), image)(image)

    def _optimise(self, image: Tensor) -> None:
        def square(output: Tensor) -> Tensor:
            loss = output.square().sum()
            torch.autograd.backward(loss)
            return loss.detach()

        steps = self.optimised(image, square)
        for _ in range(2):
            next(steps)

    def _bytes_of_maps(self, worker: Worker, image: Tensor) -> int:
        targets = self._targets(worker, Whole(self._backbone, self.objective), image)
        spatial = [term.name for term in self.objective.terms if isinstance(term.loss, Pointwise)]
        return sum(values.nbytes for name in spatial for values in targets[name])
