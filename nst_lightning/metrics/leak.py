"""How far the outlines of the style image show through in an output.

Palette and texture are best met by the style image itself, so an optimisation that starts from it is scored well for
not moving; this is what tells.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nst_lightning.metrics.base import Score, Seen, Sources
from nst_lightning.metrics.outline import Outlines, above_chance, edge_auc, gradients, outlines


class Leak(Score):
    """How far the style's outlines show through, from 0, as by chance, to 1, all of them; the largest of all styles.

    The area under the ROC curve of `edge_auc`, from chance at 0; not times the clarity: a faint ghost is one. NaN
    where the style image, in the output's size, has no edge, or no pixel far from one.
    """

    name = "leak"
    asked = "leak"
    order = 40
    higher_is_better = False

    def reference(self, sources: Sources) -> list[Outlines]:
        """Returns the edges of every style image, stretched as where the optimisation starts from it."""
        return [style.once(outlines) for style in sources.stretched_styles]

    def values(self, output: Seen, reference: Sequence[Outlines]) -> dict[str, Tensor]:
        """Returns `leak`."""
        found = output.once(gradients)
        return {self.name: torch.stack([above_chance(edge_auc(found, lines)) for lines in reference]).amax(0)}
