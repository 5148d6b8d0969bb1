"""Several processes without a whole run: who knows of them, what they agree on, and how they end."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.strategies import StrategyRegistry

from nst_lightning import parallel
from nst_lightning.errors import InputError
from nst_lightning.parallel import PairParallel, RankError, TileParallel, agreed, check_launched, check_world, telling
from tests.processes import FORKS

LAUNCHED = ("RANK", "WORLD_SIZE", "SLURM_STEP_NUM_TASKS", "NST_LIGHTNING_AGREED")


@pytest.fixture(autouse=True)
def _launched_by_nobody(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in LAUNCHED:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # else a launch would change this process's number of threads
    parallel._store.cache_clear()
    yield
    parallel._store.cache_clear()


def trainer(devices: int, strategy: str = "auto") -> L.Trainer:
    return L.Trainer(
        accelerator="cpu",
        devices=devices,
        strategy=strategy,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def wait_for(path: Path, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < deadline, path
        time.sleep(0.01)


# ---- names, and who may run ----


@pytest.mark.parametrize(("name", "kind"), [("pair_parallel", PairParallel), ("tile_parallel", TileParallel)])
def test_a_trainer_finds_the_strategies_by_name(name: str, kind: type) -> None:
    assert name in StrategyRegistry
    made = trainer(2, name)
    assert type(made.strategy) is kind
    assert made.world_size == 2
    check_world(made)


def test_pairs_are_dealt_out_and_tiles_are_not() -> None:
    assert trainer(2, "pair_parallel").distributed_sampler_kwargs == {"num_replicas": 2, "rank": 0}
    assert trainer(2, "tile_parallel").distributed_sampler_kwargs == {"num_replicas": 1, "rank": 0}


def test_one_process_needs_no_strategy() -> None:
    check_world(trainer(1))


def test_several_processes_of_lightnings_own_strategy_are_refused() -> None:
    with pytest.raises(InputError, match=r"^trainer\.strategy must be .* for 2 processes, got DDPStrategy, which"):
        check_world(trainer(2, "ddp"))


def test_a_number_of_processes_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "x")
    with pytest.raises(InputError, match=r"^WORLD_SIZE in the environment must be the number .*, got 'x': unset it$"):
        check_launched("auto")


def test_several_processes_are_refused_before_they_wait_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    check_launched("pair_parallel")
    check_launched(PairParallel())
    with pytest.raises(InputError, match=r"^2 processes were launched, .* is auto: .*, or unset WORLD_SIZE$"):
        check_launched("auto")


@pytest.mark.parametrize("names", [("RANK", "WORLD_SIZE"), ("SLURM_STEP_NUM_TASKS",)])
@pytest.mark.parametrize("devices", [1, 3])
def test_processes_that_the_trainer_was_not_told_of_are_refused(
    names: tuple[str, ...], devices: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = trainer(devices, "pair_parallel")
    for name in names:
        monkeypatch.setenv(name, "2")
    with pytest.raises(InputError, match=rf"^2 processes were launched but .* is {devices}: each would do all of"):
        check_world(made)
    check_world(trainer_of_two())


def trainer_of_two() -> L.Trainer:
    """A trainer of the world that the environment claims, made as if there was none: this is no rank of it."""
    with pytest.MonkeyPatch.context() as patch:
        for name in LAUNCHED:
            patch.delenv(name, raising=False)
        return trainer(2, "pair_parallel")


# ---- agreeing ----


def test_a_process_alone_agrees_with_itself() -> None:
    assert agreed("folder", lambda: "mine") == "mine"


def test_a_started_process_takes_what_it_was_told() -> None:
    with telling({"folder": "told"}):
        assert agreed("folder", lambda: pytest.fail("was asked")) == "told"
        assert agreed("other", lambda: "mine") == "mine"
    assert "NST_LIGHTNING_AGREED" not in os.environ


def test_nothing_is_told_after_an_error() -> None:
    with pytest.raises(KeyError), telling({"folder": "told"}):
        raise KeyError
    assert agreed("folder", lambda: "mine") == "mine"


def free_port() -> int:
    """A port that is free, as is the next one, which `agreed` takes."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
            try:
                second.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port


def agree(environments: Sequence[Mapping[str, str]], rank: int, folder: Path) -> None:
    """Writes what a process agrees on with others, in one environment after the other."""
    found = []
    for environment in environments:
        os.environ.update(environment)
        parallel._store.cache_clear()
        found.append([agreed(what, f"{what} of {rank}".__str__) for what in ("folder", "progress")])
        for name in environment:
            del os.environ[name]
    (folder / str(rank)).write_text(json.dumps(found))


def torchrun_environment(rank: int, port: int) -> dict[str, str]:
    """What torchrun sets, as far as Lightning reads it; its agent serves no store."""
    ranks = dict.fromkeys(("RANK", "LOCAL_RANK"), str(rank))
    worlds = dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), "2")
    store = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "none"}
    return {**ranks, **worlds, **store, "GROUP_RANK": "0"}


def slurm_environment(rank: int, port: int) -> dict[str, str]:
    """What srun sets in a step of two tasks on one node, as far as Lightning reads it, and a port that is free."""
    ranks = dict.fromkeys(("SLURM_PROCID", "SLURM_LOCALID"), str(rank))
    worlds = dict.fromkeys(("SLURM_NTASKS", "SLURM_NTASKS_PER_NODE", "SLURM_STEP_NUM_TASKS"), "2")
    job = {"SLURM_JOB_ID": "1234567", "SLURM_JOB_NAME": "paint", "SLURM_NODEID": "0", "SLURM_NNODES": "1"}
    return {**ranks, **worlds, **job, "SLURM_NODELIST": "127.0.0.1", "MASTER_PORT": str(port)}


def test_processes_of_torchrun_and_of_slurm_agree_with_their_first(tmp_path: Path) -> None:
    ports = free_port(), free_port()
    processes = []
    for rank in (1, 0):  # whoever comes first waits
        environments = [torchrun_environment(rank, ports[0]), slurm_environment(rank, ports[1])]
        processes.append(FORKS.Process(target=agree, args=(environments, rank, tmp_path)))
        processes[-1].start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    for name in ("0", "1"):
        assert json.loads((tmp_path / name).read_text()) == [["folder of 0", "progress of 0"]] * 2


def test_a_first_process_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "_PATIENCE", timedelta(seconds=0.2))
    for name, value in torchrun_environment(1, free_port()).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=r"^the first process of the launch cannot be reached \("):
        agreed("folder", lambda: pytest.fail("was asked"))


def test_other_processes_that_are_not_there_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "_PATIENCE", timedelta(seconds=0.2))
    for name, value in torchrun_environment(0, free_port()).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=r"cannot be reached"):
        agreed("folder", lambda: "mine")


# ---- ending ----


def test_an_error_of_ranks_says_how_each_ended() -> None:
    error = RankError({1: -signal.SIGKILL, 3: 2})
    assert str(error) == "rank 1 was killed by SIGKILL, rank 3 ended with exit code 2"
    assert error.codes == {1: -9, 3: 2}


@pytest.fixture
def launcher(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., parallel._Launcher]]:
    """Makes a launcher whose other processes run the given programs; kills what is left of them."""
    made: list[parallel._Launcher] = []

    def make(*programs: str, node: int = 0) -> parallel._Launcher:
        environment = LightningEnvironment()
        monkeypatch.setattr(environment, "node_rank", lambda: node)
        new = parallel._Launcher(environment, len(programs) + 1, 2)

        def start() -> None:
            new.procs = [subprocess.Popen([sys.executable, "-S", "-c", program]) for program in programs]

        monkeypatch.setattr(new, "_call_children_scripts", start)
        made.append(new)
        return new

    yield make
    for process in (process for each in made for process in each.procs):
        process.kill()
        process.wait()


def when(path: Path, then: str) -> str:
    """A program that waits for a file, half a minute at most."""
    return (
        "import os, pathlib, time\n"
        "end = time.monotonic() + 30\n"
        f"while not os.path.exists({str(path)!r}) and time.monotonic() < end: time.sleep(0.01)\n"
        f"{then}"
    )


def test_a_launch_returns_what_its_function_does_once_all_have_ended(
    launcher: Callable[..., parallel._Launcher], tmp_path: Path
) -> None:
    go, done = tmp_path / "go", tmp_path / "done"
    one = launcher(when(go, f"pathlib.Path({str(done)!r}).touch()"))

    def work() -> str:
        go.touch()
        return "result"

    assert one.launch(work) == "result"
    assert done.exists()


def test_a_process_that_fails_fails_the_launch_after_the_others_have_finished(
    launcher: Callable[..., parallel._Launcher], tmp_path: Path
) -> None:
    go, done = tmp_path / "go", tmp_path / "done"
    programs = (
        "import os; os.kill(os.getpid(), 9)",
        when(go, f"pathlib.Path({str(done)!r}).touch()"),
        "raise SystemExit(2)",
    )
    with pytest.raises(RankError) as failed:
        launcher(*programs).launch(go.touch)
    assert failed.value.codes == {1: -9, 3: 2}
    assert done.exists()


def test_ranks_are_counted_over_all_nodes(launcher: Callable[..., parallel._Launcher]) -> None:
    with pytest.raises(RankError, match=r"^rank 5 ended with exit code 1$"):
        launcher("", "raise SystemExit(1)", node=1).launch(lambda: None)
    with pytest.raises(RankError, match=r"^rank 3 ended with exit code 1$"):
        launcher("raise SystemExit(1)", node=1).launch(lambda: None)


def test_an_error_of_the_first_process_waits_for_the_others_too(
    launcher: Callable[..., parallel._Launcher], tmp_path: Path
) -> None:
    go, done = tmp_path / "go", tmp_path / "done"
    other = launcher("import time; time.sleep(1)\n" + when(go, f"pathlib.Path({str(done)!r}).touch()"))

    def fail() -> None:
        go.touch()
        raise InputError("mine")

    with pytest.raises(InputError, match=r"^mine$"):
        other.launch(fail)
    assert not done.exists()  # this process saves first what it has
    other.end(InputError("mine"))
    assert done.exists()


def test_ctrl_c_lets_the_others_save_and_ends_those_that_do_not_stop(
    launcher: Callable[..., parallel._Launcher], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel, "_GRACE", 0.3)
    ready = [tmp_path / name for name in ("saves", "ignores")]
    saved, never = tmp_path / "saved", tmp_path / "never"
    touch = "pathlib.Path({!r}).touch()"
    saves = (
        "import pathlib, time\n"
        f"try:\n    {touch.format(str(ready[0]))}; time.sleep(30)\n"
        f"except KeyboardInterrupt:\n    {touch.format(str(saved))}\n"
    )
    ignores = f"import pathlib, signal; signal.signal(2, signal.SIG_IGN); {touch.format(str(ready[1]))}\n"
    two = launcher(saves, ignores + when(never, ""))

    def interrupted() -> None:
        for path in ready:
            wait_for(path)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        two.launch(interrupted)
    two.end(KeyboardInterrupt())
    assert saved.exists()
    assert [process.returncode for process in two.procs] == [0, -signal.SIGKILL]


@pytest.mark.skipif(not hasattr(os, "waitid"), reason="the system does not tell who is stopped")
def test_a_stopped_process_is_told_of_now_and_then_while_it_is_waited_for(
    launcher: Callable[..., parallel._Launcher],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(parallel, "_SILENCE", 0.2)
    ready = tmp_path / "ready"
    one = launcher(f"import os, pathlib; pathlib.Path({str(ready)!r}).touch(); os.kill(os.getpid(), 19)")

    def resume() -> None:
        os.kill(one.procs[0].pid, signal.SIGCONT)

    def work() -> None:
        wait_for(ready)
        threading.Timer(1.5, resume).start()

    one.launch(work)
    line = f"nst: rank 1 is stopped and waited for: kill -CONT {one.procs[0].pid} has it go on\n"
    assert capfd.readouterr().err == line


def test_a_process_whose_parent_is_gone_is_an_orphan(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not parallel.is_orphan()
    monkeypatch.setenv("NST_LIGHTNING_STARTED", str(os.getppid()))
    assert not parallel.is_orphan()
    monkeypatch.setenv("NST_LIGHTNING_STARTED", "1")
    assert not parallel.is_orphan()  # a variable that was left
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert parallel.is_orphan() is (os.getppid() != 1)


@pytest.mark.parametrize(("given", "allowed", "expected"), [(None, 8, [4]), (None, 6, [3]), ("3", 8, [])])
def test_processes_share_the_cores_unless_told_otherwise(
    given: str | None,
    allowed: int,
    expected: Sequence[int],
    launcher: Callable[..., parallel._Launcher],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if given is None:
        monkeypatch.delenv("OMP_NUM_THREADS")
    chosen: list[int] = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    monkeypatch.setattr(parallel, "cores", lambda: allowed)
    monkeypatch.setattr(torch, "set_num_threads", chosen.append)
    launcher("").launch(lambda: None)
    assert chosen == expected


def test_a_launch_leaves_the_environment_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[dict[str, str]] = []

    class Process:
        def __init__(self, command: Sequence[str], env: dict[str, str], cwd: str | None) -> None:
            started.append(env)

        def poll(self) -> int:
            return 0

        returncode = 0

    monkeypatch.setattr(subprocess, "Popen", Process)
    before = dict(os.environ)
    for _ in range(2):  # the second is not taken for a process that the first has started
        parallel._Launcher(LightningEnvironment(), 2, 1).launch(lambda: None)
        assert dict(os.environ) == before
    assert [env["LOCAL_RANK"] for env in started] == ["1", "1"]


def test_a_rank_that_nobody_gave_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "0")
    with pytest.raises(InputError, match=r"^LOCAL_RANK is set in the environment, but .*: unset LOCAL_RANK$"):
        parallel._Launcher(LightningEnvironment(), 2, 1).launch(lambda: None)
