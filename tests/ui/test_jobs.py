"""The queue, with a program in the place of `nst fit` that does what the test asks of it."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nst_lightning.errors import InputError
from nst_lightning.ui import jobs
from nst_lightning.ui.jobs import Job, Queue

PROGRAM = f"""#!{sys.executable}
import pathlib, signal, sys, time
words = sys.argv[1:]
assert words[:2] == ["-m", "nst_lightning"] and words[2] in ("fit", "reproduce"), words
folder = pathlib.Path([word for word in words if word.startswith(("--output=", "--resume="))][0].partition("=")[2])
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
assert "--resume" not in words[3] or folder.is_dir()
if "--no" in words:
    sys.stderr.write("  0%| 0/9\\rnst: error: the sea is too wide\\n")
    sys.exit(2)
if "--kill" in words:
    import os
    os.kill(os.getpid(), 9)
steps = folder / "steps" / "photo_painting"
steps.mkdir(parents=True, exist_ok=True)
(folder / "config.yaml").write_text("a: 1\\n")
sys.stderr.write("\\r 8%| 1/12, left 0:01:30, loss 8.7")
sys.stderr.flush()
(steps / "000002.png").write_bytes(b"2")
(folder / "preview.jpg").write_bytes(b"p")
while "--slow" in words:
    time.sleep(0.02)
(folder / "photo_painting.png").write_bytes(b"done")
(folder / "preview.jpg").unlink()
"""


@pytest.fixture(autouse=True)
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "program"
    file.write_text(PROGRAM)
    file.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(file))


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[Queue]:
    with Queue(tmp_path / "runs") as queue:
        yield queue


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def add(queue: Queue, *options: str) -> Job:
    return queue.add(Path("uploads/1/photo.jpg"), Path("uploads/2/painting.jpg"), options)


def is_begun(queue: Queue, job: Job) -> bool:
    return job.state == "painting" and queue.progress(job).left is not None and len(queue.pictures(job)) == 2


def test_runs_are_painted_one_after_the_other(queue: Queue) -> None:
    first, second, third = add(queue, "--slow"), add(queue), add(queue, "--no")
    assert [job.name for job in (first, second, third)] == ["photo_painting", "photo_painting-2", "photo_painting-3"]
    until(lambda: is_begun(queue, first))
    assert queue.waiting() == [first, second, third]
    assert [job.state for job in queue.waiting()] == ["painting", "waiting", "waiting"]
    queue.stop(first.name)
    until(lambda: queue.waiting() == [])
    assert [job.state for job in queue.jobs()] == ["failed", "finished", "stopped"]
    assert third.error == "the sea is too wide"
    assert [path.name for path in queue.pictures(second)] == ["000002.png", "photo_painting.png"]
    assert second.command == "nst fit uploads/1/photo.jpg uploads/2/painting.jpg"


def test_what_was_stopped_goes_on_with_its_run(queue: Queue) -> None:
    job = add(queue, "--slow")
    until(lambda: is_begun(queue, job))
    progress = queue.progress(job)
    assert (progress.done, progress.steps) == (2, 12)
    assert progress.left is not None and 85 < progress.left <= 90
    queue.stop(job.name)
    until(lambda: job.state == "stopped")
    queue.go_on(job.name)  # --resume does without --slow
    until(lambda: job.state == "finished")
    log = (queue.folder / "photo_painting.log").read_text()
    assert f"begun: fit --resume={queue.folder}/photo_painting\n" in log


def test_what_waits_is_stopped_before_it_is_begun_and_goes_on_from_nothing(queue: Queue) -> None:
    slow, job = add(queue, "--slow"), add(queue)
    queue.stop(job.name)
    assert queue.waiting() == [slow]
    assert not queue.run(job).folder.exists()
    queue.go_on(job.name)
    assert queue.waiting() == [slow, job]
    queue.stop(slow.name)
    until(lambda: job.state == "finished")


def test_a_finished_run_is_painted_again_from_its_picture(queue: Queue) -> None:
    job = add(queue, "--save_every=2")
    until(lambda: job.state == "finished")
    again = queue.again(job.name)
    until(lambda: again.state == "finished")
    assert again.arguments == ["reproduce", f"{queue.folder}/photo_painting/photo_painting.png", "--save_every=2"]
    assert queue.is_same(again)
    queue.run(job).picture(job.pair).write_bytes(b"other")
    assert not queue.is_same(again)
    assert not queue.is_same(job)


def test_a_run_that_was_killed_says_so(queue: Queue) -> None:
    job = add(queue, "--kill")
    until(lambda: job.state == "failed")
    assert job.error == "it was ended from outside: memory may have run out"


def test_a_program_that_cannot_be_begun_fails_and_the_next_is_painted(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", "/nowhere/python")
        job = add(queue)
        until(lambda: job.state == "failed")
    assert job.error == "cannot be begun: No such file or directory"
    later = add(queue)
    until(lambda: later.state == "finished")


def test_another_server_finds_the_runs_again(tmp_path: Path) -> None:
    with Queue(tmp_path / "runs") as queue:
        painted, waiting = add(queue, "--slow"), add(queue)
        until(lambda: is_begun(queue, painted))
    assert painted.state == "stopped"
    noted = json.loads((tmp_path / "runs" / "photo_painting.json").read_text())
    (tmp_path / "runs" / "photo_painting.json").write_text(json.dumps({**noted, "state": "painting"}))  # it was killed
    (tmp_path / "runs" / "other.json").write_text("{")
    (tmp_path / "runs" / "more.json").write_text('{"name": "../../etc"}')
    with Queue(tmp_path / "runs") as queue:
        assert queue.job(painted.name).state == "stopped"
        assert len(queue.jobs()) == 2
        until(lambda: queue.job(waiting.name).state == "finished")


@pytest.mark.parametrize("name", ["", "..", "../photo", "photo_painting/../x"])
def test_only_known_runs_can_be_told_anything(queue: Queue, name: str) -> None:
    for told in (queue.stop, queue.go_on, queue.again):
        with pytest.raises(InputError, match="there is no run"):
            told(name)


def test_the_queue_has_an_end(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "_MAX_WAITING", 1)
    add(queue, "--slow")
    add(queue)
    with pytest.raises(InputError, match="1 runs wait already"):
        add(queue)
