"""Whose colours a picture is in: what is painted from, and what the result becomes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

_LEAST_VARIANCE = 1e-5  # of a painting's colours in any direction: what varies less, as grey does, is not amplified
_LUMA = (0.299, 0.587, 0.114)  # Y of YIQ, ITU-R BT.601

# Ottosson (2020), A perceptual color space for image processing: linear sRGB to cones, their cube roots to OkLab.
_TO_CONES = (
    (0.4122214708, 0.5363325363, 0.0514459929),
    (0.2119034982, 0.6806995451, 0.1073969566),
    (0.0883024619, 0.2817188376, 0.6299787005),
)
_TO_OKLAB = (
    (0.2104542553, 0.7936177850, -0.0040720468),
    (1.9779984951, -2.4285922050, 0.4505937099),
    (0.0259040371, 0.7827717662, -0.8086757660),
)


@dataclass(frozen=True)
class Colors:
    """What is done to the images (1, 3, H, W), sRGB in [0, 1], of a pair, the same then; None leaves them.

    Attributes:
        content: Returns what a photograph is painted from.
        style: Returns what a painting, of any size, is taken for beside a photograph.
        picture: Returns the picture that an optimised image is, beside its photograph.
    """

    content: Callable[[Tensor], Tensor] | None = None
    style: Callable[[Tensor, Tensor], Tensor] | None = None
    picture: Callable[[Tensor, Tensor], Tensor] | None = None


def linear(rgb: Tensor) -> Tensor:
    """Returns sRGB in [0, 1] as linear light (IEC 61966-2-1)."""
    return torch.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def luminance(rgb: Tensor) -> Tensor:
    """Returns Y of YIQ, (N, 1, H, W) in [0, 1], of (N, 3, H, W), as Gatys et al. (2017), section 5.1."""
    return (rgb * rgb.new_tensor(_LUMA).view(3, 1, 1)).sum(1, keepdim=True)


def matched(image: Tensor, like: Tensor) -> Tensor:
    """Returns an image (1, C, H, W), float64 and not clamped, with the mean and covariance of another's channels.

    The map is Monge's, which of all linear ones moves the colours least: Gatys et al. (2017), section 5.2, with one
    channel their luminance matching. A direction in which the image varies by less than `_LEAST_VARIANCE` keeps less.
    """
    (mean, covariance), (wanted, target) = _moments(image), _moments(like)
    values, axes = torch.linalg.eigh(covariance)
    values = values.clamp(min=_LEAST_VARIANCE)
    root, inverse = (axes * values**power @ axes.T for power in (0.5, -0.5))
    squares, turned = torch.linalg.eigh(root @ target @ root)
    change: Tensor = inverse @ (turned * squares.clamp(min=0).sqrt() @ turned.T) @ inverse
    return (change @ (image[0].flatten(1).double() - mean) + wanted).view(image.shape)


def to_oklab(rgb: Tensor) -> Tensor:
    """Returns sRGB in [0, 1], (N, 3, H, W), in OkLab: L in [0, 1], a and b about +-0.3."""
    cones = _mixed(linear(rgb), _TO_CONES)
    return _mixed(cones.clamp(min=0) ** (1 / 3), _TO_OKLAB)


def from_oklab(lab: Tensor) -> Tensor:
    """Returns OkLab in linear sRGB, (N, 3, H, W), below 0 or above 1 where a screen cannot show it."""
    return _mixed(_mixed(lab, _inverse(_TO_OKLAB)) ** 3, _inverse(_TO_CONES))


def _moments(image: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (C, 1) and covariance (C, C) of the pixels of (1, C, H, W), in float64."""
    pixels = image[0].flatten(1).double()
    mean = pixels.mean(1, keepdim=True)
    return mean, torch.cov(pixels, correction=0).reshape(len(pixels), len(pixels))


def _mixed(image: Tensor, matrix: Tensor | tuple[tuple[float, ...], ...]) -> Tensor:
    exact = torch.as_tensor(matrix, dtype=torch.float64)
    return torch.einsum("ij,njhw->nihw", exact.to(image.dtype).to(image.device), image)


def _inverse(matrix: tuple[tuple[float, ...], ...]) -> Tensor:
    inverse: Tensor = torch.linalg.inv(torch.tensor(matrix, dtype=torch.float64))
    return inverse


def _grey(photograph: Tensor) -> Tensor:
    return luminance(photograph).repeat(1, 3, 1, 1)


def _like(painting: Tensor, photograph: Tensor) -> Tensor:
    return matched(painting, photograph).clamp(0, 1).to(painting)


def _grey_like(painting: Tensor, photograph: Tensor) -> Tensor:
    return _like(luminance(painting), luminance(photograph)).repeat(1, 3, 1, 1)


def _relit(image: Tensor, photograph: Tensor) -> Tensor:
    """The photograph in the image's luminance: YIQ's chroma stays to the digit.

    Equal parts of red, green and blue are what luminance is in YIQ. Where they would leave [0, 1] the luminance stops,
    not the chroma: pure colours of the photograph stay as bright as they are.
    """
    lighter = luminance(image) - luminance(photograph)
    low, high = photograph.amin(1, keepdim=True), photograph.amax(1, keepdim=True)
    return photograph + torch.minimum(torch.maximum(lighter, -low), 1 - high)


def _recoloured(image: Tensor, photograph: Tensor) -> Tensor:
    """The image's lightness in OkLab with the photograph's a and b, as Kolkin et al. (2022); clipped to sRGB."""
    light = from_oklab(torch.cat([to_oklab(image)[:, :1], to_oklab(photograph)[:, 1:]], dim=1)).clamp(0, 1)
    return torch.where(light <= 0.0031308, 12.92 * light, 1.055 * light.clamp(min=1e-4) ** (1 / 2.4) - 0.055)


COLORS: Mapping[str, Colors] = {
    "style": Colors(),
    "content": Colors(picture=_recoloured),
    "matched": Colors(style=_like),
    "luminance": Colors(content=_grey, style=_grey_like, picture=_relit),
}
"""The painting's colours; the photograph's, put back at the end; the painting's turned into the photograph's before;
and the photograph's, for only light and dark are painted."""
