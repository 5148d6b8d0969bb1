"""What an inverse Hessian of images is taken for before any step has told: a factor for each frequency and colour."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor, nn

PROBE = 1 / 255
"""The amplitude of the noise that measures curvature: a grey level, in units of [0, 1]."""

_COARSEST = 0.02
"""The frequency f_0 below which smoothness no longer grows, in cycles a pixel."""

_BANDS = tuple(2 ** (half / 2 - 6) for half in range(11))
"""Half octaves of spatial frequency in cycles a pixel, from 1/64 to 1/2."""

_FLATTEST = 1e-3
"""The part of the largest curvature below which a smaller one is not believed."""

_OHTA = ((1.0, 1.0, 1.0), (1.0, 0.0, -1.0), (-1.0, 2.0, -1.0))
"""Grey, red against blue and green against both: Ohta, Kanade and Sakai (1980)."""


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
    # One by one, for a library of Fourier transforms may round otherwise where it transforms several together.
    each = values.view(shape).unbind()
    if measured is None:
        return torch.stack([_filtered(image, factors) for image in each]).flatten(1)
    axes = _axes(shape[1], values.device, values.dtype)
    band = _band(shape[2], shape[3], values.device)
    done = [
        _turned(_filtered(_turned(image, axes), of_bands[:, band] * factors), axes.T)
        for image, of_bands in zip(each, measured, strict=True)
    ]
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
    axes = _axes(change.shape[1], change.device, change.dtype)
    band = _band(change.shape[2], change.shape[3], change.device)
    frequencies = torch.fft.rfft2(_turned(noise[0], axes))
    power = _summed(frequencies.abs().square(), band)
    factors = []
    for image in change.unbind():
        products = (torch.fft.rfft2(_turned(image, axes)) * frequencies.conj()).real
        factors.append(_inverse_root(_summed(products, band) / power))
    found = torch.stack(factors)
    return found / found[:, :, band].mean(dim=(1, 2, 3))[:, None, None]


def _summed(values: Tensor, band: Tensor) -> Tensor:
    """Returns the sums over each band, (C, B), of values of all frequencies, (C, H, W // 2 + 1)."""
    return torch.stack([(values * (band == index)).sum(dim=(1, 2)) for index in range(len(_BANDS) + 1)], dim=1)


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


def _turned(image: Tensor, axes: Tensor) -> Tensor:
    """Returns an image (C, H, W) in other axes of colour, (C, C)."""
    return torch.stack([(axis[:, None, None] * image).sum(dim=0) for axis in axes])


@lru_cache(maxsize=4)
def _axes(channels: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Returns Ohta's axes of colour with length 1, those of the channels themselves if they are not three, (C, C)."""
    axes = torch.tensor(_OHTA, dtype=torch.float64) if channels == len(_OHTA) else torch.eye(channels)
    return nn.functional.normalize(axes, dim=1).to(device, dtype)


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
