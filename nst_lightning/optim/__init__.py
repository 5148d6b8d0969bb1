"""Optimisers of images: one L-BFGS an image, Adam for pixels, and gradient descent on a Laplacian pyramid."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from nst_lightning.optim.adam import Adam as Adam
from nst_lightning.optim.adam import carried_state as carried_state
from nst_lightning.optim.graph import StepGraph as StepGraph
from nst_lightning.optim.lbfgs import LBFGS as LBFGS
from nst_lightning.optim.pyramid import Pyramid as Pyramid

NAMED: Mapping[str, type[torch.optim.Optimizer]] = {"lbfgs": LBFGS, "adam": Adam, "pyramid": Pyramid}
"""The names that users give."""
