"""The pairs that options name: images by their places, or all styles in one picture."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any, Literal, TypeAlias

from nst_lightning import images
from nst_lightning.errors import InputError
from nst_lightning.files import CONTENT_FOLDER, MASK_FOLDER, STYLE_FOLDER, Images, find
from nst_lightning.naming import draft, unique
from nst_lightning.pairs.listing import read_pairs
from nst_lightning.pairs.pair import (
    MASK_WORDS,
    OF_REGIONS,
    STYLE_SCALES,
    STYLE_WEIGHTS,
    Pair,
    can_scale,
    can_weigh,
    is_word,
)

Pairing: TypeAlias = Literal["zip", "product"]


def chosen(
    content: Images,
    style: Images,
    pairing: Pairing = "zip",
    listed: str | os.PathLike[str] | Sequence[Mapping[str, object]] | tuple[Pair, ...] | None = None,
    of_styles: Mapping[str, Any] | None = None,
) -> tuple[Pair, ...]:
    """Returns the pairs that a run's options name: of the images that `find` finds, see `pair_up`, or those of a list.

    A tuple is of pairs as they are. `of_styles` are lists of what each style has, see `Pair`, None where it has not:
    with anything but a `style_scale`, every content is painted in all styles together.

    Raises:
        InputError: If the images are named twice, or cannot be found, paired or read from the list.
    """
    given = {name: value for name, value in ({} if of_styles is None else of_styles).items() if value is not None}
    if listed is not None:
        if content is not None or style is not None:
            raise InputError(f"pairs {listed} names the images already: leave out content and style")
        if given:
            msg = "names the styles, which have columns for it: leave out"
            raise InputError(f"pairs {listed} {msg} {' and '.join(given)}")
        return listed if isinstance(listed, tuple) else read_pairs(listed)
    contents, styles = find("content", content, CONTENT_FOLDER), find("style", style, STYLE_FOLDER)
    own: dict[str, Any] = {name: _as_given(name, value) for name, value in given.items()}
    if "style_weights" in own and not can_weigh(len(styles), own["style_weights"]):
        raise InputError(f"style_weights must be {STYLE_WEIGHTS}, got {given['style_weights']} for {len(styles)}")
    scales = own.pop("style_scale", ())
    if scales and not can_scale(len(styles), scales):
        raise InputError(f"style_scale must be {STYLE_SCALES}, got {given['style_scale']} for {len(styles)}")
    if own:
        return _together(contents, styles, pairing, {**own, "style_scales": scales})
    pairs = pair_up(contents, styles, pairing)
    if not scales:
        return pairs
    # As in `pair_up`: a product, or a single one with all, goes through the styles again and again.
    every = [*scales] * (len(pairs) // len(styles))
    return tuple(replace(pair, style_scales=(scale,)) for pair, scale in zip(pairs, every, strict=True))


def _together(
    contents: Sequence[images.Source], styles: Sequence[images.Source], pairing: Pairing, own: Mapping[str, Any]
) -> tuple[Pair, ...]:
    """Returns a pair a content image, each of all styles, with what these have of their own."""
    if pairing == "product":
        raise InputError(f"pairing product paints a picture in each style, {min(own)} one in all: leave out one")
    masks = [name for name in own if name in OF_REGIONS]
    if masks and len(contents) > 1:
        msg = f"{', '.join(masks)}: masks are of one content image, got {len(contents)}"
        raise InputError(f"{msg}: name each with its own in a list of pairs")
    names = unique([draft(content, *styles) for content in contents])
    return tuple(Pair(content, tuple(styles), name, **own) for content, name in zip(contents, names, strict=True))


def _as_given(name: str, value: Any) -> tuple[Any, ...]:  # noqa: ANN401
    """Returns what an option says of the styles as a pair has it."""
    if name in ("content_mask", "style_mask"):
        return tuple(find_masks(name, value))
    several = value if isinstance(value, (list, tuple)) else [value]
    if name == "regions":
        return tuple(part.strip(' "') for each in several for part in str(each).split(","))
    return tuple(map(float, several))


def find_masks(name: str, given: Images) -> list[images.Source]:
    """Returns the masks that were named, see `find`; those with a word for a mask as they are."""
    several: Sequence[Any] = given if isinstance(given, (list, tuple)) else [given]
    return [
        mask for each in several for mask in ([each] if is_word(each, *MASK_WORDS) else find(name, each, MASK_FOLDER))
    ]


def pair_up(
    contents: Sequence[images.Source], styles: Sequence[images.Source], pairing: Pairing = "zip"
) -> tuple[Pair, ...]:
    """Returns the pairs of content and style images, under names of which no two are one file on any file system.

    `zip` pairs each content image with the style image at its place, and a single one with all; `product` pairs every
    content image with every style image, all styles of the first content first.

    Raises:
        InputError: If there is no such pairing; or, for `zip`, if there are several of both and not equally many.
    """
    if pairing not in ("zip", "product"):
        raise InputError(f"unknown pairing {pairing!r}; known are zip, product")
    every = pairing == "product" or 1 in (len(contents), len(styles))
    if not every and len(contents) != len(styles):
        given = f"{len(contents)} content images and {len(styles)} style images"
        raise InputError(f"{given}: as many of both, or one of either")
    chosen = list(product(contents, styles) if every else zip(contents, styles, strict=True))
    names = unique([draft(content, style) for content, style in chosen])
    return tuple(Pair(content, (style,), name) for (content, style), name in zip(chosen, names, strict=True))
