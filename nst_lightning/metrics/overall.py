"""One number of outline, palette, texture and leak: a convention, not a measurement."""

from __future__ import annotations

from torch import Tensor

from nst_lightning.metrics.base import ImageScore
from nst_lightning.metrics.leak import leak
from nst_lightning.metrics.outline import outline
from nst_lightning.metrics.palette import palette_closure
from nst_lightning.metrics.texture import texture_closure


def overall_score(outline: Tensor, palette: Tensor, texture: Tensor, leak: Tensor) -> Tensor:
    """Returns (O P T)^(1/3) (1 - L), with the closures P and T clipped to [0, 1]; in [0, 1], higher is better.

    The geometric mean asks for all three heuristics at once: a copy of the content takes no palette, a copy of the
    style keeps no outlines. The factor asks that the style's own motifs do not show through, which the three cannot
    see. No study stands behind the formula; it is a convention, fixed so that runs can be compared.

    Args:
        outline: How far the outlines of the content are kept, (N,) in [0, 1].
        palette: The closure of the palette's distance, (N,), at most 1.
        texture: The closure of the texture's distance, likewise.
        leak: How far the outlines of the style show through, (N,) in [0, 1].
    """
    kept = (outline * palette.clamp(0, 1) * texture.clamp(0, 1)) ** (1 / 3)
    return kept * (1 - leak)


class Overall(ImageScore):
    """The mean over images of `overall_score`, in [0, 1]; NaN where one of its four parts is.

    Args:
        short_side: What the output is reduced to before it is scored, in pixels; None for no limit.
        kwargs: Further ones of `torchmetrics.Metric`.

    Example:
        >>> import torch
        >>> content = torch.zeros(1, 3, 64, 64)
        >>> content[..., 16:48, 16:48] = 1  # a white square
        >>> style = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        >>> overall = Overall()
        >>> overall(output=content, content=content, style=style)  # nothing of the style
        tensor(0.)
    """

    higher_is_better = True
    plot_lower_bound = 0.0
    plot_upper_bound = 1.0

    def update(self, output: Tensor, content: Tensor, style: Tensor) -> None:
        """Scores a batch of images.

        Args:
            output: (N, 3, H, W), sRGB in [0, 1].
            content: Likewise, of the output's size.
            style: (N, 3, h, w), likewise.
        """
        side = self.short_side
        self.add(
            overall_score(
                outline(output, content, side),
                palette_closure(output, style, content, side),
                texture_closure(output, style, content, side),
                leak(output, style, side),
            )
        )
