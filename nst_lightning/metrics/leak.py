"""How far the outlines of the style image show through in an output.

Palette and texture are best met by the style image itself, so an optimisation that starts from it is scored well for
not moving; this is what tells.
"""

from __future__ import annotations

from torch import Tensor

from nst_lightning import images
from nst_lightning.metrics.base import ImageScore
from nst_lightning.metrics.lab import SHORT_SIDE, as_written, seen
from nst_lightning.metrics.outline import Gradients, Outlines, above_chance, check_alike, edge_auc, gradients, outlines


def leak_score(output: Gradients, outlines_of_style: Outlines) -> Tensor:
    """Returns how far the style's outlines show through, (N,), from 0, as by chance, to 1, all of them.

    The area under the ROC curve of `edge_auc`, from chance at 0; not times the clarity: a faint ghost is one. NaN
    where the style image, in the output's size, has no edge, or no pixel far from one.

    Raises:
        InputError: If output and style image differ in size or number.
    """
    return above_chance(edge_auc(output, outlines_of_style))


def leak(output: Tensor, style: Tensor, short_side: int | None = SHORT_SIDE) -> Tensor:
    """Returns `leak_score` of images, (N,).

    Args:
        output: (N, 3, H, W), sRGB in [0, 1].
        style: (N, 3, h, w), likewise; stretched to the output's size as where the optimisation starts from it.
        short_side: What the images are reduced to before they are compared, in pixels; None for never.

    Raises:
        InputError: If the images differ in number, or are none.
    """
    output, style = as_written(output), as_written(style)
    stretched = images.resize(style, (output.shape[-2], output.shape[-1])).clamp(0, 1)
    check_alike(output, stretched)
    seen_output, seen_style = seen(output, stretched, short_side=short_side)
    return leak_score(gradients(seen_output), outlines(seen_style))


class Leak(ImageScore):
    """The mean of `leak` over images.

    Args:
        short_side: What the images are reduced to before they are compared, in pixels; None for never.
        kwargs: Further ones of `torchmetrics.Metric`.

    Example:
        >>> import torch
        >>> style = torch.zeros(1, 3, 64, 64)
        >>> style[..., 16:48, 16:48] = 1  # a white square
        >>> leak = Leak()
        >>> leak(output=style / 10, style=style)
        tensor(1.)
        >>> leak(output=torch.zeros(1, 3, 64, 64), style=style)
        tensor(0.)
    """

    higher_is_better = False
    plot_lower_bound = 0.0
    plot_upper_bound = 1.0

    def update(self, output: Tensor, style: Tensor) -> None:
        """Scores outputs (N, 3, H, W) against styles (N, 3, h, w), sRGB in [0, 1]; raises as `leak` does."""
        self.add(leak(output, style, self.short_side))
