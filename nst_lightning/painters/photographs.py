"""Photographs, painted in one pass."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from nst_lightning import images
from nst_lightning.errors import InputError
from nst_lightning.painters.files import Trained
from nst_lightning.precision import true_float32


def painted_by(
    trained: Trained,
    content: images.Source,
    size: int | None,
    styles: Mapping[str, float] | None,
    strength: float,
    device: torch.device,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Returns what a painter makes of a photograph (1, 3, H, W), and its opacity where it has any, see `api.paint`."""
    if size is not None and size < images.MIN_SIDE:
        raise InputError(f"size must be a whole number of pixels from {images.MIN_SIDE}, got {size}")
    picture = images.read(content, size)
    wanted = picture.size if size is None else images.fit(*picture.size, size)
    if min(wanted) < images.MIN_SIDE:
        raise InputError(
            f"{content}: at {wanted[1]}x{wanted[0]} px it is too small for a painter: {images.MIN_SIDE} px"
        )
    rgb = images.resize(picture.rgb, wanted).clamp(0, 1).to(device)
    alpha = None if picture.alpha is None else images.resize(picture.alpha, wanted).clamp(0, 1)
    trained.network.to(device)
    with true_float32(device):
        return trained.paint(rgb, styles, strength).cpu(), alpha


def device_of(accelerator: str) -> torch.device:
    """Returns the device that one of Lightning's accelerators stands for; an InputError where there is none.

    Not asked of Lightning, which takes longer to be imported than a photograph to be painted.
    """
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    known = {"cpu": torch.device("cpu"), "auto": torch.device("cpu")}
    if found is not None:
        known |= {"auto": found, "gpu": found, found.type: found}
    if accelerator not in known:
        raise InputError(f"there is no accelerator {accelerator!r} here: there are {', '.join(known)}")
    return known[accelerator]
