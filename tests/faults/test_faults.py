"""A fixed part of the matrix, see `__main__`: a cell of most kinds."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from pathlib import Path

import pytest

from tests.faults.bench import OK, outcome
from tests.faults.matrix import cells, drawn
from tests.processes import FORKS

CHOSEN = (
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
def apart() -> Iterator[Executor]:
    """A process of its own, which cells may fork: a fork of one whose torch has threads waits for them for ever."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("OMP_NUM_THREADS", "1")
        with ProcessPoolExecutor(1, FORKS) as pool:
            yield pool


@pytest.fixture(scope="module")
def shared(apart: Executor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("faults") / "shared"
    apart.submit(drawn, folder).result()
    return folder


def verdict(name: str, shared: Path) -> tuple[str, str]:
    (cell,) = (each for each in cells() if f"{each.kind}: {each.name}" == name)
    found = outcome(cell, shared, 0, (0.0, 0.0))
    return str(found["verdict"]), str(found["note"])


@pytest.mark.parametrize("name", CHOSEN)
def test_nothing_is_lost_and_nothing_silent(name: str, apart: Executor, shared: Path) -> None:
    found, note = apart.submit(verdict, name, shared).result()
    assert found == OK, note
