"""What is told where nobody listens."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys

import pytest
from tqdm import tqdm

from nst_lightning.__main__ import main
from nst_lightning.cli.registry import COMMANDS
from nst_lightning.terminal import STDERR, folded, open_all, say, tell


class Full(io.StringIO):
    """A stream on a disk that is full."""

    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    def flush(self) -> None:
        self.write("")


class Bare:
    """A stream that can do nothing but write."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> None:
        self.text += text


def closed() -> io.StringIO:
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize("stream", [None, Full(), closed(), Bare()], ids=["none", "full", "closed", "bare"])
def test_neither_a_line_nor_a_bar_nor_a_result_fails(stream: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(sys, "stdout", stream)
    say("a line")
    tell("a result")
    assert not STDERR.isatty()
    for _ in tqdm(range(3), file=STDERR, mininterval=0, dynamic_ncols=True):
        pass
    if isinstance(stream, Bare):
        assert "a line\n" in stream.text
        assert "3/3" in stream.text


def test_a_stream_that_recovers_is_written_to_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Full())
    say("lost")
    monkeypatch.setattr(sys, "stderr", stream := io.StringIO())
    say("told")
    assert stream.getvalue() == "told\n"


def test_numbers_that_were_closed_before_the_start_are_no_files_that_are_opened_later() -> None:
    code = "from nst_lightning.terminal import open_all; open_all(); print(open('/dev/null').fileno(), flush=True)"
    shown = subprocess.run(
        ["bash", "-c", f'"$0" -c "{code}" 0<&- 2>&-', sys.executable], capture_output=True, text=True, check=True
    )
    assert int(shown.stdout) > 2


def test_streams_that_are_there_are_left(capfd: pytest.CaptureFixture[str]) -> None:
    before = sys.stdin, sys.stdout, sys.stderr
    open_all()
    assert (sys.stdin, sys.stdout, sys.stderr) == before
    assert os.fstat(2)


@pytest.mark.parametrize("columns", [60, 80])
@pytest.mark.parametrize("command", ["help", *COMMANDS])
def test_no_help_is_wider_than_the_terminal(
    command: str, columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main([command, "--help"]) == 0
    wide = [line for line in capsys.readouterr().out.splitlines() if len(line) > columns]
    assert all(len(line.split()) == 1 for line in wide), wide


def test_a_second_column_stays_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    assert folded("  plan   tells what it takes\nshort") == "  plan   tells what\n         it takes\nshort"
