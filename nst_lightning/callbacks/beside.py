"""What is done beside the steps: pictures are encoded and written in one thread, in the order they were handed over."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

_THREAD = ThreadPoolExecutor(max_workers=1, thread_name_prefix="nst-beside")
_MOST = 2  # pieces of one callback's work that wait, each with its pictures in memory


class Beside(Callback):
    """A callback that hands work to that thread. What that raises comes up in the run, as it hands over the next."""

    def __init__(self) -> None:
        self._left: deque[Future[object]] = deque()

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Has what is before a checkpoint be on the disk before it."""
        self.settle()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Has what was handed over be on the disk as the run ends."""
        self.settle()

    def do(self, work: Callable[[], object]) -> None:
        """Hands over a piece of work, once there is room for it; raises what an earlier one has raised."""
        self.finish(_MOST - 1)
        self._left.append(_THREAD.submit(work))

    def finish(self, most: int = 0) -> None:
        """Waits until no more than so many pieces are left; raises what the first to fail has raised."""
        while self._left and (len(self._left) > most or self._left[0].done()):
            wait([self._left[0]])  # which a signal may break off: what is not done is still left
            self._left.popleft().result()

    def settle(self) -> None:
        """Waits until all that was handed over is done, whatever came of it."""
        wait(self._left)


def on_its_way(values: Tensor) -> Callable[[], Tensor]:
    """Returns what waits for the values on the CPU; a GPU copies them as they are now, while its host goes on."""
    copy = values.to("cpu", non_blocking=values.device.type == "cuda")
    if values.device.type != "cuda":
        return lambda: copy
    copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
    copied.record()

    def arrived() -> Tensor:
        copied.synchronize()
        return copy

    return arrived
