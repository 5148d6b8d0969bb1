"""Scores of style transfer: torchmetrics with their logic in functions, see README.md for what each cannot see."""

from nst_lightning.metrics.features import FeatureDistance
from nst_lightning.metrics.leak import Leak
from nst_lightning.metrics.outline import Outline
from nst_lightning.metrics.overall import Overall
from nst_lightning.metrics.palette import Palette, PaletteDistance
from nst_lightning.metrics.perceptual import Lpips
from nst_lightning.metrics.similarity import Similarity
from nst_lightning.metrics.texture import Texture, TextureDistance

__all__ = [
    "FeatureDistance",
    "Leak",
    "Lpips",
    "Outline",
    "Overall",
    "Palette",
    "PaletteDistance",
    "Similarity",
    "Texture",
    "TextureDistance",
]
