"""What fuzzers found stays mended, and they find nothing in a short run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.fuzzers import configuration_files
from tests.fuzzers.harness import Kind, feed, run, workplace
from tests.fuzzers.kinds import KINDS

CORPUS = sorted(path for path in Path(__file__).with_name("corpus").glob("*/*") if path.is_file())


@pytest.fixture(autouse=True)
def prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    configuration_files.prepare(monkeypatch.setattr)


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_once_failed_is_refused_or_left_out(path: Path) -> None:
    with workplace() as folder:
        copied = Path(shutil.copy(path, folder))
        assert feed(KINDS[path.parent.name], copied).split()[0] in ("refused", "accepted")


@pytest.mark.parametrize("name", KINDS)
def test_a_short_run_finds_nothing(name: str) -> None:
    report = run(KINDS[name], 40 if name == "configurations" else 100, 7)
    assert report.is_good, f"{report}: {report.failures}"
    assert any(outcome.startswith("refused") for outcome in report.outcomes)


def test_a_failure_is_counted_and_its_smallest_input_kept() -> None:
    def fails(path: Path) -> None:
        if len(path.read_bytes()) > 4:
            raise KeyError("too long")

    report = run(Kind(KINDS["pairs"].inputs, fails), 40, 0)
    assert not report.is_good
    assert report.outcomes["FAILED with KeyError"] + report.outcomes["accepted"] == 40
    ((outcome, (suffix, content)),) = report.failures.items()
    assert outcome == "FAILED with KeyError at outside: 'too long'"
    assert (suffix, len(content) > 4) == (".csv", True)
