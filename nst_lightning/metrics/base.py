"""What the scores have in common as torchmetrics: a mean over images that leaves out what is undefined."""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.plot import _AX_TYPE, _PLOT_OUT_TYPE

from nst_lightning.metrics.lab import SHORT_SIDE

_NUMBERS = itertools.count()


class ImageScore(Metric):
    """The mean over images of one number an image.

    Subclasses have an `update` whose arguments name the images it takes: `output`, `content`, `style`, each
    (N, 3, H, W), sRGB in [0, 1]; so a `MetricCollection` can be given all of them by keyword. The number of an image
    can be undefined, NaN; such images are left out of the mean and counted.

    Args:
        short_side: What the output is reduced to before it is scored, in pixels; None for never.
        kwargs: Further ones of `torchmetrics.Metric`.

    Attributes:
        total: The sum of the numbers that are defined.
        count: How many these are.
        undefined: How many images had no number.
    """

    is_differentiable = False  # what is scored is rounded to 8 bits
    full_state_update = False

    total: Tensor
    count: Tensor
    undefined: Tensor

    def __init__(self, short_side: int | None = SHORT_SIDE, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.short_side = short_side
        for name in ("total", "count", "undefined"):
            self.add_state(name, torch.tensor(0.0), dist_reduce_fx="sum")
        # A MetricCollection takes metrics for one whose states have the same names and, after the first batch, values:
        # two scores that are both 0 or undefined there. A state of its own name keeps each by itself.
        self.add_state(f"_metric_{next(_NUMBERS)}", torch.tensor(0.0), dist_reduce_fx="sum")

    @abstractmethod
    def update(self, *args: Any, **kwargs: Any) -> None:
        """Scores a batch of images."""

    def add(self, values: Tensor) -> None:
        """Takes the numbers of a batch, (N,), NaN where undefined."""
        values = values.detach().to(self.total)
        defined = values.isfinite()
        self.total += values.where(defined, torch.zeros_like(values)).sum()
        self.count += defined.sum()
        self.undefined += (~defined).sum()

    def compute(self) -> Tensor:
        """Returns the mean over the images whose number is defined, a scalar; NaN where there was none."""
        return self.total / self.count  # 0 / 0 is NaN

    def plot(self, val: Tensor | Sequence[Tensor] | None = None, ax: _AX_TYPE | None = None) -> _PLOT_OUT_TYPE:
        """Plots one value, or several in their order, between the bounds of the score; needs matplotlib.

        Args:
            val: What `forward` or `compute` returned, or a list of that; None takes `compute()`.
            ax: Where to plot; None makes a new figure.
        """
        return self._plot(val, ax)
