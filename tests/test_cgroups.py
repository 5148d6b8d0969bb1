"""The cores that a process may use, by what its control groups say."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nst_lightning.cgroups import cores


def system(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.fixture
def eight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)


@pytest.mark.usefixtures("eight")
@pytest.mark.parametrize(
    ("quota", "expected"), [("max 100000", 8), ("200000 100000", 2), ("150000 100000", 2), ("5000 100000", 1)]
)
def test_a_quota_of_the_second_version_is_rounded_up(quota: str, expected: int, tmp_path: Path) -> None:
    files = {"proc/self/cgroup": "0::/job\n", "sys/fs/cgroup/job/cpu.max": f"{quota}\n"}
    assert cores(system(tmp_path, files)) == expected


@pytest.mark.usefixtures("eight")
@pytest.mark.parametrize(("quota", "expected"), [("-1", 8), ("300000", 3), ("1600000", 8)])
def test_a_quota_of_the_first_version(quota: str, expected: int, tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "5:memory:/a\n4:cpu,cpuacct:/a\n0::/\n",
        "sys/fs/cgroup/cpu/a/cpu.cfs_quota_us": f"{quota}\n",
        "sys/fs/cgroup/cpu/a/cpu.cfs_period_us": "100000\n",
    }
    assert cores(system(tmp_path, files)) == expected


@pytest.mark.usefixtures("eight")
def test_the_tightest_group_around_the_process_counts(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/outer/inner\n",
        "sys/fs/cgroup/outer/cpu.max": "300000 100000\n",
        "sys/fs/cgroup/outer/inner/cpu.max": "600000 100000\n",
    }
    assert cores(system(tmp_path, files)) == 3


@pytest.mark.usefixtures("eight")
def test_without_control_groups_the_cores_that_it_is_bound_to_count(tmp_path: Path) -> None:
    assert cores(tmp_path) == 8


def test_this_process_has_some() -> None:
    assert 1 <= cores() <= (os.cpu_count() or 1)
