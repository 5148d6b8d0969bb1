"""L-BFGS with one problem an image, vectorised over the batch."""

from __future__ import annotations

import math
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
        parameter.add_(_unaligned(state["length"][:, None] * state["direction"], parameter.shape))
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
    return values if precondition is None else _aligned(precondition(_unaligned(values, shape)))


def _aligned(values: Tensor) -> Tensor:
    """Returns a copy of values (N, ...) as vectors (N, D), with zeros that have each begin at a multiple of 64 bytes.

    For how a processor sums may depend on where its numbers lie, and no image's sums may depend on its companions.
    """
    flat = values.flatten(1)
    return torch.nn.functional.pad(flat, (0, -flat.shape[1] % 16))


def _unaligned(vectors: Tensor, shape: torch.Size) -> Tensor:
    return vectors[:, : math.prod(shape[1:])].reshape(shape)


def _first_state(parameter: Tensor, history_size: int) -> State:
    """Returns a state whose trial point is where the images are, and from which any finite loss is a decrease."""
    values = _aligned(parameter.detach())
    images, size = values.shape
    return {
        "loss": values.new_full((images,), torch.inf),
        "gradient": torch.zeros_like(values),
        "direction": torch.zeros_like(values),
        "length": values.new_zeros(images),
        "scale": values.new_ones(images),
        # One slot for each of the last steps, the same for all images. Which one is the newest's is known to the device
        # alone, so that every step launches the same; it is of the images' type, for that is what torch loads it as.
        # Where there is no pair yet, the step was taken back or the loss was concave, the curvature is 0.
        "slot": values.new_zeros(1),
        "steps": values.new_zeros(history_size, images, size),
        "changes": values.new_zeros(history_size, images, size),
        "curvature": values.new_zeros(history_size, images),
        "products": values.new_zeros(images, history_size, history_size),  # of each step with each later change
    }


def _evaluate(closure: Callable[[], Tensor | float], parameter: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the losses (N,) and gradients (N, D)."""
    with torch.enable_grad():
        found = closure()
    loss = (found.detach() if isinstance(found, Tensor) else parameter.new_tensor(found)).reshape(-1)
    if len(loss) != len(parameter):
        raise InputError(f"the closure must return one loss an image: {len(parameter)} images, {len(loss)} losses")
    gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    return loss.to(parameter.dtype, copy=True), _aligned(gradient.detach())


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
    state["slot"] = (state["slot"] + 1) % len(state["steps"])
    slot = state["slot"].long()
    state["steps"].index_copy_(0, slot, torch.where(convex[:, None], step, 0)[None])
    state["changes"].index_copy_(0, slot, torch.where(convex[:, None], change, 0)[None])
    state["curvature"].index_copy_(0, slot, torch.where(convex, curvature, 0)[None])
    # Where the loss is concave along a step that helped, the scale of an earlier one holds the next steps back.
    guess = torch.where(accepted, _GROWTH * state["scale"], state["scale"])
    state["scale"] = torch.where(convex, curvature / _dot(change, precondition(change)), guess)


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
    direction = _step_along(state, gradient, precondition)
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


def _step_along(state: State, gradient: Tensor, precondition: Precondition) -> Tensor:
    """Returns -H g for each image, (N, D), in the compact form of Byrd, Nocedal and Schnabel (1994), theorem 2.2.

    The two loops of Nocedal and Wright (2006), algorithm 7.4, solve two triangular systems in the inner products of
    steps and changes. With these at hand each half of the history is read twice, however many pairs there are.
    """
    slot, slots = state["slot"].long(), torch.arange(len(state["steps"]), device=gradient.device)
    by_age, ages = (slots + slot + 1) % len(slots), (slots - slot - 1) % len(slots)  # from the oldest
    steps, changes = (state[name].transpose(0, 1) for name in ("steps", "changes"))
    newest = state["changes"].index_select(0, slot)[0]
    state["products"].index_copy_(2, slot, _dots(steps, newest)[..., None])
    # The systems have the oldest pair first, and double precision, for they may be badly conditioned.
    exact = gradient.dtype if gradient.device.type == "mps" else torch.float64
    curvature = state["curvature"].index_select(0, by_age).T.to(exact)
    there = curvature > 0
    products = state["products"].index_select(1, by_age).index_select(2, by_age).to(exact)
    products = torch.where(there[:, :, None] & there[:, None, :], products, 0).triu(1)
    system = products + torch.where(there, curvature, 1).diag_embed()

    def along(history: Tensor, vectors: Tensor) -> Tensor:
        return _dots(history, vectors).index_select(1, by_age).to(exact)

    def solved(matrix: Tensor, known: Tensor, upper: bool) -> Tensor:
        right = torch.where(there, known, 0)[..., None]
        found: Tensor = torch.linalg.solve_triangular(matrix, right, upper=upper)
        return found[..., 0]

    def add(vectors: Tensor, history: Tensor, weights: Tensor) -> None:
        _add(vectors, history, weights.to(vectors.dtype).index_select(1, ages))

    alpha = solved(system, -along(steps, gradient), upper=True)
    direction: Tensor = -gradient
    add(direction, changes, -alpha)
    direction = precondition(direction) * state["scale"][:, None]
    add(direction, steps, solved(system.mT, curvature * alpha - along(changes, direction), upper=False))
    return direction


def _dots(history: Tensor, vectors: Tensor) -> Tensor:
    """Returns the inner products of each image's history (N, K, D) and vector (N, D), (N, K)."""
    if history.device.type == "cpu":  # image by image, for a batched product may round otherwise
        return torch.stack([torch.mv(rows, each) for rows, each in zip(history, vectors, strict=True)])
    return _batched_dots(history, vectors)


def _batched_dots(history: Tensor, vectors: Tensor) -> Tensor:
    """Returns the same from parts of the sums, of which there are enough to keep a GPU busy."""
    images, kept, size = history.shape
    parts = math.gcd(size, 256)
    of_parts = history.view(images, kept, parts, -1).transpose(1, 2).flatten(0, 1)
    return torch.bmm(of_parts, vectors.view(len(of_parts), -1, 1)).view(images, parts, kept).sum(dim=1)


def _add(vectors: Tensor, history: Tensor, weights: Tensor) -> None:
    """Adds each image's history (N, K, D) times its weights (N, K) to its vector (N, D)."""
    if history.device.type == "cpu":
        for each, rows, factors in zip(vectors, history, weights, strict=True):
            each.addmv_(rows.T, factors)
    else:
        vectors[:, None].baddbmm_(weights[:, None], history)
