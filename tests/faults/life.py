"""Cells of a process's life: signals, ranks, two runs at once, outputs that no one reads."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

from tests.faults.bench import ALWAYS, HANG, LOST, SILENT, WRONG, Bench, Cell, Fault, pictured, same, taken

SIGNALS = {  # how often, and how many seconds it may take to the end
    "SIGTERM": (50, 10.0),
    "SIGINT": (25, 5.0),
    "SIGINT twice": (25, 5.0),
    "SIGKILL": (40, 10.0),
    "SIGHUP": (10, 10.0),
    "SIGUSR1": (10, 10.0),
}
RANKS = {  # what is done to which process of two, once both have begun
    "a rank is killed": ("SIGKILL", 1, {1}),
    "a rank gets SIGTERM": ("SIGTERM", 1, {1, 143}),
    "a rank gets SIGINT": ("SIGINT", 1, {1, 130}),
    "a rank is stopped": ("SIGSTOP", 1, {0, 1}),
    "the parent is killed": ("SIGKILL", 0, {137}),
    "the parent gets SIGTERM": ("SIGTERM", 0, {143}),
    "the parent gets SIGINT": ("SIGINT", 0, {130}),
    "the parent gets SIGHUP": ("SIGHUP", 0, {129}),
    "the parent gets SIGUSR1": ("SIGUSR1", 0, {138}),
    "both get SIGINT, as from a terminal": ("SIGINT", -1, {130}),
}
AT_ONCE = {
    "two by default": (["c1", "c1"], []),
    "three by default": (["c1", "c1", "c1"], []),
    "two with one folder": (["c1", "c2"], ["--output", "run"]),
    "three with one folder": (["c1", "c2", "c1"], ["--output", "new/run"]),
    "two with one file": (["c1", "c2"], ["--output", "picture.png"]),
    "three with one file": (["c1", "c2", "c1"], ["--output", "new/picture.png"]),
}
OUTPUTS = {  # what a shell puts behind the command, and the codes that are right
    "2>&-": {0},
    ">&-": {0, 1},
    ">&- 2>&-": {0, 1},
    "<&- >&- 2>&-": {0, 1},
    "<&-": {0},
    "2>/dev/full": {0},
    ">/dev/full": {0},  # all is done but the line that says where the picture is
    ">/dev/full 2>/dev/full": {0},
    "| head -c 0; exit ${PIPESTATUS[0]}": {0, 141},
    "| true; exit ${PIPESTATUS[0]}": {0, 141},
    "2>&1 | head -c 100; exit ${PIPESTATUS[0]}": {0, 141},
    "2>&1 >/dev/null | head -c 100; exit ${PIPESTATUS[0]}": {0},
    "2>&1 | true; exit ${PIPESTATUS[0]}": {0, 141},
}


def cells() -> Iterator[Cell]:
    """Yields the cells."""
    for name, entry in RANKS.items():
        yield Cell("ranks", name, partial(_rank, *entry))
    for name, (times, allowed) in SIGNALS.items():
        for number in range(1, times + 1):
            yield Cell("signals", f"{name} {number}", partial(_signal, name, number, allowed))
    for name, (shown, options) in AT_ONCE.items():
        yield Cell("at once", name, partial(_at_once, shown, options))
    yield Cell("at once", "a run resumed twice", _resumed_twice)
    for shell, codes in OUTPUTS.items():
        yield Cell("outputs", shell, partial(_output, shell, codes))
        yield Cell("outputs", f"refused, {shell}", partial(_output_refused, shell))


def slow(bench: Bench) -> list[str]:
    """Returns the command of the run that is broken off in its midst."""
    return [*bench.fit("c1", "c2", steps=80), "--scores", "palette", "--score_every", "30"]


def _signal(name: str, number: int, allowed: float, bench: Bench) -> str:
    """Two of three signals come in the midst of the steps, others before; KILL finds a checkpoint of every step."""
    signum, early = signal.Signals[name.split()[0]], number % 3 == 0
    whole, moment = bench.undisturbed("slow"), bench.random.random()
    kept = ALWAYS if name == "SIGKILL" else ALWAYS[2:]
    for attempt in range(6):
        folder = bench.folder / f"run{attempt}"
        command = [*slow(bench), *kept, "--output", folder.name]
        run = bench.started(*command, anew=True)
        is_begun = (folder / "checkpoints/begun.json").exists
        if not early and not run.until(is_begun):
            raise Fault(WRONG, f"no signal was needed: {run.said()[-100:]}")
        delay = moment * (bench.start if early else bench.work) * 0.6**attempt
        if run.until(partial(_is_past, time.monotonic() + delay)):
            break
    sent = time.monotonic()
    os.kill(run.pid, signum)
    if name.endswith("twice"):
        time.sleep(bench.random.uniform(0.02, 1.0))
        with suppress(ProcessLookupError):
            os.kill(run.pid, signum)
    ended = run.wait()
    seconds = time.monotonic() - sent
    bench.measured[signum.name] = round(seconds, 2)
    is_done = len([*folder.glob("checkpoints/finished/*")]) == 2
    ended.expect(*([0] if is_done else []), 128 + signum)  # behind the last step a run ends as it would have
    if seconds > allowed:
        raise Fault(HANG, f"{seconds:.1f} s to the end")
    if signum != signal.SIGKILL and is_begun() and not is_done and "--resume" not in ended.err:
        raise Fault(WRONG, f"not said how to go on: {ended.err[-100:]}")
    _check_kept(folder, 1 if signum == signal.SIGKILL else 0)
    bench.go_on(whole, folder, command)
    return f"{'before' if early else 'in'} the steps, after {delay:.2f} s: {seconds:.2f} s"


def _is_past(moment: float) -> bool:
    return time.monotonic() >= moment


def _check_kept(folder: Path, allowed: int) -> None:
    """Raises a fault where a checkpoint is missing, or older by more than so many steps than a picture on the way."""
    if not (folder / "config.yaml").exists():
        return
    kept = taken(folder)
    for pair, steps in pictured(folder).items():
        if kept.get(pair, 0) < steps - allowed:
            raise Fault(LOST, f"{pair}: step {steps} has a picture, the checkpoint is of step {kept.get(pair, 0)}")


def _rank(name: str, which: int, codes: set[int], bench: Bench) -> str:
    whole = bench.undisturbed("four", *bench.fit("c1", "c2", "c3", "c4", steps=60))
    two = ["--trainer.accelerator", "cpu", "--trainer.devices", "2", "--trainer.strategy", "pair_parallel"]
    command = [*bench.fit("c1", "c2", "c3", "c4", steps=60), *two, *ALWAYS, "--output", "run"]
    run, folder = bench.started(*command, anew=True), bench.folder / "run"
    if not run.until(lambda: {"c1_s", "c2_s"} <= {each.name for each in folder.glob("steps/*")}):
        raise Fault(WRONG, f"ended before both had begun: {run.said()[-100:]}")
    pids = [run.pid, *map(int, Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split())]
    sent = time.monotonic()
    for pid in pids if which < 0 else [pids[which]]:
        os.kill(pid, signal.Signals[name])
    if name == "SIGSTOP":
        run.until(lambda: "rank 1" in run.said())
        with suppress(ProcessLookupError):
            os.kill(pids[1], signal.SIGCONT)
    ended = run.wait()
    while any(_is_alive(pid) for pid in pids[1:]):
        if time.monotonic() > sent + 60:
            raise Fault(HANG, "a rank goes on unseen")
        time.sleep(0.1)
    seconds = time.monotonic() - sent
    ended.expect(*codes)
    _check_kept(folder, 1)
    bench.go_on(whole, folder, command, anew=True)  # for processes start others as they were started
    return f"{seconds:.1f} s"


def _is_alive(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def _at_once(shown: list[str], options: list[str], bench: Bench) -> None:
    wholes = {name: bench.undisturbed(f"only {name}", *bench.fit(name)) for name in shown}
    runs = [bench.started(*bench.fit(name), *options) for name in shown]
    written = [line for run in runs for line in run.wait().expect(0).out.splitlines()]
    if len({*written}) < len(shown):
        raise Fault(LOST, f"{len(shown)} runs wrote {len({*written})} pictures")
    for name, path in zip(shown, written, strict=True):
        same(wholes[name] / f"{name}_s.png", bench.folder / path)


def _resumed_twice(bench: Bench) -> None:
    whole = bench.whole()
    bench.unfinished()
    runs = [bench.started("fit", "--resume", "run") for _ in range(2)]
    ended = [run.wait() for run in runs]
    for each in ended:
        each.expect(0, 1, 2)
    if all(each.code for each in ended):
        raise Fault(WRONG, ended[0].err[-150:])
    bench.compare(whole, bench.folder / "run")


def _output(shell: str, codes: set[int], bench: Bench) -> None:
    whole = bench.undisturbed("only c1", *bench.fit("c1"))
    ended = bench.started(*bench.fit("c1"), "--output", "run", anew=True, shell=shell).wait()
    ended.expect(*codes)
    bench.compare(whole, bench.folder / "run")


def _output_refused(shell: str, bench: Bench) -> None:
    ended = bench.started("fit", "--content", "nothing", anew=True, shell=shell).wait()
    ended.expect(2)
    if any(bench.folder.iterdir()):
        raise Fault(SILENT, "something was written")
