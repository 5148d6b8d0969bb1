"""What tests that start processes share: the program in one of its own, and two that compute together.

Each forks from one process that has imported it all, for that takes longer than what most of them then do.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import distributed
from torch.multiprocessing.spawn import start_processes

_OUTPUTS = ("out", "err")
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    ["nst_lightning.cli.fit", "nst_lightning.cli.configuration", "nst_lightning.cli.plan", "pandas"]
)


@contextmanager
def one_of_two(rank: int, folder: Path) -> Iterator[None]:
    """Makes this process, of one thread, one of two that find each other in a folder."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    yield
    distributed.destroy_process_group()


def in_two(function: Callable[[int, Path], None], folder: Path) -> None:
    """Calls a function in two processes, with the rank of each and a folder; an error where one of them fails."""
    start_processes(function, (folder,), nprocs=2, start_method="forkserver")  # type: ignore[no-untyped-call]


def apart(function: Callable[..., None], *arguments: object) -> int:
    """Calls a function in a process of its own; returns the code that it ended with, negative where a signal did it."""
    process = FORKS.Process(target=function, args=arguments)
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


class Program:
    """The program in a process of its own, which is one in all but its start and Python's last end; killed on leaving.

    It works where this process does, has its environment and more, and some signals ignored as by nohup.
    """

    def __init__(
        self, *arguments: str, environment: Mapping[str, str] | None = None, ignored: Sequence[int] = ()
    ) -> None:
        self._told, self._arguments = TemporaryDirectory(), arguments
        given = arguments, Path.cwd(), {**os.environ, **(environment or {})}, Path(self._told.name), ignored
        self._process = FORKS.Process(target=_run, args=given)
        self._process.start()

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.join()
        self._told.cleanup()

    @property
    def pid(self) -> int:
        """Its number."""
        assert self._process.pid is not None
        return self._process.pid

    def poll(self) -> int | None:
        """Returns the code that it ended with, negative where a signal killed it; None while it is at work."""
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        """Sends a signal to it."""
        os.kill(self.pid, number)

    def until(self, ready: Callable[[], object], timeout: float = 120.0) -> None:
        """Waits until something holds; an AssertionError if the process ends before, or it takes so many seconds."""
        deadline = time.monotonic() + timeout
        while not ready():
            assert self.poll() is None, "it ended early"
            assert time.monotonic() < deadline
            time.sleep(0.005)

    def ended(self, timeout: float = 120.0) -> subprocess.CompletedProcess[str]:
        """Returns how it ended and what it said, once it has; an AssertionError if it does not within some seconds."""
        self._process.join(timeout)
        code = self.poll()
        assert code is not None, "it is still at work"
        out, err = ((Path(self._told.name) / name).read_text() for name in _OUTPUTS)
        return subprocess.CompletedProcess(self._arguments, code, out, err)


def run(*arguments: str, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Runs the program in a process of its own to its end."""
    with Program(*arguments, environment=environment) as program:
        return program.ended()


def _run(
    arguments: Sequence[str], folder: Path, environment: Mapping[str, str], told: Path, ignored: Sequence[int]
) -> None:
    outputs = [os.open(told / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND) for name in _OUTPUTS]
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)
    become(arguments, folder, environment, outputs)


def become(
    arguments: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    outputs: Sequence[int],
    prepare: Callable[[], None] = lambda: None,
) -> None:
    """Turns a fork into the program, as far as Python lets it; does not return."""
    import nst_lightning.__main__

    code = 1
    try:
        os.setsid()
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        if "OMP_NUM_THREADS" in environment:  # which is read at the start
            torch.set_num_threads(int(environment["OMP_NUM_THREADS"]))
        for standard, end in enumerate((os.open(os.devnull, os.O_RDONLY), *outputs)):
            os.dup2(end, standard)
        sys.stdin, sys.stdout, sys.stderr = (open(n, mode, closefd=False) for n, mode in enumerate("rww"))
        assert isinstance(sys.stderr, TextIOWrapper)
        sys.stderr.reconfigure(errors="backslashreplace", line_buffering=True)
        warnings.resetwarnings()  # and then as Python has it of itself
        for kind in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
            warnings.simplefilter("ignore", kind)
        sys.argv = ["nst", *arguments]
        sys.modules["__main__"] = nst_lightning.__main__  # by whose name Lightning starts others
        prepare()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        code = nst_lightning.__main__.main()
        sys.stdout.flush()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(code)
