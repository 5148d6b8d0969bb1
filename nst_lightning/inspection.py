"""What a network sees: the feature maps and Gram matrices of an image as pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import FuncNorm
from matplotlib.figure import Figure
from torch import Tensor

from nst_lightning import images
from nst_lightning.backbones import Backbone, spec_of
from nst_lightning.errors import InputError
from nst_lightning.losses import Features, Gram

MOST = 16  # feature maps shown unless told otherwise
_LINE = 0.16  # inches; height of a line of text


def inspect(
    image: images.Source,
    layers: Sequence[str] | str | None = None,
    backbone: str = "vgg16",
    weights: str | None = None,
    size: int = 512,
    most: int | None = MOST,
) -> dict[str, Tensor]:
    """Returns pictures of what a network makes of an image: feature maps and Gram matrix of each layer.

    They are `<layer>_features` and `<layer>_gram` for every layer: (1, 3, H, W), sRGB in [0, 1].

    Args:
        image: A file, a PIL image or a tensor, see `images.read`.
        layers: A list or one string with commas; by default those that the backbone's content and style losses read.
        backbone: A key of `backbones.SPECS`.
        weights: `oxford`, `torchvision`, a file's path, or None for the backbone's default.
        size: Long side in pixels that a larger image is reduced to, >= 1.
        most: How many feature maps to show, the most active ones, >= 1; None shows all.

    Raises:
        InputError: If anything given cannot be used.
    """
    if size < 1:
        raise InputError(f"size must be at least 1, got {size}")
    rgb = images.read(image).rgb
    if layers is None:
        spec = spec_of(backbone)
        layers = [layer for layer in spec.layers if layer in (*spec.style_layers, *spec.content_layers)]
    names = list(dict.fromkeys(layers.replace(" ", "").split(",") if isinstance(layers, str) else layers))
    network = Backbone(backbone, names, weights)
    height, width = rgb.shape[-2:]
    with torch.no_grad():
        features = network(images.resize(rgb, images.fit(height, width, size)).clamp(0, 1))
    return {
        f"{name}_{what}": picture for name in names for what, picture in pictures(features[name], name, most).items()
    }


def pictures(feature: Tensor, layer: str, most: int | None = MOST) -> dict[str, Tensor]:
    """Returns the pictures of a layer's features (1, C, H, W): `features`, see `tiles_figure`, and `gram`."""
    return {"features": drawn(tiles_figure(feature, most, layer)), "gram": drawn(gram_figure(feature, layer))}


def tiles_figure(feature: Tensor, most: int | None = MOST, title: str = "features") -> Figure:
    """Returns the feature maps (1, C, H, W) of a layer below a title, on axes that count the maps' pixels.

    Each map is a tile under its channel number, from black, its own minimum, to white, its own maximum. Of the channels
    `most`, >= 1, are shown, those of the highest mean first, or with None all in order. A side is at most 2048 px long.

    Raises:
        InputError: If the features are not finite or not of one image, or `most` is below 1.
    """
    if most is not None and most < 1:
        raise InputError(f"most must be at least 1, or all of them, got {most}")
    maps = _checked(feature)[0]
    by_mean = maps.mean(dim=(1, 2)).sort(descending=True, stable=True).indices
    channels = list(range(len(maps))) if most is None else by_mean[:most].tolist()
    columns = math.ceil(math.sqrt(len(channels)))
    height, width = maps.shape[-2:]
    inch = max(height, width) / ((10 if columns <= 12 else 19.5) / columns - _LINE)  # in pixels of a map
    cell_height, cell_width = height + _LINE * inch, width + _LINE * inch
    across, down = columns * cell_width, math.ceil(len(channels) / columns) * cell_height
    figure = Figure((max(across / inch, 5), down / inch + 3 * _LINE), dpi=100)
    axes = figure.add_axes((0, 0, across / inch / figure.get_figwidth(), down / inch / figure.get_figheight()))
    axes.set(xlim=(0, across), ylim=(down, 0))
    axes.set_axis_off()
    for place, channel in enumerate(channels):
        left, top = place % columns * cell_width, place // columns * cell_height + _LINE * inch
        axes.imshow(maps[channel].numpy(), "gray", extent=(left, left + width, top + height, top))
        axes.text(left, top, str(channel), va="bottom", fontsize=8)
    which = "all" if len(channels) == len(maps) else f"the {len(channels)} most active of"
    order = "in their order" if most is None else "highest mean first"
    heading = f"{title}: {which} {len(maps)} channels, {order}"
    figure.text(0, 1, f"{heading}\neach from its own minimum (black) to its maximum (white)", va="top", fontsize=9)
    return figure


def gram_figure(feature: Tensor, title: str = "features") -> Figure:
    """Returns the Gram matrix (`losses.Gram`) of features (1, C, H, W) as a heat map with a colour bar below a title.

    Raises:
        InputError: If the features are not finite or not of one image.
    """
    loss = Gram()
    gram = loss.target(loss.statistic([Features.whole(_checked(feature))], 0))[0][0].double().numpy()
    # Entries are products of two activations: on a linear scale the few largest would hide the others.
    norm = FuncNorm((_signed_root, lambda roots: roots * np.abs(roots)), gram.min(), gram.max())
    figure = Figure((7, 6.4), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    cells = axes.imshow(gram, "viridis", norm=norm)
    figure.colorbar(cells, ticks=norm.inverse(np.linspace(0, 1, 5)), format="%.4g", label="activation^2")
    heading = f"{title}: Gram matrix F F^T / (C H W)\nrows and columns: channels; colour: signed root scale"
    axes.set_title(heading, fontsize=9)
    return figure


def _checked(feature: Tensor) -> Tensor:
    shape = tuple(feature.shape)
    if feature.ndim != 4 or shape[0] != 1 or 0 in shape:
        raise InputError(f"features of shape {shape}; expected those of one image, (1, C, H, W)")
    feature = feature.detach().to("cpu", torch.float32)
    if not feature.isfinite().all():
        msg = f"features of shape {shape} are not finite: the weights do not fit the network, or the image is broken"
        raise InputError(msg)
    return feature


def _signed_root(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.asarray(np.copysign(np.sqrt(np.abs(values)), values))


def drawn(figure: Figure) -> Tensor:
    """Returns a figure as a picture (1, 3, H, W), sRGB in [0, 1]."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    pixels = torch.from_numpy(np.array(canvas.buffer_rgba())[..., :3])  # type: ignore[no-untyped-call]
    return pixels.permute(2, 0, 1)[None] / 255
