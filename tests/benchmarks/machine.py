"""What the benchmarks ran on."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import torch

CPU = torch.device("cpu")


def machine(device: torch.device = CPU) -> str:
    """Names processor or GPU, cores and versions."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    threads = torch.get_num_threads()
    gpu = f"{torch.cuda.get_device_name(device)}, " if device.type == "cuda" else ""
    return f"{gpu}{names[0] if names else cpu}, {os.cpu_count()} cores, {threads} threads, torch {torch.__version__}"
