"""Networks that score pictures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from nst_lightning.backbones.surgery import freeze


class Frozen(nn.Module):
    """A network that scores pictures and leaves no trace in what holds it.

    It has no parameters and no state dict, is in eval mode for good and keeps no graph. It follows to another device,
    but stays in its precision, also under autocast: rounding would show in the score.

    Args:
        network: The network; its parameters and buffers become buffers that are not saved.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        freeze(network)
        self.eval()

    def train(self, mode: bool = True) -> Frozen:
        """Leaves the network in eval mode, whatever is asked for."""
        return super().train(False)

    def forward(self, *images: Tensor, **options: Any) -> Any:  # noqa: ANN401 - each returns something else
        """Returns what the network does."""
        with torch.no_grad(), torch.autocast(images[0].device.type, enabled=False):
            return self.network(*images, **options)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Frozen:
        # What `.to(device)` and `.half()` come down to: of `fn` only the device is taken.
        moved: Frozen = super()._apply(lambda tensor: tensor.to(fn(tensor.new_empty(0)).device), recurse)  # type: ignore[no-untyped-call]
        return moved
