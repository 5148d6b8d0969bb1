"""Memory that is there, memory that tensors take, and the errors of memory that ran out."""

from __future__ import annotations

import multiprocessing
import os
import platform
import re
import sys
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import Tensor

from nst_lightning import memory
from nst_lightning.backbones import Backbone
from nst_lightning.errors import InputError
from nst_lightning.losses import Gram, Objective, Term
from nst_lightning.tiling import Whole

CPU = torch.device("cpu")
MIB = 2**20
MEMINFO = "MemTotal:       16384 kB\nMemFree:         1024 kB\nMemAvailable:    8192 kB\nHugePages_Total:       0\n"


def system(root: Path, files: Mapping[str, str]) -> Path:
    for name, text in {"proc/meminfo": MEMINFO, **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def v2(folder: str, limit: str, usage: int, stat: str = "anon 5\ninactive_file 0\n") -> dict[str, str]:
    group = f"sys/fs/cgroup{folder}"
    return {
        f"{group}/memory.max": f"{limit}\n",
        f"{group}/memory.current": f"{usage}\n",
        f"{group}/memory.stat": stat,
    }


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 8 * MIB),
        ({"proc/self/cgroup": "0::/job\n"}, 8 * MIB),
        ({"proc/self/cgroup": "0::/job\n", **v2("/job", "max", 7 * MIB)}, 8 * MIB),
        ({"proc/self/cgroup": "0::/job\n", **v2("/job", str(4 * MIB), MIB)}, 3 * MIB),
        ({"proc/self/cgroup": "0::/job\n", **v2("/job", str(4 * MIB), MIB, f"inactive_file {MIB}")}, 4 * MIB),
        ({"proc/self/cgroup": "0::/job\n", **v2("/job", str(MIB), 2 * MIB)}, 0),
        ({"proc/self/cgroup": "0::/job\n", **v2("/job", str(64 * MIB), MIB)}, 8 * MIB),
    ],
    ids=["no cgroups", "no files", "no limit", "a limit", "page cache", "over the limit", "less is free"],
)
def test_what_is_free_is_held_below_the_limit_of_the_cgroup(
    files: dict[str, str], expected: int, tmp_path: Path
) -> None:
    assert memory.available(CPU, system(tmp_path, files)) == expected


@pytest.mark.parametrize("name", ["/outer/inner", "/outer", "/", "/docker/a-name-of-the-host"])
def test_the_tightest_limit_around_the_process_holds(name: str, tmp_path: Path) -> None:
    root = system(tmp_path, {"proc/self/cgroup": f"0::{name}\n", **v2("", str(5 * MIB), MIB)})
    system(root, {**v2("/outer", str(3 * MIB), MIB), **v2("/outer/inner", "max", MIB)})
    assert memory.available(CPU, root) == (2 if name.startswith("/outer") else 4) * MIB


@pytest.mark.parametrize("controllers", ["memory", "cpu,memory"])
def test_the_first_version_of_cgroups_limits_too(controllers: str, tmp_path: Path) -> None:
    group = "sys/fs/cgroup/memory"
    files = {
        "proc/self/cgroup": f"9:name=systemd:/\n4:{controllers}:/a:b\n1:cpuset:/\n0::/\n",
        f"{group}/memory.limit_in_bytes": "9223372036854771712\n",
        f"{group}/memory.usage_in_bytes": f"{6 * MIB}\n",
        f"{group}/memory.stat": "total_inactive_file 0\n",
        f"{group}/a:b/memory.limit_in_bytes": f"{6 * MIB}\n",
        f"{group}/a:b/memory.usage_in_bytes": f"{3 * MIB}\n",
        f"{group}/a:b/memory.stat": f"inactive_file 7\ntotal_inactive_file {MIB}\n",
    }
    assert memory.available(CPU, system(tmp_path, files)) == 4 * MIB


def test_without_proc_all_memory_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sysconf", {"SC_PHYS_PAGES": 1000, "SC_PAGE_SIZE": 4096}.__getitem__, raising=False)
    assert memory.available(CPU, tmp_path) == 4_096_000


def test_a_device_that_cannot_be_asked_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"^how much memory is free on meta cannot be told here$"):
        memory.available(torch.device("meta"))
    monkeypatch.delattr(os, "sysconf", raising=False)
    with pytest.raises(InputError, match="on cpu cannot be told"):
        memory.available(CPU, tmp_path)


def held() -> int:
    # Not VmRSS: a system that reclaims memory drops pages of files, and puts others away.
    status = Path("/proc/self/status").read_text()
    return 1024 * sum(map(int, re.findall(r"(?:RssAnon|VmSwap):\s+(\d+) kB", status)))


def residents(size: int) -> dict[str, int]:
    """Returns what a process holds beyond its start, after tensors of a size, in units of that size."""

    def used_and_freed(times: int = 1) -> int:
        torch.ones(times * size, dtype=torch.uint8)
        return round((held() - start) / size)

    start = held()
    found = {"by default": used_and_freed()}
    memory.reuse_freed()
    found["kept"] = used_and_freed()
    memory.available(CPU)
    found["asked for"] = round((held() - start) / size)
    used_and_freed()
    memory.give_back()
    found["given back"] = round((held() - start) / size)
    found["by default again"] = used_and_freed(5)  # too large for the holes that the others may have left
    return found


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told to keep what is freed")
def test_what_is_freed_is_kept_for_the_next_until_it_is_asked_for() -> None:
    # In a process of its own: the heap of one that has run other tests may have a hole of any size.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        found = pool.submit(residents, 200 * MIB).result()
    assert found == {"by default": 0, "kept": 1, "asked for": 0, "given back": 0, "by default again": 0}


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="Linux's numbers")
def test_this_machine_has_memory_but_not_more_than_it_has() -> None:
    assert 0 < memory.available(CPU) <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_what_the_allocator_holds_in_reserve_is_free_on_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (100, 1000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 50)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 30)
    assert memory.available(torch.device("cuda")) == 120


def test_mps_has_what_metal_recommends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 100)
    monkeypatch.setattr(torch.mps, "current_allocated_memory", lambda: 30)
    assert memory.available(torch.device("mps")) == 70


def test_the_peak_is_the_most_that_lived_at_once() -> None:
    with memory.PeakMemory() as peak:
        first = torch.empty(100)
        del first
        second = torch.empty(50)
        third = torch.empty(25, dtype=torch.float64)
        assert peak.peak == 400
        fourth = torch.empty(1, dtype=torch.uint8)
    assert peak.peak == 401
    del second, third, fourth


def test_views_and_in_place_work_take_nothing() -> None:
    with memory.PeakMemory() as peak:
        made = torch.zeros(10, 10)
        views = [made.t(), made[2:5], made.flatten(), made.detach()]
        made.add_(1).relu_()
        torch.neg(made, out=made)
        assert peak.peak == 400
        del made
        torch.zeros(1)  # the views keep their storage
    assert peak.peak == 404
    assert len(views) == 4


def test_what_was_there_before_does_not_count() -> None:
    outside = torch.zeros(100)
    with memory.PeakMemory() as peak:
        outside.mul_(2)
        torch.neg(outside, out=outside)
        kept = outside.view(10, 10)
        kept.add_(1)
        assert peak.peak == 0
        kept = kept + 1
    assert peak.peak == 400


def test_a_storage_that_grew_counts_as_it_is() -> None:
    with memory.PeakMemory() as peak:
        grown = torch.empty(10)
        grown.resize_(1000)
    assert peak.peak == 4000


def test_what_leaves_the_context_alive_is_in_the_peak_of_the_next_one_no_more() -> None:
    with memory.PeakMemory():
        kept = torch.empty(100)
    with memory.PeakMemory() as second:
        kept.add_(1)
    assert second.peak == 0


def test_several_results_count_each() -> None:
    values = torch.rand(10)
    assert memory.peak_bytes(lambda: values.sort(), CPU) == 10 * 4 + 10 * 8


def test_backward_counts() -> None:
    left, right = torch.rand(8, 16, requires_grad=True), torch.rand(16, 4)
    product = 8 * 4 * 4

    def evaluate() -> None:
        with torch.no_grad():
            assert left.grad is None
        torch.autograd.backward(left @ right, torch.ones(8, 4))

    assert memory.peak_bytes(evaluate, CPU) == product + product + 8 * 16 * 4  # product, ones, gradient
    assert left.grad is not None


def test_the_peak_of_the_host_needs_no_other_thread_for_backward() -> None:
    def evaluate() -> None:
        assert not torch._C._is_multithreading_enabled()

    assert memory.peak_bytes(evaluate, CPU) == 0
    assert torch._C._is_multithreading_enabled()


def step(side: int) -> int:
    image = torch.rand(1, 3, side, side, requires_grad=True)
    objective = Objective([Term("style", (layer,), Gram(), 0.5) for layer in ("relu1_1", "relu2_1")])
    evaluator = Whole(Backbone("vgg16", objective.layers), objective)
    targets = {term.name: (torch.zeros(1, 1, 1),) for term in objective.terms}

    def evaluate() -> Tensor:
        total = objective.total(evaluator.values(image, targets, 0), objective.weights({}, {"style": torch.ones(1)}))
        torch.autograd.backward(total.sum())
        return total

    return memory.peak_bytes(evaluate, CPU)


def test_a_step_grows_in_a_straight_line() -> None:
    curve = memory.Curve(lambda pixels: step(int(pixels**0.5)), [96**2, 128**2])
    assert curve.at(160**2) == pytest.approx(step(160), rel=1e-3)
    # The image's gradient, and a feature map with its gradient, for each pixel.
    assert curve.at(161**2) - curve.at(160**2) >= (3 * 4 + 2 * 64 * 4) * 321


def test_a_curve_goes_through_all_measurements_and_takes_those_it_needs() -> None:
    found = {10: 1070, 30: 1210, 50: 3210, 70: 3210, 90: 9999}
    measured = []

    def measure(pixels: int) -> int:
        measured.append(pixels)
        return found[pixels]

    curve = memory.Curve(measure, [*found], room=12_840)  # four times what the last but one takes
    assert (curve.at(0), curve.at(20), curve.at(30)) == (1000, 1140, 1210)
    assert measured == [10, 30]
    assert (curve.at(40), curve.at(29), measured) == (2210, 1203, [10, 30, 50])
    assert [curve.pixels_within(budget) for budget in (0, 1006, 1007, 1013, 1014, 2210)] == [0, 0, 1, 1, 2, 40]
    assert curve.pixels_within(3210) == 70
    assert (curve.at(80), measured) == (6604, [10, 30, 50, 70, 90])
    assert curve.at(110) == 16788
    assert memory.Curve({10: 0, 30: 200}.__getitem__, [10, 30]).at(5) == 0


def test_what_there_is_no_room_to_measure_goes_by_the_last_line() -> None:
    curve = memory.Curve({10: 1070, 30: 1210}.__getitem__, [10, 30, 50], room=4 * 1210 - 1)
    assert (curve.at(50), curve.pixels_within(1350)) == (1350, 50)


@pytest.mark.parametrize("budget", [0, 999, 12345, 10**9, 3 * 10**12 + 1])
@pytest.mark.parametrize("line", [(-50.5, 0.3), (1e6 / 3, 1999.7)])
def test_the_pixels_within_a_budget_are_within_it(line: tuple[float, float], budget: int) -> None:
    constant, per_pixel = line
    curve = memory.Curve(lambda pixels: round(constant + per_pixel * pixels), [10**4, 4 * 10**4])
    pixels = curve.pixels_within(budget)
    assert pixels == 0 or curve.at(pixels) <= budget
    assert curve.at(pixels + 4) > budget  # rounding to whole bytes is worth two pixels at most here


def test_sizes_that_make_no_line_are_refused() -> None:
    with pytest.raises(InputError, match=r"^bytes per pixel must be 0 or above, got -1\.0$"):
        memory.Curve(lambda pixels: 100 - pixels, [10, 30])


def test_what_does_not_grow_fits_always_or_never() -> None:
    curve = memory.Curve(lambda pixels: 5, [10, 30])
    assert curve.at(10**9) == 5
    assert [curve.pixels_within(budget) for budget in (4, 5)] == [0, sys.maxsize]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_the_peak_on_cuda_is_the_allocators() -> None:
    device = torch.device("cuda")
    held = torch.empty(MIB, dtype=torch.uint8, device=device)

    def evaluate() -> None:
        torch.empty(4 * MIB, dtype=torch.uint8, device=device)

    assert memory.peak_bytes(evaluate, device) == 4 * MIB
    assert memory.available(device) > 4 * MIB
    assert held.numel() == MIB


# ---- cores ----


@pytest.fixture
def eight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)


@pytest.mark.usefixtures("eight")
@pytest.mark.parametrize(
    ("quota", "expected"), [("max 100000", 8), ("200000 100000", 2), ("150000 100000", 2), ("5000 100000", 1)]
)
def test_a_quota_of_the_second_version_is_rounded_up(quota: str, expected: int, tmp_path: Path) -> None:
    files = {"proc/self/cgroup": "0::/job\n", "sys/fs/cgroup/job/cpu.max": f"{quota}\n"}
    assert memory.cores(system(tmp_path, files)) == expected


@pytest.mark.usefixtures("eight")
@pytest.mark.parametrize(("quota", "expected"), [("-1", 8), ("300000", 3), ("1600000", 8)])
def test_a_quota_of_the_first_version(quota: str, expected: int, tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "5:memory:/a\n4:cpu,cpuacct:/a\n0::/\n",
        "sys/fs/cgroup/cpu/a/cpu.cfs_quota_us": f"{quota}\n",
        "sys/fs/cgroup/cpu/a/cpu.cfs_period_us": "100000\n",
    }
    assert memory.cores(system(tmp_path, files)) == expected


@pytest.mark.usefixtures("eight")
def test_the_tightest_group_around_the_process_counts(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/outer/inner\n",
        "sys/fs/cgroup/outer/cpu.max": "300000 100000\n",
        "sys/fs/cgroup/outer/inner/cpu.max": "600000 100000\n",
    }
    assert memory.cores(system(tmp_path, files)) == 3


@pytest.mark.usefixtures("eight")
def test_without_control_groups_the_cores_that_it_is_bound_to_count(tmp_path: Path) -> None:
    assert memory.cores(tmp_path) == 8


def test_this_process_has_some() -> None:
    assert 1 <= memory.cores() <= (os.cpu_count() or 1)
