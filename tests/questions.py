"""A context in which no tensor may be asked for its value: what would make a GPU wait."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_ASKING = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "unique")


class NoQuestions(TorchDispatchMode):  # type: ignore[no-untyped-call] # torch's is not annotated
    """Fails where an operator's result, or its shape, has to be known on the host."""

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Any,  # noqa: ANN401
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        name = func.__name__.split(".")[0]
        by_mask = name in {"index", "index_put_", "_index_put_impl_"} and any(
            isinstance(each, Tensor) and each.dtype == torch.bool for each in args[1]
        )
        assert name not in _ASKING and not by_mask, f"{func} asks a tensor for its values"
        return func(*args, **(kwargs or {}))
