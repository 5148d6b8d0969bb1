"""The image that the optimisation starts from."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import lru_cache

import torch
from torch import Tensor

from nst_lightning import images, painters
from nst_lightning.backbones.specs import IMAGENET
from nst_lightning.errors import InputError

SPREAD = 90 / 255
"""Standard deviation of the gaussian and half width of the uniform start, in units of [0, 1]: the predecessor's."""

Initializer = Callable[[Tensor, Tensor, torch.Generator], Tensor]


def content(content: Tensor, style: Tensor, generator: torch.Generator) -> Tensor:
    """Returns a copy of the content images (N, 3, H, W)."""
    return content.clone()


def style(content: Tensor, style: Tensor, generator: torch.Generator) -> Tensor:
    """Returns the style image (1, 3, h, w) resized to the content's size (1, 3, H, W), in [0, 1]."""
    return _fitted(style, content)


def gaussian(content: Tensor, style: Tensor, generator: torch.Generator) -> Tensor:
    """Returns gaussian noise of standard deviation 90/255 around the ImageNet mean colour.

    The predecessor draws its noise in the space of the network's input, where 0 is that colour.
    """
    return _around_mean(torch.randn(content.shape, generator=generator), content)


def uniform(content: Tensor, style: Tensor, generator: torch.Generator) -> Tensor:
    """Returns uniform noise within 90/255 of the ImageNet mean colour."""
    return _around_mean(2 * torch.rand(content.shape, generator=generator) - 1, content)


def mean(content: Tensor, style: Tensor, generator: torch.Generator) -> Tensor:
    """Returns a blank of the style's mean colour."""
    return style.mean(dim=(2, 3), keepdim=True).expand_as(content).clone()


def grey(content: Tensor, style: Tensor, generator: torch.Generator) -> Tensor:
    """Returns a blank of the ImageNet mean colour, which is 0 in the space of the network's input."""
    return _around_mean(torch.zeros(content.shape), content)


def _fitted(image: Tensor, content: Tensor) -> Tensor:
    height, width = content.shape[-2:]
    return images.resize(image, (height, width)).clamp(0, 1)


def _around_mean(noise: Tensor, content: Tensor) -> Tensor:
    return (torch.tensor(IMAGENET.mean).view(1, 3, 1, 1) + SPREAD * noise).to(content)


INITIALIZERS: Mapping[str, Initializer] = {
    each.__name__: each for each in (content, style, gaussian, uniform, mean, grey)
}
OF_STYLE = ("style", "mean")
"""Those that look at the style image."""


PAINTER = "painter:"  # before the file of a painter, whose picture the optimisation starts from


def check(init: str) -> None:
    """Raises an `InputError` if there is neither an initialisation of that name nor a picture, nor such a painter."""
    if init.startswith(PAINTER):
        _painter(init)
    elif init not in INITIALIZERS:
        _picture(init, 1)


def with_file(init: str, change: Callable[[str], str]) -> str:
    """Returns an initialisation whose file's path, where it has one, was changed."""
    if init in INITIALIZERS or init == PAINTER + painters.BUNDLED:
        return init
    begin = PAINTER if init.startswith(PAINTER) else ""
    return f"{begin}{change(init.removeprefix(PAINTER))}"


def _painter(init: str) -> painters.Trained:
    file = init.removeprefix(PAINTER)
    return _loaded(file, os.stat(file).st_mtime_ns if os.path.isfile(file) else 0)


@lru_cache(1)
def _loaded(file: str, changed: int) -> painters.Trained:
    """Returns a painter, which is read once for all pairs that start from it, until its file changes."""
    return painters.load(file)


def _picture(file: str, side: int) -> Tensor:
    if not os.path.isfile(file):  # not Path.is_file, which raises on a name that is too long
        raise InputError(
            f"unknown init {file!r}; known are {', '.join(INITIALIZERS)}, {PAINTER}FILE, or a picture's file"
        )
    return images.read(file, side).rgb


def initial_image(name: str, content: Tensor, style: Tensor, seed: int) -> Tensor:
    """Returns the image to start from, (1, 3, H, W), of the content image's size; the style image has any size.

    The name is one of `INITIALIZERS`, `painter:` before a painter's file, which paints in its first style, or a
    picture's file.

    Noise is drawn on the CPU with a generator of its own, so that a pair starts alike on every device, rank and
    in every batch.

    Raises:
        InputError: See `check`.
    """
    if name.startswith(PAINTER):
        return _painter(name).paint(content)
    if name not in INITIALIZERS:
        return _fitted(_picture(name, max(content.shape[-2:])), content)
    return INITIALIZERS[name](content, style, torch.Generator().manual_seed(seed))
