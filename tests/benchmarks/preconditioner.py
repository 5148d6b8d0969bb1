"""What an L-BFGS of images can start from instead of the identity: coarse forms before details.

Photographs and paintings are mostly made of coarse forms. They need fewer steps so and the loss falls sooner; fine
brushwork comes later. It is what the decorrelated parameters of Olah et al., *Feature Visualization* (Distill, 2017),
are for gradient descent.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

_COARSEST = 0.02
"""The frequency f_0 below which the factor no longer grows, in cycles a pixel."""


@dataclass(frozen=True)
class Smoothness:
    """Multiplies every frequency f of images by (f^2 + f_0^2)^(-e/2), 1 in the mean: for `LBFGS(precondition=...)`.

    Attributes:
        exponent: The exponent e, >= 0, of about 1 at most.
    """

    exponent: float

    def __call__(self, values: Tensor) -> Tensor:
        """Returns images (N, C, H, W) with their frequencies multiplied."""
        factors = _factors(values.shape[2], values.shape[3], self.exponent, values.device, values.dtype)
        # One by one, for a library of Fourier transforms may round otherwise where it transforms several together.
        return torch.stack(
            [torch.fft.irfft2(torch.fft.rfft2(image) * factors, s=image.shape[1:]) for image in values.unbind()]
        )


@lru_cache(maxsize=4)
def _factors(height: int, width: int, exponent: float, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Returns what the frequencies of `torch.fft.rfft2` are multiplied by, (H, W // 2 + 1), 1 in the mean."""
    down = torch.fft.fftfreq(height, device=device, dtype=dtype)[:, None]
    across = torch.fft.rfftfreq(width, device=device, dtype=dtype)
    factors: Tensor = (torch.hypot(down, across).square() + _COARSEST**2) ** (-exponent / 2)
    return factors / factors.mean()
