"""Runs the tests of a device that is not the CPU in a process of their own: torch registers one for good."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from torch.utils import backend_registration

PROGRAM = Path(__file__).with_name("other_device.py")


@pytest.mark.skipif(
    not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"),
    reason="this torch has no devices made of Python",
)
def test_all_of_a_run_stays_on_its_device_and_asks_it_nothing_in_a_steady_step() -> None:
    words = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", "--durations=5", str(PROGRAM)]
    done = subprocess.run(words, capture_output=True, text=True, cwd=PROGRAM.parents[2])
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
