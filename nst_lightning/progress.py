"""What an earlier run has done, so that another one, of any number of processes, can do the rest."""

from __future__ import annotations

import errno
import json
import math
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import torch
import yaml

from nst_lightning.errors import DAMAGED, InputError
from nst_lightning.runs import Run, file_beside, regular, replacing
from nst_lightning.schedule import Stage, stage_of

FORMAT = 4
"""The number of what a checkpoint notes; those of another cannot be gone on from."""


@dataclass(frozen=True)
class Saved:
    """A checkpoint of a batch that was not finished."""

    path: Path
    names: tuple[str, ...]  # of the batch's pairs
    stages: tuple[Stage, ...]  # that it was to go through
    taken: int  # steps, over all stages, >= 1
    weights: Mapping[str, float] = field(default_factory=dict)  # those of the style that were found, by pair

    @property
    def noted(self) -> dict[str, Any]:
        """All but the path in plain values, as checkpoints note it."""
        return note_of(self.names, self.stages, self.taken, self.weights)

    @property
    def stage_index(self) -> int:
        """The place of the stage that the image belongs to, from 0."""
        return stage_of(self.stages, self.taken - 1)

    @classmethod
    def of(cls, path: Path, note: Mapping[str, Any]) -> Saved:
        """Returns what a checkpoint noted; an InputError where it makes no sense."""
        with suppress(TypeError, AttributeError, KeyError, InputError):
            found = cls(
                path,
                tuple(note["names"]),
                tuple(Stage(*stage) for stage in note["stages"]),
                note["taken"],
                dict(note.get("weights", {})),
            )
            weighs = all(isinstance(each, float) and 0 <= each < math.inf for each in found.weights.values())
            numbers = [found.taken, *(number for stage in found.stages for number in (stage.size, stage.steps))]
            named = all(isinstance(name, str) for name in found.names)
            if (
                named
                and weighs
                and all(isinstance(number, int) for number in numbers)
                and 1 <= found.taken <= sum(numbers[2::2])
            ):
                return found
        raise InputError(f"{path}: {DAMAGED}")


def note_of(
    names: Sequence[str], stages: Sequence[Stage], taken: int, weights: Mapping[str, float] | None = None
) -> dict[str, Any]:
    """Returns what a checkpoint notes of its batch, in plain values: `Saved` without the path."""
    sizes = [[stage.size, stage.steps, dict(stage.weights)] for stage in stages]
    return {"format": FORMAT, "names": list(names), "stages": sizes, "taken": taken, "weights": weights or {}}


@dataclass(frozen=True)
class Progress:
    """What an earlier run has done."""

    finished: frozenset[str] = frozenset()  # the names of the pairs
    saved: tuple[Saved, ...] = ()  # of unfinished batches, the newest first
    failed: frozenset[str] = frozenset()  # the pairs that were given up

    @classmethod
    def of(cls, path: Path) -> Progress:
        """Returns what a run's folder, or a single checkpoint, holds; raises an InputError where there is neither."""
        if path.is_file():
            return cls(frozenset(), _read([path]))
        run = Run(path)
        if not run.config.is_file():
            raise InputError(f"{path}: is not the folder of a run, for it has no config.yaml")
        return cls(_finished(run), _read(run.saved()), run.failed())

    def as_json(self) -> str:
        """Returns all of it as text, for the other processes of a run."""
        saved = {str(each.path): each.noted for each in self.saved}
        return json.dumps({"finished": sorted(self.finished), "saved": saved, "failed": sorted(self.failed)})

    def write(self, run: Run) -> None:
        """Notes all of it in a run's folder, for the processes that are started to go on with the run."""
        with replacing(run.progress) as file:
            file.write_text(self.as_json(), encoding="utf-8")

    @classmethod
    def from_json(cls, text: str) -> Progress:
        """Returns what `as_json` wrote."""
        found = json.loads(text)
        saved = tuple(Saved.of(Path(path), note) for path, note in found["saved"].items())
        return cls(frozenset(found["finished"]), saved, frozenset(found["failed"]))


def loaded(path: Path, device: torch.device) -> dict[str, Any]:
    """Returns a checkpoint, each byte of which was checked; an InputError if it is damaged or nothing of the kind."""
    try:
        # torch writes the sum of every record, and does not look at it.
        with ZipFile(regular(path)) as archive:
            whole = archive.testzip() is None
        found = torch.load(path, map_location=device, weights_only=True)
        if whole and isinstance(found, dict):
            return found
    except Exception as error:  # zipfile and the restricted unpickler raise nearly anything over a damaged file
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # that one is of a place outside the file
            raise
        raise InputError(f"{path}: {DAMAGED}") from error
    raise InputError(f"{path}: {DAMAGED}")


def _finished(run: Run) -> frozenset[str]:
    """Returns the names of the pairs that are finished and have their pictures."""
    settings = yaml.safe_load(run.config.read_text(encoding="utf-8"))
    beside = file_beside(run.folder, settings.get("output") if isinstance(settings, dict) else None)
    marked = run.finished()
    gone = {name for name in marked if not (run.picture(name) if beside is None else beside).is_file()}
    if gone:
        warnings.warn(f"{run.folder}: no picture is there of {', '.join(sorted(gone))}; will begin anew", stacklevel=3)
    return marked - gone


def _read(files: Sequence[Path]) -> tuple[Saved, ...]:
    found = []
    for path in files:
        try:
            note = loaded(path, torch.device("meta")).get("batch")
            is_older = isinstance(note, dict) and note.get("format") != FORMAT
            saved = None if note is None or is_older else Saved.of(path, note)
        except (InputError, OSError) as error:
            warnings.warn(f"{error}; the pairs it was of will begin anew, or go on from the one before", stacklevel=2)
            continue
        if saved is not None:
            found.append(saved)
        elif note is not None:
            warnings.warn(f"{path}: is of an earlier version; the pairs it was of will begin anew", stacklevel=2)
    return tuple(found)
