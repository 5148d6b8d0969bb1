"""What is painted: a content image, one or more style images, a name, and what it sets for itself."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from nst_lightning import images, initializers
from nst_lightning.cards import is_card
from nst_lightning.errors import InputError
from nst_lightning.naming import draft
from nst_lightning.recipe import portable
from nst_lightning.regions import ALPHA, WHOLE, Mask, check_colour

GROUPS = ("content", "style", "tv", "temporal")
OF_REGIONS = ("content_mask", "style_mask", "regions", "content_weights")
MASK_WORDS = (ALPHA, WHOLE)
STYLE_WEIGHTS = "a finite number, 0 or above, for each style, and one of them above 0"
STRENGTH = (float, lambda value: 0 <= value <= 1, "a number from 0 to 1")
STYLE_SCALES = "a finite number above 0 for each style"


@dataclass(frozen=True, eq=False)  # comparing tensors with == has no single truth value
class Pair:
    """One content image, the style images that it is painted in, and what it has of its own instead of the run's.

    Attributes:
        content: The content image: a file, a PIL image or a tensor, see `images.read`.
        styles: The style images or cards, at least one; their statistics are merged by weight.
        name: What the outputs are called.
        weights: Weights by group, one of `GROUPS`; finite, >= 0. A group that is missing has the run's.
        size: Long side of the output in pixels, >= 1; None for the run's, as below.
        steps: Number of optimiser steps, >= 1.
        init: What the optimisation starts from, one of `initializers.INITIALIZERS`, a picture's file, or `painter:`
            before a painter's or `bundled`.
        seed: Seed of the noise, in [0, 2**63 - 1].
        style_weights: The weight of each style image, finite and >= 0 with a sum above 0; empty for equal ones. Of
            styles in regions, a factor of the style's weight in its own.
        before: Of a frame of a film, the one before: the file of its picture, which need not be there before this pair
            begins, and its content image. The optimisation starts from it, at the last stage.
        colors: Whose colours the picture is in, one of `colors.COLORS`.
        strength: How far to go from the photograph, 0, to the painting, 1: what the weight `style` is found by, where
            there is none; None where it is not.
        content_mask: Where each style counts in the content image: a grey image for each, or one with a colour for
            each, or `alpha`; none for all styles everywhere, merged.
        style_mask: Where each style is taken from, likewise, or `none` for all of it; none for all of all.
        regions: The colour of each style's region in masks that are in colours.
        content_weights: A factor of the content's weight in each region, finite and >= 0; empty for 1.
        style_scales: The long side of each style image as a multiple of the output's, finite, > 0; empty for the run's.

    Raises:
        InputError: If the weights or scales of the style images, the strength or the masks are not as above.
    """

    content: images.Source
    styles: tuple[images.Source, ...]
    name: str
    # Not a MappingProxyType: it can be neither pickled nor deep-copied.
    weights: Mapping[str, float] = field(default_factory=dict)
    size: int | None = None
    steps: int | None = None
    init: str | None = None
    seed: int | None = None
    style_weights: tuple[float, ...] = ()
    before: tuple[Path, images.Source] | None = None
    colors: str | None = None
    strength: float | None = None
    content_mask: tuple[images.Source, ...] = ()
    style_mask: tuple[images.Source, ...] = ()
    regions: tuple[str, ...] = ()
    content_weights: tuple[float, ...] = ()
    style_scales: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.style_weights != () and not can_weigh(len(self.styles), self.style_weights):
            raise InputError(f"pair {self.name}: style_weights must be {STYLE_WEIGHTS}, got {self.style_weights}")
        if self.style_scales != () and not can_scale(len(self.styles), self.style_scales):
            raise InputError(f"pair {self.name}: style_scale must be {STYLE_SCALES}, got {self.style_scales}")
        if self.strength is not None and not STRENGTH[1](self.strength):
            raise InputError(f"strength must be {STRENGTH[2]}, got {self.strength}")
        if told := self._wrong_regions():
            raise InputError(f"pair {self.name}: {told}")

    def _wrong_regions(self) -> str:
        """Returns what is wrong with the regions, empty where nothing is."""
        count, masks, of_styles = len(self.styles), len(self.content_mask), len(self.style_mask)
        if self.regions:
            for colour in self.regions:
                check_colour(colour)
            if masks + of_styles == 0:
                return "regions are colours in masks: name those with content_mask"
            if len(self.regions) != count or len(set(self.regions)) != count:
                return f"regions must name a colour for each of {count} styles, got {', '.join(self.regions)}"
            if masks > 1 or of_styles not in (0, 1, count):
                return f"masks in colours must be one for the content, and one a style, got {masks} and {of_styles}"
        elif masks not in (0, count) or of_styles not in (0, count):
            return f"masks must be one for each of {count} styles, or in colours, see regions; got {masks or of_styles}"
        if any(mask is not None and is_card(style) for style, mask in self.masked_styles):
            return "style_mask is of a painting, which a style card does not hold: say none for it"
        weights = self.content_weights
        if weights and not (masks > 0 and len(weights) == count and all(0 <= each < math.inf for each in weights)):
            return f"content_weights must be a finite number, 0 or above, for each region, got {weights}"
        return ""

    @property
    def regions_of_content(self) -> tuple[Mask, ...]:
        """The region of each style; none where all count everywhere."""
        return self._masks(self.content_mask) if self.content_mask else ()

    @property
    def masked_styles(self) -> tuple[tuple[images.Source, Mask | None], ...]:
        """The style images, each with the part of it that is looked at, None for all."""
        masks = self._masks(self.style_mask) if self.style_mask else [None] * len(self.styles)
        of_part = [None if mask is None or is_word(mask.source, WHOLE) else mask for mask in masks]
        return tuple(zip(self.styles, of_part, strict=True))

    @property
    def masked(self) -> tuple[tuple[images.Source, Mask], ...]:
        """The images that have masks, with each of these."""
        of_content = [(self.content, mask) for mask in self.regions_of_content]
        return (*of_content, *((style, mask) for style, mask in self.masked_styles if mask is not None))

    def _masks(self, sources: tuple[images.Source, ...]) -> tuple[Mask, ...]:
        if self.regions == ():
            return tuple(Mask(source) for source in sources)
        each = sources * len(self.regions) if len(sources) == 1 else sources
        return tuple(Mask(*mask, self.regions) for mask in zip(each, self.regions, strict=True))

    @property
    def mask_files(self) -> tuple[images.Source, ...]:
        """The masks that are images of their own."""
        return tuple(mask for mask in (*self.content_mask, *self.style_mask) if not is_word(mask, *MASK_WORDS))

    @property
    def settings(self) -> dict[str, str | int | float]:
        """What the pair has of its own beside its size and steps, by the name that the run's setting has."""
        of_styles = {"style_weights": self.style_weights, "style_scale": self.style_scales}
        listed = {name: "|".join(map(str, values)) or None for name, values in of_styles.items()}
        optional = {"strength": self.strength, **listed, "init": self.init, "seed": self.seed, "colors": self.colors}
        optional |= self._of_regions
        weights = {f"{group}_weight": weight for group, weight in self.weights.items()}
        return {**weights, **{name: value for name, value in optional.items() if value is not None}}

    def of_strength(self, strength: float) -> Pair:
        """Returns the pair of a run's strength, unless it has one, or a style weight, of its own."""
        return self if self.strength is not None or "style" in self.weights else replace(self, strength=strength)

    @property
    def _of_regions(self) -> dict[str, str | None]:
        """The cells of a row that say where the styles count, None where they are empty."""
        files = [[_told(mask) for mask in masks] for masks in (self.content_mask, self.style_mask)]
        cells = [*files, self.regions, self.content_weights]
        return {name: "|".join(map(str, cell)) or None for name, cell in zip(OF_REGIONS, cells, strict=True)}

    @property
    def row(self) -> dict[str, str]:
        """The pair as a row for `read_pairs`, for other folders and machines too; its images must be files."""
        images = [_path(each) for each in (self.content, *self.styles)]
        own = {"size": self.size, "steps": self.steps, **self.settings}
        if self.name != draft(*images):
            own["name"] = self.name
        if self.init is not None:
            own["init"] = initializers.with_file(self.init, portable)
        if self.before is not None:
            own["before"] = "|".join(portable(_path(each)) for each in self.before)
        if any("#" in colour for colour in self.regions):  # which YAML takes for a comment
            own["regions"] = "|".join(f'"{colour}"' for colour in self.regions)
        content, *styles = map(portable, images)
        cells = {name: str(value) for name, value in own.items() if value is not None}
        return {"content": content, "style": "|".join(styles), **cells}


def is_word(mask: images.Source, *words: str) -> bool:
    """Whether a mask is named by one of some words instead of a file."""
    return isinstance(mask, str) and mask in words


def _told(mask: images.Source) -> str:
    if is_word(mask, *MASK_WORDS):
        return str(mask)
    return portable(mask) if isinstance(mask, (str, os.PathLike)) else "image"


def _path(source: images.Source) -> str | os.PathLike[str]:
    assert isinstance(source, (str, os.PathLike))
    return source


def can_weigh(styles: int, weights: Sequence[float]) -> bool:
    """Whether weights are `STYLE_WEIGHTS`, of so many styles."""
    return len(weights) == styles and all(weight >= 0 for weight in weights) and 0 < sum(weights) < math.inf


def can_scale(styles: int, scales: Sequence[float]) -> bool:
    """Whether scales are `STYLE_SCALES`, of so many styles."""
    return len(scales) == styles and all(0 < scale < math.inf for scale in scales)
