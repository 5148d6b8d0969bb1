"""How the images of one batch and stage are evaluated within the memory there is, and what they are compared with."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from nst_lightning.batches import Outside, Step, Style
from nst_lightning.data import Worker
from nst_lightning.errors import InputError
from nst_lightning.losses import IMAGE, Features, Objective, Pointwise, Target, Values
from nst_lightning.losses.objective import Kept
from nst_lightning.memory import Curve, Footprint, peak_bytes
from nst_lightning.modules.problem import Problem
from nst_lightning.optim import StepGraph
from nst_lightning.precision import true_float32
from nst_lightning.regions import pooled
from nst_lightning.tiling import EVERYWHERE, Evaluator, Tiled, Weights, Whole

STYLES_ROOM = 2**28  # bytes: a style takes 1.4 MB for Gram matrices of VGG's five layers, 72 MB for the default losses
_AGEING = 1.0  # s
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
        """Returns what finds losses (N,) with their gradient, as a step does, against an image of their shape."""
        targets = self._targets(worker, evaluator, image)
        groups = {group: image.new_ones(len(image)) for group in self._objective.groups}
        weights = self._objective.weights(targets, groups)

        def evaluate(output: Tensor) -> Tensor:
            with worker.context():
                total = self._objective.total(evaluator.values(output, targets, 0), weights)
            torch.autograd.backward(total.sum())
            return total.detach()

        return evaluate

    def optimised(self, image: Tensor, evaluate: Callable[[Tensor], Tensor], aged: bool = False) -> Iterator[None]:
        """Takes steps from images (N, 3, H, W) for as long as they are asked for; evaluates as `trial` does.

        An aged optimiser remembers as much as late in a run, as far as `_AGEING` seconds before the first step go.
        """
        parameter = nn.Parameter(image.clone())
        optimizer = self._problem.make_optimizer([parameter])

        def step(evaluate: Callable[[Tensor], Tensor]) -> None:
            def closure() -> Tensor:
                optimizer.zero_grad()
                return evaluate(parameter)

            optimizer.step(closure)  # type: ignore[arg-type] # torch wants a number, which would make a GPU wait

        ends = time.monotonic() + _AGEING
        for _ in range(optimizer.defaults.get("history_size", 0) if aged else 0):
            if time.monotonic() > ends:
                break
            step(_square)
        step(evaluate)
        again: Callable[[], None] = partial(step, evaluate)
        if self._problem.graph:
            again = StepGraph(again, optimizer.state[parameter]).replay
        while True:
            yield
            again()

    def _measured(self, worker: Worker) -> Footprint:
        backbone = self._problem.backbone
        # Below, Gram matrices outweigh the features, or an image is computed as two.
        side = max(128, backbone.min_side, math.isqrt(backbone.small) + 1)
        sides = [side, 2 * side, 4 * side]

        def curve(measure: Callable[[Tensor], int], sides: Sequence[int]) -> Curve:
            def at(pixels: int) -> int:
                with true_float32(worker.device):
                    return measure(torch.rand(1, 3, *[math.isqrt(pixels)] * 2, device=worker.device))

            return Curve(at, [each**2 for each in sides], worker.memory)

        def peak(work: Callable[[Tensor], object]) -> Callable[[Tensor], int]:
            return lambda image: peak_bytes(lambda: work(image), worker.device)

        def evaluate(image: Tensor) -> None:
            self.trial(worker, self.whole(), image)(image.requires_grad_())

        # What stays from the first use on, of cuBLAS or filters that are transformed, would count as the small image's.
        with true_float32(worker.device):
            evaluate(torch.rand(1, 3, 2 * side, 2 * side, device=worker.device))
            self._optimise(torch.rand(1, 3, side, side, device=worker.device))
        return Footprint(
            evaluation=curve(peak(evaluate), sides if worker.device.type == "cpu" else [*sides, 8 * side]),
            state=curve(peak(self._optimise), sides[:2]),
            maps=curve(lambda image: self._bytes_of_maps(worker, image), sides[:2]),
        )

    def _targets(self, worker: Worker, evaluator: Evaluator, image: Tensor) -> dict[str, Target]:
        targets: dict[str, Target] = {}
        with worker.context():
            for source in sorted(self._objective.sources):
                targets |= evaluator.targets(source, [image], [1.0], 0)
            return self._objective.matched(targets)

    def _optimise(self, image: Tensor) -> None:
        """Takes two steps in which nothing but the image and the optimiser's memory counts."""
        steps = self.optimised(image, _square)
        next(steps)
        next(steps)

    def _bytes_of_maps(self, worker: Worker, image: Tensor) -> int:
        targets = self._targets(worker, self.whole(), image)
        spatial = [term.name for term in self._objective.terms if isinstance(term.loss, Pointwise)]
        return sum(values.nbytes for name in spatial for values in targets[name])


def _square(output: Tensor) -> Tensor:
    losses = output.square().sum(dim=(1, 2, 3))
    torch.autograd.backward(losses.sum())
    return losses.detach()


@dataclass(eq=False)
class Evaluation:
    """The objective of one batch at one stage, with its targets and the weights of each image."""

    worker: Worker
    evaluator: Evaluator
    objective: Objective  # the losses that any of the images weighs
    targets: Mapping[str, Target]  # by the term's name, (N, ...) each
    weights: Mapping[str, Tensor]  # by term, (N,) each
    together: int  # how many images are evaluated at once
    where: Weights = field(default_factory=dict)  # how much positions count, by layer
    outside: Outside | None = None  # what stays of the photographs

    def picture(self, image: Tensor) -> Tensor:
        """Returns what is looked at of images (N, 3, H, W): in the photograph, where its outside is kept."""
        return image if self.outside is None else self.outside.around(image)

    def values(self, image: Tensor, draw: int) -> dict[str, Tensor]:
        """Returns every term's value, not weighted, (N,) each, of images (N, 3, H, W) in [0, 1]."""
        image = self.picture(image)
        if self.together >= len(image):
            return self.evaluator.values(image, self.targets, draw, self.where)
        parts = []
        for first in range(0, len(image), self.together):
            rows = slice(first, first + self.together)
            targets = {name: tuple(each[rows] for each in target) for name, target in self.targets.items()}
            where = {layer: each[rows] for layer, each in self.where.items()}
            # Not kept: the features, which are computed again for the gradient; nothing of them is random.
            given = image[rows], targets, draw, where
            parts.append(checkpoint(self.evaluator.values, *given, use_reentrant=False, preserve_rng_state=False))
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def noted(self, values: Values) -> dict[str, Tensor]:
        """Returns the values without their graph, with the weighted sums, by name, (N,) each."""
        found = {name: value.detach() for name, value in values.items()}
        return {**found, **self.objective.contributions(found, self.weights)}

    def take_fewer(self, image: Tensor) -> None:
        """Halves how many images are evaluated at once, for want of memory; raises an InputError where it cannot."""
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
        single = self._problem.active(pairs).at(step.stage.weights)
        objective = single.in_regions(step.batch.regions)
        groups = {
            group: torch.tensor([self._problem.weight(pair, group) for pair in pairs], device=worker.device)
            for group in objective.groups
        }
        evaluator = self._evaluator(worker, step, objective)
        masks, outside = step.batch.masks(step.stage), step.batch.outside(step.stage)
        where = EVERYWHERE if masks is None else self._pooled(masks.to(worker.device), objective)
        # In the precision of training, so that the content loss of the content image is 0.
        with torch.no_grad(), worker.context():
            targets: dict[str, Target] = {}
            if "content" in objective.sources:
                targets |= self._targets_of_contents(worker.device, step, evaluator, where)
            if "style" in objective.sources:
                of_styles = evaluator if masks is None else self._evaluator(worker, step, single)
                targets |= self._targets_of_styles(worker.device, step, single, of_styles)
            if "before" in objective.sources:
                targets |= self._targets_of_befores(worker.device, step, objective)
            targets = objective.matched(targets)
        weights = objective.weights(targets, groups)
        if masks is not None:
            # A region's loss is a mean over it: to weigh as much as in a whole picture, it counts by its part of it.
            parts = masks.double().mean(dim=(2, 3))
            parts[:, 1:] *= torch.tensor([pair.style_weights or (1.0,) * step.batch.regions for pair in pairs])
            for term in objective.terms:
                if term.loss.source is not None:
                    weights[term.name] = weights[term.name] * parts[:, term.region].to(weights[term.name])
        outside = None if outside is None else outside.to(worker.device)
        return Evaluation(worker, evaluator, objective, targets, weights, together, where, outside)

    def _pooled(self, masks: Tensor, objective: Objective) -> Weights:
        return pooled(self._problem.backbone, objective.layers, masks, self._problem.mask_edge)

    def _evaluator(self, worker: Worker, step: Step, objective: Objective) -> Evaluator:
        count = len(step.batch.pairs)
        return self.evaluator(worker, step.batch.pixels(step.stage) // count, count, objective)

    def evaluator(self, worker: Worker, pixels: int, count: int, objective: Objective) -> Evaluator:
        """Returns what evaluates an objective on so many images of so many pixels each, within the memory."""
        tile = self._sizing.tile_for(worker, pixels, count)
        if tile is None or not objective.layers:
            return Whole(self._problem.backbone, objective, self._problem.compile)
        rounds = self._sizing.rounds_maps(worker, pixels, count)
        if rounds:
            rank_zero_warn("for the memory, content targets are kept in bfloat16, which rounds them by up to 0.2 %")
        return Tiled(self._problem.backbone, objective, tile, worker.share, torch.bfloat16 if rounds else None)

    def _targets_of_contents(
        self, device: torch.device, step: Step, evaluator: Evaluator, where: Weights
    ) -> dict[str, Target]:
        """Returns the contents' targets, found image by image: the memory need not hold a batch's features."""
        images = [content[None].to(device) for content in step.batch.prepared_contents(step.stage)]
        of_images = [{layer: each[row : row + 1] for layer, each in where.items()} for row in range(len(images))]
        found = zip(images, of_images, strict=True)
        return _joined([evaluator.targets("content", [one], [1.0], self._problem.seed, [own]) for one, own in found])

    def _targets_of_befores(self, device: torch.device, step: Step, objective: Objective) -> dict[str, Target]:
        """Returns the targets of the frames before, where there are any."""
        if (carried := step.batch.befores(step.stage)) is None:
            return {}
        before, trusted = (each.to(device) for each in carried)
        kept = objective.kept("before", {IMAGE: Features.whole(before, trusted)}, self._problem.seed)
        return objective.targets([kept], [1.0])

    def _targets_of_styles(
        self, device: torch.device, step: Step, objective: Objective, evaluator: Evaluator
    ) -> dict[str, Target]:
        """Returns the styles' targets: of a pair's together, or of each in the name of its region's terms."""
        found = []
        for styles in step.batch.prepared_styles(step.stage):
            if step.batch.regions == 0:
                found.append(self._targets_of(device, styles, objective, evaluator))
                continue
            of_pair: dict[str, Target] = {}
            for number, style in enumerate(styles, start=1):
                of_style = self._targets_of(device, [style], objective, evaluator)
                names = {term.name: replace(term, region=number).name for term in objective.terms}
                of_pair |= {names[name]: target for name, target in of_style.items()}
            found.append(of_pair)
        return _joined(found)

    def _targets_of(
        self, device: torch.device, styles: Sequence[Style], objective: Objective, evaluator: Evaluator
    ) -> dict[str, Target]:
        """Returns the targets of style images together, computed once for all pairs that are painted in them."""
        # Rounding differs between tiles and the whole, and no result may depend on what was painted before.
        plan = evaluator.plan if isinstance(evaluator, Tiled) else None
        terms = tuple(term.name for term in objective.terms)  # which may be others at another stage
        key = tuple((style.key, style.weight) for style in styles), plan, terms
        if key not in self._styles:
            found = [self.kept_of(device, style, objective, evaluator) for style in styles]
            weights = [style.weight if len(styles) > 1 else 1.0 for style in styles]
            shares = [weight / len(kept) for weight, kept in zip(weights, found, strict=True) for _ in kept]
            self._styles[key] = objective.targets([each for kept in found for each in kept], shares)
        self._styles.move_to_end(key)
        while sum(map(_bytes, self._styles.values())) > STYLES_ROOM and len(self._styles) > 1:
            self._styles.popitem(last=False)
        return self._styles[key]

    def kept_of(
        self, device: torch.device, style: Style, objective: Objective, evaluator: Evaluator
    ) -> list[dict[str, Kept]]:
        """Returns what is kept of a style: of its image, as often as it is turned, or what a card holds of its own."""
        if style.card is not None:
            return [{**style.card.kept(style.side, objective.only(["style"]).terms, device)}]
        image, mask = style.image().to(device), style.mask()
        found = []
        for turn in range(4 if self._problem.style_rotations else 1):
            where = EVERYWHERE if mask is None else self._of_style(mask.to(device).rot90(turn, (2, 3)), objective)
            found.append(evaluator.kept("style", image.rot90(turn, (2, 3)), self._problem.seed, where))
        return found

    def _of_style(self, mask: Tensor, objective: Objective) -> Weights:
        """Returns how much a style's positions count, for terms of no region of the output."""
        both = self._pooled(mask.expand(-1, 2, -1, -1), objective)  # the first of which is taken as a content's
        return {layer: each[:, 1:] for layer, each in both.items()}


def _bytes(targets: Mapping[str, Target]) -> int:
    return sum(values.nbytes for target in targets.values() for values in target)


def _joined(targets: Sequence[Mapping[str, Target]]) -> dict[str, Target]:
    """Returns the targets of several images as those of a batch."""
    return {
        name: tuple(torch.cat(parts) for parts in zip(*(each[name] for each in targets), strict=True))
        for name in targets[0]
    }
