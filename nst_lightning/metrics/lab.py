"""Pictures as the scores see them: what would be written to disk, at one working size, in CIELAB."""

from __future__ import annotations

import torch
from torch import Tensor

from nst_lightning import images
from nst_lightning.colors import linear
from nst_lightning.errors import InputError

SHORT_SIDE = 256  # the short side in pixels that larger outputs are reduced to before they are scored

# sRGB (IEC 61966-2-1) to XYZ, and the white it belongs to, D65 for the 2 degree observer.
_TO_XYZ = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
_WHITE = (0.95047, 1.0, 1.08883)
_LINEAR_BELOW = (6 / 29) ** 3


def as_written(rgb: Tensor) -> Tensor:
    """Returns finite images, (N, 3, H, W), as an 8-bit file holds them: float32 in [0, 1]; an InputError for others."""
    if rgb.ndim != 4 or rgb.shape[1] != 3 or 0 in rgb.shape or not rgb.is_floating_point():
        allowed = "images to be scored must be float (N, 3, H, W) in [0, 1]"
        raise InputError(f"{allowed}, got {rgb.dtype} {tuple(rgb.shape)}")
    if not bool(rgb.isfinite().all()):
        raise InputError("images to be scored must be finite")
    return (rgb.detach().float().clamp(0, 1) * 255).round() / 255


def reduced(image: Tensor, output: Tensor, short_side: int | None = SHORT_SIDE) -> Tensor:
    """Returns images (N, 3, H, W), as written, reduced by the factor that brings outputs to a short side.

    One factor for all, because the texture of a painting has the size of its strokes: its picture stays in proportion.
    """
    shortest = min(output.shape[-2:])
    if short_side is None or shortest <= short_side:
        return image
    height, width = (max(1, round(side * short_side / shortest)) for side in image.shape[-2:])
    return images.resize(image, (height, width)).clamp(0, 1)


def lab(rgb: Tensor) -> Tensor:
    """Returns sRGB in [0, 1], (N, 3, H, W), in CIELAB (CIE 15:2004, 8.2.1, D65): L in [0, 100], a and b about +-100."""
    red, green, blue = linear(rgb).unbind(1)
    # Not a matrix product, which autocast rounds to 16 bits and some devices to TF32.
    xyz = torch.stack(
        [(r * red + g * green + b * blue) / white for (r, g, b), white in zip(_TO_XYZ, _WHITE, strict=True)], dim=1
    )
    root = torch.where(xyz > _LINEAR_BELOW, xyz.clamp(min=_LINEAR_BELOW) ** (1 / 3), xyz * (29 / 6) ** 2 / 3 + 4 / 29)
    x, y, z = root.unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=1)
