"""What signals do: on the spot while nothing is to be saved, between two steps of a run."""

from __future__ import annotations

import gc
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nst_lightning import interruption
from nst_lightning.interruption import Interrupted, Wish, break_off, handled, importing
from tests.conftest import SAMPLES


def test_signals_are_noted_and_fulfilled_where_it_is_asked_for() -> None:
    wish = Wish()
    wish.fulfil()
    with handled(wish.note):
        for number in (signal.SIGHUP, signal.SIGTERM):  # the first one counts
            signal.raise_signal(number)
        with pytest.raises(Interrupted) as ended:
            wish.fulfil()
    assert (ended.value.code, ended.value.number) == (129, signal.SIGHUP)


def test_a_step_that_takes_long_is_broken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interruption, "_GRACE", 0.05)
    wish = Wish()
    with handled(wish.note), pytest.raises(Interrupted) as ended:
        signal.raise_signal(signal.SIGINT)
        time.sleep(10)
    assert ended.value.code == 130
    patient = Wish()
    patient.patient = True
    with handled(patient.note):
        signal.raise_signal(signal.SIGINT)
        time.sleep(0.2)
    assert patient.number == signal.SIGINT


def test_what_was_noted_breaks_off_nothing_once_it_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interruption, "_GRACE", 0.05)
    wish = Wish()
    with handled(wish.note):
        signal.raise_signal(signal.SIGUSR1)
        wish.forget()
        time.sleep(0.2)


def test_handlers_are_put_back_and_ignored_signals_stay_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    former = signal.getsignal(signal.SIGTERM)
    try:
        with handled(break_off):
            assert signal.getsignal(signal.SIGTERM) is break_off
            signal.raise_signal(signal.SIGHUP)
        assert signal.getsignal(signal.SIGTERM) is former
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_garbage_is_looked_for_again_after_imports_and_nothing_of_the_callers_is_kept_from_it() -> None:
    kept = gc.get_freeze_count()
    with importing():
        assert not gc.isenabled()
    assert gc.isenabled()
    assert gc.get_freeze_count() == kept


@pytest.mark.parametrize(
    ("number", "seconds"), [(signal.SIGINT, 0.6), (signal.SIGINT, 2.0), (signal.SIGINT, 3.5), (signal.SIGTERM, 1.0)]
)
def test_in_the_first_seconds_there_is_one_line_and_no_traceback(
    number: signal.Signals, seconds: float, tmp_path: Path
) -> None:
    code = f"import time; from nst_lightning.__main__ import main; open({str(tmp_path / 'on')!r}, 'x'); main()"
    images = [str(SAMPLES / "content-images/temple.jpg"), str(SAMPLES / "style-images/night_cafe.jpg")]
    given = ["fit", *images, "--size", "64", "--steps", "9999", "-o", str(tmp_path / "run")]
    with subprocess.Popen([sys.executable, "-c", code, *given], stderr=subprocess.PIPE) as run:
        while not (tmp_path / "on").exists():
            assert run.poll() is None
            time.sleep(0.01)
        time.sleep(seconds)
        run.send_signal(number)
        err = run.communicate(timeout=20)[1].decode()
    assert "Traceback" not in err
    assert run.returncode == 128 + number
    assert err.count("nst: interrupted") == 1
