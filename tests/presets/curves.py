"""The first losses of every preset: python -m tests.presets.curves writes them anew, into curves.json."""

from __future__ import annotations

import json
from functools import partial
from importlib import import_module
from pathlib import Path

import lightning as L
import torch

from nst_lightning import images, presets
from nst_lightning.data import PairDataModule
from nst_lightning.modules import ImageOptimization, StyleTransfer
from nst_lightning.schedule import Stage
from tests.benchmarks.contenders import CONTENT, STYLE
from tests.benchmarks.trainer import fit

FILE = Path(__file__).with_suffix(".json")
STEPS = 10


class _Curve(L.Callback):
    def __init__(self) -> None:
        self.totals: list[float] = []

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: object) -> None:
        assert isinstance(pl_module, ImageOptimization)
        self.totals.append(pl_module.losses["total"].item())


def losses(name: str, steps: int = STEPS) -> list[float]:
    """Returns the total losses of the first steps at 64 px, temple and church, on the bundled VGG16."""
    model = {key: value for key, value in presets.options(name).items() if key != "stages"}
    made = model.pop("optimizer", None)
    if made is not None:
        module_name, _, class_name = made["class_path"].rpartition(".")
        model["optimizer"] = partial(getattr(import_module(module_name), class_name), **made.get("init_args", {}))
    content, style = (images.resize(images.read(str(file)).rgb, (48, 64)).clamp(0, 1)[0] for file in (CONTENT, STYLE))
    weights = presets.options(name)["stages"][0].get("weights", {})
    data = PairDataModule(content, style, stages=[Stage(64, steps, weights)])  # type: ignore[arg-type] # see api.stylize
    curve = _Curve()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    fit(StyleTransfer(**{**model, "backbone": "vgg16", "weights": "oxford"}), data, curve)
    torch.set_num_threads(threads)
    return curve.totals


if __name__ == "__main__":
    FILE.write_text(json.dumps({name: losses(name) for name in presets.names()}, indent=1) + "\n")
