"""Work beside the steps: its order, its room, and what becomes of its errors."""

from __future__ import annotations

import threading
from functools import partial
from pathlib import Path

import pytest

from nst_lightning import images
from nst_lightning.callbacks import ImageWriter, TensorBoardWriter
from nst_lightning.callbacks.beside import Beside
from nst_lightning.image_files import ImageError
from tests.callbacks.conftest import Run


def test_work_is_done_in_order_in_another_thread_and_waits_for_room() -> None:
    beside, gate = Beside(), threading.Event()
    done: list[tuple[int, bool]] = []

    def work(number: int) -> None:
        assert gate.wait(10)
        done.append((number, threading.current_thread() is threading.main_thread()))

    beside.do(partial(work, 0))
    beside.do(partial(work, 1))
    assert done == []
    threading.Timer(0.05, gate.set).start()
    beside.do(partial(work, 2))  # there is room for it once the first is done
    assert (0, False) in done
    beside.finish()
    assert done == [(0, False), (1, False), (2, False)]


def test_what_it_raises_comes_up_where_the_next_is_handed_over_or_at_the_end() -> None:
    beside, gate = Beside(), threading.Event()

    def fail() -> None:
        raise OSError("disk full")

    beside.do(fail)
    beside.settle()  # as a checkpoint is saved, which that must not keep from it
    with pytest.raises(OSError, match="disk full"):
        beside.finish()
    beside.finish()  # once
    beside.do(fail)
    beside.do(gate.set)
    assert gate.wait(10)
    with pytest.raises(OSError, match="disk full"):
        beside.do(gate.set)


def test_a_picture_on_the_way_that_cannot_be_written_ends_the_run(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, *_: object, **__: object) -> Path:
        raise ImageError(f"{path}: cannot be written as PNG (No space left on device)")

    monkeypatch.setattr(images, "write", full)
    with pytest.raises(ImageError, match="No space left on device"):
        run(ImageWriter(every=1))


def test_curves_that_cannot_be_written_are_told_of_and_left_out(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("nst_lightning.callbacks.tensorboard.EventFile.add", full)
    run(TensorBoardWriter())
    said = "nst: the curves in TensorBoard: No space left on device; the run goes on without\n"
    assert capsys.readouterr().err == said
