"""The loss of a pair of images as an optimiser asks for it, without Trainer."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from nst_lightning.losses import Objective, Target
from nst_lightning.tiling import Evaluator

WEIGHTS: Mapping[str, float] = {"content": 1e5, "style": 1e2, "tv": 1.0}
"""The default weights of style transfer with the bundled network, by group."""


def targets_of(objective: Objective, evaluator: Evaluator, content: Tensor, style: Tensor) -> dict[str, Target]:
    """Returns the targets of a content and a style image, (1, 3, H, W) in [0, 1] each."""
    targets = evaluator.targets("content", [content], [1.0], 0) | evaluator.targets("style", [style], [1.0], 0)
    return objective.matched(targets)


def loss_of(
    objective: Objective,
    evaluator: Evaluator,
    targets: Mapping[str, Target],
    weights: Mapping[str, float] = WEIGHTS,
) -> Callable[[Tensor], Tensor]:
    """Returns what computes the losses (N,) of images (N, 3, H, W), differentiable.

    Args:
        objective: The losses.
        evaluator: What finds their values.
        targets: What is compared with.
        weights: Of each group.
    """

    def loss(image: Tensor) -> Tensor:
        of_images = {group: image.new_full((len(image),), weights[group]) for group in objective.groups}
        return objective.total(evaluator.values(image, targets, 0), objective.weights(targets, of_images))

    return loss
