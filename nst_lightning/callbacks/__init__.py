"""What happens around the optimisation: pictures and films on disk, scores, curves in TensorBoard, a progress bar."""

from nst_lightning.callbacks.checkpoints import Checkpoints
from nst_lightning.callbacks.ending import Ending
from nst_lightning.callbacks.image import ImageWriter
from nst_lightning.callbacks.preview import Preview
from nst_lightning.callbacks.progress import ProgressBar
from nst_lightning.callbacks.scores import Scores
from nst_lightning.callbacks.tensorboard import TensorBoardWriter
from nst_lightning.callbacks.video import VideoWriter

__all__ = [
    "Checkpoints",
    "Ending",
    "ImageWriter",
    "Preview",
    "ProgressBar",
    "Scores",
    "TensorBoardWriter",
    "VideoWriter",
]
