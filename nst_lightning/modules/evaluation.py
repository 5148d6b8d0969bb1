"""What the images of one batch and stage are compared with, and how they are evaluated within the memory there is."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from nst_lightning.batches import Step, Style
from nst_lightning.data import Worker
from nst_lightning.errors import InputError
from nst_lightning.losses import Objective, Target, Values
from nst_lightning.modules.problem import Problem
from nst_lightning.modules.sizing import Sizing
from nst_lightning.tiling import Evaluator, Tiled, Whole

_STYLES_KEPT = 64  # about 1.4 MB each for VGG's five layers


@dataclass(eq=False)
class Evaluation:
    """The objective of one batch at one stage, with its targets and the weights of each image."""

    worker: Worker
    evaluator: Evaluator
    objective: Objective  # the losses that any of the images weighs
    targets: Mapping[str, Target]  # by the term's name, (N, ...) each
    weights: Mapping[str, Tensor]  # by group, (N,) each
    together: int  # how many images are evaluated at once

    def values(self, image: Tensor, draw: int) -> dict[str, Tensor]:
        """Returns every term's value, not weighted, (N,) each, of images (N, 3, H, W) in [0, 1]."""
        if self.together >= len(image):
            return self.evaluator.values(image, self.targets, draw)
        parts = []
        for first in range(0, len(image), self.together):
            rows = slice(first, first + self.together)
            targets = {name: tuple(each[rows] for each in target) for name, target in self.targets.items()}
            # Not kept: the features, which are computed again for the gradient.
            parts.append(checkpoint(self.evaluator.values, image[rows], targets, draw, use_reentrant=False))
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def noted(self, values: Values) -> dict[str, Tensor]:
        """Returns the values without their graph, with the weighted sums, by name, (N,) each."""
        found = {name: value.detach() for name, value in values.items()}
        return {**found, **self.objective.contributions(found, self.weights)}

    def take_fewer(self, image: Tensor) -> None:
        """Halves the number of images that are evaluated at once, after the memory did not hold them.

        Raises:
            InputError: If it was one already, or other processes would have to do the same.
        """
        size = f"{image.shape[-1]}x{image.shape[-2]} px"
        if self.together == 1 or self.worker.deals_tiles:
            raise InputError(f"out of memory at {size}: take a smaller size, or --model.tile auto or a smaller one")
        self.together = math.ceil(self.together / 2)
        if image.device.type == "cuda":
            torch.cuda.empty_cache()
        rank_zero_warn(f"out of memory with {len(image)} images of {size}: {self.together} at a time from here")


class Evaluations:
    """Makes the evaluation of each batch and stage; keeps the targets of styles that many pairs share."""

    def __init__(self, problem: Problem, sizing: Sizing) -> None:
        self._problem = problem
        self._sizing = sizing
        self._styles: OrderedDict[Hashable, dict[str, Target]] = OrderedDict()

    def begin(self, worker: Worker, step: Step, together: int) -> Evaluation:
        """Returns the evaluation of a step's batch and stage, of so many images at once."""
        pairs = step.batch.pairs
        objective = self._problem.active(pairs)
        weights = {
            group: torch.tensor([self._problem.weight(pair, group) for pair in pairs], device=worker.device)
            for group in objective.groups
        }
        evaluator = self._evaluator(worker, step, objective)
        # In the precision of training, so that the content loss of the content image is 0.
        with torch.no_grad(), worker.context():
            targets = self._targets(worker.device, step, objective, evaluator)
        return Evaluation(worker, evaluator, objective, targets, weights, together)

    def _evaluator(self, worker: Worker, step: Step, objective: Objective) -> Evaluator:
        count = len(step.batch.pairs)
        pixels = step.batch.pixels(step.stage) // count
        tile = self._sizing.tile_for(worker, pixels, count)
        if tile is None or not objective.layers:
            return Whole(self._problem.backbone, objective, self._problem.compile)
        rounds = self._sizing.rounds_maps(worker, pixels, count)
        if rounds:
            rank_zero_warn("for the memory, content targets are kept in bfloat16, which rounds them by up to 0.2 %")
        return Tiled(self._problem.backbone, objective, tile, worker.share, torch.bfloat16 if rounds else None)

    def _targets(
        self, device: torch.device, step: Step, objective: Objective, evaluator: Evaluator
    ) -> dict[str, Target]:
        """Returns the targets of a batch, found image by image: the memory need not hold a batch's features."""
        targets: dict[str, Target] = {}
        if "content" in objective.sources:
            images = [content[None].to(device) for content in step.batch.contents(step.stage)]
            targets |= _joined([evaluator.targets("content", [image], [1.0], self._problem.seed) for image in images])
        if "style" in objective.sources:
            styles = zip(step.batch.styles(step.stage), step.batch.pairs, strict=True)
            targets |= _joined(
                [self._targets_of_styles(device, images, pair.style_weights, evaluator) for images, pair in styles]
            )
        return targets

    def _targets_of_styles(
        self, device: torch.device, styles: Sequence[Style], weights: Sequence[float], evaluator: Evaluator
    ) -> dict[str, Target]:
        """Returns the targets of style images together, computed once for all pairs that are painted in them."""
        # Rounding differs between tiles and the whole, and no result may depend on what was painted before.
        plan = evaluator.plan if isinstance(evaluator, Tiled) else None
        key = tuple(style.key for style in styles), tuple(weights), plan
        if key not in self._styles:
            images = [style.image().to(device) for style in styles]
            shares = weights if len(weights) > 0 else [1.0] * len(images)
            self._styles[key] = evaluator.targets("style", images, shares, self._problem.seed)
            if len(self._styles) > _STYLES_KEPT:
                self._styles.popitem(last=False)
        self._styles.move_to_end(key)
        return self._styles[key]


def _joined(targets: Sequence[Mapping[str, Target]]) -> dict[str, Target]:
    """Returns the targets of several images as those of a batch."""
    return {
        name: tuple(torch.cat(parts) for parts in zip(*(each[name] for each in targets), strict=True))
        for name in targets[0]
    }


@contextmanager
def tensor_core_products(device: torch.device, precision: str) -> Iterator[None]:
    """Lets a GPU multiply float32 matrices in TF32 where the features are of half precision, which TF32 holds exactly.

    Their Gram matrices are sums of exact products then as before, at seven times the rate on paper (NVIDIA's data
    sheet of the H100: 495 TFLOP/s of TF32, 67 of float32). Elsewhere nothing changes.
    """
    if device.type != "cuda" or precision not in {"bf16-mixed", "16-mixed"}:
        yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
