"""What every cell is made of: a folder, the program started in it, and what must hold of how it ends."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import numpy as np
import pandas  # noqa: F401 - as below
from PIL import Image

import nst_lightning.cli.configuration
import nst_lightning.cli.fit  # noqa: F401 - so that no fork imports it
from nst_lightning.progress import Progress
from tests.processes import become

OK, LOST, SILENT, TRACEBACK, HANG, WRONG = "ok", "LOST", "SILENT", "TRACEBACK", "HANG", "WRONG"
"""The verdicts. WRONG is an ending that says no lie, but not what is documented either: code, line or files."""

CHEAP = ["--size", "32", "--content_layers", "relu2_1", "--style_layers", "relu1_1,relu2_1", "--style_loss", "gram"]
ALWAYS = ["--checkpoint_minutes", "1e-9", "--save_every", "1"]
_PATIENCE = 90.0  # s: ten times what the slowest cell takes where nothing hangs


class Fault(Exception):
    """What did not hold: a verdict, and why."""

    def __init__(self, verdict: str, why: str) -> None:
        super().__init__(f"{verdict}: {why}")
        self.verdict, self.why = verdict, why


@dataclass(frozen=True)
class Cell:
    """One way to break the program; the check returns a note for the table."""

    kind: str
    name: str
    check: Callable[[Bench], str | None]


@dataclass(frozen=True)
class Ended:
    """How a process ended, its code as a shell has it."""

    code: int
    out: str
    err: str

    def expect(self, *codes: int) -> Ended:
        """Returns itself if it is one of these codes and no traceback was seen."""
        last = (self.err.strip().splitlines() or ["no word"])[-1][-150:]
        if "Traceback (most recent" in self.err or (self.code > 128 and self.code not in codes):
            raise Fault(TRACEBACK, f"code {self.code}: {last}")
        if self.code not in codes:
            raise Fault(WRONG if self.code else SILENT, f"code {self.code}, not {codes}: {last}")
        return self

    def refused(self, *codes: int) -> Ended:
        """Returns itself if it is one of these codes, by default 2, with one line on stderr."""
        self.expect(*(codes or (2,)))
        lines = [line for line in self.err.replace("\r", "\n").splitlines() if line.strip()]
        if len(lines) != 1 or not lines[0].startswith("nst: error: ") or "NST_DEBUG" in lines[0]:
            raise Fault(WRONG, f"{len(lines)} lines: {' / '.join(lines)[-150:]}")
        return self


class Process:
    """The program at work: forked from this process, which has imported it already, or started anew."""

    def __init__(
        self,
        folder: Path,
        arguments: Sequence[str],
        anew: bool,
        shell: str,
        environment: Mapping[str, str],
        limits: Mapping[int, int],
    ) -> None:
        self._pipes, self._heard = [os.pipe(), os.pipe()], [b"", b""]
        (out, to_out), (err, to_err) = self._pipes
        environment = {**os.environ, **environment}

        def prepare() -> None:
            for each in (signal.SIGINT, signal.SIGHUP):  # which a job in the background ignores
                signal.signal(each, signal.SIG_DFL)
            for kind, limit in limits.items():
                resource.setrlimit(kind, (limit, limit))

        self._started: subprocess.Popen[bytes] | None = None
        if anew:
            command = [sys.executable, "-m", "nst_lightning", *arguments]
            command = ["bash", "-c", f'"$@" {shell}', "bash", *command] if shell else command
            self._started = subprocess.Popen(
                command, cwd=folder, env=environment, start_new_session=True, preexec_fn=prepare,
                stdin=subprocess.DEVNULL, stdout=to_out, stderr=to_err,
            )  # fmt: skip
            self.pid = self._started.pid
        else:
            self.pid = os.fork()
            if self.pid == 0:
                become(arguments, folder, environment, (to_out, to_err), prepare)
        self._code: int | None = None
        for end in (to_out, to_err):
            os.close(end)
        for end in (out, err):
            os.set_blocking(end, False)

    def poll(self) -> int | None:
        """Returns the code as a shell has it, None while the process is at work."""
        for index, (end, _) in enumerate(self._pipes):
            with suppress(BlockingIOError):
                while some := os.read(end, 1 << 16):
                    self._heard[index] += some
        if self._started is not None:
            self._code = self._started.poll()
        elif self._code is None:
            found, status = os.waitpid(self.pid, os.WNOHANG)
            self._code = os.waitstatus_to_exitcode(status) if found else None
        return self._code if self._code is None or self._code >= 0 else 128 - self._code

    def until(self, ready: Callable[[], object], patience: float = _PATIENCE) -> bool:
        """Waits until something holds; returns whether the process was still at work then."""
        deadline = time.monotonic() + patience
        while self.poll() is None:
            if ready():
                return True
            if time.monotonic() > deadline:
                raise Fault(HANG, f"after {patience:.0f} s: {self.said()[-120:]}")
            time.sleep(0.01)
        return False

    def said(self) -> str:
        """Returns what came on stderr so far."""
        return self._heard[1].decode(errors="replace").replace("\r", "\n")

    def wait(self, patience: float = _PATIENCE) -> Ended:
        """Returns how it ended."""
        self.until(lambda: False, patience)
        code = self.poll()
        assert code is not None
        return Ended(code, self._heard[0].decode(errors="replace"), self._heard[1].decode(errors="replace"))

    def close(self) -> None:
        """Ends what is left of it and of what it started."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            self._started.wait() if self._started else os.waitpid(self.pid, 0)
        for end, _ in self._pipes:
            os.close(end)


@dataclass
class Bench:
    """What a cell works with: an empty folder, files that all cells share, and chance of its own."""

    folder: Path
    shared: Path
    random: Random
    work: float = 3.0  # s that the slow run's steps take here
    start: float = 8.0  # s that it takes to come to them
    measured: dict[str, float] = field(default_factory=dict)
    stack: ExitStack = field(default_factory=ExitStack)

    def started(
        self,
        *arguments: str,
        anew: bool = False,
        shell: str = "",
        environment: Mapping[str, str] | None = None,
        limits: Mapping[int, int] | None = None,
        folder: Path | None = None,
    ) -> Process:
        """Returns the program at work in the cell's folder."""
        given = folder or self.folder, arguments, anew, shell, environment or {}, limits or {}
        process = Process(*given)
        self.stack.callback(process.close)
        return process

    def fit(self, *contents: str, steps: int = 8) -> list[str]:
        """Returns a command that paints some of the shared photographs, cheaply."""
        images = ",".join(str(self.shared / f"{content}.png") for content in contents or ("c1",))
        files = ["--content", f"[{images}]", "--style", str(self.shared / "s.png")]
        return ["fit", *files, *CHEAP, "--steps", str(steps), "--scores", "off"]

    def undisturbed(self, name: str, *arguments: str) -> Path:
        """Returns the folder of an undisturbed run of a command, by default `fit`, which runs once for all cells."""
        folder = self.shared / name
        if not folder.exists():
            self.started(*(arguments or self.fit()), "--output", str(folder)).wait().expect(0)
        return folder

    def compare(self, whole: Path, found: Path) -> None:
        """Raises a fault where a picture of an undisturbed run is missing or another."""
        for picture in sorted(whole.glob("*.png")):
            same(picture, found / picture.name)

    def unfinished(self) -> Path:
        """Returns the cell's copy of a run that was broken off in its second pair, with two checkpoints."""
        folder = self.shared / "unfinished"
        if not folder.exists():
            command = [*self.fit("c1", "c2", steps=40), *ALWAYS, "--trainer.max_steps", "66"]
            self.started(*command, "--output", str(folder)).wait().expect(3)
            config = folder / "config.yaml"
            config.write_text(config.read_text().replace("max_steps: 66", "max_steps: -1"))
        return Path(shutil.copytree(folder, self.folder / "run"))

    def whole(self) -> Path:
        """Returns the undisturbed run that an unfinished one is to become."""
        return self.undisturbed("two", *self.fit("c1", "c2", steps=40))

    def go_on(self, whole: Path, folder: Path, command: Sequence[str], anew: bool = False) -> None:
        """Resumes a run, or begins it where nothing was begun; raises a fault if the pictures become others."""
        if (folder / "config.yaml").exists():
            ended = self.started("fit", "--resume", str(folder), anew=anew).wait()
            try:
                self.compare(whole, folder) if ended.expect(0) else None
            except Fault as fault:
                raise Fault(LOST if fault.verdict == WRONG else fault.verdict, f"resumed: {fault.why}") from fault
            return
        ended = self.started(*command).wait().expect(0)
        self.compare(whole, (self.folder / ended.out.splitlines()[-1]).parent)


def same(whole: Path, found: Path) -> None:
    """Raises a fault where a picture is missing, or another than that of an undisturbed run."""
    if not found.is_file():
        raise Fault(SILENT, f"{found.name} is not there")
    with Image.open(whole) as one, Image.open(found) as two:
        if not np.array_equal(np.asarray(one), np.asarray(two)):
            raise Fault(SILENT, f"{found.name} is another picture")


def contents(folder: Path) -> dict[str, bytes | None]:
    """Returns what is in a folder, None for what is no file."""
    found = {os.fsencode(path).decode(errors="replace"): path for path in folder.rglob("*")}
    return {name: path.read_bytes() if path.is_file() else None for name, path in sorted(found.items())}


def taken(folder: Path) -> dict[str, int]:
    """Returns the steps of unfinished pairs that a run's checkpoints hold, by the first pair's name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        saved = Progress.of(folder).saved
    return {each.names[0]: each.taken for each in reversed(saved)}


def pictured(folder: Path) -> dict[str, int]:
    """Returns the steps of unfinished pairs that there is a picture of, by the pair's name."""
    pairs = {path.name for path in folder.glob("steps/*")} - {
        path.name for path in folder.glob("checkpoints/finished/*")
    }
    return {
        pair: max((int(each.stem) for each in (folder / "steps" / pair).glob("*.png")), default=0) for pair in pairs
    }


def outcome(cell: Cell, shared: Path, seed: int, timing: tuple[float, float]) -> dict[str, object]:
    """Returns what a cell comes to."""
    folder = Path(tempfile.mkdtemp(prefix="cell-", dir=shared.parent))
    bench = Bench(folder, shared, Random(f"{seed}/{cell.kind}/{cell.name!a}"), *timing)
    began, verdict, note = time.monotonic(), OK, ""
    try:
        with bench.stack:
            note = cell.check(bench) or ""
    except Fault as fault:
        verdict, note = fault.verdict, fault.why
    except Exception as error:  # of the cell's own making; it must not look like a good one
        verdict, note = TRACEBACK, f"in the cell: {type(error).__name__}: {error}"
    shutil.rmtree(folder, ignore_errors=True)
    seconds = round(time.monotonic() - began, 1)
    return {"kind": cell.kind, "name": cell.name, "verdict": verdict, "note": note, "s": seconds, **bench.measured}
