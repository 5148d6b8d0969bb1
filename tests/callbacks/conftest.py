"""A short real run to look at."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback

from nst_lightning.api import quiet
from nst_lightning.data import PairDataModule
from nst_lightning.modules import ImageOptimization, StyleTransfer
from nst_lightning.progress import Progress

Run = Callable[..., L.Trainer]


def fit(
    root: Path,
    *callbacks: Callback,
    ckpt_path: Path | None = None,
    module: ImageOptimization | None = None,
    progress: Progress | None = None,
    **data_options: Any,
) -> L.Trainer:
    """Runs two pairs of noise, 4 steps at 16 px and 4 at 32 px, with the callbacks given."""
    contents: Any = [torch.rand(3, 24, 32, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2)]
    style: Any = torch.rand(3, 28, 20, generator=torch.Generator().manual_seed(3))
    given = {"content": contents, "style": style, "size": 32, "steps": 8, "stages": 2, **data_options}
    if module is None:
        module = StyleTransfer(
            content_layers="relu2_1", style_layers="relu1_1,relu2_1", style_loss="gram", style_weight=5.0
        )
    data = PairDataModule(**given)
    if progress is not None:
        data.progress = progress
    with quiet():
        trainer = L.Trainer(
            accelerator="cpu",
            max_epochs=1,
            logger=False,
            enable_checkpointing=any("Checkpoint" in type(callback).__name__ for callback in callbacks),
            enable_model_summary=False,
            enable_progress_bar=any("Progress" in type(callback).__name__ for callback in callbacks),
            default_root_dir=root,
            callbacks=list(callbacks),
        )
        trainer.fit(module, datamodule=data, ckpt_path=None if ckpt_path is None else str(ckpt_path))
    return trainer


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs `fit` in the test's folder."""
    return partial(fit, tmp_path)
