"""Coarse-to-fine stages: their sizes, their steps, and what is out of range."""

from __future__ import annotations

import itertools
import re

import pytest

from nst_lightning.errors import InputError
from nst_lightning.schedule import Stage, coarse_to_fine, large_enough, scaled


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((512, 300, 1), [(512, 300)]),
        ((512, 300, 2), [(256, 150), (512, 150)]),
        ((500, 7, 3), [(125, 2), (250, 2), (500, 3)]),
        ((100, 8, 3), [(25, 2), (50, 3), (100, 3)]),
        ((3, 5, 5), [(1, 1), (1, 1), (1, 1), (2, 1), (3, 1)]),
        ((1, 1, 1), [(1, 1)]),
    ],
)
def test_sizes_double_and_the_last_stages_take_what_does_not_divide(
    arguments: tuple[int, int, int], expected: list[tuple[int, int]]
) -> None:
    assert [(stage.size, stage.steps) for stage in coarse_to_fine(*arguments)] == expected


@pytest.mark.parametrize("size", [1, 64, 511, 4096])
@pytest.mark.parametrize("steps", [8, 9, 300, 301])
@pytest.mark.parametrize("stages", [1, 2, 5, 8])
def test_steps_add_up_and_are_dealt_out_evenly(size: int, steps: int, stages: int) -> None:
    schedule = coarse_to_fine(size, steps, stages)
    dealt = [stage.steps for stage in schedule]
    assert len(schedule) == stages
    assert sum(dealt) == steps
    assert dealt == sorted(dealt)
    assert dealt[-1] - dealt[0] <= 1
    assert schedule[-1].size == size
    for coarse, fine in itertools.pairwise(schedule):
        assert abs(2 * coarse.size - fine.size) <= 1 + (coarse.size == 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 300, 2), "size must be at least 1, got 0"),
        ((-512, 300, 2), "size must be at least 1, got -512"),
        ((512, 300, 0), "stages must be at least 1, got 0"),
        ((512, 1, 2), "steps must be at least the number of stages (2), got 1"),
        ((512, 0, 1), "steps must be at least the number of stages (1), got 0"),
    ],
)
def test_a_schedule_out_of_range_is_refused(arguments: tuple[int, int, int], message: str) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        coarse_to_fine(*arguments)


@pytest.mark.parametrize(
    ("size", "steps", "message"),
    [(0, 5, "size must be at least 1, got 0"), (64, 0, "steps must be at least 1, got 0"), (-1, -1, "size .* got -1")],
)
def test_a_stage_out_of_range_is_refused(size: int, steps: int, message: str) -> None:
    with pytest.raises(InputError, match=f"^a stage's {message}$"):
        Stage(size, steps)


STAGES = [Stage(128, 100), Stage(256, 50), Stage(512, 50)]


@pytest.mark.parametrize(
    ("size", "steps", "expected"),
    [
        (None, None, [(128, 100), (256, 50), (512, 50)]),
        (1024, None, [(256, 100), (512, 50), (1024, 50)]),
        (None, 8, [(128, 4), (256, 2), (512, 2)]),
        (100, 4, [(50, 2), (100, 2)]),  # 25 px are too few
        (20, 4, [(20, 4)]),
    ],
)
def test_listed_stages_scale_and_small_ones_are_left_out(
    size: int | None, steps: int | None, expected: list[tuple[int, int]]
) -> None:
    assert [(stage.size, stage.steps) for stage in scaled(large_enough(STAGES, size), size, steps)] == expected


def test_weights_of_a_stage_stay_with_it_and_are_finite() -> None:
    stages = [Stage(64, 100, {"content": 8}), Stage(128, 100)]
    assert [stage.weights for stage in scaled(stages, 256, 50)] == [{"content": 8}, {}]
    with pytest.raises(InputError, match=r"^a stage's weight of content must be a finite number, 0 or above, got -1$"):
        Stage(64, 100, {"content": -1})
