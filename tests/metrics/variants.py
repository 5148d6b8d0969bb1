"""Pictures whose scores are known in advance: what was taken of content and style is known by construction."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from nst_lightning import images

SAMPLES = Path(__file__).parents[2] / "data"
PAIRS = (
    ("temple", "church_at_auvers"),
    ("chelsea", "night_cafe"),
    ("coffee", "harvest_at_la_crau"),
    ("astronaut", "pere_tanguy"),
)


def read_pair(content: str, style: str, long_side: int) -> tuple[Tensor, Tensor]:
    """A sample pair at so many pixels, (1, 3, H, W) and (1, 3, h, w)."""
    found = []
    for folder, name in (("content-images", content), ("style-images", style)):
        rgb = images.read(SAMPLES / folder / f"{name}.jpg").rgb
        found.append(images.resize(rgb, images.fit(rgb.shape[-2], rgb.shape[-1], long_side)).clamp(0, 1))
    return found[0], found[1]


def variants(content: Tensor, style: Tensor) -> dict[str, Tensor]:
    """What could be taken for outputs, each of the content's size."""
    size = (content.shape[-2], content.shape[-1])
    stretched = images.resize(style, size).clamp(0, 1)
    return {
        "content": content,
        "repainted": repainted(content, style),
        "recoloured": recoloured(content, style),
        "blurred": gaussian_blur(content, [19, 19], [3.0, 3.0]),
        "style": stretched,
        "shuffled": shuffled(stretched),
        "blend": (content + stretched) / 2,
        "iid": iid(style, size),
        "noise": torch.rand(content.shape, generator=torch.Generator().manual_seed(0)),
    }


def recoloured(content: Tensor, style: Tensor) -> Tensor:
    """The content with the style's distribution of colours, by Pitié et al. (2005): sorted along random axes."""
    generator = np.random.default_rng(0)
    pixels, wanted = (each[0].flatten(1).T.double().numpy() for each in (content, style))
    for _ in range(30):
        axes, _ = np.linalg.qr(generator.standard_normal((3, 3)))
        for axis in axes:
            along = pixels @ axis
            sorted_wanted = np.sort(wanted @ axis)
            places = np.linspace(0, len(sorted_wanted) - 1, len(along))
            moved = np.empty_like(along)
            moved[along.argsort()] = np.interp(places, np.arange(len(sorted_wanted)), sorted_wanted)
            pixels = pixels + np.outer(moved - along, axis)
    return torch.from_numpy(pixels.T).float().reshape(content.shape).clamp(0, 1)


def repainted(content: Tensor, style: Tensor) -> Tensor:
    """What meets all three heuristics: the content with the style's colours and, upside down, its fine detail."""
    turned = images.resize(style, (content.shape[-2], content.shape[-1])).clamp(0, 1).flip(-2, -1)
    detail = turned - gaussian_blur(turned, [25, 25], [4.0, 4.0])
    return recoloured((recoloured(content, style) + detail).clamp(0, 1), style)


def shuffled(image: Tensor, side: int = 16) -> Tensor:
    """The square patches of an image in another order; what is left over at the right and the bottom stays."""
    height, width = (length // side * side for length in image.shape[-2:])
    patches = image[..., :height, :width].unfold(2, side, side).unfold(3, side, side)
    order = torch.randperm(patches.shape[2] * patches.shape[3], generator=torch.Generator().manual_seed(0))
    mixed = patches.flatten(2, 3)[:, :, order].reshape(patches.shape)
    result = image.clone()
    result[..., :height, :width] = mixed.permute(0, 1, 2, 4, 3, 5).reshape(1, 3, height, width)
    return result


def iid(style: Tensor, size: tuple[int, int]) -> Tensor:
    """Pixels drawn from an image one by one: its colours and nothing else."""
    pixels = style.flatten(2)
    drawn = torch.randint(pixels.shape[-1], (size[0] * size[1],), generator=torch.Generator().manual_seed(0))
    return pixels[..., drawn].reshape(1, 3, *size)
