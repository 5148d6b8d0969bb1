"""The numbers of single images, as functions of images: a short way to write what the tests of the scores compare."""

from __future__ import annotations

from torch import Tensor

from nst_lightning.metrics import (
    FeatureDistance,
    Leak,
    Outline,
    Palette,
    PaletteDistance,
    Similarity,
    Texture,
    TextureDistance,
)
from nst_lightning.metrics.base import Frozen
from nst_lightning.metrics.distributions import progress
from nst_lightning.metrics.features import Layers
from nst_lightning.metrics.lab import SHORT_SIDE, as_written, lab, reduced
from nst_lightning.metrics.outline import Gradients, Outlines, above_chance, edge_auc
from nst_lightning.metrics.perceptual import perceptual_distance
from nst_lightning.metrics.texture import TEXTURE_FLOOR, texture_of


def working_size(output: Tensor, *others: Tensor, short_side: int | None = SHORT_SIDE) -> tuple[Tensor, ...]:
    return tuple(reduced(as_written(each), output, short_side) for each in (output, *others))


def seen(output: Tensor, *others: Tensor, short_side: int | None = SHORT_SIDE) -> tuple[Tensor, ...]:
    return tuple(lab(each) for each in working_size(output, *others, short_side=short_side))


def outline(output: Tensor, content: Tensor, short_side: int | None = SHORT_SIDE) -> Tensor:
    return Outline(short_side).numbers(output=output, content=content)


def similarity(output: Tensor, content: Tensor, short_side: int | None = SHORT_SIDE) -> Tensor:
    return Similarity(short_side).numbers(output=output, content=content)


def leak_score(output: Gradients, outlines_of_style: Outlines) -> Tensor:
    return above_chance(edge_auc(output, outlines_of_style))


def leak(output: Tensor, style: Tensor, short_side: int | None = SHORT_SIDE) -> Tensor:
    return Leak(short_side).numbers(output=output, style=style)


def palette_distance(output: Tensor, style: Tensor, short_side: int | None = SHORT_SIDE) -> Tensor:
    return PaletteDistance(short_side).numbers(output=output, style=style)


def palette_progress(output: Tensor, style: Tensor, content: Tensor, short_side: int | None = SHORT_SIDE) -> Tensor:
    return Palette(short_side).numbers(output=output, style=style, content=content)


def texture_levels(output: Tensor, style: Tensor, short_side: int | None = SHORT_SIDE) -> Tensor:
    return texture_levels_score(*map(texture_of, seen(output, style, short_side=short_side)))


def texture_distance_score(output: Tensor, style: Tensor) -> Tensor:
    return texture_levels_score(output, style).nanmean(dim=1)


def texture_distance(output: Tensor, style: Tensor, short_side: int | None = SHORT_SIDE) -> Tensor:
    return TextureDistance(short_side=short_side).numbers(output=output, style=style)


def texture_progress_score(distance: Tensor, baseline: Tensor) -> Tensor:
    return progress(distance, baseline, TEXTURE_FLOOR)


def texture_progress(output: Tensor, style: Tensor, content: Tensor, short_side: int | None = SHORT_SIDE) -> Tensor:
    return Texture(short_side).numbers(output=output, style=style, content=content)


def outline_score(output: Gradients, outlines_of_content: Outlines) -> Tensor:
    return Outline().compare(output, outlines_of_content)


def similarity_score(output: Tensor, content: Tensor) -> Tensor:
    return Similarity().compare(output[:, :1].detach(), content[:, :1])


def palette_distance_score(output: Tensor, style: Tensor) -> Tensor:
    return PaletteDistance().compare(output, style)


def texture_levels_score(output: Tensor, style: Tensor) -> Tensor:
    return TextureDistance().compare(output, style)


def feature_distance(output: Layers, style: Layers) -> Tensor:
    return FeatureDistance("vgg16", ("relu1_1",)).compare(output, style)


def lpips_map(network: Frozen, output: Tensor, content: Tensor) -> Tensor:
    return perceptual_distance(network, output, content, spatial=True)


def lpips_distance(network: Frozen, output: Tensor, content: Tensor) -> Tensor:
    return perceptual_distance(network, output, content).flatten()
