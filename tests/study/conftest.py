"""What tests of sweeps share: small samples, and runs in this process, which has torch imported already."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
from PIL import Image

from nst_lightning.__main__ import main
from nst_lightning.study import runner
from tests.conftest import SAMPLES

SIZES = {"content": (64, 48), "style": (48, 64)}


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with two small samples of each kind."""
    monkeypatch.chdir(tmp_path)
    for kind, names in (("content", ("chelsea", "temple")), ("style", ("night_cafe", "pere_tanguy"))):
        folder = tmp_path / f"data/{kind}-images"
        folder.mkdir(parents=True)
        for name in names:
            with Image.open(SAMPLES / f"{kind}-images/{name}.jpg") as image:
                image.convert("RGB").resize(SIZES[kind]).save(folder / f"{name}.png")
    return tmp_path


def called_here(command: Sequence[str]) -> str | None:
    """Does what `runner._call` does, in this process."""
    assert list(command[1:3]) == ["-m", "nst_lightning"]
    said = io.StringIO()
    with redirect_stdout(io.StringIO()), redirect_stderr(said):
        code = main(list(command[3:]))
    return None if code == 0 else said.getvalue().splitlines()[-1].removeprefix("nst: error: ")


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that were run, in this process."""
    run: list[list[str]] = []

    def call(command: Sequence[str]) -> str | None:
        run.append(list(command))
        return called_here(command)

    monkeypatch.setattr(runner, "_call", call)
    return run


@pytest.fixture
def written(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a sweep's file in a folder that is not the working directory."""

    def write(text: str, name: str = "sweep.yaml") -> Path:
        path = tmp_path / "sweeps" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return path

    return write
