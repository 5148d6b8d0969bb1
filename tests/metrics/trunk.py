"""A stand-in for the network of LPIPS, which is not downloaded for tests."""

from __future__ import annotations

from pathlib import Path

import torch

from nst_lightning.metrics.perceptual import TRUNKS


def put(hub: Path) -> Path:
    """Puts a file of random weights, without the classifier, where torch.hub keeps AlexNet's; returns its path."""
    with torch.device("meta"):
        whole = TRUNKS["alex"].build().state_dict()
    generator = torch.Generator().manual_seed(3)
    state = {}
    for name, tensor in whole.items():
        if name.startswith("features"):
            std = (2 / tensor[0].numel()) ** 0.5 if name.endswith("weight") else 0.1
            state[name] = std * torch.randn(tensor.shape, generator=generator)
    path = hub / "checkpoints" / Path(TRUNKS["alex"].weights.url).name
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, path)
    return path
