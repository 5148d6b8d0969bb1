"""L-BFGS with one problem an image, vectorised over the batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from nst_lightning.errors import InputError

Precondition = Callable[[Tensor], Tensor]
"""A linear, symmetric and positive definite map of tensors shaped like the parameter, each image by itself."""
State = dict[str, Any]


class LBFGS(torch.optim.Optimizer):
    """One independent L-BFGS for each image of a batch, one evaluation of the closure a step.

    Dimension 0 of the only parameter counts the images, each with its own history, curvature and step length. The
    recursion is Nocedal and Wright, *Numerical Optimization* (2006), algorithm 7.4, started and scaled like
    `torch.optim.LBFGS` without line search. A step moves to the trial point of the step before and evaluates there; the
    first one only evaluates: the parameter always stands at a point whose loss is known.

    With the safeguard, an image whose loss rose or is not finite goes back, and its next trial is shorter: the minimum
    of the parabola through both losses and the slope, between a tenth and a half of the step (equation 3.58). Where
    that does not help, the image forgets its history. Where the losses differ by less than a thousandth, which may be
    rounding, the slopes at both ends decide, as in the approximate Wolfe conditions of Hager and Zhang (2005), *A New
    Conjugate Gradient Method with Guaranteed Descent and an Efficient Line Search*. Where the loss is concave along an
    accepted step, the next one is four times as long, or with a history the inverse Hessian's scale as many times.

    Args:
        params: One parameter (N, ...), floating point.
        lr: The first trial's length along each direction, > 0.
        history_size: The number of curvature pairs that an image remembers, >= 1, of two images of memory each.
        safeguard: Whether a step that raises an image's loss is taken back.
        precondition: What the inverse Hessian is up to a factor before any curvature is known; None for the identity.

    Raises:
        InputError: If there is not one parameter, or an argument is out of range.
    """

    accepted: Tensor  # which images moved in the last step, (N,); all in the first, which moves none

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1.0,
        history_size: int = 10,
        safeguard: bool = True,
        precondition: Precondition | None = None,
    ) -> None:
        if not lr > 0:
            raise InputError(f"lr must be above 0, got {lr}")
        if history_size < 1:
            raise InputError(f"history_size must be at least 1, got {history_size}")
        super().__init__(params, {"lr": lr, "history_size": history_size, "safeguard": safeguard})
        if len(self.param_groups) != 1 or len(self.param_groups[0]["params"]) != 1:
            raise InputError("LBFGS optimises one parameter, whose first dimension counts the images")
        self.defaults["precondition"] = precondition  # not in the parameter's group, which checkpoints hold

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor | float] | None = None) -> Tensor:  # type: ignore[override]
        """Takes one step with one evaluation, and returns the losses at the trial point, (N,).

        The closure computes the losses (N,), or a number for a single image, calls backward on their sum and returns
        them; an `InputError` if there is none, or it does not return one loss an image.
        """
        if closure is None:
            raise InputError("LBFGS needs a closure: it evaluates the loss itself")
        group = self.param_groups[0]
        (parameter,) = group["params"]
        state = self.state[parameter]
        if not state:
            state.update(_first_state(parameter, group["history_size"]))
        start = parameter.detach().clone()
        try:
            return self._try(closure, parameter, start)
        except BaseException:
            parameter.copy_(start)  # an interrupted step has not happened
            raise

    def _try(self, closure: Callable[[], Tensor | float], parameter: Tensor, start: Tensor) -> Tensor:
        group, state = self.param_groups[0], self.state[parameter]
        parameter.add_((state["length"][:, None] * state["direction"]).view_as(parameter))
        loss, gradient = _evaluate(closure, parameter)
        accepted = _decreased(state, loss, gradient) if group["safeguard"] else torch.ones_like(loss, dtype=torch.bool)
        without_history = accepted & ~_has_history(state)
        precondition = partial(_preconditioned, self.defaults["precondition"], parameter.shape)
        _store_pair(state, gradient, accepted, precondition)
        _shorten(state, loss, ~accepted)
        state["loss"] = torch.where(accepted, loss, state["loss"])
        state["gradient"] = torch.where(accepted[:, None], gradient, state["gradient"])
        _choose_trial(state, accepted, without_history, group["lr"], precondition)
        parameter.copy_(torch.where(accepted[:, None], parameter.flatten(1), start.flatten(1)).view_as(parameter))
        self.accepted = accepted
        return loss


_SHORTEST = 1e-3  # of the learning rate: a step cut below it says that the history is of no use any more
_ROUNDING = 1e-3  # of a loss: a smaller difference of two may be rounding, in bfloat16
_GROWTH = 4.0  # by what a step is longer than the accepted one before it, along which the loss was concave


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(dim=1)


def _preconditioned(precondition: Precondition | None, shape: torch.Size, values: Tensor) -> Tensor:
    return values if precondition is None else precondition(values.view(shape)).flatten(1)


def _first_state(parameter: Tensor, history_size: int) -> State:
    """Returns a state whose trial point is where the images are, and from which any finite loss is a decrease."""
    values = parameter.detach().flatten(1)
    images, size = values.shape
    return {
        "loss": values.new_full((images,), torch.inf),
        "gradient": torch.zeros_like(values),
        "direction": torch.zeros_like(values),
        "length": values.new_zeros(images),
        "scale": values.new_ones(images),
        # One slot for each of the last steps, the same for all images, so that no value has to be read to find one.
        # Where an image has no pair, because the step was taken back or the loss was concave, the curvature is 0.
        "taken": 0,
        "steps": values.new_zeros(history_size, images, size),
        "changes": values.new_zeros(history_size, images, size),
        "curvature": values.new_zeros(history_size, images),
    }


def _evaluate(closure: Callable[[], Tensor | float], parameter: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the losses (N,) and gradients (N, D)."""
    with torch.enable_grad():
        found = closure()
    loss = (found.detach() if isinstance(found, Tensor) else parameter.new_tensor(found)).reshape(-1)
    if len(loss) != len(parameter):
        raise InputError(f"the closure must return one loss an image: {len(parameter)} images, {len(loss)} losses")
    gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    return loss.clone(), gradient.detach().flatten(1).clone()


def _decreased(state: State, loss: Tensor, gradient: Tensor) -> Tensor:
    """Returns which images' losses fell along the last step, (N,), by their slopes where rounding decides."""
    finite = loss.isfinite() & gradient.isfinite().all(dim=1)
    rise = loss - state["loss"]
    slopes = _dot(state["gradient"] + gradient, state["direction"])
    fell: Tensor = finite & ((rise <= 0) | ((slopes < 0) & (rise < _ROUNDING * state["loss"].abs())))
    return fell


def _store_pair(state: State, gradient: Tensor, accepted: Tensor, precondition: Precondition) -> None:
    """Writes the pair (step, change of gradient) into the history of the images with positive curvature."""
    step = state["length"][:, None] * state["direction"]
    change = gradient - state["gradient"]
    curvature = _dot(change, step)
    # Departs from torch.optim.LBFGS, whose bound is 1e-10 whatever the loss is measured in: small losses stall.
    bound = torch.finfo(gradient.dtype).eps * step.norm(dim=1) * change.norm(dim=1)
    convex = accepted & (curvature > bound)
    slot = state["taken"] % len(state["steps"])
    state["steps"][slot] = torch.where(convex[:, None], step, 0)
    state["changes"][slot] = torch.where(convex[:, None], change, 0)
    state["curvature"][slot] = torch.where(convex, curvature, 0)
    # Where the loss is concave along a step that helped, the scale of an earlier one holds the next steps back.
    guess = torch.where(accepted, _GROWTH * state["scale"], state["scale"])
    state["scale"] = torch.where(convex, curvature / _dot(change, precondition(change)), guess)
    state["taken"] += 1


def _shorten(state: State, loss: Tensor, rejected: Tensor) -> None:
    slope = _dot(state["gradient"], state["direction"]) * state["length"]
    factor = (-slope / (2 * (loss - state["loss"] - slope))).nan_to_num(0.1).clamp(0.1, 0.5)
    state["length"] = torch.where(rejected, factor * state["length"], state["length"])


def _choose_trial(
    state: State, accepted: Tensor, without_history: Tensor, lr: float, precondition: Precondition
) -> None:
    """Gives the images that moved, some `without_history`, or whose history is of no use, their next trial."""
    gradient = state["gradient"]
    history_useless = ~accepted & (state["length"] < _SHORTEST * lr) & _has_history(state)
    state["curvature"] = torch.where(history_useless, 0, state["curvature"])
    state["scale"] = torch.where(_has_history(state), state["scale"], 1)
    direction = _two_loops(state, gradient, precondition)
    descends = _dot(gradient, direction) < 0  # rounding can turn it upwards; so can a gradient of 0
    state["curvature"] = torch.where(accepted & ~descends, 0, state["curvature"])
    direction = torch.where(descends[:, None], direction, -gradient)
    first = (1 / direction.abs().sum(dim=1)).clamp(max=1.0) * lr
    longer = torch.where(without_history, _GROWTH * state["length"], 0)
    length = torch.where(_has_history(state), lr, torch.maximum(first, longer))
    renewed = accepted | history_useless
    state["direction"] = torch.where(renewed[:, None], direction, state["direction"])
    state["length"] = torch.where(renewed, length, state["length"])


def _has_history(state: State) -> Tensor:
    """Returns which images have a curvature pair, (N,)."""
    curvature: Tensor = state["curvature"]
    return (curvature > 0).any(dim=0)


def _two_loops(state: State, gradient: Tensor, precondition: Precondition) -> Tensor:
    """Returns -H g for each image, (N, D): Nocedal and Wright (2006), algorithm 7.4."""
    size = len(state["steps"])
    direction = -gradient
    newest_first = []
    for age in range(min(state["taken"], size)):
        slot = (state["taken"] - 1 - age) % size
        curvature = state["curvature"][slot]
        inverse = torch.where(curvature > 0, 1 / curvature, 0)
        step, change = state["steps"][slot], state["changes"][slot]
        alpha = _dot(step, direction) * inverse
        direction.addcmul_(alpha[:, None], change, value=-1)
        newest_first.append((step, change, inverse, alpha))
    direction = precondition(direction).mul(state["scale"][:, None])
    for step, change, inverse, alpha in reversed(newest_first):
        direction.addcmul_((alpha - _dot(change, direction) * inverse)[:, None], step)
    return direction
