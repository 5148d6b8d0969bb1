"""What tests that start two processes share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import distributed


@contextmanager
def one_of_two(rank: int, folder: Path) -> Iterator[None]:
    """Makes this process, of one thread, one of two that find each other in a folder."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    yield
    distributed.destroy_process_group()
