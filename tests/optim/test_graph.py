"""A step that is recorded against the same step taken anew."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nst_lightning.optim import LBFGS, StepGraph
from tests.optim.test_lbfgs import closure_of, rosenbrock
from tests.tape import Tape


@pytest.mark.parametrize("recorded_after", [1, 2, 11])
def test_replayed_steps_equal_those_taken_anew(recorded_after: int, tapes: list[Tape]) -> None:
    start = torch.randn(3, 6, generator=torch.Generator().manual_seed(2))
    images = [nn.Parameter(start.clone()) for _ in range(2)]
    optimizers = [LBFGS([image], history_size=4) for image in images]
    plain, other = (
        closure_of(optimizer, image, rosenbrock) for optimizer, image in zip(optimizers, images, strict=True)
    )
    taken_back = 0
    for _ in range(recorded_after):
        for optimizer, closure in zip(optimizers, (plain, other), strict=True):
            optimizer.step(closure)
    state = optimizers[1].state[images[1]]
    found = {"loss": torch.zeros(3)}

    def step() -> None:
        found["loss"] = optimizers[1].step(other)

    places = {name: each.data_ptr() for name, each in state.items()}
    before = images[1].detach().clone()
    graph = StepGraph(step, state, found)
    assert torch.equal(images[1], before)  # recording takes no step
    for _ in range(40):
        loss = optimizers[0].step(plain)
        graph.replay()
        assert torch.equal(found["loss"], loss)
        assert torch.equal(images[1], images[0])
        for name, each in optimizers[0].state[images[0]].items():
            assert torch.equal(state[name], each), name
        taken_back += int((~optimizers[0].accepted).sum())
    assert {name: each.data_ptr() for name, each in state.items()} == places
    assert taken_back > 0
    assert tapes[0].replays == 40
