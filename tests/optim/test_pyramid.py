"""The Laplacian pyramid's levels, and descent on them against torch's optimisers of as many tensors."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from nst_lightning.errors import InputError
from nst_lightning.optim import Pyramid, carried_state
from nst_lightning.optim.pyramid import analysis, synthesis
from tests.optim.test_adam import noise


def goal(image: Tensor) -> Tensor:
    return (image - 0.3).cos().square().sum(dim=(1, 2, 3)) + image.diff(dim=3).square().sum(dim=(1, 2, 3))


def minimise(optimizer: torch.optim.Optimizer, image: nn.Parameter, steps: int) -> None:
    def closure() -> float:
        optimizer.zero_grad()
        loss = goal(image).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.item()

    for _ in range(steps):
        optimizer.step(closure)


@pytest.mark.parametrize(("levels", "expected"), [(1, 1), (3, 3), (9, 4)])
def test_levels_put_together_are_the_image(levels: int, expected: int) -> None:
    image = noise(2, 3, 9, 14)
    found = analysis(image, levels)
    assert [tuple(level.shape[-2:]) for level in found] == [(9, 14), (4, 7), (2, 3), (1, 1)][:expected]
    torch.testing.assert_close(synthesis(found), image, rtol=1e-12, atol=1e-12)
    # All but the last hold what the half size does not.
    smooth = interpolate(image, (4, 7), mode="bilinear")
    if levels > 1:
        torch.testing.assert_close(found[0], image - interpolate(smooth, (9, 14), mode="bilinear"))


@pytest.mark.parametrize("method", ["adam", "rmsprop"])
def test_equals_torchs_optimiser_of_the_levels(method: Literal["adam", "rmsprop"]) -> None:
    image = nn.Parameter(noise(2, 3, 9, 14))
    leaves = [nn.Parameter(level) for level in analysis(image.detach(), 3)]
    kind = torch.optim.Adam if method == "adam" else torch.optim.RMSprop
    theirs = kind(leaves, lr=2e-3)
    for _ in range(10):
        theirs.zero_grad()
        goal(synthesis(leaves)).sum().backward()  # type: ignore[no-untyped-call]
        theirs.step()  # type: ignore[call-overload, unused-ignore]
    minimise(Pyramid([image], levels=3, method=method), image, 10)
    torch.testing.assert_close(image.detach(), synthesis(leaves).detach(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("method", ["adam", "rmsprop"])
def test_goes_on_from_its_state_bit_for_bit_and_an_image_is_as_alone(method: Literal["adam", "rmsprop"]) -> None:
    whole, first = nn.Parameter(noise(2, 3, 9, 14).float()), nn.Parameter(noise(2, 3, 9, 14)[1:].float())
    minimise(Pyramid([whole], method=method), whole, 9)
    optimizer = Pyramid([first], method=method)
    minimise(optimizer, first, 5)
    second = nn.Parameter(first.detach().clone())
    again = Pyramid([second], method=method)
    again.load_state_dict(optimizer.state_dict())
    minimise(again, second, 4)
    assert torch.equal(whole[1:], second)


def test_begins_anew_at_another_size() -> None:
    image = nn.Parameter(noise(1, 3, 8, 8))
    optimizer = Pyramid([image])
    minimise(optimizer, image, 2)
    assert carried_state(optimizer.state[image], image.shape, lambda x: x) is None


def test_arguments_out_of_range_are_refused() -> None:
    image = nn.Parameter(noise(1, 3, 8, 8))
    with pytest.raises(InputError, match="lr must be above 0, got 0"):
        Pyramid([image], lr=0)
    with pytest.raises(InputError, match="levels must be at least 1, got 0"):
        Pyramid([image], levels=0)
    with pytest.raises(InputError, match="unknown method 'sgd'; known are adam, rmsprop"):
        Pyramid([image], method="sgd")  # type: ignore[arg-type]
