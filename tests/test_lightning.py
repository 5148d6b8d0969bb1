"""As one of Lightning's projects: a Trainer of the user's own, its loggers, metrics and checkpoints."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from PIL import Image

from nst_lightning import PairDataModule, StyleTransfer
from nst_lightning.api import quiet
from nst_lightning.callbacks import Scores
from nst_lightning.errors import InputError

README = Path(__file__).parents[1] / "README.md"
SHALLOW: dict[str, Any] = {"content_layers": "relu2_1", "style_layers": "relu1_1,relu2_1", "style_loss": "gram"}
OF_LIGHTNING = pytest.mark.filterwarnings(
    "ignore:The number of training batches:UserWarning",  # fewer than the interval of logs
    "ignore:.max_epochs. was not set:UserWarning",  # what is tried
    "ignore:.*does not have many workers:UserWarning",  # a schedule is no loader of files
    "ignore:.*tensorboardX:UserWarning",
    "ignore:You defined a `validation_step` but:UserWarning",
)


def data(**options: Any) -> PairDataModule:
    pictures: Any = [torch.rand(3, 24, 32, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2)]
    return PairDataModule(pictures[0], pictures[1], **{"size": 32, "steps": 12, **options})


@OF_LIGHTNING
def test_the_readmes_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("photo.jpg", "painting.jpg"):
        Image.fromarray(np.random.default_rng(len(name)).integers(0, 256, (40, 48, 3), dtype=np.uint8)).save(name)
    (code,) = re.findall(r"```python\n(import lightning.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    with quiet():
        exec(code.replace("size=256, steps=100", "size=48, steps=12"))
    assert re.search(r"tensor\(\d+\.\d+.*torch\.Size\(\[1, 3, 40, 48\]\)", capsys.readouterr().out)
    assert Path("picture.png").is_file()


@OF_LIGHTNING
def test_a_default_trainer_makes_one_run_of_it(tmp_path: Path) -> None:
    with quiet():
        trainer = L.Trainer(default_root_dir=tmp_path, accelerator="cpu", enable_progress_bar=False)
        trainer.fit(StyleTransfer(**SHALLOW), datamodule=data())
    assert trainer.global_step == 12


@OF_LIGHTNING
def test_loggers_and_callbacks_get_losses_and_scores_and_a_checkpoint_its_image_back(tmp_path: Path) -> None:
    module, scores = StyleTransfer(**SHALLOW, style_weight=3.0), Scores(("palette",), every=5)
    with quiet():
        trainer = L.Trainer(
            default_root_dir=tmp_path,
            logger=CSVLogger(tmp_path),
            max_epochs=1,
            log_every_n_steps=4,
            callbacks=[scores],
            enable_progress_bar=False,
        )
        trainer.fit(module, datamodule=data())
    with open(tmp_path / "lightning_logs/version_0/metrics.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    losses = {int(row["step"]): float(row["loss/total"]) for row in rows if row["loss/total"]}
    palettes = {int(row["step"]): float(row["score/palette"]) for row in rows if row["score/palette"]}
    assert [*losses] == [3, 7, 11]
    assert [*palettes] == [5, 10, 12]
    assert losses[11] == pytest.approx(module.losses["total"].item())
    assert trainer.callback_metrics["term/style/relu1_1"] == module.losses["style/relu1_1"]
    assert palettes[12] == pytest.approx(trainer.callback_metrics["score/palette"].item())
    assert palettes[12] == pytest.approx(next(iter(scores.finals.values()))["palette"])
    (path,) = tmp_path.rglob("*.ckpt")
    again = StyleTransfer.load_from_checkpoint(path)
    assert torch.equal(again.image, module.image)
    assert again.hparams["style_weight"] == 3.0
    assert again.losses == {}
    with quiet():
        (found,) = L.Trainer(logger=False, callbacks=[Scores(("palette",))], enable_progress_bar=False).validate(
            again, datamodule=data(), verbose=False
        )
    assert found["score/palette"] == pytest.approx(palettes[12])


class Watcher(L.Callback):
    """Notes after each step what a callback is told of its loss, and what it was."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, float]] = []

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: object) -> None:
        assert isinstance(pl_module, StyleTransfer)
        self.seen.append((trainer.callback_metrics["loss/total"].item(), pl_module.losses["total"].item()))


@OF_LIGHTNING
@pytest.mark.parametrize("every", [1, 0])
def test_callbacks_are_told_the_losses_of_the_very_step_and_none_where_nothing_is_logged(every: int) -> None:
    watcher = Watcher()
    off: dict[str, Any] = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar"), False)
    with quiet():
        trainer = L.Trainer(**off, max_epochs=1, log_every_n_steps=every, callbacks=[watcher] if every == 1 else [])
        module = StyleTransfer(**SHALLOW)
        trainer.fit(module, datamodule=data(steps=4))
    assert all(told == was for told, was in watcher.seen)
    assert trainer.callback_metrics["loss/total"] == module.losses["total"]


@OF_LIGHTNING
def test_what_cannot_be_fitted_or_validated_is_said_in_a_line(tmp_path: Path) -> None:
    off: dict[str, Any] = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar"), False)
    module, trainer = StyleTransfer(**SHALLOW), L.Trainer(**off, max_epochs=1)
    with pytest.raises(InputError, match=r"^the data must be a PairDataModule, as in trainer\.fit"), quiet():
        trainer.fit(module, train_dataloaders=[1, 2])
    with pytest.raises(InputError, match=r"^there is no picture of image_image to validate: paint it first$"), quiet():
        trainer.validate(module, datamodule=data())
