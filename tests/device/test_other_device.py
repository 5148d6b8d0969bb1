"""Runs the tests of a device that is not the CPU in a process of their own: torch registers one for good."""

from __future__ import annotations

import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
from torch.utils import backend_registration

from tests.processes import apart

PROGRAM = Path(__file__).with_name("other_device.py")


@pytest.mark.skipif(
    not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"),
    reason="this torch has no devices made of Python",
)
def test_all_of_a_run_stays_on_its_device_and_asks_it_nothing_in_a_steady_step(tmp_path: Path) -> None:
    assert apart(run_tests, tmp_path / "told") == 0, (tmp_path / "told").read_text()[-6000:]


def run_tests(told: Path) -> None:
    """Runs them and writes what pytest says."""
    with told.open("w") as file, redirect_stdout(file), redirect_stderr(file):
        code = pytest.main(["-q", "-n", "0", "-p", "no:cacheprovider", "--durations=5", str(PROGRAM)])
    sys.exit(code)
