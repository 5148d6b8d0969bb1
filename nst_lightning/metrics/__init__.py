"""Scores of style transfer: torchmetrics with their logic in functions, see README.md for what each cannot see."""

from nst_lightning.metrics.defects import Blotches as Blotches
from nst_lightning.metrics.defects import Border as Border
from nst_lightning.metrics.defects import Clipped as Clipped
from nst_lightning.metrics.defects import Grid as Grid
from nst_lightning.metrics.features import FeatureDistance as FeatureDistance
from nst_lightning.metrics.leak import Leak as Leak
from nst_lightning.metrics.outline import Outline as Outline
from nst_lightning.metrics.overall import Overall as Overall
from nst_lightning.metrics.palette import Palette as Palette
from nst_lightning.metrics.palette import PaletteDistance as PaletteDistance
from nst_lightning.metrics.perceptual import Lpips as Lpips
from nst_lightning.metrics.similarity import Similarity as Similarity
from nst_lightning.metrics.texture import Texture as Texture
from nst_lightning.metrics.texture import TextureDistance as TextureDistance
