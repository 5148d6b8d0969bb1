"""Coarse-to-fine stages: which size is optimised for how many steps. Pure arithmetic, no tensors."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate

from nst_lightning.errors import InputError


@dataclass(frozen=True)
class Stage:
    """One size of a coarse-to-fine schedule; an InputError where a number is out of range."""

    size: int  # the output's long side in pixels, >= 1
    steps: int  # of the optimiser at that size, >= 1
    weights: Mapping[str, float] = field(default_factory=dict)  # factors of groups' or losses' weights, >= 0, by name

    def __post_init__(self) -> None:
        for name, value in (("size", self.size), ("steps", self.steps)):
            if value < 1:
                raise InputError(f"a stage's {name} must be at least 1, got {value}")
        for name, factor in self.weights.items():
            if not (math.isfinite(factor) and factor >= 0):
                raise InputError(f"a stage's weight of {name} must be a finite number, 0 or above, got {factor}")


def scheduled(stages: int | Sequence[Stage], size: int | None, steps: int | None) -> tuple[Stage, ...]:
    """Returns the stages that options stand for: so many, of 512 px and 240 steps by default, or listed ones, scaled.

    Raises:
        InputError: If a number is out of range, or the list is empty.
    """
    if isinstance(stages, int):
        return coarse_to_fine(512 if size is None else size, 240 if steps is None else steps, stages)
    if not stages:
        raise InputError("stages is an empty list: there is nothing to do")
    return scaled(large_enough(stages, size), size, steps)


def coarse_to_fine(size: int, steps: int, stages: int) -> tuple[Stage, ...]:
    """Returns stages whose size doubles, with the steps dealt out evenly, as in Gatys et al. (2017), section 6.

    The last stages take what does not divide; no argument may be below 1, nor the steps fewer than the stages.
    """
    for name, value in (("size", size), ("stages", stages)):
        if value < 1:
            raise InputError(f"{name} must be at least 1, got {value}")
    _check_steps(steps, stages)
    sizes = [max(1, round(size / 2**halvings)) for halvings in reversed(range(stages))]
    each, rest = divmod(steps, stages)
    return tuple(Stage(side, each + (index >= stages - rest)) for index, side in enumerate(sizes))


_LEAST = 32  # px of a stage, below which a deep layer has hardly a position, and some networks take no image


def large_enough(stages: Sequence[Stage], size: int | None) -> Sequence[Stage]:
    """Returns the last of some stages and those that stay large enough where it is scaled to another size."""
    by_size = 1.0 if size is None else size / stages[-1].size
    return [*(stage for stage in stages[:-1] if stage.size * by_size >= min(_LEAST, stage.size)), stages[-1]]


def scaled(stages: Sequence[Stage], size: int | None, steps: int | None) -> tuple[Stage, ...]:
    """Returns stages scaled to another size of the last, or number of steps of all; each has to keep at least one."""
    ends = list(accumulate(stage.steps for stage in stages))
    by_size = 1.0 if size is None else size / stages[-1].size
    wanted = ends[-1] if steps is None else steps
    _check_steps(wanted, len(stages))
    found, begin = [], 0
    for left, stage, end in zip(reversed(range(len(stages))), stages, ends, strict=True):
        # Cumulative, so that the steps add up to those asked for.
        until = min(max(round(wanted * end / ends[-1]), begin + 1), wanted - left)
        found.append(replace(stage, size=max(1, round(stage.size * by_size)), steps=until - begin))
        begin = until
    return tuple(found)


def _check_steps(steps: int, stages: int) -> None:
    if steps < stages:
        raise InputError(f"steps must be at least the number of stages ({stages}), got {steps}")


def stage_of(stages: Sequence[Stage], index: int) -> int:
    """Returns the place of the stage that a step belongs to, both counted from 0."""
    return bisect_right(list(accumulate(stage.steps for stage in stages)), index)


def begun(stages: Sequence[Stage], steps: int) -> tuple[Stage, ...]:
    """Returns the stages of the first so many steps, >= 1."""
    found = []
    for stage in stages:
        if steps > 0:
            found.append(replace(stage, steps=min(stage.steps, steps)))
            steps -= stage.steps
    return tuple(found)


def described(stages: Sequence[Stage]) -> str:
    """Returns stages in words, e.g. `256 px x 150, 512 px x 150`."""
    return ", ".join(f"{stage.size} px x {stage.steps}" for stage in stages)
