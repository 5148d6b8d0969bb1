"""The losses: a protocol, a file a family, and the objective that weighs them."""

from collections.abc import Mapping

from nst_lightning.losses.base import IMAGE, Additive, Features, Global, Loss, Pointwise, Source, Statistic, Target
from nst_lightning.losses.content import Content
from nst_lightning.losses.gram import Gram
from nst_lightning.losses.objective import Objective, Term, Values
from nst_lightning.losses.variation import TotalVariation
from nst_lightning.losses.wasserstein import Wasserstein

STYLE_LOSSES: Mapping[str, type[Loss]] = {"gram": Gram, "wasserstein": Wasserstein}
"""The style losses that have a name."""

__all__ = [
    "IMAGE",
    "STYLE_LOSSES",
    "Additive",
    "Content",
    "Features",
    "Global",
    "Gram",
    "Loss",
    "Objective",
    "Pointwise",
    "Source",
    "Statistic",
    "Target",
    "Term",
    "TotalVariation",
    "Values",
    "Wasserstein",
]
