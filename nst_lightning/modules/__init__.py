"""The image as a LightningModule: the output is the parameter, the frozen backbone a submodule."""

from nst_lightning.modules.loop import PairsLoop
from nst_lightning.modules.optimization import ImageOptimization, tag_of
from nst_lightning.modules.painter import Painter
from nst_lightning.modules.reconstruction import Reconstruction
from nst_lightning.modules.style_transfer import StyleTransfer
from nst_lightning.modules.trainer import check_settings, check_trainer

__all__ = [
    "ImageOptimization",
    "Painter",
    "PairsLoop",
    "Reconstruction",
    "StyleTransfer",
    "check_settings",
    "check_trainer",
    "tag_of",
]
