"""`nst ui` as a person types it: one line for what cannot be used, before gradio is imported."""

from __future__ import annotations

import importlib.util
import os
import re
import socket
import sys
from pathlib import Path

import pytest

from nst_lightning.__main__ import main
from nst_lightning.runs import Run, held
from nst_lightning.ui import command

pytestmark = pytest.mark.usefixtures("workplace")


def refused(capsys: pytest.CaptureFixture[str], *options: str) -> str:
    assert main(["ui", *options]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert "gradio" not in sys.modules
    (line,) = told.err.splitlines()
    return line.removeprefix("nst: error: ")


def test_without_gradio_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], workplace: Path
) -> None:
    before = sorted(workplace.rglob("*"))
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    assert refused(capsys) == "the page needs gradio: pip install 'nst-lightning[ui]'"
    assert sorted(workplace.rglob("*")) == before


@pytest.fixture
def with_gradio(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if it were there, for what is refused before it is imported."""
    monkeypatch.setattr(command, "find_spec", lambda name: importlib.util.find_spec("json"))


BAD_INPUTS = {
    "port": (["--port", "70000"], r"port must be 1 to 65535, got 70000"),
    "port is no number": (["--port", "x"], r"argument --port: invalid int value: 'x'"),
    "host": (["--host", "192.0.2.1"], r"192\.0\.2\.1:7\d+: cannot be listened at \(.*\)"),
    "folder": (["--folder", "photo.png"], r"photo\.png: cannot create files there \(.*\); choose a writable folder"),
    "upload": (["--max_upload", "0"], r"max_upload must be above 0 MiB, got 0"),
    "option": (["--prot", "1"], r"unrecognized arguments: --prot 1; did you mean --port\?"),
}


@pytest.mark.usefixtures("with_gradio")
@pytest.mark.parametrize(("options", "said"), BAD_INPUTS.values(), ids=BAD_INPUTS)
def test_one_line_for_what_cannot_be_used(options: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert re.fullmatch(said, refused(capsys, *options))


@pytest.mark.usefixtures("with_gradio")
def test_a_port_that_is_taken_is_refused_and_the_next_is_found(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = refused(capsys, "--port", str(port))
    assert said == f"port {port} is taken by another program; name a free one with --port"


@pytest.mark.usefixtures("with_gradio")
def test_two_pages_do_not_share_a_folder(
    capsys: pytest.CaptureFixture[str], workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GRADIO_TEMP_DIR", "GRADIO_ANALYTICS_ENABLED"):  # set by the command
        monkeypatch.setenv(name, os.environ.get(name, ""))
    monkeypatch.setattr("tempfile.tempdir", None)
    (workplace / "ui").mkdir()
    with held(Run(workplace / "ui")):
        assert refused(capsys, "--folder", "ui") == "ui: another process is at work on this run"
