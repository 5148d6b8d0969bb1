"""The losses: a protocol, a file a family, and the objective that weighs them."""

from collections.abc import Mapping

from nst_lightning.losses.base import IMAGE as IMAGE
from nst_lightning.losses.base import Additive as Additive
from nst_lightning.losses.base import Features as Features
from nst_lightning.losses.base import Global as Global
from nst_lightning.losses.base import Loss as Loss
from nst_lightning.losses.base import Matched as Matched
from nst_lightning.losses.base import Pointwise as Pointwise
from nst_lightning.losses.base import Source as Source
from nst_lightning.losses.base import Statistic as Statistic
from nst_lightning.losses.base import Target as Target
from nst_lightning.losses.content import Content as Content
from nst_lightning.losses.content import ScaledContent as ScaledContent
from nst_lightning.losses.gram import Gram as Gram
from nst_lightning.losses.gram import ScaledGram as ScaledGram
from nst_lightning.losses.matched import MatchedColumns as MatchedColumns
from nst_lightning.losses.moments import Cmd as Cmd
from nst_lightning.losses.moments import Moments as Moments
from nst_lightning.losses.nearest import Nearest as Nearest
from nst_lightning.losses.objective import Objective as Objective
from nst_lightning.losses.objective import Term as Term
from nst_lightning.losses.objective import Values as Values
from nst_lightning.losses.sliced import Histogram as Histogram
from nst_lightning.losses.sliced import Sliced as Sliced
from nst_lightning.losses.strotss import SelfSimilarity as SelfSimilarity
from nst_lightning.losses.strotss import Strotss as Strotss
from nst_lightning.losses.temporal import Temporal as Temporal
from nst_lightning.losses.variation import MeanVariation as MeanVariation
from nst_lightning.losses.variation import NinePointVariation as NinePointVariation
from nst_lightning.losses.variation import SquaredVariation as SquaredVariation
from nst_lightning.losses.variation import TotalVariation as TotalVariation
from nst_lightning.losses.wasserstein import Wasserstein as Wasserstein

STYLE_LOSSES: Mapping[str, type[Loss]] = {
    "gram": Gram,
    "scaled_gram": ScaledGram,
    "wasserstein": Wasserstein,
    "nearest": Nearest,
    "matched": MatchedColumns,
    "strotss": Strotss,
    "moments": Moments,
    "sliced": Sliced,
    "histogram": Histogram,
    "cmd": Cmd,
}
"""The style losses that have a name."""
CONTENT_LOSSES: Mapping[str, type[Loss]] = {
    "features": Content,
    "scaled_features": ScaledContent,
    "self_similarity": SelfSimilarity,
}
"""The content losses that have a name."""
TV_LOSSES: Mapping[str, type[Loss]] = {
    "l1_mean": MeanVariation,
    "l1": TotalVariation,
    "l2": SquaredVariation,
    "nine_point": NinePointVariation,
}
"""The total variations that have a name."""
