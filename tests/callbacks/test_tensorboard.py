"""The event files, read back with TensorBoard's own reader."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from nst_lightning.batches import Step
from nst_lightning.callbacks import TensorBoardWriter
from nst_lightning.errors import InputError
from nst_lightning.inspection import drawn, gram_figure, tiles_figure
from nst_lightning.modules import ImageOptimization, StyleTransfer
from nst_lightning.progress import Progress
from tests.callbacks.conftest import Run


class Losses(Callback):
    """Keeps each step's losses and the finished images, of every batch."""

    def __init__(self) -> None:
        self.curves: list[list[dict[str, float]]] = []
        self.images: list[Any] = []

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: Step, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, ImageOptimization)
        if batch.index == 0:
            self.curves.append([])
        self.curves[-1].append({name: value[0].item() for name, value in pl_module.losses.items()})
        if batch.is_last:
            self.images.append(pl_module.result[0].permute(1, 2, 0).numpy())


def events(folder: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0})
    accumulator.Reload()
    return accumulator


def test_writes_curves_pictures_and_settings_of_every_pair(run: Run, tmp_path: Path) -> None:
    losses = Losses()
    run(losses, TensorBoardWriter(scalars_every=3, images_every=5))
    names = ["image_image_1", "image_image_2"]
    assert sorted(path.name for path in (tmp_path / "tensorboard").iterdir()) == ["_run", *names]
    for place, name in enumerate(names):
        found = events(tmp_path / "tensorboard" / name)
        for tag, key in {
            "loss/total": "total",
            "loss/content": "content",
            "term/style/relu2_1": "style/relu2_1",
        }.items():
            written = {event.step: event.value for event in found.Scalars(tag)}
            expected = {step: losses.curves[place][step - 1][key] for step in (1, 3, 6, 8)}
            assert written == pytest.approx(expected), tag
        pictures = {tag: [event.step for event in found.Images(tag)] for tag in found.Tags()["images"]}
        assert pictures == {"source/content": [0], "source/style": [0], "picture/output": [1, 5, 8]}
        with Image.open(io.BytesIO(found.Images("picture/output")[-1].encoded_image_string)) as picture:
            assert np.abs(np.asarray(picture) / 255 - losses.images[place]).max() <= 1 / 255
        assert {tag.partition("/")[0] for tag in found.Tags()["scalars"]} == {"loss", "log10", "term"}


def test_losses_have_logarithmic_curves_and_what_is_0_has_none(run: Run, tmp_path: Path) -> None:
    module = StyleTransfer(content_layers="relu2_1", style_layers="relu1_1", style_loss="gram", content_weight=0)
    run(TensorBoardWriter(), module=module, content=torch.rand(3, 24, 32))
    found = events(tmp_path / "tensorboard" / "image_image")
    assert [tag for tag in found.Tags()["scalars"] if tag.startswith("log10/")] == ["log10/total", "log10/style"]
    losses, logs = (found.Scalars(tag) for tag in ("loss/style", "log10/style"))
    assert [10**event.value for event in logs] == pytest.approx([event.value for event in losses], rel=1e-5)


def test_settings_stand_in_the_hparams_table(run: Run, tmp_path: Path) -> None:
    run(TensorBoardWriter())
    found = events(tmp_path / "tensorboard" / "image_image_1")
    experiment = HParamsPluginData.FromString(
        found.SummaryMetadata("_hparams_/experiment").plugin_data.content
    ).experiment
    # The table's results are the last points of the curves.
    curves = {tag for tag in found.Tags()["scalars"] if not tag.startswith("log10/")}
    assert {metric.name.tag for metric in experiment.metric_infos} == curves
    # It shows five columns unless asked for others, first of all those that are said to differ.
    shown = {info.name for info in experiment.hparam_infos if info.differs}
    assert shown == {"pair", "style_weight", "content_weight", "style_loss", "stages"}
    content = found.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    settings = HParamsPluginData.FromString(content).session_start_info.hparams
    assert settings["style_weight"].number_value == 5
    assert settings["init"].string_value == "content"
    assert settings["pair"].string_value == "image_image_1"


def test_a_single_pair_has_one_run_directory(run: Run, tmp_path: Path) -> None:
    run(TensorBoardWriter(), content=torch.rand(3, 24, 32))
    assert len([*(tmp_path / "tensorboard").iterdir()]) == 1


def test_images_of_one_batch_have_run_directories_of_their_own(run: Run, tmp_path: Path) -> None:
    run(TensorBoardWriter(scalars_every=4), batch_size=2)
    one, other = (events(tmp_path / "tensorboard" / f"image_image_{place}").Scalars("loss/total") for place in (1, 2))
    assert [event.step for event in one] == [event.step for event in other] == [1, 4, 8]
    assert one[-1].value != other[-1].value


def test_representations_go_with_every_picture_of_the_output(run: Run, tmp_path: Path) -> None:
    writer = TensorBoardWriter(images_every=5, representations=["relu2_1"])
    trainer = run(writer, batch_size=2)
    module: Any = trainer.lightning_module
    features = module.backbone(module.result)["relu2_1"]
    for place in (1, 2):
        found = events(tmp_path / "tensorboard" / f"image_image_{place}")
        assert not {"features/relu1_1", "gram/relu1_1"} & set(found.Tags()["images"])
        feature = features[place - 1 : place]
        for tag, expected in (
            ("features/relu2_1", drawn(tiles_figure(feature, title="relu2_1"))),
            ("gram/relu2_1", drawn(gram_figure(feature, "relu2_1"))),
        ):
            assert [event.step for event in found.Images(tag)] == [1, 5, 8]
            with Image.open(io.BytesIO(found.Images(tag)[-1].encoded_image_string)) as picture:
                assert np.abs(np.asarray(picture) / 255 - expected[0].permute(1, 2, 0).numpy()).max() <= 2 / 255


def test_refuses_to_show_a_layer_that_the_losses_do_not_read(run: Run, tmp_path: Path) -> None:
    message = "^layer 'relu3_1' cannot be shown: the losses of this run read relu2_1, relu1_1$"
    with pytest.raises(InputError, match=message):
        run(TensorBoardWriter(representations=["relu2_1", "relu3_1"]))
    assert not (tmp_path / "tensorboard").exists()


@pytest.mark.parametrize("name", ["scalars_every", "images_every"])
def test_refuses_an_interval_below_1(name: str) -> None:
    options: dict[str, Any] = {name: 0}
    with pytest.raises(InputError, match=f"{name} must be at least 1, got 0"):
        TensorBoardWriter(**options)


# ---- the run's own curve ----


@pytest.mark.parametrize(
    ("batch_size", "finished", "expected"),
    [
        (1, (), {1: 60 / 5, 2: 2 * 60 / 8}),
        (2, (), {2: 2 * 60 / 5}),
        (1, ("image_image_1",), {2: 60 / 5}),  # what an earlier run has done is no part of this one's pace
    ],
)
def test_the_run_has_a_curve_of_the_pairs_a_minute(
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    batch_size: int,
    finished: tuple[str, ...],
    expected: dict[int, float],
) -> None:
    clock = iter([100.0, 105.0, 108.0])
    monkeypatch.setattr("nst_lightning.callbacks.tensorboard.time.monotonic", lambda: next(clock))
    run(TensorBoardWriter(), batch_size=batch_size, progress=Progress(frozenset(finished)))
    folder = tmp_path / "tensorboard" / "_run"
    assert len(list(folder.iterdir())) == 1
    found = events(folder)
    assert found.Tags()["scalars"] == ["pairs/per_minute"]
    assert {event.step: event.value for event in found.Scalars("pairs/per_minute")} == pytest.approx(expected)


def test_the_curve_goes_on_after_a_resume(run: Run, tmp_path: Path) -> None:
    run(TensorBoardWriter())
    before = events(tmp_path / "tensorboard" / "_run").Scalars("pairs/per_minute")
    run(TensorBoardWriter(), progress=Progress(frozenset(["image_image_1"])))
    after = events(tmp_path / "tensorboard" / "_run").Scalars("pairs/per_minute")
    assert [event.step for event in before] == [event.step for event in after] == [1, 2]
    assert after[0] == before[0]
    assert after[1].wall_time > before[1].wall_time  # the point of the step taken again is the new one


def test_of_several_processes_each_has_a_curve(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nst_lightning.modules.optimization.check_trainer", lambda trainer: None)
    monkeypatch.setattr(L.Trainer, "world_size", 3)
    run(TensorBoardWriter())
    runs = {path.name for path in (tmp_path / "tensorboard").iterdir()}
    assert runs == {"_run_rank0", "image_image_1", "image_image_2"}
