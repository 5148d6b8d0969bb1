"""What memory and cores there are, what a step takes of the memory, and whether it was memory that ran out."""

from __future__ import annotations

import ctypes
import math
import os
import platform
import sys
import weakref
from bisect import bisect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nst_lightning.errors import InputError


def available(device: torch.device, root: Path = Path("/")) -> int:
    """Returns how many bytes this process may still allocate on a device.

    On a CPU, what was freed but kept (see `reuse_freed`) is given back to the system first; without a `proc` in the
    root, as on macOS, all of the machine's memory counts as free. Where there is no way to ask, that is an InputError.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free) + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory()
    if device.type == "cpu" and (root / "proc/meminfo").exists():
        _trim()
        free = 1024 * _numbers(root / "proc/meminfo")["MemAvailable:"]
        return max(0, min([free, *_left_in_groups(root)]))
    if device.type == "cpu" and hasattr(os, "sysconf"):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    raise InputError(f"how much memory is free on {device} cannot be told here")


def cores(root: Path = Path("/")) -> int:
    """Returns how many cores this process may keep busy, at least 1: its affinity within its container's quota."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([bound, *(math.ceil(quota) for quota in _quotas(root))]))


def _groups(controller: str, root: Path) -> Iterator[tuple[int, Path]]:
    """Yields the process's control group and those around it, the innermost first, with the version of their files."""
    if not (root / "proc/self/cgroup").exists():
        return
    for line in (root / "proc/self/cgroup").read_text().splitlines():
        _, controllers, name = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        mount, path = root / "sys/fs/cgroup" / (controller if controllers else ""), PurePosixPath(name.lstrip("/"))
        # A container may see its own group as the mount itself, under a name that is the host's.
        for group in dict.fromkeys([path, *path.parents]):
            yield 1 if controllers else 2, mount / group


_MEMORY_FILES = {
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    2: ("memory.max", "memory.current", "inactive_file"),
}


def _left_in_groups(root: Path) -> Iterator[int]:
    """Yields the bytes left below each limit of the process's control group and of those around it."""
    for version, group in _groups("memory", root):
        limit_file, usage_file, reclaimable = _MEMORY_FILES[version]
        if (group / limit_file).exists() and (limit := (group / limit_file).read_text().strip()) != "max":
            used = int((group / usage_file).read_text())
            # The page cache counts as used, but its cold part gives way.
            yield int(limit) - used + _numbers(group / "memory.stat").get(reclaimable, 0)


def _quotas(root: Path) -> Iterator[float]:
    """Yields the cores that the process's control group and those around it may use on average, where limited."""
    for version, group in _groups("cpu", root):
        names = ("cpu.max",) if version == 2 else ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        if all((group / name).exists() for name in names):
            quota, period = (word for name in names for word in (group / name).read_text().split())
            if quota not in {"max", "-1"}:
                yield int(quota) / int(period)


def _numbers(file: Path) -> dict[str, int]:
    """Returns the first number of each line of `/proc/meminfo` or a `memory.stat` by the word before it."""
    lines = (line.split() for line in file.read_text().splitlines())
    return {words[0]: int(words[1]) for words in lines}


_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h
_DEFAULT_TRIM_THRESHOLD, _DEFAULT_MMAP_MAX = 128 * 1024, 65536  # mallopt(3)


def reuse_freed() -> None:
    """Has glibc keep what tensors free for the next ones, until `give_back`; does nothing elsewhere.

    By default it maps every large tensor anew and the system has to clear its pages: two fifths of a step's time at
    1024 px on a CPU (`tests/benchmarks`), for a tenth more memory.
    """
    if (libc := _glibc()) is not None:
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, -1)


def give_back() -> None:
    """Undoes `reuse_freed`, and gives back to the system what is free."""
    if (libc := _glibc()) is not None:
        libc.mallopt(_M_MMAP_MAX, _DEFAULT_MMAP_MAX)
        libc.mallopt(_M_TRIM_THRESHOLD, _DEFAULT_TRIM_THRESHOLD)
    _trim()


def _trim() -> None:
    if (libc := _glibc()) is not None:
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None


class PeakMemory(TorchDispatchMode):  # type: ignore[no-untyped-call] # torch's is not annotated
    """Counts the bytes of the tensors that live at once, of those made inside it, on every device.

    A storage counts once, whatever views it, until its last owner's end. Not seen are what a kernel allocates on its
    own, what `torch.tensor` copies from Python, and other threads: the backward of CUDA tensors, see `peak_bytes`.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # as above
        self.peak = 0  # the largest sum so far, in bytes
        self._made: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        """Calls an operator and counts what it made."""
        result = func(*args, **(kwargs or {}))
        given = set(_storages((args, kwargs)))
        # What an operator was given and gives back, as a view or in place, it has not made.
        self._made.update(storage for storage in _storages(result) if storage not in given)
        self.peak = max(self.peak, sum(storage.nbytes() for storage in self._made))
        return result


def _storages(tree: object) -> Iterator[torch.UntypedStorage]:
    return (leaf.untyped_storage() for leaf in tree_leaves(tree) if isinstance(leaf, Tensor))


def peak_bytes(function: Callable[[], object], device: torch.device) -> int:
    """Returns how many bytes calling a function adds at most to what is allocated on a device.

    On CUDA the caching allocator counts, workspaces too. Elsewhere `PeakMemory` does; backward runs in this thread.
    """
    if device.type == "cuda":
        torch.cuda.init()  # type: ignore[no-untyped-call] # before it, there are no statistics to reset
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        function()
        return torch.cuda.max_memory_allocated(device) - before
    memory = PeakMemory()
    with torch.autograd.set_multithreading_enabled(False), memory:
        function()
    return memory.peak


class Curve:
    """Bytes over pixels: straight lines between measurements, and on beyond the last one.

    The first two are taken at once, each other one when more pixels are asked for than before. A peak is the highest of
    several moments, and samples of an image grow with it up to a number: a line through small images is far too low.

    Args:
        measure: Returns the bytes that so many pixels take.
        pixels: Where to measure at most, at least two numbers, each larger than the one before.
        room: The bytes that a measurement may take, by four times those of the one before.

    Raises:
        InputError: If more pixels were found to take fewer bytes.
    """

    def __init__(self, measure: Callable[[int], int], pixels: Sequence[int], room: int = 0) -> None:
        self._measure, self._pixels, self._room = measure, pixels, room
        self._bytes = [measure(pixels[0])]
        self._go_on()

    def at(self, pixels: int) -> int:
        """Returns the bytes that so many pixels take, >= 0."""
        while pixels > self._pixels[len(self._bytes) - 1] and self._may_go_on:
            self._go_on()
        constant, per_pixel = self._line(bisect(self._pixels, pixels, 1, len(self._bytes) - 1))
        return max(0, round(constant + per_pixel * pixels))

    def pixels_within(self, budget: int) -> int:
        """Returns the most pixels that take no more than a budget in bytes: 0 where none, `sys.maxsize` where all."""
        while self._bytes[-1] <= budget and self._may_go_on:
            self._go_on()
        constant, per_pixel = self._line(bisect(self._bytes, budget, 1, len(self._bytes) - 1))
        if per_pixel == 0:
            return sys.maxsize if constant <= budget else 0
        return max(0, int((budget - constant) / per_pixel))

    @property
    def _may_go_on(self) -> bool:
        return len(self._bytes) < len(self._pixels) and 4 * self._bytes[-1] <= self._room

    def _go_on(self) -> None:
        self._bytes.append(self._measure(self._pixels[len(self._bytes)]))
        _, per_pixel = self._line(len(self._bytes) - 1)
        if per_pixel < 0:
            raise InputError(f"bytes per pixel must be 0 or above, got {per_pixel}")

    def _line(self, end: int) -> tuple[float, float]:
        """Returns the line through a measurement and the one before: the bytes at 0 pixels, and those per pixel."""
        (left, right), (low, high) = self._pixels[end - 1 : end + 1], self._bytes[end - 1 : end + 1]
        per_pixel = (high - low) / (right - left)
        return low - per_pixel * left, per_pixel


@dataclass(frozen=True)
class Footprint:
    """Bytes of a step on one image, over its pixels."""

    evaluation: Curve  # of the targets, the features and the gradient of what is evaluated at once
    state: Curve  # of the image, its gradient and its optimiser's memory
    maps: Curve  # of the targets that grow with the image

    def of_step(self, pixels: int, tile_pixels: int | None = None) -> int:
        """Returns the bytes of a step on an image of so many pixels, evaluated at once or in tiles of so many."""
        if tile_pixels is None:
            return self.evaluation.at(pixels) + self.state.at(pixels)
        return self.evaluation.at(tile_pixels) + self.maps.at(pixels) + self.state.at(pixels)
