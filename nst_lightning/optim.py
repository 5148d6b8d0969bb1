"""Limited-memory BFGS with one problem an image, vectorised over the batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from nst_lightning import preconditioner
from nst_lightning.errors import InputError


class Adam(torch.optim.Adam):
    """`torch.optim.Adam` with a learning rate made for pixels.

    It works element by element, so a batch's images do not touch each other.

    Args:
        params: The images.
        lr: Learning rate in units of [0, 1] a step; the default is the predecessor's 10 of 255.
        betas: Decay of the averages of the gradient and of its square, Kingma and Ba (2015), algorithm 1.
        eps: What is added to the denominator.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 10 / 255,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        super().__init__(params, lr=lr, betas=betas, eps=eps)


class LBFGS(torch.optim.Optimizer):
    """One independent L-BFGS for each image of a batch, one evaluation of the closure a step.

    Dimension 0 of the only parameter counts the images. Each has its own history, curvature and step length, so
    its result does not depend on its companions. The recursion is Nocedal and Wright, *Numerical Optimization*
    (2006), algorithm 7.4, started and scaled like `torch.optim.LBFGS` without line search.

    A step moves to the trial point of the step before and evaluates there; the first one only evaluates. So the
    parameter always stands at a point whose loss is known. With the safeguard, an image whose loss rose or is
    not finite goes back, and its next trial is a shorter step along the same direction: the minimum of the
    parabola through both losses and the slope, held between a tenth and a half of the step (Nocedal and Wright,
    equation 3.58). Where that does not help, the image forgets its history and goes down its gradient. An accepted
    image never gets worse, except where the losses differ by less than a thousandth and rounding may decide, as that of
    bfloat16 does late in a run: there the slopes at both ends of the step decide, as in the approximate Wolfe
    conditions of Hager and Zhang, *A New Conjugate Gradient Method with Guaranteed Descent and an Efficient Line
    Search* (2005). Where the loss is concave along an accepted step, no curvature says how far to go on. The
    next one is four times as long, or with a history the scale of the inverse Hessian four times as large:
    `torch.optim.LBFGS` keeps its own, and creeps.

    Images can be preconditioned: what the recursion starts from, the inverse Hessian before any curvature is known, is
    then not a multiple of the identity but multiplies every spatial frequency f by (f^2 + f_0^2)^(-e/2), f_0 = 1/50 of
    a cycle a pixel. Coarse forms, which photographs and paintings are mostly made of, need fewer steps so, and the loss
    falls sooner; fine brushwork comes later. It is what the decorrelated parameters of Olah et al., *Feature
    Visualization* (Distill, 2017), are for gradient descent.

    The curvature of each band of frequencies and each colour can also be measured. One step is then spent on white
    noise of a grey level, which moves no image: what it changes in the gradient tells the mean curvature, and the
    preconditioner is multiplied by its power -1/2 (`preconditioner.measure`). A network's loss bends much less for
    fine differences of colour than for those of brightness.

    Args:
        params: One parameter (N, ...), floating point.
        lr: The first trial's length along each direction, > 0.
        history_size: The number of curvature pairs that an image remembers, >= 1; each costs two images of
            memory.
        safeguard: Whether a step that raises an image's loss is taken back.
        smoothness: The exponent e of the preconditioner, >= 0, of about 1 at most; 0 is the identity, as for
            parameters of another shape than (N, C, H, W).
        measure_after: The number of moves after which curvature is measured, >= 0; 0 is never. About 30 is early enough
            for a run of hundreds and late enough for a start that is flat.

    Attributes:
        accepted: Which images moved, or kept their place as the first step asks, in the last step, (N,).

    Raises:
        InputError: If there is not one parameter, or an argument is out of range.
    """

    accepted: Tensor

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1.0,
        history_size: int = 10,
        safeguard: bool = True,
        smoothness: float = 0.0,
        measure_after: int = 0,
    ) -> None:
        if not lr > 0:
            msg = f"lr must be above 0, got {lr}"
            raise InputError(msg)
        if history_size < 1:
            msg = f"history_size must be at least 1, got {history_size}"
            raise InputError(msg)
        if not 0 <= smoothness < math.inf:
            msg = f"smoothness must be a finite number, 0 or above, got {smoothness}"
            raise InputError(msg)
        if measure_after < 0:
            msg = f"measure_after must be a number of moves, or 0 for never, got {measure_after}"
            raise InputError(msg)
        defaults = {
            "lr": lr,
            "history_size": history_size,
            "safeguard": safeguard,
            "smoothness": smoothness,
            "measure_after": measure_after,
        }
        super().__init__(params, defaults)
        if len(self.param_groups) != 1 or len(self.param_groups[0]["params"]) != 1:
            msg = "LBFGS optimises one parameter, whose first dimension counts the images"
            raise InputError(msg)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Tensor:  # type: ignore[override]
        """Takes one step with one evaluation.

        Args:
            closure: Computes the losses (N,), calls backward on their sum and returns them. A scalar will do
                for a single image.

        Returns:
            The losses at the trial point, (N,).

        Raises:
            InputError: If there is no closure, or it does not return one loss an image.
        """
        group = self.param_groups[0]
        (parameter,) = group["params"]
        state = self.state[parameter]
        if parameter.dim() == 4 and 0 < group["measure_after"] == state.get("taken") and "measured" not in state:
            return self._measure(parameter, state, closure)
        start = parameter.detach().clone()
        if "direction" in state:
            parameter.add_((_column(state["length"]) * state["direction"]).view_as(parameter))
        loss, gradient = self._evaluate(parameter, start, closure)
        smooth = partial(
            preconditioner.precondition,
            shape=parameter.shape,
            exponent=group["smoothness"],
            measured=state.get("measured"),
        )
        if "direction" not in state:
            _begin(state, loss, gradient, group["history_size"])
            accepted = torch.ones_like(loss, dtype=torch.bool)
            straight = torch.zeros_like(accepted)
        else:
            accepted = _falls(state, loss, gradient) if group["safeguard"] else torch.ones_like(loss, dtype=torch.bool)
            straight = ~_remembers(state) & accepted
            _remember(state, gradient, accepted, smooth)
            _shorten(state, loss, ~accepted)
            back = ~accepted.view(-1, *[1] * (parameter.dim() - 1))
            parameter.copy_(torch.where(back, start, parameter))
            state["loss"] = torch.where(accepted, loss, state["loss"])
            state["gradient"] = torch.where(accepted[:, None], gradient, state["gradient"])
        _aim(state, accepted, straight, group["lr"], smooth)
        self.accepted = accepted
        return loss

    def _measure(self, parameter: Tensor, state: dict[str, Any], closure: Callable[[], Any] | None) -> Tensor:
        """Spends a step on the curvature for each frequency and colour, and returns the losses of the noisy images."""
        start = parameter.detach().clone()
        noise = preconditioner.probe(parameter.shape, parameter.device, parameter.dtype)
        parameter.add_(noise)
        loss, gradient = self._evaluate(parameter, start, closure)
        parameter.copy_(start)
        state["measured"] = preconditioner.measure((gradient - state["gradient"]).view_as(parameter), noise)
        self.accepted = torch.zeros_like(loss, dtype=torch.bool)
        return loss

    @staticmethod
    def _evaluate(parameter: Tensor, start: Tensor, closure: Callable[[], Any] | None) -> tuple[Tensor, Tensor]:
        """Returns the losses and gradients where the images are; where that fails, moves them back to their start."""
        if closure is None:
            msg = "LBFGS needs a closure: it evaluates the loss itself"
            raise InputError(msg)
        try:
            with torch.enable_grad():
                loss = torch.as_tensor(closure()).detach().reshape(-1)
            if len(loss) != len(parameter):
                msg = f"the closure must return one loss an image: {len(parameter)} images, {len(loss)} losses"
                raise InputError(msg)
        except BaseException:
            parameter.copy_(start)  # an interrupted step has not happened
            raise
        gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        return loss.clone(), gradient.detach().flatten(1).clone()


_SHORTEST = 1e-3
"""A step cut below this part of the learning rate says that the remembered curvature is of no use any more."""

_ROUNDING = 1e-3
"""The part of a loss below which a difference of two may be rounding, in bfloat16."""

_GROWTH = 4.0
"""By what a step is longer than the accepted one before it, along which the loss was concave."""

Smooth = Callable[[Tensor], Tensor]


def _column(values: Tensor) -> Tensor:
    return values[:, None]


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(dim=1)


def _begin(state: dict[str, Any], loss: Tensor, gradient: Tensor, history_size: int) -> None:
    images, size = gradient.shape
    state.update(
        loss=loss,
        gradient=gradient,
        direction=torch.zeros_like(gradient),
        length=gradient.new_zeros(images),
        scale=gradient.new_ones(images),
        # One slot for each of the last steps, the same for all images: no image has to ask where its pairs are. Where
        # an image has none, because the step was taken back or bent the wrong way, the curvature is 0.
        taken=0,
        steps=gradient.new_zeros(history_size, images, size),
        changes=gradient.new_zeros(history_size, images, size),
        curvature=gradient.new_zeros(history_size, images),
    )


def _falls(state: dict[str, Any], loss: Tensor, gradient: Tensor) -> Tensor:
    """Returns which images' losses fell along the last step, (N,), by their slopes where rounding decides."""
    finite = loss.isfinite() & gradient.isfinite().all(dim=1)
    rise = loss - state["loss"]
    slopes = _dot(state["gradient"] + gradient, state["direction"])
    falls: Tensor = finite & ((rise <= 0) | ((slopes < 0) & (rise < _ROUNDING * state["loss"].abs())))
    return falls


def _remember(state: dict[str, Any], gradient: Tensor, accepted: Tensor, smooth: Smooth) -> None:
    """Writes the pair (step, change of gradient) into the history of the images with positive curvature."""
    step = _column(state["length"]) * state["direction"]
    change = gradient - state["gradient"]
    curvature = _dot(change, step)
    # Departs from torch.optim.LBFGS, whose bound is 1e-10 whatever the loss is measured in: small losses stall.
    bound = torch.finfo(gradient.dtype).eps * step.norm(dim=1) * change.norm(dim=1)
    good = accepted & (curvature > bound)
    slot = state["taken"] % len(state["steps"])
    state["steps"][slot] = torch.where(_column(good), step, 0)
    state["changes"][slot] = torch.where(_column(good), change, 0)
    state["curvature"][slot] = torch.where(good, curvature, 0)
    # Where the loss is concave along a step that helped, the scale of an earlier one holds the next steps back.
    guess = torch.where(accepted, _GROWTH * state["scale"], state["scale"])
    state["scale"] = torch.where(good, curvature / _dot(change, smooth(change)), guess)
    state["taken"] += 1


def _shorten(state: dict[str, Any], loss: Tensor, rejected: Tensor) -> None:
    slope = _dot(state["gradient"], state["direction"]) * state["length"]
    factor = (-slope / (2 * (loss - state["loss"] - slope))).nan_to_num(0.1).clamp(0.1, 0.5)
    state["length"] = torch.where(rejected, factor * state["length"], state["length"])


def _aim(state: dict[str, Any], accepted: Tensor, straight: Tensor, lr: float, smooth: Smooth) -> None:
    """Gives the images that moved, or whose memory misleads them, their next direction and first trial length.

    Args:
        state: The optimiser's.
        accepted: Which images moved, (N,).
        straight: Which of them did without a history, (N,).
        lr: The first trial's length along a direction of L-BFGS.
        smooth: The preconditioner.
    """
    gradient = state["gradient"]
    misled = ~accepted & (state["length"] < _SHORTEST * lr) & _remembers(state)
    _forget(state, misled)
    state["scale"] = torch.where(_remembers(state), state["scale"], 1)
    direction = _two_loops(state, gradient, smooth)
    descends = _dot(gradient, direction) < 0  # rounding can turn it upwards; so can a gradient of 0
    _forget(state, accepted & ~descends)
    direction = torch.where(_column(descends), direction, -gradient)
    first = (1 / direction.abs().sum(dim=1)).clamp(max=1.0) * lr
    longer = torch.where(straight, _GROWTH * state["length"], 0)
    length = torch.where(_remembers(state), lr, torch.maximum(first, longer))
    renewed = accepted | misled
    state["direction"] = torch.where(_column(renewed), direction, state["direction"])
    state["length"] = torch.where(renewed, length, state["length"])


def _remembers(state: dict[str, Any]) -> Tensor:
    """Returns which images have a curvature pair, (N,)."""
    curvature: Tensor = state["curvature"]
    return (curvature > 0).any(dim=0)


def _forget(state: dict[str, Any], which: Tensor) -> None:
    state["curvature"] = torch.where(which, 0, state["curvature"])


def _two_loops(state: dict[str, Any], gradient: Tensor, smooth: Smooth) -> Tensor:
    """Returns -H g for each image, (N, D): Nocedal and Wright (2006), algorithm 7.4."""
    size = len(state["steps"])
    direction = -gradient
    recall = []
    for age in range(min(state["taken"], size)):
        slot = (state["taken"] - 1 - age) % size
        curvature = state["curvature"][slot]
        inverse = torch.where(curvature > 0, 1 / curvature, 0)
        step, change = state["steps"][slot], state["changes"][slot]
        alpha = _dot(step, direction) * inverse
        direction.addcmul_(_column(alpha), change, value=-1)
        recall.append((step, change, inverse, alpha))
    direction = smooth(direction) * _column(state["scale"])
    for step, change, inverse, alpha in reversed(recall):
        direction.addcmul_(_column(alpha - _dot(change, direction) * inverse), step)
    return direction


def carried_state(
    state: Mapping[str, Any], shape: torch.Size, resize: Callable[[Tensor], Tensor]
) -> dict[str, Any] | None:
    """Returns an optimiser's state of one parameter for the same image at another size.

    Averages of gradients, as Adam's, are images themselves and are resized like one; the curvature pairs of a
    quasi-Newton method belong to one size and are forgotten.

    Args:
        state: The optimiser's state of the parameter.
        shape: The parameter's old shape.
        resize: Resizes a tensor of that shape to the new one without leaving the range of its values.

    Returns:
        The new state, or None where the optimiser has to begin anew.
    """
    carried: dict[str, Any] = {}
    for key, value in state.items():
        if isinstance(value, Tensor) and value.shape == shape:
            carried[key] = resize(value)
        elif isinstance(value, Tensor) and value.dim() == 0:
            carried[key] = value
        else:
            return None
    return carried if carried else None


NAMED: Mapping[str, type[torch.optim.Optimizer]] = {"lbfgs": LBFGS, "adam": Adam}
"""The optimisers that have a name of their own."""
