"""How an image is to be evaluated within the memory there is: whole or in tiles, measured on small images."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from nst_lightning.data import Worker
from nst_lightning.losses import Pointwise, Target
from nst_lightning.memory import Footprint, Line, peak_bytes
from nst_lightning.modules.problem import Problem
from nst_lightning.tiling import Evaluator, Tiled, Whole

_MAPS_SHARE = 1 / 8  # of the memory that may be planned with, above which content targets are kept in half the bytes


class Sizing:
    """Chooses tiles by what a step takes in memory; by the pixels of each image, and how many there are together."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._objective = problem.weighed
        self._footprints: dict[tuple[torch.device, str], Footprint] = {}

    def footprint(self, worker: Worker) -> Footprint:
        """Returns what a step takes in memory, measured at the first call for a device and precision."""
        key = worker.device, worker.precision
        if key not in self._footprints:
            self._problem.backbone.to(worker.device)
            self._footprints[key] = self._measured(worker)
        return self._footprints[key]

    def bytes_of_step(self, worker: Worker, pixels: int, count: int = 1) -> int:
        """Returns the bytes that a step takes."""
        tile = self.tile_for(worker, pixels, count)
        at_once = None if tile is None else min(pixels, self.tiled(tile).plan.crop ** 2)
        return count * self.footprint(worker).of_step(pixels, at_once)

    def tile_for(self, worker: Worker, pixels: int, count: int) -> int | None:
        """Returns the side of the tiles that images are evaluated in, None where they are evaluated whole."""
        if isinstance(self._problem.tile, int):
            return self._problem.tile
        if self._problem.tile == "off":
            return None
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
        """Whether targets that are maps are so large that they are to be kept in half the bytes."""
        large = count * self.footprint(worker).maps.at(pixels) > _MAPS_SHARE * worker.memory
        return bool(worker.agree(large))

    def tiled(self, tile: int) -> Tiled:
        """Returns what evaluates in tiles of a size, by itself."""
        return Tiled(self._problem.backbone, self._objective, tile)

    def whole(self, compiled: bool = False) -> Whole:
        """Returns what evaluates whole images."""
        return Whole(self._problem.backbone, self._objective, compiled)

    def trial(self, worker: Worker, evaluator: Evaluator, image: Tensor) -> Callable[[Tensor], Tensor]:
        """Returns what evaluates images with their gradient, as a step does, and gives their losses (N,).

        What they are compared with, as content and as style, is an image of their shape (N, 3, H, W).
        """
        targets = self._targets(worker, evaluator, image)
        weights = {group: image.new_ones(len(image)) for group in self._objective.groups}

        def evaluate(output: Tensor) -> Tensor:
            with worker.context():
                total = self._objective.total(evaluator.values(output, targets, 0), weights)
            torch.autograd.backward(total.sum())
            return total.detach()

        return evaluate

    def optimised(self, image: Tensor, evaluate: Callable[[Tensor], Tensor]) -> Iterator[None]:
        """Takes steps from images (N, 3, H, W) for as long as they are asked for; evaluates as `trial` does."""
        parameter = nn.Parameter(image.clone())
        optimizer = self._problem.make_optimizer([parameter])

        def closure() -> Tensor:
            optimizer.zero_grad()
            return evaluate(parameter)

        while True:
            optimizer.step(closure)  # type: ignore[arg-type] # torch wants a number, which would make a GPU wait
            yield

    def _measured(self, worker: Worker) -> Footprint:
        backbone = self._problem.backbone
        # Below, Gram matrices outweigh the features, or an image is computed as two.
        side = max(128, backbone.min_side, math.isqrt(backbone.small) + 1)

        def line(measure: Callable[[Tensor], int]) -> Line:
            def at(pixels: int) -> int:
                return measure(torch.rand(1, 3, *[math.isqrt(pixels)] * 2, device=worker.device))

            return Line.through(at, side**2, (2 * side) ** 2)

        def peak(work: Callable[[Tensor], object]) -> Callable[[Tensor], int]:
            return lambda image: peak_bytes(lambda: work(image), worker.device)

        return Footprint(
            evaluation=line(peak(lambda image: self.trial(worker, self.whole(), image)(image.requires_grad_()))),
            state=line(peak(self._optimise)),
            maps=line(lambda image: self._bytes_of_maps(worker, image)),
        )

    def _targets(self, worker: Worker, evaluator: Evaluator, image: Tensor) -> dict[str, Target]:
        targets: dict[str, Target] = {}
        with worker.context():
            for source in sorted(self._objective.sources):
                targets |= evaluator.targets(source, [image], [1.0], 0)
        return targets

    def _optimise(self, image: Tensor) -> None:
        """Takes two steps in which nothing but the image and the optimiser's memory counts."""

        def square(output: Tensor) -> Tensor:
            loss = output.square().sum()
            torch.autograd.backward(loss)
            return loss.detach()

        steps = self.optimised(image, square)
        next(steps)
        next(steps)

    def _bytes_of_maps(self, worker: Worker, image: Tensor) -> int:
        targets = self._targets(worker, self.whole(), image)
        spatial = [term.name for term in self._objective.terms if isinstance(term.loss, Pointwise)]
        return sum(values.nbytes for name in spatial for values in targets[name])
