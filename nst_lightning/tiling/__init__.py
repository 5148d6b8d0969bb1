"""Two ways to evaluate an objective: on the whole image, or exactly but tile by tile.

A tile is a *core*, whose features count, and a *halo* of pixels that those features see besides. Cores begin at
multiples of the network's stride and crops end early only at the image's own border, so that zeros are padded where
they would be for the whole image. Losses that add up over positions (see `losses.base`) need no more: a first pass
over the tiles sums the statistics, a second one brings each tile's part of the gradient. What the network keeps for
its backward pass then depends on the tile and not on the image.
"""

from nst_lightning.tiling.evaluators import Evaluator, Targets, Tiled, Whole
from nst_lightning.tiling.plan import ALONE, Plan, Share, Span

__all__ = ["ALONE", "Evaluator", "Plan", "Share", "Span", "Targets", "Tiled", "Whole"]
