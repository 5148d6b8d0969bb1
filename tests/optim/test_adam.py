"""Adam for pixels against torch's, and its average against crowsonkb's formula."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from nst_lightning.errors import InputError
from nst_lightning.optim import Adam, carried_state


def noise(*shape: int, seed: int = 6) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


GOAL = 2 * noise(2, 3, 4, 4, seed=1) - 0.5  # in part beyond what can be shown


def losses(image: Tensor) -> Tensor:
    return (image - GOAL[: len(image)]).square().sum(dim=(1, 2, 3))


def minimise(optimizer: torch.optim.Optimizer, image: nn.Parameter, steps: int) -> list[float]:
    def closure() -> float:
        optimizer.zero_grad()
        loss = losses(image).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.item()

    step: Callable[..., float] = optimizer.step
    return [step(closure) for _ in range(steps)]


def test_adam_is_torchs_with_a_learning_rate_for_pixels() -> None:
    ours, theirs = nn.Parameter(noise(2, 3, 4, 4)), nn.Parameter(noise(2, 3, 4, 4))
    minimise(Adam([ours]), ours, 5)
    minimise(torch.optim.Adam([theirs], lr=10 / 255), theirs, 5)
    assert torch.equal(ours, theirs)


def crowsonkb(start: Tensor, steps: int, decay: float) -> tuple[Tensor, list[float]]:
    """The average of clamped Adam iterates, corrected for its bias, and the losses of the iterates, by formula."""
    x, m, v, total, found = start.clone(), 0.0 * start, 0.0 * start, 0.0 * start, []
    for step in range(1, steps + 1):
        found.append(losses(x).sum().item())
        gradient = 2 * (x - GOAL)
        m, v = 0.9 * m + 0.1 * gradient, 0.99 * v + 0.01 * gradient**2
        x = (x - 0.02 * (m / (1 - 0.9**step)) / ((v / (1 - 0.99**step)).sqrt() + 1e-8)).clamp(0, 1)
        total = decay * total + (1 - decay) * x
    return total / (1 - decay**steps), found


def test_the_parameter_shows_crowsonkbs_average_and_the_loss_is_the_iterates() -> None:
    image = nn.Parameter(noise(2, 3, 4, 4))
    found = minimise(Adam([image], lr=0.02, betas=(0.9, 0.99), average=0.99, clamp=True), image, 20)
    average, expected = crowsonkb(noise(2, 3, 4, 4), 20, 0.99)
    torch.testing.assert_close(image.detach(), average, rtol=1e-10, atol=1e-12)
    assert found == pytest.approx(expected, rel=1e-10)


def test_goes_on_from_its_state_bit_for_bit() -> None:
    whole = nn.Parameter(noise(2, 3, 4, 4))
    minimise(Adam([whole], average=0.9, clamp=True), whole, 9)
    first = nn.Parameter(noise(2, 3, 4, 4))
    optimizer = Adam([first], average=0.9, clamp=True)
    minimise(optimizer, first, 5)
    second = nn.Parameter(first.detach().clone())
    again = Adam([second], average=0.9, clamp=True)
    again.load_state_dict(optimizer.state_dict())
    minimise(again, second, 4)
    assert torch.equal(whole, second)


def half(tensor: Tensor) -> Tensor:
    return nn.functional.avg_pool2d(tensor, 2)


@pytest.mark.parametrize("average", [0.0, 0.9])
def test_averages_of_gradients_are_carried_to_another_size_and_the_iterates_begins_anew(average: float) -> None:
    image = nn.Parameter(noise(1, 3, 4, 4))
    optimizer = Adam([image], average=average)
    minimise(optimizer, image, 3)
    state = optimizer.state[image]
    carried = carried_state(state, image.shape, half)
    assert carried is not None
    assert carried.keys() == {"step", "exp_avg", "exp_avg_sq"}
    assert carried["step"] == 3
    assert torch.equal(carried["exp_avg"], half(state["exp_avg"]))
    assert torch.equal(carried["exp_avg_sq"], half(state["exp_avg_sq"]))


def test_what_cannot_work_is_refused() -> None:
    image = nn.Parameter(noise(1, 3, 4, 4))
    with pytest.raises(InputError, match=r"average must be at least 0 and below 1, got 1\.0"):
        Adam([image], average=1.0)
    with pytest.raises(InputError, match=r"needs a closure: take another precision than 16-mixed"):
        Adam([image], average=0.5).step()
