"""Scores of a run: when they are taken, that they are `nst score`'s of the written picture, and where they show."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from nst_lightning.__main__ import main
from nst_lightning.batches import Step
from nst_lightning.callbacks import ImageWriter, ProgressBar, Scores, TensorBoardWriter
from nst_lightning.errors import InputError
from nst_lightning.metrics.scorer import Reference
from nst_lightning.modules import ImageOptimization, StyleTransfer
from tests.callbacks.conftest import Run
from tests.callbacks.test_tensorboard import events
from tests.metrics import trunk

NAMES = ("image_image_1", "image_image_2")
FAST = ("palette",)


class Seen(Callback):
    """What a callback behind the scores finds: the steps that were scored, by batch, and the last losses."""

    def __init__(self, scores: Scores) -> None:
        self.scores = scores
        self.steps: list[list[int]] = []
        self.values: list[dict[str, dict[str, float]]] = []
        self.losses: dict[str, dict[str, float]] = {}

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: Step, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, ImageOptimization)
        if batch.is_first:
            self.steps.append([])
        if self.scores.found:
            assert tuple(self.scores.found) == batch.batch.names
            self.steps[-1].append(batch.index + 1)
            self.values.append({name: dict(values) for name, values in self.scores.found.items()})
        for place, name in enumerate(batch.batch.names):
            self.losses[name] = {key: values[place].item() for key, values in pl_module.losses.items()}


def written(folder: Path) -> dict[str, dict[str, Any]]:
    return {path.stem: json.loads(path.read_text()) for path in (folder / "scores").iterdir()}


def test_the_final_scores_are_those_of_the_written_picture_to_the_last_digit(
    run: Run,
    tmp_path: Path,
    content_png: Path,
    style_png: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    scores = Scores()
    seen = Seen(scores)
    run(scores, seen, ImageWriter(), ProgressBar(), content=str(content_png), style=str(style_png), size=64)
    told = capfd.readouterr().err
    assert re.search(r"content_style .*\n[^\n]* grid- .*\ncontent_style .*\n.*\nscoring took \d+\.\d s, \d.*\n", told)
    ((name, found),) = written(tmp_path).items()
    assert found.pop("pair") == name == "content_style"
    losses = {key.removeprefix("loss/"): found.pop(key) for key in list(found) if key.startswith("loss/")}
    assert set(losses) == {"total", "content", "style"}
    assert losses == {key: value for key, value in seen.losses[name].items() if "/" not in key}
    given = ["--content", str(content_png), "--style", str(style_png), "--output", str(tmp_path / f"{name}.png")]
    assert main(["score", *given, "--results", str(tmp_path / "r")]) == 0
    (row,) = json.loads((tmp_path / "r.json").read_text())
    assert {key: value for key, value in row.items() if key not in ("output", "content", "style")} == found
    assert scores.finals[name]["outline"] == found["outline"] > 0


def test_what_is_wrong_with_a_finished_picture_is_told_with_a_remedy_and_nothing_else_where_no_bar_is_wanted(
    run: Run, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    scores = Scores(("defects",), every=1)
    found = {"grid": 0.75, "border": 0.1, "clipped": math.nan, "blotches": 0.2}
    monkeypatch.setattr(scores.scorer, "scores", lambda output, reference: found)
    run(scores)
    warned = (
        "nst: image_image_1 and 1 more: grid 0.75, above 0.55; try --pooling l2 or avg, or a little more --tv_weight"
    )
    assert capfd.readouterr().err == f"{warned}\n"


def test_with_steps_given_they_are_taken_at_those_and_the_last(run: Run) -> None:
    scores = Scores(FAST, every=3)
    seen = Seen(scores)
    run(scores, seen)
    assert seen.steps == [[3, 6, 8], [3, 6, 8]]
    assert [list(values) for values in seen.values] == [[NAMES[0]]] * 3 + [[NAMES[1]]] * 3
    assert scores.finals == {**seen.values[2], **seen.values[5]}


def test_by_default_it_takes_a_twentieth_of_the_time(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0

    class Slow(Callback):
        def on_train_batch_start(self, *args: Any) -> None:
            nonlocal now
            now += 10

    def slow(output: object, reference: Reference) -> dict[str, float]:
        nonlocal now
        now += 3
        return {"palette": 0.5}

    clock = SimpleNamespace(monotonic=lambda: now)
    monkeypatch.setattr("nst_lightning.callbacks.scores.time", clock)
    scores = Scores(FAST)
    monkeypatch.setattr(scores.scorer, "scores", slow)
    seen = Seen(scores)
    run(Slow(), scores, seen, content=[torch.rand(3, 24, 32)], steps=24)
    # Every second step would be a twelfth. After 20 s, as 0.5 s are guessed; then as 3 s and twice 3 are of 180 s.
    assert seen.steps == [[2, 18, 24]]
    assert scores.seconds == 9
    assert scores.seconds / (now - 100) < 0.05


def test_of_a_run_that_is_fast_enough_a_dozen_are_taken(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nst_lightning.callbacks.scores.SHARE", math.inf)
    scores = Scores(FAST)
    seen = Seen(scores)
    run(scores, seen, steps=30)
    assert seen.steps == [[*range(2, 31, 2)]] * 2  # 30 // 12 is 2


def test_tensorboard_has_a_curve_of_each_and_the_finals_in_the_table(run: Run, tmp_path: Path) -> None:
    scores = Scores(every=4)
    seen = Seen(scores)
    run(scores, seen, TensorBoardWriter(scores=scores), batch_size=2)
    for name in NAMES:
        found = events(tmp_path / "tensorboard" / name)
        tags = {tag.removeprefix("score/") for tag in found.Tags()["scalars"] if tag.startswith("score/")}
        defined = {key for key, value in scores.finals[name].items() if math.isfinite(value)}
        assert {"outline", "palette", "texture_distance_1", "leak", "overall"} <= defined <= tags
        assert "ms_ssim" not in tags
        assert [event.step for event in found.Scalars("score/outline")] == [4, 8]
        curve = [event.value for event in found.Scalars("score/palette_distance")]
        assert curve == pytest.approx([values[name]["palette_distance"] for values in seen.values])
        experiment = HParamsPluginData.FromString(
            found.SummaryMetadata("_hparams_/experiment").plugin_data.content
        ).experiment
        columns = [metric.name.tag for metric in experiment.metric_infos]
        first = ["overall", "outline", "palette", "texture", "leak"]  # what the table shows before any is chosen
        assert columns[: len(first)] == [f"score/{key}" for key in first]
        assert set(columns[: len(defined)]) == {f"score/{key}" for key in defined}
        assert "lpips/map" not in found.Tags()["images"]


def test_the_order_of_the_callbacks_does_not_matter(
    run: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    told = []
    for place in (0, 3):
        scores = Scores(FAST, every=3)
        others = [
            TensorBoardWriter(scores=scores),
            ProgressBar(interval=0, scores=scores, shown="palette"),
            Seen(scores),
        ]
        run(*others[:place], scores, *others[place:])
        curves = [events(tmp_path / "tensorboard" / name).Scalars("score/palette") for name in NAMES]
        shown = re.findall(r"(\d+)/16 \[[^\r\n]*, palette (-?\d+\.\d\d)\]", capfd.readouterr().err)
        told.append(([[(event.step, event.value) for event in curve] for curve in curves], set(shown), scores.finals))
    assert told[0] == told[1]
    assert [[step for step, _ in curve] for curve in told[0][0]] == [[3, 6, 8]] * 2


def test_pairs_of_one_batch_have_each_their_own(run: Run, tmp_path: Path) -> None:
    together, alone = Scores(), Scores()
    run(together, batch_size=2)
    of_batch = written(tmp_path)
    run(alone)
    assert set(of_batch) == set(NAMES)
    assert of_batch[NAMES[0]]["outline"] != of_batch[NAMES[1]]["outline"]
    for name in NAMES:
        for key, value in alone.finals[name].items():
            assert together.finals[name][key] == pytest.approx(value, abs=0.02, nan_ok=True), (name, key)


def test_the_progress_bar_shows_the_score(run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    scores = Scores(FAST, every=2)
    seen = Seen(scores)
    run(scores, seen, ProgressBar(interval=0, scores=scores, shown="palette"))
    told = capfd.readouterr().err
    shown = re.findall(r"(\d+)/16, left [\d:]+, loss \S+?(?:, palette (-?\d+\.\d\d))?, \d+x", told)
    found = {int(step): score for step, score in shown}
    values = [next(iter(each.values()))["palette"] for each in seen.values]
    assert found[1] == found[9] == ""  # of the pair before it is none
    assert [found[step] for step in range(2, 17, 2)] == [f"{value:.2f}" for value in values]
    assert found[3] == found[2]  # until there is another
    # The table has lines of its own.
    assert re.search(r"[\r\n] *palette\+ *\nimage_image_1 +-?\d\.\d{3}\nimage_image_2 ", told)


def test_the_progress_bar_shows_no_score_where_none_is_wanted(run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    scores = Scores(FAST)
    for shown in (None, "overall"):
        run(scores, ProgressBar(interval=0, scores=scores, shown=shown))
        bar = [line for line in re.split(r"[\r\n]", capfd.readouterr().err) if "loss" in line]
        assert bar
        assert not re.search(r"palette|overall|None", "".join(bar))


def checkpoint(folder: Path, every: int = 5) -> ModelCheckpoint:
    return ModelCheckpoint(folder, filename="{step}", every_n_train_steps=every, save_top_k=-1)


def test_it_adds_no_parameters_and_nothing_to_a_checkpoint(run: Run, tmp_path: Path, hub: Path) -> None:
    trunk.put(hub)
    found = []
    for name, callbacks in (("without", []), ("with", [Scores(every=2)])):
        module = StyleTransfer(content_layers="relu2_1", style_layers="relu1_1,relu2_1")
        run(*callbacks, checkpoint(tmp_path / name), module=module)
        saved = torch.load(tmp_path / name / "step=10.ckpt", weights_only=True)
        assert [key for key, _ in module.named_parameters() if not key.startswith("backbone")] == ["image"]
        found.append(saved)
    without, with_scores = found
    assert with_scores.keys() == without.keys()
    assert with_scores["state_dict"].keys() == without["state_dict"].keys() == {"image"}
    assert len(with_scores["callbacks"]) == len(without["callbacks"]) == 1
    assert torch.equal(with_scores["state_dict"]["image"], without["state_dict"]["image"])


def test_a_resumed_run_has_the_same_final_scores(run: Run, tmp_path: Path) -> None:
    whole, rest = Scores(every=3), Scores(every=3)
    run(whole, checkpoint(tmp_path / "kept"))
    expected = written(tmp_path)
    for path in (tmp_path / "scores").iterdir():
        path.unlink()
    with pytest.warns(UserWarning, match="dirpath has changed"):
        run(rest, checkpoint(tmp_path / "again"), ckpt_path=tmp_path / "kept" / "step=5.ckpt")
    assert written(tmp_path) == expected


def test_what_is_undefined_is_left_out_of_tensorboard_and_null_in_the_file(run: Run, tmp_path: Path, hub: Path) -> None:
    """A grey photograph has no outlines, and 16 x 12 and 32 x 24 px are too few for LPIPS, its map too."""
    trunk.put(hub)
    scores = Scores(every=2)
    run(scores, TensorBoardWriter(scores=scores), content=[torch.full((3, 24, 32), 0.5)])
    ((name, found),) = written(tmp_path).items()
    undefined = {"outline", "ms_ssim", "lpips", "overall", "texture_distance_3"}
    undefined |= {"grid", "border", "clipped", "blotches"}
    assert {key for key, value in found.items() if value is None} == undefined
    tags = events(tmp_path / "tensorboard" / name).Tags()
    assert "score/palette" in tags["scalars"]
    assert not {"score/outline", "score/lpips", "score/overall"} & set(tags["scalars"])
    assert "lpips/map" not in tags["images"]


def test_a_picture_without_a_texture_is_no_end_of_a_run(run: Run, tmp_path: Path) -> None:
    """A style image of 32 x 16 px has 16 x 8 at the first stage, and 8 x 4 where it is to be half as large."""
    run(Scores(every=1), style=torch.rand(3, 16, 32), style_scale=0.5, content=[torch.rand(3, 24, 32)])
    ((_, found),) = written(tmp_path).items()
    assert found["texture"] is not None
    assert found["overall"] is not None


def test_tensorboard_has_a_map_of_lpips_black_where_nothing_differs(
    run: Run, tmp_path: Path, hub: Path, content_png: Path
) -> None:
    trunk.put(hub)
    scores = Scores(("lpips",), every=1)
    writer = TensorBoardWriter(scores=scores)
    still = StyleTransfer(content_layers="relu2_1", style_layers="relu1_1", style_weight=0, tv_weight=0)
    options: dict[str, Any] = {"content": str(content_png), "size": 64, "steps": 2, "stages": 1}
    run(scores, writer, module=still, **options)
    ((name, found),) = written(tmp_path).items()
    assert found["lpips"] == 0
    assert len(events(tmp_path / "tensorboard" / name).Images("lpips/map")) == 2


@pytest.mark.parametrize("every", [0, -3])
def test_refuses_an_interval_below_1(every: int) -> None:
    with pytest.raises(InputError, match=f"^score_every must be at least 1, got {every}$"):
        Scores(every=every)


def test_refuses_an_unknown_score() -> None:
    with pytest.raises(InputError, match=r"^unknown score 'nonsense'; known are "):
        Scores(("nonsense",))


def test_a_run_says_nothing_of_what_is_left_out_everywhere(run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    run(Scores())
    assert "LPIPS" not in capfd.readouterr().err
