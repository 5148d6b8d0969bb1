"""A run through Lightning's Trainer that writes nothing but what callbacks do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import torch

from nst_lightning.api import quiet
from nst_lightning.data import PairDataModule
from nst_lightning.modules import ImageOptimization
from tests.benchmarks.machine import CPU


def fit(
    module: ImageOptimization,
    data: PairDataModule,
    *callbacks: L.Callback,
    device: torch.device = CPU,
    precision: str = "32-true",
    folder: Path | None = None,
    **settings: Any,
) -> None:
    """Optimises the images of a data module; what callbacks write goes into a folder, settings go to the trainer."""
    with quiet():
        L.Trainer(
            accelerator="cpu" if device.type == "cpu" else "gpu",
            devices=1,
            precision=precision,  # type: ignore[arg-type]
            max_epochs=1,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=False,
            callbacks=list(callbacks),
            default_root_dir=folder,
            **{"logger": False, **settings},
        ).fit(module, datamodule=data)
