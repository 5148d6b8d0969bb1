"""What a run leaves for another to go on from, in runs that end well, fail, and are resumed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from nst_lightning import runs
from nst_lightning.batches import Step
from nst_lightning.callbacks import Checkpoints
from nst_lightning.errors import InputError
from nst_lightning.modules import ImageOptimization
from nst_lightning.progress import Progress, Saved, note_of
from nst_lightning.schedule import Stage
from tests.callbacks.conftest import Run

ONE, TWO = "image_image_1", "image_image_2"
STAGES = (Stage(16, 4), Stage(32, 4))
ALWAYS, NEVER = 1e-9, 365 * 24 * 60  # minutes


def checkpoints(folder: Path, minutes: float) -> Checkpoints:
    """Those of the run in a folder, which writes them to its folder `checkpoints`."""
    return Checkpoints(runs.Run(folder), minutes)


def progress(folder: Path) -> Progress:
    run = runs.Run(folder)
    for path in (run.config, *map(run.picture, run.finished())):  # which no one writes here
        path.touch()
    return Progress.of(folder)


def files(folder: Path) -> set[str]:
    """All but the settings, which stay."""
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    return found - {"begun.json", "checkpoints/begun.json"}


class Watch(Callback):
    """Keeps what is in a folder as each step begins, the steps themselves, and the finished images by name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seen: list[set[str]] = []
        self.steps: list[tuple[tuple[str, ...], int]] = []
        self.results: dict[str, Tensor] = {}

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Step, batch_idx: int
    ) -> None:
        self.seen.append(files(self.folder))
        self.steps.append((batch.batch.names, batch.index))

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: Step, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, ImageOptimization)
        if batch.is_last:
            self.results.update(zip(batch.batch.names, pl_module.result, strict=True))


class Stop(Callback):
    """Fails after so many steps, or has the trainer stop."""

    def __init__(self, after: int, gently: bool = False) -> None:
        self.after = after
        self.gently = gently

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: Step, batch_idx: int
    ) -> None:
        if trainer.global_step == self.after and self.gently:
            trainer.should_stop = True
        elif trainer.global_step == self.after:
            raise RuntimeError("stopped")


def test_a_batch_has_a_checkpoint_until_it_is_finished(run: Run, tmp_path: Path) -> None:
    watch = Watch(tmp_path / "checkpoints")
    run(watch, checkpoints(tmp_path, ALWAYS))
    first, second, done = (
        (f"{ONE}.ckpt", f"before/{ONE}.ckpt"),
        (f"{TWO}.ckpt", f"before/{TWO}.ckpt"),
        f"finished/{ONE}",
    )
    assert watch.seen[:9] == [set(), {first[0]}, *[{*first}] * 6, {done}]
    assert watch.seen[9:] == [{done, second[0]}, *[{done, *second}] * 6]
    assert files(tmp_path / "checkpoints") == {done, f"finished/{TWO}"}
    assert progress(tmp_path).finished == {ONE, TWO}
    assert progress(tmp_path).saved == ()


def test_a_batch_of_several_is_named_after_its_first_pair(run: Run, tmp_path: Path) -> None:
    watch = Watch(tmp_path / "checkpoints")
    run(watch, checkpoints(tmp_path, ALWAYS), batch_size=2)
    assert watch.seen == [set(), {f"{ONE}.ckpt"}, *[{f"{ONE}.ckpt", f"before/{ONE}.ckpt"}] * 6]
    assert progress(tmp_path).finished == {ONE, TWO}


def test_nothing_is_saved_before_it_is_time(run: Run, tmp_path: Path) -> None:
    watch = Watch(tmp_path / "checkpoints")
    run(watch, checkpoints(tmp_path, NEVER))
    assert watch.seen == [set()] * 8 + [{f"finished/{ONE}"}] * 8


@pytest.mark.parametrize(
    ("after", "name", "stage_index", "taken"),
    [(1, ONE, 0, 1), (4, ONE, 0, 4), (5, ONE, 1, 5), (7, ONE, 1, 7), (9, TWO, 0, 1), (14, TWO, 1, 6)],
)
def test_a_run_that_fails_leaves_a_checkpoint_that_another_goes_on_from(
    run: Run, tmp_path: Path, after: int, name: str, stage_index: int, taken: int
) -> None:
    whole, folder = Watch(tmp_path), tmp_path / "checkpoints"
    run(whole)
    with pytest.raises(RuntimeError, match=r"^stopped$"):
        run(Stop(after), checkpoints(folder.parent, NEVER))
    done = frozenset({ONE} if name == TWO else ())
    (left,) = progress(folder.parent).saved
    assert left == Saved(folder / f"{name}.ckpt", (name,), STAGES, taken)
    assert left.stage_index == stage_index
    assert progress(folder.parent).finished == done
    watch = Watch(folder)
    run(watch, checkpoints(folder.parent, NEVER), progress=Progress(done, (left,)))
    assert watch.steps == whole.steps[after:]
    assert f"{name}.ckpt" in watch.seen[0]
    assert watch.results.keys() == {ONE, TWO} - done
    for each, result in watch.results.items():
        assert torch.equal(result, whole.results[each])
    assert files(folder) == {f"finished/{ONE}", f"finished/{TWO}"}


@pytest.mark.parametrize("minutes", [ALWAYS, NEVER])
@pytest.mark.parametrize(("after", "left"), [(3, (ONE, 0, 3)), (8, None), (13, (TWO, 1, 5)), (16, None)])
def test_a_run_that_is_told_to_stop_leaves_a_checkpoint_of_a_batch_it_began(
    run: Run, tmp_path: Path, minutes: float, after: int, left: tuple[str, int, int] | None
) -> None:
    run(Stop(after, gently=True), checkpoints(tmp_path, minutes))
    found = [(each.names[0], each.stage_index, each.taken) for each in progress(tmp_path).saved]
    assert found[:1] == ([] if left is None else [left])


def test_a_batch_of_several_goes_on_too(run: Run, tmp_path: Path) -> None:
    whole, folder = Watch(tmp_path), tmp_path / "checkpoints"
    run(whole, batch_size=2)
    with pytest.raises(RuntimeError, match=r"^stopped$"):
        run(Stop(3), checkpoints(folder.parent, NEVER), batch_size=2)
    assert progress(folder.parent).saved == (Saved(folder / f"{ONE}.ckpt", (ONE, TWO), STAGES, 3),)
    watch = Watch(folder)
    run(watch, checkpoints(folder.parent, NEVER), progress=progress(folder.parent))  # whatever the batch size is now
    assert watch.steps == [((ONE, TWO), index) for index in range(3, 8)]
    assert all(torch.equal(watch.results[name], whole.results[name]) for name in (ONE, TWO))


def test_a_failure_after_the_last_step_leaves_the_batch_unfinished(run: Run, tmp_path: Path) -> None:
    # As when the picture cannot be written.
    with pytest.raises(RuntimeError, match=r"^stopped$"):
        run(Stop(8), checkpoints(tmp_path, ALWAYS))
    assert progress(tmp_path).finished == frozenset()
    assert [(left.names, left.taken) for left in progress(tmp_path).saved] == [((ONE,), 7), ((ONE,), 6)]


def test_what_earlier_runs_left_of_these_pairs_is_removed(run: Run, tmp_path: Path) -> None:
    folder, watch = tmp_path / "checkpoints", Watch(tmp_path / "checkpoints")
    others = {"other.ckpt", "finished/other", "notes.txt"}
    for name in {*others, f"{ONE}.ckpt", f"{TWO}.ckpt", f"finished/{ONE}", f"finished/{TWO}"}:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    run(watch, checkpoints(folder.parent, NEVER))
    assert watch.seen[0] == others
    assert files(folder) == others | {f"finished/{ONE}", f"finished/{TWO}"}


def test_a_process_that_does_not_write_leaves_the_folder_alone(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nst_lightning.callbacks.checkpoints.is_writer", lambda trainer: False)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / f"{ONE}.ckpt").touch()
    run(checkpoints(tmp_path, NEVER))
    assert files(tmp_path / "checkpoints") == {f"{ONE}.ckpt"}


def test_checkpoints_are_found_newest_first(tmp_path: Path) -> None:
    contents: dict[str, tuple[str, ...]] = {"b": ("b",), "a": ("a", "c"), "between": (), "d": ("d",)}
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    for age, (name, names) in enumerate(contents.items()):
        note: dict[str, Any] = {} if names == () else {"batch": note_of(names, STAGES, 5)}
        torch.save({"state_dict": {"image": torch.zeros(1)}, **note}, folder / f"{name}.ckpt")
        os.utime(folder / f"{name}.ckpt", (1e9 - age, 1e9 - age))
    assert progress(tmp_path).saved == tuple(
        Saved(folder / f"{names[0]}.ckpt", names, STAGES, 5) for names in (("b",), ("a", "c"), ("d",))
    )


def test_a_checkpoint_of_an_earlier_version_is_left_alone_and_named(tmp_path: Path) -> None:
    note = {"names": ["a"], "stages": [[16, 4]], "stage_index": 0, "taken": 2}
    torch.save({"state_dict": {"image": torch.zeros(1)}, "batch": note}, tmp_path / "a.ckpt")
    with pytest.warns(UserWarning, match=r"a\.ckpt: is of an earlier version; the pairs it was of will begin anew"):
        assert Progress.of(tmp_path / "a.ckpt").saved == ()


def test_a_run_without_checkpoints_has_nothing_done(tmp_path: Path) -> None:
    assert progress(tmp_path) == Progress()


def test_a_folder_that_is_no_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r": is not the folder of a run, for it has no config\.yaml$"):
        Progress.of(tmp_path)


def test_progress_is_told_to_other_processes_as_text() -> None:
    done = Progress(frozenset({"x", "y"}), (Saved(Path("a.ckpt"), ("a", "c"), STAGES, 5),))
    assert Progress.from_json(done.as_json()) == done


@pytest.mark.parametrize("minutes", [0.0, -1.0, float("nan"), float("inf"), 525_601.0])
def test_refuses_minutes_out_of_range(tmp_path: Path, minutes: float) -> None:
    message = f"^checkpoint_minutes must be above 0 and at most 525600, got {minutes}$"
    with pytest.raises(InputError, match=message):
        checkpoints(tmp_path, minutes)


def test_a_checkpoint_that_lightning_goes_on_from_stays_until_its_batch_is_finished(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    with pytest.raises(RuntimeError):
        run(checkpoints(folder.parent, ALWAYS), Stop(3))
    assert files(folder) == {f"{ONE}.ckpt", f"before/{ONE}.ckpt"}
    watch = Watch(folder)
    run(checkpoints(folder.parent, NEVER), watch, ckpt_path=folder / f"{ONE}.ckpt")
    assert watch.seen[0] == {f"{ONE}.ckpt", f"before/{ONE}.ckpt"}
    assert files(folder) == {f"finished/{ONE}", f"finished/{TWO}"}
