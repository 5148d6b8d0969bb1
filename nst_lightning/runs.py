"""The run folder: what lies where in it, how a run claims one, and how files appear in it whole or not at all."""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from nst_lightning.errors import InputError

FOLDER = Path("data/output-images")  # where run folders are made unless told otherwise
SHEET = "sheet.json"  # in the folder of a sweep: its pictures by what the cells are called
_LOCK = ".lock"  # in a run folder, locked while a process is at work on it; alone, after a kill, it is nothing


@dataclass(frozen=True)
class Run:
    """The folder of one run, which need not exist yet: the one place that knows its layout."""

    folder: Path

    @property
    def config(self) -> Path:
        """The whole configuration, by which `nst fit --config` makes the run again."""
        return self.folder / "config.yaml"

    @property
    def checkpoints(self) -> Path:
        """The folder of the unfinished batches and of the markers of finished pairs."""
        return self.folder / "checkpoints"

    @property
    def progress(self) -> Path:
        """What a resumed run found done, for all of its processes."""
        return self.checkpoints / "progress.json"

    @property
    def begun(self) -> Path:
        """The settings and sums of images that the run was begun with."""
        return self.checkpoints / "begun.json"

    def picture(self, pair: str) -> Path:
        """Returns a pair's finished picture."""
        return self.folder / f"{pair}.png"

    def preview(self, rank: int) -> Path:
        """Returns the picture that a process is at work on, as it is."""
        return self.folder / ("preview.jpg" if rank == 0 else f"preview_{rank}.jpg")

    def picture_at(self, pair: str, step: int) -> Path:
        """Returns a pair's picture after so many steps."""
        return self.folder / "steps" / pair / f"{step:06d}.png"

    def pictures_on_the_way(self, pair: str) -> list[Path]:
        """Returns a pair's pictures after some steps that are there, in their order."""
        return sorted(path for path in self.picture_at(pair, 0).parent.glob("*.png") if path.stem.isdecimal())

    def film(self, pair: str, suffix: str) -> Path:
        """Returns a pair's film."""
        return self.folder / f"{pair}{suffix}"

    def frames(self, pair: str) -> Path:
        """Returns the folder of the frames that a pair's film is made of."""
        return self.folder / "frames" / pair

    def scores(self, pair: str) -> Path:
        """Returns a pair's final scores and losses."""
        return self.folder / "scores" / f"{pair}.json"

    def tensorboard(self, pair: str) -> Path:
        """Returns the folder of a pair's curves and pictures."""
        return self.folder / "tensorboard" / pair

    def checkpoint(self, pair: str) -> Path:
        """Returns the checkpoint of the unfinished batch whose first pair it is."""
        return self.checkpoints / f"{pair}.ckpt"

    def checkpoint_before(self, pair: str) -> Path:
        """Returns the one before it, for where that turns out to be damaged."""
        return self.checkpoints / "before" / f"{pair}.ckpt"

    def marker(self, pair: str) -> Path:
        """Returns the empty file that says that a pair is finished."""
        return self.checkpoints / "finished" / pair

    def why_failed(self, pair: str) -> Path:
        """Returns the file that says why a pair was given up, which a run tries after all others."""
        return self.checkpoints / "failed" / pair

    def saved(self) -> list[Path]:
        """Returns all checkpoints, the newest first."""
        found = [*self.checkpoints.glob("*.ckpt"), *self.checkpoint_before("").parent.glob("*.ckpt")]
        return sorted(found, key=lambda file: -file.lstat().st_mtime_ns)

    def forget(self, pair: str) -> None:
        """Removes the checkpoints of the batch whose first pair it is."""
        for path in (self.checkpoint(pair), self.checkpoint_before(pair)):
            no_folder(path).unlink(missing_ok=True)

    def finished(self) -> frozenset[str]:
        """Returns the names of the pairs that are finished."""
        return frozenset(path.name for path in self.marker("").glob("*"))

    def failed(self) -> frozenset[str]:
        """Returns the names of the pairs that were given up."""
        return frozenset(path.name for path in self.why_failed("").glob("*"))


def proposed(output: str | None, names: Sequence[str], overwrite: bool) -> tuple[Run, Path | None]:
    """Returns the folder that a run would take, and the picture's file where the output names one.

    The output is a folder, a picture's file, whose run folder has its name without suffix, or None for a folder that is
    named after what the run makes. A name that is taken gets a number, unless it may be overwritten.

    Raises:
        InputError: If the output has no name to put a number behind.
    """
    return next(_possible(output, names, overwrite))


@contextmanager
def claimed(output: str | None, names: Sequence[str], overwrite: bool) -> Iterator[tuple[Run, Path | None]]:
    """Yields what is `proposed`, made and held so that no other run takes it; at the end it goes if it is empty.

    Raises:
        InputError: If it cannot be made.
    """
    for run, file in _possible(output, names, overwrite):
        made = [folder for folder in (run.folder, *run.folder.parents) if not os.path.exists(folder)]
        try:
            run.folder.mkdir(parents=True, exist_ok=True)
            (run.folder / _LOCK).open("a").close()
        except OSError as error:
            reason = f"cannot create files there ({error.strerror})"
            raise InputError(f"{run.folder}: {reason}; choose a writable folder") from error
        with ExitStack() as stack:
            stack.callback(_remove_empty, made)
            try:
                stack.enter_context(held(run))
            except _AtWork:
                if overwrite:
                    raise
                continue
            if overwrite or not _is_taken(run.folder, output):  # by a run that has just ended
                yield run, file
                return


@contextmanager
def held(run: Run) -> Iterator[None]:
    """Keeps a run from being worked on by another process at once, until the end or the process's death.

    Raises:
        InputError: If another is at work on it, or it cannot be written to.
    """
    lock = FileLock(run.folder / _LOCK)
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        raise _AtWork(f"{run.folder}: another process is at work on this run") from error
    try:
        yield
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def _remove_empty(folders: Sequence[Path]) -> None:
    for folder in folders:
        with suppress(OSError):  # what is not empty stays
            folder.rmdir()


class _AtWork(InputError):
    """A run that another process holds."""


def _possible(output: str | None, names: Sequence[str], overwrite: bool) -> Iterator[tuple[Run, Path | None]]:
    """Yields the folders that a run may take, the one that it would like best first."""
    if output is not None and (Path(output).name in ("", "..") or "\0" in output):
        raise InputError(f"output must name a folder or a picture's file, got {output!r}")
    several = "" if len(names) == 1 else f"_and_{len(names) - 1}_more"
    wished = FOLDER / f"{names[0]}{several}" if output is None else Path(output).with_suffix("")
    for folder in _numbered(wished):
        if overwrite or not _is_taken(folder, output):
            yield Run(folder), file_beside(folder, output)


def _is_taken(folder: Path, output: str | None) -> bool:
    file = file_beside(folder, output)
    holds_files = folder.is_file() or (folder.is_dir() and any(entry.name != _LOCK for entry in folder.iterdir()))
    return holds_files or (file is not None and file.exists())


def file_beside(folder: Path, output: str | None) -> Path | None:
    """Returns the picture's file that goes with a run's folder, None where the output names a folder."""
    suffix = "" if output is None else Path(output).suffix
    return folder.with_name(folder.name + suffix) if suffix else None


def free(path: Path, suffixes: Sequence[str]) -> Path:
    """Returns a path without suffix, numbered so that with none of the suffixes there is a file."""
    return next(each for each in _numbered(path) if not any(Path(f"{each}{end}").exists() for end in suffixes))


def untaken(path: Path, overwrite: bool) -> Path:
    """Returns the path of a file to write, numbered where there is one that may not be overwritten."""
    return path if overwrite else Path(f"{free(path.with_suffix(''), [path.suffix])}{path.suffix}")


def regular(path: Path) -> Path:
    """Returns the path of a file to read; raises an OSError for a device or a pipe, which may never end."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise OSError(errno.EINVAL, "a device or a pipe, not a file", str(path))
    return path


def no_folder(path: Path) -> Path:
    """Returns the path of a file to write or remove, where a folder is removed that has taken its place."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    return path


@contextmanager
def replacing(path: Path, overwrite: bool = True) -> Iterator[Path]:
    """Yields the path of a temporary file that takes the place of `path` once it is whole; makes a missing folder.

    Raises:
        FileExistsError: If there is a file at the end that may not be overwritten.
        OSError: If it cannot be written, whose `filename` is the path.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # A fixed name, so that what a killed run left is replaced; a short one, for the file's may be as long as names get.
    temporary = path.absolute().with_name(f".nst-{zlib.crc32(os.fsencode(path.name)):08x}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())  # else the name may be on the disk before what it names
        if not overwrite:
            path.open("xb").close()  # settles a race; not every file system has hard links, which would do, too
        try:
            os.replace(temporary, path)
        except BaseException:
            if not overwrite:
                path.unlink()
            raise
    except OSError as error:
        if error.filename is None:  # a full disk is not said to be of a file
            error.filename = os.fspath(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def _numbered(path: Path) -> Iterator[Path]:
    return (path if number == 1 else path.with_name(f"{path.name}-{number}") for number in itertools.count(1))
