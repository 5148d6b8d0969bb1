"""Cells of the machine: disks that are full or may not be written, folders that go away, too little memory."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

from tests.faults.bench import ALWAYS, WRONG, Bench, Cell, Ended, Fault, same

_KIB, _MIB = 1 << 10, 1 << 20
SMALL_DISKS = [f"size={size}k" for size in (4, 8, 12, 16, 24, 32, 48, 64, 128, 256, 512)]
SMALL_DISKS += [f"nr_inodes={count}" for count in (2, 3, 4, 6, 8, 10, 12, 14, 16)]
FILE_LIMITS = [0, 100, 600, 2 * _KIB, 8 * _KIB, 32 * _KIB, 64 * _KIB, 128 * _KIB]
DURING = {  # what is done to the run's folder once a picture is on the way, and the codes that are right
    "the disk fills": ("fill", {1}),
    "the disk becomes read-only": ("freeze", {1}),
    "tensorboard is deleted": ("rm tensorboard", {0}),
    "checkpoints is deleted": ("rm checkpoints", {0, 3}),
    "steps is deleted": ("rm steps", {0}),
    "scores is deleted": ("rm scores", {0}),
    "the run folder is deleted": ("rm .", {0, 1, 3}),
    "the working folder is deleted": ("rm ..", {0, 1, 2}),
    "the run folder is renamed": ("mv .", {0, 1, 3}),
    "tensorboard becomes a file": ("file tensorboard", {0}),
    "checkpoints becomes a file": ("file checkpoints", {1, 2}),
    "steps becomes a file": ("file steps", {1, 2}),
    "scores becomes a file": ("file scores", {0, 1, 2}),
    "the run folder becomes a file": ("file .", {1, 2}),
    "config.yaml is deleted": ("rm config.yaml", {0}),
    "begun.json is deleted": ("rm checkpoints/begun.json", {0}),
    "the photographs are deleted": ("rm ../images", {0, 1, 2}),
    "the picture's name is taken": ("file c2_s.png", {0, 1, 2}),
    "the picture's name is taken by a folder": ("mkdir c2_s.png", {1, 2}),
    "the temporary folder is deleted": ("rm ../tmp", {0}),
}
MEMORY = [200, 300, 400, 500, 700, 1000, 1300, 1600, 2000, 3000]  # MiB, of a process that starts anew
MEMORY_LEFT = [0, 5, 10, 20, 40, 80, 160, 320]  # MiB, above what the imported program has


def cells() -> Iterator[Cell]:
    """Yields the cells."""
    for options in SMALL_DISKS:
        yield Cell("disk", f"tmpfs of {options}", partial(_small_disk, options))
        if options.startswith("size"):
            yield Cell("disk", f"tmpfs of {options}, a picture's file", partial(_small_disk_of_file, options))
    yield Cell("disk", "read-only from the start", _frozen)
    yield Cell("disk", "no space in TMPDIR", partial(_temporary, "size=4k"))
    yield Cell("disk", "TMPDIR read-only", partial(_temporary, "ro"))
    for limit in FILE_LIMITS:
        yield Cell("disk", f"files of at most {limit} bytes", partial(_limited, {resource.RLIMIT_FSIZE: limit}))
    for number in (0, 3, 8, 16, 32):
        yield Cell("disk", f"at most {number} open files", partial(_limited, {resource.RLIMIT_NOFILE: number}))
    for name, (act, codes) in DURING.items():
        yield Cell("folders", name, partial(_during, act, codes))
    for limit in MEMORY:
        yield Cell("memory", f"RLIMIT_AS {limit} MiB", partial(_memory, limit, True))
    for limit in MEMORY_LEFT:
        yield Cell("memory", f"RLIMIT_AS {limit} MiB above the imported program", partial(_memory, limit, False))


def _mounted(bench: Bench, options: str, name: str = "disk") -> Path:
    folder = bench.folder / name
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)
    bench.stack.callback(subprocess.run, ["umount", "-l", str(folder)], check=True)
    return folder


def _ends_well_or_says_why(bench: Bench, ended: Ended, whole: Path, folder: Path, *causes: str) -> str:
    """Returns how it ended; a failure must be one line that names the cause."""
    if ended.expect(0, 1, 2).code == 0:
        bench.compare(whole, folder)
        return "done"
    last = ended.err.strip().splitlines()[-1]
    if not last.startswith("nst: error: ") or not any(cause in last for cause in causes):
        raise Fault(WRONG, last[-150:])
    return last[11:].replace(str(bench.folder), "")[-100:]


def _small_disk(options: str, bench: Bench) -> str:
    whole, disk = bench.whole(), _mounted(bench, options)
    command = [*bench.fit("c1", "c2", steps=40), *ALWAYS, "--output", "disk/run"]
    ended = bench.started(*command).wait()
    told = _ends_well_or_says_why(bench, ended, whole, disk / "run", "No space left")
    subprocess.run(["mount", "-o", "remount,size=64m,nr_inodes=10k", str(disk)], check=True)
    bench.go_on(whole, disk / "run", command)
    return told


def _small_disk_of_file(options: str, bench: Bench) -> None:
    """The picture's file alone is on the small disk, with an earlier one under its name."""
    whole, disk = bench.undisturbed("only c1"), _mounted(bench, options)
    earlier = disk / "picture.png"
    earlier.write_bytes(b"earlier")
    command = [*bench.fit("c1"), "--overwrite", "true", "--output", "disk/picture.png"]
    ended = bench.started(*command).wait().expect(0, 1, 2)
    if ended.code and earlier.read_bytes() != b"earlier":  # then by a whole one
        same(whole / "c1_s.png", earlier)
    subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
    bench.started(*command).wait().expect(0)
    same(whole / "c1_s.png", earlier)


def _frozen(bench: Bench) -> None:
    _mounted(bench, "ro")
    bench.started(*bench.fit(), "--output", "disk/run").wait().refused(1, 2)


def _temporary(options: str, bench: Bench) -> None:
    whole, folder = bench.whole(), _mounted(bench, options)
    command = [*bench.fit("c1", "c2", steps=40), *ALWAYS, "--output", "run"]
    bench.started(*command, environment={"TMPDIR": str(folder)}).wait().expect(0)
    bench.compare(whole, bench.folder / "run")


def _limited(limits: dict[int, int], bench: Bench) -> str:
    whole = bench.whole()
    command = [*bench.fit("c1", "c2", steps=40), *ALWAYS, "--output", "run"]
    ended = bench.started(*command, limits=limits).wait()
    told = _ends_well_or_says_why(bench, ended, whole, bench.folder / "run", "File too large", "Too many open files")
    bench.go_on(whole, bench.folder / "run", command)
    return told


def _during(act: str, codes: set[int], bench: Bench) -> str:
    """Something happens to the folders of a run at work; afterwards it is undone, and the run goes on."""
    whole = bench.whole()
    disk = _mounted(bench, "size=64m", "disk")
    for made in ("work/images", "work/tmp"):
        (disk / made).mkdir(parents=True)
    for name in ("c1", "c2", "s"):
        shutil.copy(bench.shared / f"{name}.png", disk / "work/images")
    shown = [each.replace(str(bench.shared), str(disk / "work/images")) for each in bench.fit("c1", "c2", steps=40)]
    command, folder = [*shown, *ALWAYS, "--scores", "palette", "--output", "run"], disk / "work/run"
    run = bench.started(*command, folder=disk / "work", environment={"TMPDIR": str(disk / "work/tmp")})
    if not run.until((folder / "steps/c2_s/000005.png").exists):
        raise Fault(WRONG, run.said()[-100:])
    what, _, name = act.partition(" ")
    undo = _ACTS[what](folder / name)
    ended = run.wait().expect(*codes)
    undo()
    for name in ("c1", "c2", "s"):
        (disk / "work/images").mkdir(parents=True, exist_ok=True)
        shutil.copy(bench.shared / f"{name}.png", disk / "work/images")
    if ended.code == 0 and name != ".":
        bench.compare(whole, folder)
    elif ended.code:
        bench.folder = disk / "work"
        bench.go_on(whole, folder, command)
    return f"code {ended.code}: {ended.err.strip().splitlines()[-1][-100:]}" if ended.code else ""


def _remove(path: Path) -> Callable[[], object]:
    for _ in range(20):  # for the program goes on writing into it
        if path.is_dir():
            shutil.rmtree(path.resolve(), ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return lambda: path.resolve().mkdir(parents=True, exist_ok=True) if path.name == ".." else None


def _into_file(path: Path) -> Callable[[], object]:
    for _ in range(200):
        with suppress(OSError):
            _remove(path)
            path.resolve().write_text("in the way")
            break
    return lambda: path.resolve().unlink() if path.suffix != ".png" and path.is_file() else None


def _into_folder(path: Path) -> Callable[[], object]:
    path.mkdir()
    return path.rmdir


def _rename(path: Path) -> Callable[[], object]:
    there = path.resolve().with_name("renamed")
    os.rename(path.resolve(), there)

    def undo() -> None:
        shutil.rmtree(path, ignore_errors=True)
        os.rename(there, path.resolve())

    return undo


def _fill(path: Path) -> Callable[[], object]:
    filler = path.parents[1] / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 12))
    return filler.unlink


def _freeze(path: Path) -> Callable[[], object]:
    disk = path.parents[1]
    subprocess.run(["mount", "--bind", str(disk), str(disk)], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", str(disk)], check=True)
    return lambda: subprocess.run(["umount", "-l", str(disk)], check=True)


_ACTS: dict[str, Callable[[Path], Callable[[], object]]] = {
    "rm": _remove, "file": _into_file, "mkdir": _into_folder, "mv": _rename, "fill": _fill, "freeze": _freeze,
}  # fmt: skip


def _memory(limit: int, anew: bool, bench: Bench) -> str:
    """A photograph of 1024 px, so that memory runs out in a step if not before."""
    whole = bench.undisturbed("large", *large(bench))
    own = 0 if anew else int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    limits = {resource.RLIMIT_AS: own + limit * _MIB}
    ended = bench.started(*large(bench), "--output", "run", anew=anew, limits=limits).wait()
    if ended.expect(0, 1, 2).code == 0:
        bench.compare(whole, bench.folder / "run")
        return "done"
    told = ended.err.strip().splitlines()[-1]
    if "memory" not in told and "NST_DEBUG" in told:
        raise Fault(WRONG, told[-150:])
    return told[:100]


def large(bench: Bench) -> list[str]:
    """Returns a command whose step takes some hundred MiB."""
    options = [*bench.fit("large", steps=1), "--stages", "1"]
    options[options.index("32")] = "640"
    return options
