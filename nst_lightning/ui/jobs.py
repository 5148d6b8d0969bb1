"""The queue: runs of `nst fit`, each a process of its own, one at a time, found again when the page is served anew."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from nst_lightning.errors import InputError
from nst_lightning.interruption import UNFINISHED
from nst_lightning.runs import Run, free, replacing

State: TypeAlias = Literal["waiting", "painting", "stopped", "finished", "failed"]
_MAX_WAITING = 50
_PATIENCE = 60.0  # s that a run has to save what it has before it is killed
_TOLD_TO_STOP = {UNFINISHED, *(128 + number for number in (1, 2, 10, 15)), -signal.SIGINT, -signal.SIGTERM}
_BEGUN = "\nnst ui: begun"
_BAR = re.compile(r"(\d+)/(\d+), left (?:(\d+) days?, )?(\d+):(\d\d):(\d\d)")


@dataclass
class Job:
    """A run that was asked for.

    Attributes:
        name: That of its run folder, by which it is known.
        arguments: The words behind `nst` that paint it, without where it goes.
        photograph: The photograph's file.
        painting: The painting's file.
        asked: When it was queued, in seconds since 1970.
        state: What has become of it.
        error: Why it failed, in one line.
        repeats: The name of the run that it paints again; empty for none.
    """

    name: str
    arguments: list[str]
    photograph: str
    painting: str
    asked: float
    state: State = "waiting"
    error: str = ""
    repeats: str = ""

    @property
    def pair(self) -> str:
        """What `nst fit` calls the pair, and its picture."""
        return f"{Path(self.photograph).stem}_{Path(self.painting).stem}"

    @property
    def command(self) -> str:
        """What makes the same picture from a terminal."""
        return shlex.join(["nst", *self.arguments])


@dataclass(frozen=True)
class Progress:
    """How far a run is: steps done, of so many, and the seconds that are left; None where it is not known yet."""

    done: int
    steps: int | None
    left: float | None


class Queue:
    """Paints what is added, one after the other; every method may be called from any thread.

    As a context it is closed at the end.

    Args:
        folder: Where run folders, what is noted of them and their logs lie; it is made.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._changed = threading.Condition()
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False
        self._jobs = {job.name: job for path in sorted(folder.glob("*.json")) if (job := _read(path)) is not None}
        with self._changed:
            for job in self._jobs.values():
                if job.state == "painting":  # its server was killed
                    self._set(job, "stopped")
        self._worker = threading.Thread(target=self._work, daemon=True)
        self._worker.start()

    def __enter__(self) -> Queue:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def jobs(self) -> list[Job]:
        """Returns all jobs, the newest first."""
        with self._changed:
            return sorted(self._jobs.values(), key=lambda job: -job.asked)

    def job(self, name: str) -> Job:
        """Returns the job of a name; an InputError where there is none."""
        with self._changed:
            if name not in self._jobs:
                raise InputError(f"there is no run {name!r:.80}")
            return self._jobs[name]

    def run(self, job: Job) -> Run:
        """Returns a job's run folder, which is there once it was begun."""
        return Run(self.folder / job.name)

    def waiting(self) -> list[Job]:
        """Returns the job that is painted, if any, and those that wait behind it, in order."""
        with self._changed:
            return [job for state in ("painting", "waiting") for job in self.jobs()[::-1] if job.state == state]

    def add(self, photograph: Path, painting: Path, options: Sequence[str]) -> Job:
        """Queues a photograph to be painted with options of `nst fit`; an InputError where too many wait."""
        return self._add(["fit", str(photograph), str(painting), *options], photograph, painting)

    def again(self, name: str) -> Job:
        """Queues a finished run once more, from what its picture says of itself."""
        job = self.job(name)
        on_the_way = [word for word in job.arguments if word.startswith("--save_every=")]
        command = ["reproduce", str(self.run(job).picture(job.pair)), *on_the_way]
        return self._add(command, Path(job.photograph), Path(job.painting), repeats=name)

    def stop(self, name: str) -> None:
        """Stops a job: what waits is not begun, and what is painted keeps what it has."""
        with self._changed:
            job = self.job(name)
            if job.state == "waiting":
                self._set(job, "stopped")
            elif job.state == "painting" and self._process is not None:
                self._process.terminate()

    def go_on(self, name: str) -> None:
        """Queues a job that was stopped or failed, behind those that wait, to go on where it was."""
        with self._changed:
            job = self.job(name)
            if job.state in ("stopped", "failed"):
                job.asked = time.time()
                self._set(job, "waiting")

    def pictures(self, job: Job) -> list[Path]:
        """Returns a job's pictures, from the first on the way to the finished one, or to it as it is."""
        run = self.run(job)
        way = run.pictures_on_the_way(job.pair)
        last = run.picture(job.pair) if job.state == "finished" else run.preview(0)
        return [*way, last] if last.is_file() else way

    def progress(self, job: Job) -> Progress:
        """Returns how far a job is, by its progress bar and its pictures on the way."""
        way = self.run(job).pictures_on_the_way(job.pair)
        reached = int(way[-1].stem) if way else 0
        before, _, now = _end(self._log(job)).rpartition(_BEGUN)
        bars = _BAR.findall(now) or _BAR.findall(before)
        if not bars:
            return Progress(reached, None, None)
        done, steps, days, hours, minutes, seconds = (int(part or 0) for part in bars[-1])
        if not _BAR.search(now):  # it went on and has not said anything yet
            return Progress(max(done, reached), steps, None)
        told = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
        return Progress(max(done, reached), steps, max(0.0, told - (time.time() - self._log(job).stat().st_mtime)))

    def is_same(self, job: Job) -> bool:
        """Returns whether a finished run made the very file of the run that it repeats."""
        former = self._jobs.get(job.repeats)
        files = [] if former is None else [self.run(each).picture(each.pair) for each in (former, job)]
        return len({file.read_bytes() for file in files if file.is_file()}) == 1 and all(map(Path.is_file, files))

    def close(self) -> None:
        """Stops what is painted and waits for it to be saved; what waits is painted when there is a queue again."""
        with self._changed:
            self._closed = True
            self._changed.notify()
            if self._process is not None:
                self._process.terminate()
        self._worker.join(_PATIENCE)
        if self._process is not None:
            self._process.kill()

    def _add(self, command: list[str], photograph: Path, painting: Path, repeats: str = "") -> Job:
        with self._changed:
            if len(self.waiting()) > _MAX_WAITING:
                raise InputError(f"{_MAX_WAITING} runs wait already: try again when some are done")
            name = free(self.folder / f"{photograph.stem}_{painting.stem}", ["", ".json"]).name
            job = Job(name, command, str(photograph), str(painting), time.time(), repeats=repeats)
            self._jobs[name] = job
            self._set(job, "waiting")
            return job

    def _set(self, job: Job, state: State, error: str = "") -> None:
        job.state, job.error = state, error
        with (
            suppress(OSError),
            replacing(self.folder / f"{job.name}.json") as file,
        ):  # a full disk must not end the queue
            file.write_text(json.dumps(asdict(job), indent=1) + "\n", encoding="utf-8")
        self._changed.notify()

    def _log(self, job: Job) -> Path:
        return self.folder / f"{job.name}.log"  # not in the run folder, which a run takes for another's if it has files

    def _next(self) -> Job | None:
        return next((job for job in self.waiting() if job.state == "waiting"), None)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._next() is not None)
                job = self._next()
                if self._closed or job is None:
                    return
                try:
                    self._process = process = self._begin(job)
                except OSError as error:
                    self._set(job, "failed", f"cannot be begun: {error.strerror or error}")
                    continue
                self._set(job, "painting")
            code = process.wait()
            with self._changed:
                self._process = None
                self._end(job, code)

    def _begin(self, job: Job) -> subprocess.Popen[bytes]:
        run = self.run(job)
        if run.config.is_file():
            command = ["fit", f"--resume={run.folder}"]
        else:
            shutil.rmtree(run.folder, ignore_errors=True)  # what was stopped before it wrote its settings
            command = [*job.arguments, f"--output={run.folder}"]
        with self._log(job).open("ab") as log:
            log.write(f"{_BEGUN}: {shlex.join(command)}\n".encode())
            log.flush()
            words = [sys.executable, "-m", "nst_lightning", *command]
            # In a session of its own, so that Ctrl-C in the terminal reaches it once, by way of this process.
            return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)

    def _end(self, job: Job, code: int) -> None:
        if code == 0:
            self._set(job, "finished")
        elif code in _TOLD_TO_STOP:
            self._set(job, "stopped")
        else:
            said = re.findall(r"nst: error: (.*)", _end(self._log(job)))
            killed = "it was ended from outside: memory may have run out"
            self._set(job, "failed", said[-1] if said else killed if code < 0 else f"it ended with code {code}")


def _read(path: Path) -> Job | None:
    """Returns a job that was noted, None for anything else; its name is its file's."""
    try:
        return Job(**{**json.loads(path.read_text(encoding="utf-8")), "name": path.stem})
    except (OSError, ValueError, TypeError):
        return None


def _end(log: Path) -> str:
    """Returns the last of what a run said."""
    with suppress(OSError), log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 8192))
        return file.read().decode(errors="replace")
    return ""
