"""Adam for pixels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from nst_lightning.errors import InputError

_OF_ONE_SIZE = {"iterate", "averaged", "left"}


class Adam(torch.optim.Adam):
    """`torch.optim.Adam` for pixels in [0, 1], which can keep them there and show an average of the iterates.

    The average is that of crowsonkb's style-transfer-pytorch: exponential, corrected for its beginning at nothing. The
    parameter holds it after every step; the loss is that of the iterate, which the next step goes on from.

    Args:
        params: The parameters.
        lr: The learning rate, by default the predecessor's 10 of 255.
        average: The average's decay at each step, 0 <= average < 1; 0 shows the iterate itself.
        clamp: Whether pixels are brought back to [0, 1] after every step.
        options: Those of `torch.optim.Adam`.

    Raises:
        InputError: If the decay is out of range.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 10 / 255,
        average: float = 0.0,
        clamp: bool = False,
        **options: Any,
    ) -> None:
        if not 0 <= average < 1:
            raise InputError(f"average must be at least 0 and below 1, got {average}")
        super().__init__(params, lr=lr, **options)
        self.defaults |= {"average": average, "clamp": clamp}  # not in the groups, which checkpoints hold

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # noqa: ANN401 - torch's
        """Takes a step; an `InputError` without a closure, where the loss is not that of what the parameter shows."""
        decay = self.defaults["average"]
        if decay > 0 and closure is None:
            raise InputError("an average of iterates needs a closure: take another precision than 16-mixed")
        parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        for parameter in parameters:
            if "iterate" in self.state[parameter]:
                parameter.copy_(self.state[parameter]["iterate"])
        loss = super().step(closure)
        for parameter in parameters:
            if self.defaults["clamp"]:
                parameter.clamp_(0, 1)
            if decay > 0:
                _show_average(self.state[parameter], parameter, decay)
        return loss


def _show_average(state: dict[str, Any], parameter: Tensor, decay: float) -> None:
    if "iterate" not in state:
        state |= {"averaged": torch.zeros_like(parameter), "left": 1.0}
    state["iterate"] = parameter.clone()
    state["averaged"].mul_(decay).add_(parameter, alpha=1 - decay)
    state["left"] *= decay
    parameter.copy_(state["averaged"] / (1 - state["left"]))


def carried_state(
    state: Mapping[str, Any], shape: torch.Size, resize: Callable[[Tensor], Tensor]
) -> dict[str, Any] | None:
    """Returns an optimiser's state of a parameter for the same image at another size, None where it begins anew.

    Averages of gradients, as Adam's, have the parameter's old `shape` and are resized like an image; the curvature
    pairs of a quasi-Newton method belong to one size and are forgotten.
    """
    carried: dict[str, Any] = {}
    for key, value in state.items():
        if key in _OF_ONE_SIZE:  # an average begins anew at every size
            continue
        if not isinstance(value, Tensor) or value.shape not in {shape, torch.Size()}:
            return None
        carried[key] = resize(value) if value.shape == shape else value
    return carried if carried else None
