"""What an inverse Hessian of images is taken for before any step has told: a factor for each frequency and colour."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

PROBE = 1 / 255
"""The amplitude of the noise that measures curvature: a grey level, in units of [0, 1]."""

_COARSEST = 0.02
"""The frequency f_0 below which smoothness no longer grows, in cycles a pixel."""

_BANDS = tuple(2 ** (half / 2 - 6) for half in range(11))
"""Half octaves of spatial frequency in cycles a pixel, from 1/64 to 1/2."""

_FLATTEST = 1e-3
"""The part of the largest curvature below which a smaller one is not believed."""

_OHTA = tuple(
    tuple(weight / math.sqrt(sum(w * w for w in row)) for weight in row) for row in ((1, 1, 1), (1, 0, -1), (-1, 2, -1))
)
"""Grey, red against blue and green against both: Ohta, Kanade and Sakai (1980), with rows of length 1."""


def precondition(values: Tensor, shape: torch.Size, exponent: float, measured: Tensor | None) -> Tensor:
    """Returns images with every frequency f multiplied by (f^2 + f_0^2)^(-e/2), and by what was measured.

    Args:
        values: Images (N, D), the pixels of each in a row.
        shape: Their shape, (N, C, H, W); other parameters than images return as they are.
        exponent: The exponent e, >= 0; 0 leaves the first factor out.
        measured: The result of `measure`, (N, C, B), None without.

    Returns:
        The same images, (N, D).
    """
    if len(shape) != 4 or (exponent == 0 and measured is None):
        return values
    factors = _smooth(shape[2], shape[3], exponent, values.device, values.dtype)
    band = _band(shape[2], shape[3], values.device)
    done = []
    # One by one, for a library of Fourier transforms may round otherwise where it transforms several together.
    for index, image in enumerate(values.view(shape).unbind()):
        if measured is None:
            done.append(_filtered(image, factors))
        else:
            done.append(_turned(_filtered(_turned(image), measured[index][:, band] * factors), back=True))
    return torch.stack(done).flatten(1)


def probe(shape: torch.Size, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Returns noise of a random sign in every value of an image, (1, C, H, W), the same whenever it is asked for."""
    signs = torch.randint(0, 2, (1, *shape[1:]), generator=torch.Generator().manual_seed(0))
    return ((2 * signs - 1) * PROBE).to(device, dtype)


def measure(change: Tensor, noise: Tensor) -> Tensor:
    """Returns each image's factor for every colour and band of frequencies: its curvature there to the power -1/2.

    The mean of v (H v) over noise v estimates the diagonal of the Hessian H, here in the basis of frequencies and
    colours: Bekas, Kokiopoulou and Saad (2007), equation 5. The product with H is a difference of two gradients. Where
    a band's curvature is not positive, for it has few coefficients or the loss is concave, it counts as that of the
    next finer one.

    Args:
        change: By how much the noise changed the gradient, (N, C, H, W).
        noise: The noise, (1, C, H, W).

    Returns:
        The factors, 1 in an image's mean, (N, C, B).
    """
    height, width = change.shape[2:]
    band = _band(height, width, change.device)
    frequencies = torch.fft.rfft2(_turned(noise[0]))
    factors = []
    for image in change.unbind():
        products = (torch.fft.rfft2(_turned(image)) * frequencies.conj()).real
        inside = [band == index for index in range(len(_BANDS) + 1)]
        curvature = torch.stack([(products * there).sum(dim=(1, 2)) for there in inside], dim=1)
        power = torch.stack([(frequencies.abs().square() * there).sum(dim=(1, 2)) for there in inside], dim=1)
        factors.append(_inverse_root(curvature / power)[:, :, None])
    found = torch.cat(factors, dim=2).movedim(2, 0)
    return found / found[:, :, band].mean(dim=(1, 2, 3))[:, None, None]


def _inverse_root(curvature: Tensor) -> Tensor:
    """Returns the power -1/2 of curvatures (C, B), those that are not positive replaced."""
    largest = curvature.nan_to_num(0, 0, 0).amax()
    largest = torch.where(largest > 0, largest, 1)
    finer = largest.expand(len(curvature))
    found = []
    for column in reversed(curvature.unbind(dim=1)):
        finer = torch.where(column.isfinite() & (column > 0), column, finer)
        found.append(finer)
    return torch.stack(found[::-1], dim=1).clamp(min=_FLATTEST * largest).rsqrt()


def _filtered(image: Tensor, factors: Tensor) -> Tensor:
    filtered: Tensor = torch.fft.irfft2(torch.fft.rfft2(image) * factors, s=image.shape[1:])
    return filtered


def _turned(image: Tensor, back: bool = False) -> Tensor:
    """Returns an image (3, H, W) in Ohta's axes of colour, or back from them; one of other channels as it is."""
    if len(image) != len(_OHTA):
        return image
    axes = image.new_tensor(_OHTA)
    return torch.stack([(axis[:, None, None] * image).sum(dim=0) for axis in (axes.T if back else axes)])


def _radius(height: int, width: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    down = torch.fft.fftfreq(height, device=device, dtype=dtype)[:, None]
    across = torch.fft.rfftfreq(width, device=device, dtype=dtype)
    return torch.hypot(down, across)


@lru_cache(maxsize=4)
def _smooth(height: int, width: int, exponent: float, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Returns what the frequencies of `torch.fft.rfft2` are multiplied by, (H, W // 2 + 1), 1 in the mean."""
    factors: Tensor = (_radius(height, width, device, dtype).square() + _COARSEST**2) ** (-exponent / 2)
    return factors / factors.mean()


@lru_cache(maxsize=4)
def _band(height: int, width: int, device: torch.device) -> Tensor:
    """Returns the band of every frequency of `torch.fft.rfft2`, 0 the coarsest, (H, W // 2 + 1)."""
    radius = _radius(height, width, device, torch.float32)
    return torch.bucketize(radius, torch.tensor(_BANDS, device=device))
