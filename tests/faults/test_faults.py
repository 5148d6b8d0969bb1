"""A fixed part of the matrix, see `__main__`: a cell of most kinds."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.bench import OK, outcome
from tests.faults.matrix import cells, prepared

CHOSEN = (
    "signals: SIGKILL 1",
    "at once: a run resumed twice",
    "disk: files of at most 600 bytes",
    "disk: files of at most 2048 bytes",
    "folders: tensorboard becomes a file",
    "checkpoint: history: a bit flipped",
    "checkpoint: a folder, and the one before",
    "state: a finished run's picture deleted",
    "names: '#x' for images and output",
    "configuration: itself",
    "pairs: good, diverging, good",
)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[float, float]]:
    folder = tmp_path_factory.mktemp("faults") / "shared"
    return folder, prepared(folder)


@pytest.mark.parametrize("name", CHOSEN)
def test_nothing_is_lost_and_nothing_silent(name: str, shared: tuple[Path, tuple[float, float]]) -> None:
    (cell,) = (each for each in cells() if f"{each.kind}: {each.name}" == name)
    found = outcome(cell, shared[0], 0, shared[1])
    assert found["verdict"] == OK, found["note"]
