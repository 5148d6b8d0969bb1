"""How far the outlines of the style image show through in an output, which palette and texture do not notice."""

from __future__ import annotations

import torch
from torch import Tensor

from nst_lightning.metrics.base import Comparison
from nst_lightning.metrics.outline import Gradients, Outlines, above_chance, edge_auc, gradients, outlines


class Leak(Comparison):
    """How far the style's outlines show through, from 0, as by chance, to 1, all of them; the largest of all styles.

    The area under the ROC curve of `edge_auc`, from chance at 0; not times the clarity: a faint ghost is one. NaN
    where the style image, in the output's size, has no edge, or no pixel far from one.
    """

    name = "leak"
    asked = "leak"
    order = 40
    higher_is_better = False
    against = "stretched style"
    merge = torch.amax
    sample = staticmethod(gradients)
    source_sample = staticmethod(outlines)

    def compare(self, output: Gradients, source: Outlines) -> Tensor:
        """Returns how far the outlines of a style show through, (N,)."""
        return above_chance(edge_auc(output, source))
