"""A stand-in for CUDA graphs on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Tape(TorchDispatchMode):  # type: ignore[no-untyped-call] # torch's is not annotated
    """Operators that are recorded and undone, and replayed on the same memory, with the same numbers from Python.

    Of both `torch.cuda.CUDAGraph` and the context `torch.cuda.graph`.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # torch's
        self.replays = 0
        self._calls: list[tuple[Any, tuple[Any, ...], dict[str, Any], Any]] = []
        self._before: list[tuple[torch.Tensor, torch.Tensor]] = []

    def __torch_dispatch__(
        self,
        function: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> object:
        kwargs = {} if kwargs is None else kwargs
        written = [
            kwargs.get(argument.name, args[place] if place < len(args) else None)
            for place, argument in enumerate(function._schema.arguments)  # type: ignore[attr-defined] # of an operator
            if argument.alias_info is not None and argument.alias_info.is_write
        ]
        self._before += [(each, each.clone()) for each in tree_leaves(written) if isinstance(each, torch.Tensor)]
        found = function(*args, **kwargs)
        self._calls.append((function, args, kwargs, found))
        return found

    def __exit__(self, *of_error: Any) -> None:
        super().__exit__(*of_error)  # type: ignore[no-untyped-call] # torch's
        with torch.no_grad():
            for tensor, value in reversed(self._before):
                tensor.copy_(value)

    @torch.no_grad()
    def replay(self) -> None:
        self.replays += 1
        for function, args, kwargs, found in self._calls:
            pairs = zip(tree_leaves(found), tree_leaves(function(*args, **kwargs)), strict=True)
            for kept, again in pairs:
                if isinstance(kept, torch.Tensor) and kept.data_ptr() != again.data_ptr():
                    kept.copy_(again)
