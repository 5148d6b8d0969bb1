"""Feeds made-up files to a part of the program, and counts how it takes them."""

from __future__ import annotations

import gc
import io
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hypothesis
import PIL.Image
from hypothesis import HealthCheck, Phase, settings
from hypothesis.strategies import SearchStrategy

from nst_lightning import errors
from nst_lightning.errors import InputError

SECONDS, MEGABYTES = 2.0, 500.0
"""What no input may take more of."""
_HANGS = 30  # s
ROUND = 500  # examples, after which hypothesis begins anew: it keeps all that it drew


@dataclass(frozen=True)
class Kind:
    """A kind of input: files by suffix and content, and what reads them.

    Raises nothing but an `InputError`, or what `refuses` says is told a user in one line, for what cannot be used.
    """

    inputs: Callable[[], SearchStrategy[tuple[str, bytes]]]
    feed: Callable[[Path], None]
    refuses: Callable[[Exception], bool] = lambda error: isinstance(error, InputError)


@dataclass
class Report:
    """How inputs were taken."""

    outcomes: Counter[str] = field(default_factory=Counter)
    failures: dict[str, tuple[str, bytes]] = field(default_factory=dict)  # the smallest of each, by what it raised
    seconds: float = 0.0  # that the slowest took
    slowest: tuple[str, bytes] = ("", b"")
    megabytes: float = 0.0  # of memory that one took, above what there was before it

    @property
    def is_good(self) -> bool:
        """Whether nothing failed and nothing was above the limits."""
        return not self.failures and self.seconds <= SECONDS and self.megabytes <= MEGABYTES

    def told(self) -> str:
        """Returns a line on each failure, and one with the beginning of its input."""
        return "".join(f"  {what}\n    {content[:200]!r}\n" for what, (_, content) in self.failures.items())

    def __str__(self) -> str:
        counts = ", ".join(f"{name} {count}" for name, count in sorted(self.outcomes.items()))
        return f"{counts}; slowest {self.seconds:.2f} s, peak extra memory {self.megabytes:.0f} MB"


def one_line(error: Exception) -> bool:
    """Whether a user is told an error in one line, as what cannot be used."""
    told = io.StringIO()
    with redirect_stderr(told):
        return errors.refused(error) == 2 and told.getvalue().count("\n") == 1


def feed(kind: Kind, path: Path) -> str:
    """Returns how a file was taken: accepted, refused with an error's name, or what else was raised, and where."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            kind.feed(path)
        except Exception as error:
            if kind.refuses(error):
                return f"refused with {type(error).__name__}"
            frames = traceback.extract_tb(error.__traceback__)
            own = [frame for frame in frames if "nst_lightning" in frame.filename]
            where = f"{Path(own[-1].filename).name}:{own[-1].lineno}" if own else "outside"
            return f"FAILED with {type(error).__name__} at {where}: {str(error)[:100]}"
    return "accepted"


@contextmanager
def workplace() -> Iterator[Path]:
    """An empty folder that is the current one meanwhile."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            yield Path(folder)
        finally:
            os.chdir(before)


def run(kind: Kind, count: int, seed: int) -> Report:
    """Feeds so many inputs, the same for the same seed."""
    report = Report()
    with workplace() as folder:
        PIL.Image.init()
        for begun in range(0, count, ROUND):
            _round(kind, min(ROUND, count - begun), seed * 1_000_003 + begun, folder, report)
    return report


def _round(kind: Kind, count: int, seed: int, folder: Path, report: Report) -> None:
    options: dict[str, Any] = {"database": None, "deadline": None, "phases": [Phase.generate]}
    options |= {"suppress_health_check": list(HealthCheck), "max_examples": count}

    @hypothesis.seed(seed)
    @settings(**options)
    @hypothesis.given(kind.inputs())
    def test(case: tuple[str, bytes]) -> None:
        take(kind, case, folder, report)

    test()
    gc.collect()


def take(kind: Kind, case: tuple[str, bytes], folder: Path, report: Report) -> None:
    """Feeds an input, and notes how it was taken."""
    suffix, content = case
    path = folder / f"input{suffix}"
    path.write_bytes(content)
    before, resident = _peak(), _resident()
    outcome, seconds = _timed(kind, path)
    if _peak() > before:  # else it took less than one before it, or than hypothesis itself
        report.megabytes = max(report.megabytes, _peak() - resident)
    if seconds > SECONDS:  # another process may have been at work
        seconds = min(seconds, _timed(kind, path)[1])
    if seconds > report.seconds:
        report.seconds, report.slowest = seconds, case
    report.outcomes[outcome.partition(" at ")[0]] += 1
    if outcome.startswith("FAILED"):
        known = report.failures.setdefault(outcome, case)
        report.failures[outcome] = min(known, case, key=lambda each: len(each[1]))


def _timed(kind: Kind, path: Path) -> tuple[str, float]:
    began = time.perf_counter()
    before = signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(_HANGS)
    try:
        return feed(kind, path), time.perf_counter() - began
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _too_long(number: int, frame: object) -> None:
    raise TimeoutError(f"{_HANGS} s")


def _peak() -> float:
    """The most memory that the process ever had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "linux" else 1024**2)


def _resident() -> float:
    """The memory that the process has now, in MB."""
    pages = Path("/proc/self/statm")
    return int(pages.read_text().split()[1]) * resource.getpagesize() / 1024**2 if pages.exists() else _peak()
