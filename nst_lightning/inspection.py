"""What a network sees: the feature maps and Gram matrices of an image as pictures."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from nst_lightning import images
from nst_lightning.backbones import Backbone, spec_of
from nst_lightning.errors import InputError
from nst_lightning.losses import Features, Gram

if TYPE_CHECKING:
    from matplotlib.colors import Colormap

MAX_PICTURE = 2048  # px; no side of a picture is longer
MAX_CHANNELS = 256  # rows of a heat map: more would be lines too thin to see
MOST = 16  # feature maps shown unless told otherwise

_MIN_TILE = 64  # px; the longer side of a feature map's tile
_GRID_SIDE = 1024  # px; what small feature maps are enlarged towards
_HEAT_MAP_SIDE = 512  # px; likewise
_GAP = 2  # px
_LINE = 16  # px; height of a line of text
_BAR = 20  # px; width of the colour bar
_TICKS = 5
_UNIT = "activation^2"


def inspect(
    image: images.Source,
    layers: Sequence[str] | str | None = None,
    backbone: str = "vgg16",
    weights: str | None = None,
    size: int = 512,
    most: int | None = MOST,
) -> dict[str, Tensor]:
    """Returns pictures of what a network makes of an image: feature maps and Gram matrix of each layer.

    Args:
        image: The image: a file, a PIL image or a tensor, see `images.read`.
        layers: The layers, a list or one string with commas; by default those that the backbone's content and
            style losses read.
        backbone: A key of `backbones.SPECS`.
        weights: `oxford`, `torchvision`, a file's path, or None for the backbone's default.
        size: Long side in pixels that a larger image is reduced to, >= 1.
        most: How many feature maps to show, the most active ones, >= 1; None shows all.

    Returns:
        `<layer>_features` and `<layer>_gram` for every layer: (1, 3, H, W), sRGB in [0, 1].

    Raises:
        InputError: If anything given cannot be used.
    """
    if size < 1:
        raise InputError(f"size must be at least 1, got {size}")
    rgb = images.read(image).rgb
    names = _layers(layers, backbone)
    network = Backbone(backbone, names, weights)
    height, width = rgb.shape[-2:]
    with torch.no_grad():
        features = network(images.resize(rgb, images.fit(height, width, size)).clamp(0, 1))
    pictures = {}
    for name in names:
        pictures[f"{name}_features"] = feature_tiles(features[name], most, name)
        pictures[f"{name}_gram"] = gram_heat_map(features[name], name)
    return pictures


def feature_tiles(feature: Tensor, most: int | None = MOST, title: str = "features") -> Tensor:
    """Returns the feature maps (1, C, H, W) of a layer as one picture (1, 3, H', W'), sRGB in [0, 1].

    Each map is a tile under its channel number, from black, its own minimum, to white, its own maximum; a constant one
    is black. Small maps are enlarged pixel by pixel to 64 px at least, as far as the picture's 2048 px allow; larger
    ones are scaled down. Of the channels, `most`, >= 1, are shown, those of the highest mean first, or with None all
    in their order. The heading begins with `title`.

    Raises:
        InputError: If the features are not finite or not of one image, or `most` is below 1.
    """
    if most is not None and most < 1:
        raise InputError(f"most must be at least 1, or all of them, got {most}")
    maps = _checked(feature)[0]
    by_mean = maps.mean(dim=(1, 2)).sort(descending=True, stable=True).indices
    channels = list(range(len(maps))) if most is None else by_mean[:most].tolist()
    columns = math.ceil(math.sqrt(len(channels)))
    tiles = _scaled_to_fit(_own_range(maps[channels]), columns, math.ceil(len(channels) / columns))
    which = "all" if len(channels) == len(maps) else f"the {len(channels)} most active of"
    order = "in their order" if most is None else "highest mean first"
    heading = (
        f"{title}: {which} {len(maps)} channels, {order}",
        "each from its own minimum (black) to its own maximum (white)",
    )
    return _tile_sheet(tiles, [str(channel) for channel in channels], columns, heading)


def gram_heat_map(feature: Tensor, title: str = "features") -> Tensor:
    """Returns the Gram matrix of a layer's features (1, C, H, W), `losses.Gram`'s, as a heat map with a colour bar.

    The picture is (1, 3, H', W'), sRGB in [0, 1]; its heading begins with `title`. The colours are those of `viridis`
    from the smallest to the largest entry shown. Where most entries would look alike, they follow a signed root of
    the entries; the picture says so. Of more than 256 channels every second is shown, or every third and so on.

    Raises:
        InputError: If the features are not finite or not of one image.
    """
    loss = Gram()
    (gram,) = loss.target(loss.statistic([Features.whole(_checked(feature))], 0))[0].cpu()
    every = math.ceil(len(gram) / MAX_CHANNELS)
    shown = gram[::every, ::every]
    power = _power(shown)
    scaled = _signed_power(shown, power)
    low, high = scaled.aminmax()
    ticks = _signed_power(torch.linspace(high.item(), low.item(), _TICKS, dtype=torch.float64), 1 / power)
    ordinal = {2: "second", 3: "third"}.get(every, f"{every}th")
    subset = "" if every == 1 else f", every {ordinal} of {len(gram)} channels"
    scale = {1.0: "linear", 0.5: "square-root", 0.25: "fourth-root"}[power]
    heading = (
        f"{title}: Gram matrix F F^T / (C H W){subset}",
        f"rows and columns: channels; colour: {'signed ' if low < 0 and power < 1 else ''}{scale} scale",
    )
    cells = _own_range(scaled[None])[0]
    return _heat_map_sheet(cells, (len(shown) - 1) * every, [f"{tick:.4g}" for tick in ticks.tolist()], heading)


def viridis(values: Tensor) -> Tensor:
    """Returns matplotlib's colours of values in [0, 1], from dark violet to yellow: sRGB in [0, 1], (3, ...)."""
    return torch.from_numpy(_colour_map()(values.numpy())[..., :3]).float().movedim(-1, 0)


def _layers(given: Sequence[str] | str | None, backbone: str) -> list[str]:
    """Returns the layers to show, each once; those of the losses in the order of their depth."""
    if given is None:
        spec = spec_of(backbone)
        return [layer for layer in spec.layers if layer in (*spec.style_layers, *spec.content_layers)]
    return list(dict.fromkeys(given.replace(" ", "").split(",") if isinstance(given, str) else given))


def _checked(feature: Tensor) -> Tensor:
    """Returns features as float32 on the CPU, of no graph."""
    shape = tuple(feature.shape)
    if feature.ndim != 4 or shape[0] != 1 or 0 in shape:
        raise InputError(f"features of shape {shape}; expected those of one image, (1, C, H, W)")
    feature = feature.detach().to("cpu", torch.float32)
    if not feature.isfinite().all():
        msg = f"features of shape {shape} are not finite: the weights do not fit the network, or the image is broken"
        raise InputError(msg)
    return feature


def _own_range(maps: Tensor) -> Tensor:
    """Returns each of the maps (N, H, W) on its own range, in [0, 1]; 0 where it is constant."""
    low, high = maps.amin(dim=(1, 2), keepdim=True), maps.amax(dim=(1, 2), keepdim=True)
    return (maps - low) / (high - low).where(high > low, torch.ones_like(high))


def _power(entries: Tensor) -> float:
    """Returns the power that lifts the median entry to a fifth of the largest at least: 1, 1/2 or 1/4."""
    largest = entries.abs().max().item()
    typical = entries.abs().median().item() / largest if largest > 0 else 1.0
    return next((power for power in (1.0, 0.5) if typical**power >= 0.2), 0.25)


def _signed_power(values: Tensor, power: float) -> Tensor:
    return values.sign() * values.abs() ** power


def _enlarged(maps: Tensor, factor: int) -> Tensor:
    """Returns maps (..., H, W) with every pixel as a square of `factor` pixels."""
    return maps.repeat_interleave(factor, dim=-2).repeat_interleave(factor, dim=-1)


def _scaled_to_fit(maps: Tensor, columns: int, rows: int) -> Tensor:
    """Returns maps (N, H, W) in [0, 1] in the size of their tiles."""
    height, width = maps.shape[-2:]
    room_across = (MAX_PICTURE - _GAP) // columns - _GAP
    room_down = (MAX_PICTURE - 2 * _LINE - _GAP) // rows - _GAP - _LINE
    room = min(room_across // width, room_down // height)
    if room >= 1:
        longest = max(height, width)
        wished = max(math.ceil(_MIN_TILE / longest), _GRID_SIDE // columns // longest)
        return _enlarged(maps, min(wished, room))
    size = min(room_down, height * room_across // width), min(room_across, width * room_down // height)
    return images.resize(maps[None], (max(1, size[0]), max(1, size[1])))[0].clamp(0, 1)


def _tile_sheet(tiles: Tensor, labels: Sequence[str], columns: int, heading: Sequence[str]) -> Tensor:
    """Draws tiles (N, H, W) in rows, each below its label."""
    height, width = tiles.shape[-2:]
    cell_height, cell_width = height + _LINE + _GAP, max(width, *map(_length, labels)) + _GAP
    top = len(heading) * _LINE
    rows = math.ceil(len(tiles) / columns)
    sheet, pen = _sheet(columns * cell_width + _GAP, top + rows * cell_height + _GAP, heading)
    for index, (tile, label) in enumerate(zip(tiles, labels, strict=True)):
        row, column = divmod(index, columns)
        left, above = _GAP + column * cell_width, top + _GAP + row * cell_height
        pen.text((left, above), label, "black")
        sheet.paste(images.to_pil(tile.expand(3, -1, -1)), (left, above + _LINE))
    return images.read(sheet).rgb


def _heat_map_sheet(cells: Tensor, last: int, ticks: Sequence[str], heading: Sequence[str]) -> Tensor:
    """Draws cells (N, N) in [0, 1] between their channel numbers, 0 to `last`, and a colour bar.

    The ticks belong to the bar from its top, 1, to its bottom, 0, at equal distances.
    """
    colours = _enlarged(viridis(cells), max(1, _HEAT_MAP_SIDE // len(cells)))
    side = colours.shape[-1]
    left, top = _length(str(last)) + 2 * _GAP, len(heading) * _LINE + _LINE // 2
    bar = left + side + _LINE
    right = bar + max(_BAR + 4 * _GAP + max(map(_length, ticks)), _length(_UNIT)) + _GAP
    sheet, pen = _sheet(right, top + side + 2 * _LINE, heading)
    sheet.paste(images.to_pil(colours), (left, top))
    sheet.paste(images.to_pil(viridis(torch.linspace(1, 0, side))[..., None].expand(-1, -1, _BAR)), (bar, top))
    for index, tick in enumerate(ticks):
        level = top + round(index * (side - 1) / (len(ticks) - 1))
        pen.line((bar + _BAR, level, bar + _BAR + 2 * _GAP, level), "black")
        pen.text((bar + _BAR + 4 * _GAP, level), tick, "black", anchor="lm")
    pen.text((bar, top + side + _LINE), _UNIT, "black", anchor="lm")
    for channel, cell, at_row, at_column in ((0, 0, "rt", "lt"), (last, side - 1, "rb", "rt")):
        pen.text((left - _GAP, top + cell), str(channel), "black", anchor=at_row)
        pen.text((left + cell, top + side), str(channel), "black", anchor=at_column)
    return images.read(sheet).rgb


def _sheet(width: int, height: int, heading: Sequence[str]) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """Returns a white picture with lines of text on top, wide enough for these, and what draws on it."""
    sheet = Image.new("RGB", (max(width, *(_length(line) + 2 * _GAP for line in heading)), height), "white")
    pen = ImageDraw.Draw(sheet)
    pen.font = _font()
    for index, line in enumerate(heading):
        pen.text((_GAP, index * _LINE), line, "black")
    return sheet, pen


@functools.cache
def _font() -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size=12)
    assert isinstance(font, ImageFont.FreeTypeFont)  # what a size asks for
    return font


def _length(text: str) -> int:
    return math.ceil(_font().getlength(text))


@functools.cache
def _colour_map() -> Colormap:
    from matplotlib import colormaps, colors  # not above: it takes its time, and most runs show no heat map

    # Between the 256 colours that are published it is linear.
    return colors.LinearSegmentedColormap.from_list("viridis", colormaps["viridis"](np.arange(256)), N=4096)
