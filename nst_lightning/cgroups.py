"""The limits that a container sets, as Linux's control groups hold them."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Literal


def around(controller: str, root: Path = Path("/")) -> Iterator[tuple[Literal[1, 2], Path]]:
    """Yields the process's control group and those around it, the innermost first, with the version of their files.

    Args:
        controller: What is limited: `memory` or `cpu`.
        root: The folder in which `proc` and `sys/fs/cgroup` lie.
    """
    if not (root / "proc/self/cgroup").exists():
        return
    for line in (root / "proc/self/cgroup").read_text().splitlines():
        _, controllers, name = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        mount = root / "sys/fs/cgroup" / (controller if controllers else "")
        path = PurePosixPath(name.lstrip("/"))
        # A container may see its own group as the mount itself, under a name that is the host's.
        for group in dict.fromkeys([path, *path.parents]):
            yield 1 if controllers else 2, mount / group


def cores(root: Path = Path("/")) -> int:
    """Returns how many cores this process may keep busy, at least 1: its affinity within its container's quota.

    Args:
        root: The folder in which `proc` and `sys/fs/cgroup` lie.
    """
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [quota for version, group in around("cpu", root) for quota in _quota(version, group)]
    return max(1, min([bound, *(math.ceil(quota) for quota in quotas)]))


def _quota(version: Literal[1, 2], group: Path) -> Iterator[float]:
    """Yields the cores that a group may use on average, nothing where it has no limit."""
    try:
        if version == 2:
            quota, period = (group / "cpu.max").read_text().split()
        else:
            quota, period = ((group / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
    except FileNotFoundError:
        return
    if quota not in {"max", "-1"}:
        yield int(quota) / int(period)
