"""Several processes: each with pairs of its own, or all of them on the tiles of one image.

Importing this module registers `pair_parallel` and `tile_parallel` with Lightning.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.fabric.utilities.seed import reset_seed
from lightning.pytorch.strategies import DDPStrategy, StrategyRegistry
from lightning.pytorch.strategies.launchers.subprocess_script import _SubprocessScriptLauncher
from torch.distributed import DistError, TCPStore  # type: ignore[attr-defined]

from nst_lightning.errors import InputError
from nst_lightning.interruption import Interrupted
from nst_lightning.memory import cores
from nst_lightning.terminal import say

_AGREED = "NST_LIGHTNING_AGREED"  # variables of the environment of processes that this one starts
_STARTED = "NST_LIGHTNING_STARTED"  # the number of the process that started this one
_PATIENCE = timedelta(minutes=5)
_GRACE = 15.0  # s in which a process that was told to end may save what it has
_SILENCE, _REMINDER = 30.0, 600.0  # s for which a process may be stopped before it is told, and told again


class RankError(RuntimeError):
    """Some processes failed, after the others' end: their exit codes by rank, negative where a signal killed one."""

    def __init__(self, codes: Mapping[int, int]) -> None:
        self.codes = dict(codes)
        ended = (
            f"was killed by {signal.Signals(-c).name}" if c < 0 else f"ended with exit code {c}" for c in codes.values()
        )
        super().__init__(", ".join(f"rank {rank} {end}" for rank, end in zip(codes, ended, strict=True)))


class _Launcher(_SubprocessScriptLauncher):
    """Starts the other processes of this machine; where one fails, the others finish, unlike with Lightning's own."""

    def launch(
        self, function: Callable[..., Any], *args: Any, trainer: L.Trainer | None = None, **kwargs: Any
    ) -> object:
        """Runs a function here and the whole program in the other processes; a `RankError` if one of them failed."""
        self.cluster_environment.validate_settings(num_devices=self.num_processes, num_nodes=self.num_nodes)
        if self.num_processes > 1:
            self._start()
        if "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(max(1, min(torch.get_num_threads(), cores()) // self.num_processes))
        result: object = function(*args, **kwargs)
        if failed := self._wait():
            raise RankError(failed)
        return result

    def end(self, exception: BaseException) -> None:
        """Waits for the other processes where this one failed, or has them save what they have where it is to end."""
        try:
            if isinstance(exception, (Interrupted, KeyboardInterrupt)):
                raise exception
            self._wait()
        except (Interrupted, KeyboardInterrupt) as ended:  # which may come while it waits
            self._end(ended.number if isinstance(ended, Interrupted) else signal.SIGINT)

    def _start(self) -> None:
        """Starts the other processes, unless this is one of them; refuses to be one that nobody started."""
        if not self.cluster_environment.creates_processes_externally:
            before = dict(os.environ)
            os.environ[_STARTED] = str(os.getpid())
            self._call_children_scripts()
            os.environ.clear()  # what the others are told is not for what this process starts later
            os.environ.update(before)
        elif isinstance(self.cluster_environment, LightningEnvironment) and _STARTED not in os.environ:
            msg = "LOCAL_RANK is set in the environment, but this process was started by itself: unset LOCAL_RANK"
            raise InputError(msg)

    def _wait(self) -> dict[int, int]:
        """Returns the exit codes of the processes that failed, by rank, once all have ended."""
        first = self.cluster_environment.node_rank() * self.num_processes
        ranks = dict(enumerate(self.procs, start=first + 1))
        told = dict.fromkeys(ranks, time.monotonic() - _REMINDER + _SILENCE)  # when each was last seen at work, or told
        while any(process.poll() is None for process in ranks.values()):
            for rank, process in ranks.items():
                if not _is_stopped(process.pid):
                    told[rank] = max(told[rank], time.monotonic() - _REMINDER + _SILENCE)
                elif time.monotonic() > told[rank] + _REMINDER:
                    told[rank] = time.monotonic()
                    say(f"nst: rank {rank} is stopped and waited for: kill -CONT {process.pid} has it go on")
            time.sleep(0.1)
        return {rank: process.returncode for rank, process in ranks.items() if process.returncode != 0}

    def _end(self, number: int) -> None:
        """Has the processes save what they have, also one that is stopped, and ends those that don't."""
        deadline = time.monotonic() + _GRACE
        for process in self.procs:
            process.send_signal(number)  # not one that has ended
            process.send_signal(getattr(signal, "SIGCONT", 0))
        for process in self.procs:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
            process.kill()
            process.wait()


class PairParallel(DDPStrategy):
    """Every process optimises pairs of its own, see `batches.deal`, and writes their checkpoints.

    There is no process group and no DDP wrapper, which would average the gradients of unlike images. A process that
    fails fails the run, as a `RankError`, after the others' end.
    """

    def _configure_launcher(self) -> None:
        assert self.cluster_environment is not None
        self._launcher = _Launcher(self.cluster_environment, self.num_processes, self.num_nodes)

    def on_exception(self, exception: BaseException) -> None:
        """Waits for the other processes, once what there is here is saved."""
        super().on_exception(exception)
        assert isinstance(self._launcher, _Launcher)
        self._launcher.end(exception)

    def configure_ddp(self) -> None:
        """Leaves the module unwrapped."""

    def setup_distributed(self) -> None:
        """Sets the ranks and makes no process group: every barrier and reduction of Lightning's does nothing."""
        reset_seed()
        self.set_world_ranks()

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: str | Path, storage_options: object = None) -> None:
        """Writes a checkpoint, in every process."""
        self.checkpoint_io.save_checkpoint(checkpoint, filepath, storage_options=storage_options)

    def remove_checkpoint(self, filepath: str | Path) -> None:
        """Removes a checkpoint, in every process."""
        self.checkpoint_io.remove_checkpoint(filepath)


class TileParallel(DDPStrategy):
    """All processes optimise the same image, each computing some of its tiles, see `tiling.Tiled`."""

    def configure_ddp(self) -> None:
        """Leaves the module unwrapped."""

    @property
    def distributed_sampler_kwargs(self) -> dict[str, Any]:
        """What a loader has to know: that there is nothing to deal out."""
        return {"num_replicas": 1, "rank": 0}


_NAMES = {"pair_parallel": PairParallel, "tile_parallel": TileParallel}
for _name, _kind in _NAMES.items():
    StrategyRegistry.register(_name, _kind, description=_kind.__doc__, override=True)


def check_launched(strategy: object) -> None:
    """Raises an InputError where this process is said to be one of several that the strategy deals nothing out to.

    It would wait for the others, which there need not be: variables outlive the job that they were set for.
    """
    launched = _launched_world()
    if launched > 1 and not (strategy in _NAMES or isinstance(strategy, (PairParallel, TileParallel))):
        known = f"{launched} processes were launched, says the environment, but trainer.strategy is {strategy}"
        to_set = "set trainer.devices, trainer.num_nodes and trainer.strategy pair_parallel, or unset WORLD_SIZE"
        raise InputError(f"{known}: each would do all of the work; {to_set}")


def check_world(trainer: L.Trainer) -> None:
    """Raises an InputError for several processes without a strategy for them, or more than the trainer knows."""
    launched, world, nodes = _launched_world(), trainer.world_size, trainer.num_nodes
    if world > 1 and not isinstance(trainer.strategy, (PairParallel, TileParallel)):
        got = f"got {type(trainer.strategy).__name__}, which would average the gradients of unlike images"
        raise InputError(f"trainer.strategy must be pair_parallel or tile_parallel for {world} processes, {got}")
    if nodes > 1 and launched == 1:
        how = "on several machines, start the processes with torchrun or SLURM"
        raise InputError(f"trainer.num_nodes is {nodes}: {how}")
    if launched not in (1, world):
        known = f"{launched} processes were launched but trainer.devices x trainer.num_nodes is {world}"
        to_set = "set trainer.devices, trainer.num_nodes and trainer.strategy pair_parallel"
        raise InputError(f"{known}: each would do all of the work; {to_set}")


def _launched_world() -> int:
    """Returns the number of processes that torchrun, SLURM or the like say they started."""
    name = "WORLD_SIZE" if "RANK" in os.environ and "WORLD_SIZE" in os.environ else "SLURM_STEP_NUM_TASKS"
    try:
        return int(os.environ.get(name, "1"))
    except ValueError as error:
        msg = f"{name} in the environment must be the number of processes that were launched, got {os.environ[name]!r}"
        raise InputError(f"{msg}: unset it") from error


def _is_stopped(process: int) -> bool:
    """Whether a process that this one started was stopped, by SIGSTOP say; False where the system does not tell."""
    if not hasattr(os, "waitid"):
        return False
    try:
        return os.waitid(os.P_PID, process, os.WSTOPPED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:  # it has ended
        return False


def is_orphan() -> bool:
    """Whether the process that started this one for a share of its work is gone, so that nobody waits for it."""
    was_started = {_STARTED, "LOCAL_RANK"} <= os.environ.keys()
    return os.name == "posix" and was_started and os.environ[_STARTED] != str(os.getppid())


def alone() -> bool:
    """Whether nobody has started this process, so that it is the first or the only one."""
    return _AGREED not in os.environ and _launched_world() == 1


def agreed(what: str, choose: Callable[[], str]) -> str:
    """Returns what the first process chooses, in every process of a launch; all ask for the same in the same order.

    An InputError if the first process cannot be reached within five minutes.
    """
    try:
        told: dict[str, str] = json.loads(os.environ.get(_AGREED, "{}"))
    except ValueError as error:
        raise InputError(f"{_AGREED} in the environment is not what this program writes there: unset it") from error
    if what in told:
        return told[what]
    if _launched_world() == 1:
        return choose()
    try:
        store, rank, world = _store()
        if rank == 0:
            store.set(what, choose())
        chosen = store.get(what).decode()
        # The first process may be the one that serves the store: it stays until all have read.
        if store.add(f"{what}/read", 1) == world:
            store.set(f"{what}/done", "")
        if rank == 0:
            store.wait([f"{what}/done"])
    except DistError as error:
        raise InputError(f"the first process of the launch cannot be reached ({error})") from error
    return chosen


@functools.cache
def _store() -> tuple[TCPStore, int, int]:
    """Returns what the processes of a launch share, and this one's rank and their number."""
    environment = TorchElasticEnvironment() if "RANK" in os.environ else SLURMEnvironment()
    rank, world = environment.global_rank(), environment.world_size()
    agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    port = environment.main_port + (not agent)  # one beside that of the process group, which is made later
    return TCPStore(environment.main_address, port, world, rank == 0 and not agent, _PATIENCE), rank, world


@contextmanager
def telling(told: Mapping[str, str]) -> Iterator[None]:
    """Has `agreed` return what was chosen, by name, in the processes that are started within."""
    os.environ[_AGREED] = json.dumps(dict(told))
    try:
        yield
    finally:
        del os.environ[_AGREED]
