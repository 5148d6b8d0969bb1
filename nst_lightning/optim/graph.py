"""A step of an optimiser as one CUDA graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


class StepGraph:
    """A step that is recorded once, and taken by one launch whenever it is replayed; recording takes none.

    The step launches the same work every time and asks the GPU for no value. A replay reads and writes the memory that
    was there when it was recorded: what the step puts in the place of the states' tensors is copied into them.

    Args:
        step: Takes the step.
        states: What the step leaves for the next one, tensors by name, all there already.

    Raises:
        RuntimeError: torch's, if the step does what a graph cannot hold.
    """

    def __init__(self, step: Callable[[], object], *states: dict[str, Any]) -> None:
        before = [dict(state) for state in states]
        self._graph = torch.cuda.CUDAGraph()
        # For this thread alone: others, which write pictures, may wait for the GPU meanwhile.
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            step()
            for kept, state in zip(before, states, strict=True):
                for name, value in kept.items():
                    if state[name] is not value:
                        value.copy_(state[name])
        for kept, state in zip(before, states, strict=True):
            state.update(kept)

    def replay(self) -> None:
        """Takes the step."""
        self._graph.replay()
