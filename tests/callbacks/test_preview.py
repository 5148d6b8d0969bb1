"""The preview: there from the first step on, and gone at the end."""

from __future__ import annotations

from pathlib import Path

import lightning as L
import pytest
from lightning.pytorch.callbacks import Callback
from PIL import Image

from nst_lightning.callbacks import Preview
from tests.callbacks.conftest import Run


class Looks(Callback):
    """Notes which previews are there after each step."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sizes: list[tuple[int, int]] = []

    def on_train_batch_end(self, trainer: L.Trainer, *_: object) -> None:
        with Image.open(self.folder / "preview.jpg") as picture:
            self.sizes.append(picture.size)


def test_it_is_there_after_the_first_step_and_gone_at_the_end(run: Run, tmp_path: Path) -> None:
    looks = Looks(tmp_path)
    run(Preview(), looks)
    assert looks.sizes[0] == looks.sizes[7] == (16, 12)  # in the first seconds just the first steps of each pair
    assert not [*tmp_path.glob("preview*")]


def test_it_follows_the_clock(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nst_lightning.callbacks.preview._INTERVAL", 0.0)
    looks = Looks(tmp_path)
    run(Preview(), looks)
    assert looks.sizes[4] == (32, 24)
