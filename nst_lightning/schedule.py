"""Coarse-to-fine stages: which size is optimised for how many steps. Pure arithmetic, no tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nst_lightning.errors import InputError


@dataclass(frozen=True)
class Stage:
    """One size of a coarse-to-fine schedule.

    Attributes:
        size: The output's long side in pixels, >= 1.
        steps: The number of optimiser steps at that size, >= 1.

    Raises:
        InputError: If either is below 1.
    """

    size: int
    steps: int

    def __post_init__(self) -> None:
        for name, value in (("size", self.size), ("steps", self.steps)):
            if value < 1:
                raise InputError(f"a stage's {name} must be at least 1, got {value}")


def coarse_to_fine(size: int, steps: int, stages: int) -> tuple[Stage, ...]:
    """Returns stages whose size doubles, with the steps dealt out evenly, as in Gatys et al. (2017), section 6.

    The last stages take what does not divide.

    Args:
        size: The long side of the last stage in pixels, >= 1.
        steps: The number of steps of all stages together, >= `stages`.
        stages: The number of stages, >= 1; 1 optimises at the full size only.

    Raises:
        InputError: If an argument is out of range.
    """
    for name, value in (("size", size), ("stages", stages)):
        if value < 1:
            raise InputError(f"{name} must be at least 1, got {value}")
    if steps < stages:
        raise InputError(f"steps must be at least the number of stages ({stages}), got {steps}")
    sizes = [max(1, round(size / 2**halvings)) for halvings in reversed(range(stages))]
    each, rest = divmod(steps, stages)
    return tuple(Stage(side, each + (index >= stages - rest)) for index, side in enumerate(sizes))


def described(stages: Sequence[Stage]) -> str:
    """Returns stages in words, e.g. `256 px x 150, 512 px x 150`."""
    return ", ".join(f"{stage.size} px x {stage.steps}" for stage in stages)
