"""When to stop: which images of a batch no longer get better."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from nst_lightning.errors import InputError

_PATIENCE = 20  # steps; L-BFGS rejects a few in a row now and then, Adam's losses go up and down
_LOOK_EVERY = 10  # steps; a GPU has to wait for every look


class Convergence:
    """Lets an image rest whose loss fell by no more than a small part in the last twenty steps.

    It rests until the stage ends: it is not evaluated, and the other images of its batch, or the next batch, have the
    time. Each image is judged by its own losses, so its companions do not matter.

    Args:
        tolerance: The part of the loss, from 0 to below 1; 0 lets nobody rest.

    Attributes:
        awake: The places in the batch of the images that do not rest, (n,), None for all.

    Raises:
        InputError: If the tolerance is not from 0 to below 1.
    """

    def __init__(self, tolerance: float) -> None:
        if not 0 <= tolerance < 1:
            msg = f"tolerance must be from 0 to below 1, got {tolerance}"
            raise InputError(msg)
        self.tolerance = tolerance
        self.awake: Tensor | None = None
        self._best: Tensor | None = None
        self._since: Tensor | None = None
        self._steps = 0

    def begin(self) -> None:
        """Wakes all images, for a stage that begins."""
        self.awake = self._best = self._since = None
        self._steps = 0

    def look(self, losses: Tensor) -> None:
        """Takes the losses of a step, (N,), and once in a while lets images rest after it."""
        if self.tolerance == 0:
            return
        self._steps += 1
        if self._best is None or self._since is None:
            self._best, self._since = losses, torch.zeros_like(losses)
            return
        fell = losses < self._best * (1 - self.tolerance)
        self._best = torch.where(fell, losses, self._best)
        self._since = torch.where(fell, 0, self._since + 1)
        if self._steps % _LOOK_EVERY == 0:
            awake = (self._since < _PATIENCE).nonzero().flatten()
            self.awake = None if len(awake) == len(losses) else awake

    def state_dict(self) -> dict[str, Any]:
        """Returns what is remembered of the losses so far."""
        return {"awake": self.awake, "best": self._best, "since": self._since, "steps": self._steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes what `state_dict` returned."""
        self.awake, self._best = state["awake"], state["best"]
        self._since, self._steps = state["since"], state["steps"]


def at(places: Tensor | None, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns what tensors (N, ...) hold of the images at some places, (n,), or of all."""
    return {name: tensor if places is None else tensor[places] for name, tensor in tensors.items()}
