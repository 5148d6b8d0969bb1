"""When an image has converged, by its losses alone."""

from __future__ import annotations

import pytest
import torch

from nst_lightning.errors import InputError
from nst_lightning.modules.convergence import Convergence


def looked(convergence: Convergence, losses: list[list[float]]) -> list[int]:
    """The steps, from 1, after which more images rest than before."""
    steps, awake = [], len(losses[0])
    for step, each in enumerate(losses, start=1):
        convergence.look(torch.tensor(each))
        now = len(each) if convergence.awake is None else len(convergence.awake)
        if now < awake:
            steps.append(step)
        awake = now
    return steps


def test_an_image_rests_at_the_first_look_after_twenty_steps_without_a_fall() -> None:
    falling = [0.98**step for step in range(60)]
    stuck = [0.98 ** min(step, 5) for step in range(60)]
    convergence = Convergence(0.01)
    assert looked(convergence, [list(pair) for pair in zip(falling, stuck, strict=True)]) == [30]
    assert convergence.awake is not None
    assert convergence.awake.tolist() == [0]


def test_what_counts_is_the_best_loss_and_not_the_last() -> None:
    falls, rises = [0.9**step for step in range(40)], [1.0 + 0.01 * step for step in range(40)]
    swinging = [0.97**step * (2.0 if step % 2 else 1.0) for step in range(40)]
    convergence = Convergence(0.01)
    assert looked(convergence, [list(each) for each in zip(falls, rises, swinging, strict=True)]) == [30]
    assert convergence.awake is not None
    assert convergence.awake.tolist() == [0, 2]


def test_a_loss_that_is_not_finite_is_no_fall() -> None:
    convergence = Convergence(0.01)
    assert looked(convergence, [[1.0]] + [[float("nan")]] * 39) == [30]


def test_the_last_one_goes_to_rest_too_and_a_stage_wakes_all() -> None:
    convergence = Convergence(0.5)
    assert looked(convergence, [[1.0, 1.0]] * 30) == [30]
    assert convergence.awake is not None
    assert len(convergence.awake) == 0
    convergence.begin()
    assert convergence.awake is None
    assert looked(convergence, [[1.0, 1.0]] * 29) == []


def test_0_lets_nobody_rest() -> None:
    convergence = Convergence(0.0)
    assert looked(convergence, [[1.0]] * 100) == []
    assert convergence.awake is None


@pytest.mark.parametrize("tolerance", [-0.1, 1.0, float("nan"), float("inf")])
def test_a_tolerance_out_of_range_is_refused(tolerance: float) -> None:
    with pytest.raises(InputError, match=f"tolerance must be from 0 to below 1, got {tolerance}"):
        Convergence(tolerance)
