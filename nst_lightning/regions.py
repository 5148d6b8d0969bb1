"""Regions of images: what masks say of the pixels, and what the positions of a network's layers make of that."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from PIL import ImageColor
from torch import Tensor
from torch.nn import functional as F

from nst_lightning.backbones import Backbone
from nst_lightning.backbones.anatomy import View, views
from nst_lightning.errors import InputError
from nst_lightning.images import Picture, Source
from nst_lightning.losses import IMAGE

Edge = Literal["even", "inside", "grown"]
ALPHA, WHOLE = "alpha", "none"
"""Words in a mask's place: the opacity of the image itself, and all of it."""

_NEAR = 48.0  # of 255: two colours of a mask that are no nearer are two
_SHARE = 1e-3  # of a mask's pixels, from which on a colour that no one named is one, and not an edge's


@dataclass(frozen=True, eq=False)
class Mask:
    """Where in an image a style counts, or may be taken from."""

    source: Source  # white where it counts, or colours; or `ALPHA`
    colour: str | None = None  # the region's, a name or #rrggbb
    colours: tuple[str, ...] = ()  # those of all regions

    @property
    def key(self) -> Hashable:
        """What is equal for equal masks."""
        name = os.fspath(self.source) if isinstance(self.source, (str, os.PathLike)) else id(self.source)
        return name, self.colour, self.colours

    def of(self, image: Source, read: Callable[[Source], Picture]) -> Tensor:
        """Returns how much each pixel counts, (1, 1, H, W) in [0, 1], in the size of its own file.

        Raises:
            InputError: If that is nowhere, or the mask is of another shape than its image, or of colours unasked.
        """
        found, label = read(image), _label(image)
        if isinstance(self.source, str) and self.source == ALPHA:
            if found.alpha is None:
                raise InputError(f"{label}: is opaque throughout: its alpha is no mask")
            return _somewhere(found.alpha, f"alpha of {label}")
        mask, of_mask = read(self.source), _label(self.source)
        (height, width), (rows, columns) = mask.size, found.size
        if abs(height * columns - width * rows) > max(rows, columns):  # more than rounded, where one was resized
            allowed = f"as {label} is {columns}x{rows} px, or at its aspect ratio"
            raise InputError(f"{of_mask}: the mask must be {columns}x{rows} px, {allowed}, got {width}x{height}")
        if self.colour is not None:
            return _coded(mask.rgb, self.colour, self.colours, of_mask)
        if float((mask.rgb.amax(dim=1) - mask.rgb.amin(dim=1)).max()) * 255 > _NEAR:
            raise InputError(f"{of_mask}: the mask is in colours: name that of each style's region with --regions")
        grey = mask.rgb.mean(dim=1, keepdim=True)
        # Was composited over white, but where there is nothing, nothing counts.
        return _somewhere(grey if mask.alpha is None else (grey + mask.alpha - 1).clamp(min=0), of_mask)


def _label(source: Source) -> str:
    return str(source) if isinstance(source, (str, os.PathLike)) else "image"


def _somewhere(mask: Tensor, label: str) -> Tensor:
    if not bool((mask > 0).any()):
        raise InputError(f"{label}: the mask is black throughout: its region has no pixels")
    return mask


def check_colour(name: str) -> None:
    """Raises an `InputError` for what is no colour."""
    _value(name)


def _value(name: str) -> tuple[int, ...]:
    try:
        return ImageColor.getrgb(name)[:3]
    except ValueError as error:
        allowed = "a name such as blue, or #rrggbb in quotes"
        raise InputError(f"regions must be colours, {allowed}, got {name!r}") from error


def _coded(rgb: Tensor, colour: str, colours: Sequence[str], label: str) -> Tensor:
    """Returns where a mask (1, 3, H, W) has a colour: the nearest of those named and of others that are not rare.

    Files that were compressed, or whose edges are smooth, have more colours than were painted.
    """
    pixels = (rgb[0] * 255).round().long()
    codes = pixels[0] * 2**16 + pixels[1] * 2**8 + pixels[2]
    coded, place, counts = torch.unique(codes, return_inverse=True, return_counts=True)
    found = torch.stack([coded // 2**16, coded // 2**8 % 2**8, coded % 2**8], dim=1).float()
    palette = torch.tensor([_value(each) for each in colours], dtype=torch.float32)
    for index in counts.argsort(descending=True, stable=True).tolist():
        if counts[index] < _SHARE * place.numel():
            break
        if float((palette - found[index]).norm(dim=1).min()) > _NEAR:
            palette = torch.cat([palette, found[index : index + 1]])
    apart = torch.cdist(found, palette)
    own = colours.index(colour)
    nearest = apart.argmin(dim=1)
    if not bool((apart[nearest == own, own] <= _NEAR).any()):
        others = ", ".join(f"#{r:02x}{g:02x}{b:02x}" for r, g, b in palette[len(colours) :].int().tolist())
        raise InputError(
            f"{label}: the region {colour} has no pixels; the mask has also {others or 'no other colours'}"
        )
    return (nearest == own)[place].to(rgb)[None, None]


def resized(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """Returns a mask (N, C, h, w) at a size (H, W): antialiased, without overshoot, so that parts of 1 stay such."""
    if tuple(mask.shape[2:]) == size:
        return mask
    return F.interpolate(mask, size=size, mode="bilinear", antialias=True).clamp(0, 1)


def check_edge(edge: str) -> None:
    """Raises an `InputError` for an unknown `Edge`."""
    if edge not in get_args(Edge):
        raise InputError(f"unknown mask_edge {edge!r}; known are {', '.join(get_args(Edge))}")


def pooled(backbone: Backbone, layers: tuple[str, ...], masks: Tensor, edge: Edge) -> dict[str, Tensor]:
    """Returns how much the positions of layers, and the image's, count, (N, M, H', W') each, by masks (N, M, H, W).

    `even` is the mean of the mask over a position's cell of the layer's stride; `inside` the least of what the position
    sees, so that nothing of another region comes in, Gatys et al. (2017), section 4.1; `grown` the most. The first mask
    is always taken evenly; so is what has no position inside.
    """
    found = {IMAGE: masks}
    if layers:
        seen, shapes = views(backbone.network), backbone.shapes(torch.Size((1, 3, *masks.shape[2:])), layers)
        for layer in layers:
            of_layer = seen[layer], (shapes[layer][2], shapes[layer][3])
            even, wished, most = (_pooled(masks, *of_layer, each) for each in ("even", edge, "grown"))
            wished = torch.cat([even[:, :1], wished[:, 1:]], dim=1)
            for other in (even, most, torch.ones_like(even)):  # the last, where nothing counts and its weight is 0
                wished = torch.where((wished > 0).any(dim=3, keepdim=True).any(dim=2, keepdim=True), wished, other)
            found[layer] = wished
    return found


def _pooled(masks: Tensor, seen: tuple[View, View], size: tuple[int, int], edge: str) -> Tensor:
    """Returns masks pooled over the windows of a layer's positions, an image's outermost pixels repeated beyond it."""
    for axis, (view, count) in enumerate(zip(seen, size, strict=True), start=2):
        # A position's own cell lies amid what it sees.
        start, length = ((view.first + view.last + 1 - view.stride) // 2, view.stride)
        if edge != "even":
            start, length = view.first, view.field
        pixels = torch.arange(start, start + (count - 1) * view.stride + length, device=masks.device)
        rows = masks.index_select(axis, pixels.clamp(0, masks.shape[axis] - 1))
        kernel, stride = ((length, 1), (view.stride, 1)) if axis == 2 else ((1, length), (1, view.stride))
        if edge == "even":
            masks = F.avg_pool2d(rows, kernel, stride)
        else:
            sign = -1 if edge == "inside" else 1
            masks = sign * F.max_pool2d(sign * rows, kernel, stride)
    return masks
