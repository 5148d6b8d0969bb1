"""Scores of pictures against their content and style images, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Protocol, TypeAlias

import torch
from torch import Tensor

from nst_lightning import images
from nst_lightning.errors import InputError
from nst_lightning.metrics.features import FeatureDistance
from nst_lightning.metrics.lab import SHORT_SIDE, as_written, lab, working_size
from nst_lightning.metrics.leak import leak_score
from nst_lightning.metrics.outline import Gradients, Outlines, gradients, outline_score, outlines
from nst_lightning.metrics.overall import overall_score
from nst_lightning.metrics.palette import palette_closure_score, palette_distance_score, palette_of
from nst_lightning.metrics.perceptual import Lpips, is_cached
from nst_lightning.metrics.similarity import similarity_score
from nst_lightning.metrics.texture import WINDOW, texture_closure_score, texture_levels_score, texture_of

Choice: TypeAlias = 'Sequence[str] | Literal["auto", "off"]'
AUTO = "auto"
OFF = "off"


@dataclass(frozen=True, eq=False)  # comparing tensors with == has no single truth value
class Seen:
    """An image as the scores see it: as it would be written, at the working size.

    Attributes:
        rgb: (1, 3, H, W), sRGB in [0, 1].
    """

    rgb: Tensor

    @cached_property
    def lab(self) -> Tensor:
        """The image in CIELAB."""
        return lab(self.rgb)

    @cached_property
    def gradients(self) -> Gradients:
        """What outlines are looked for in."""
        return gradients(self.lab)


@dataclass(frozen=True)
class Sources:
    """The images that an output is compared with.

    Attributes:
        content: The content image, of the output's size.
        styles: The style images, in proportion.
        stretched: The style images stretched to the output's size, as an optimisation begins with them.
    """

    content: Seen
    styles: Sequence[Seen]
    stretched: Sequence[Seen]


class Score(Protocol):
    """One way to score an output; what it needs of the sources is computed once for many outputs."""

    def reference(self, sources: Sources) -> Any:  # noqa: ANN401 - each keeps something else
        """Returns what is kept of the images that outputs will be compared with."""
        ...

    def values(self, output: Seen, reference: Any) -> dict[str, Tensor]:  # noqa: ANN401 - as above
        """Returns the output's numbers by name, (1,) each, NaN where undefined."""
        ...


class _Outline:
    def reference(self, sources: Sources) -> tuple[Outlines, Tensor]:
        return outlines(sources.content.lab), sources.content.lab

    def values(self, output: Seen, reference: tuple[Outlines, Tensor]) -> dict[str, Tensor]:
        lines, content = reference
        return {
            "outline": outline_score(output.gradients, lines),
            "ms_ssim": similarity_score(output.lab, content),
        }


class _Leak:
    def reference(self, sources: Sources) -> list[Outlines]:
        return [outlines(style.lab) for style in sources.stretched]

    def values(self, output: Seen, reference: list[Outlines]) -> dict[str, Tensor]:
        return {"leak": _over(reference, lambda lines: leak_score(output.gradients, lines)).amax(0)}


class _Palette:
    def reference(self, sources: Sources) -> tuple[list[Tensor], Tensor]:
        styles = [palette_of(style.lab) for style in sources.styles]
        content = palette_of(sources.content.lab)
        return styles, _over(styles, lambda style: palette_distance_score(content, style)).mean(0)

    def values(self, output: Seen, reference: tuple[list[Tensor], Tensor]) -> dict[str, Tensor]:
        styles, baseline = reference
        colours = palette_of(output.lab)
        distance = _over(styles, lambda style: palette_distance_score(colours, style)).mean(0)
        return {"palette": palette_closure_score(distance, baseline), "palette_distance": distance}


class _Texture:
    def reference(self, sources: Sources) -> tuple[list[list[Tensor]], Tensor]:
        styles = [_levels(style) for style in sources.styles]
        content = _levels(sources.content)
        return styles, _mean_over_styles(content, styles, sources.content.rgb.device).nanmean(-1)

    def values(self, output: Seen, reference: tuple[list[list[Tensor]], Tensor]) -> dict[str, Tensor]:
        styles, baseline = reference
        strokes = _levels(output)
        levels = _mean_over_styles(strokes, styles, output.rgb.device)
        distance = levels.nanmean(-1)
        return {
            "texture": texture_closure_score(distance, baseline),
            "texture_distance": distance,
            **{f"texture_distance_{number}": level for number, level in enumerate(levels.unbind(-1), start=1)},
        }


class _Lpips:
    def __init__(self, metric: Lpips) -> None:
        self.metric = metric

    def reference(self, sources: Sources) -> Tensor:
        return sources.content.rgb

    def values(self, output: Seen, reference: Tensor) -> dict[str, Tensor]:
        return {"lpips": self.metric.to(output.rgb.device).distance(output.rgb, reference)}


class _Features:
    def __init__(self, metric: FeatureDistance) -> None:
        self.metric = metric

    def reference(self, sources: Sources) -> list[Any]:
        metric = self.metric.to(sources.content.rgb.device)
        return [metric.reference(style.rgb) for style in sources.styles]

    def values(self, output: Seen, reference: list[Any]) -> dict[str, Tensor]:
        distance = _over(reference, lambda style: self.metric.distance(output.rgb, style)).mean(0)
        return {"feature_distance": distance}


NAMES = ("outline", "palette", "texture", "leak", "lpips", "features")
"""The scores that can be asked for by name; `outline` brings `ms_ssim`, the first four together `overall`."""
_PARTS_OF_OVERALL = ("outline", "palette", "texture", "leak")


class Scorer:
    """Scores outputs against their content and style images.

    Of several style images the palette's and the texture's distance is the mean over them, the leak the largest.

    Args:
        choice: `auto` for outline, palette, texture, leak, and LPIPS where torch.hub has its network already; or
            those of `NAMES` that are wanted, whose networks are downloaded once.
        short_side: What outputs are reduced to before they are scored, in pixels.

    Attributes:
        missing: Why a score of `auto` is left out: one line; None where none is.

    Raises:
        InputError: If a name is unknown.
        WeightsError: If a network that was asked for by name cannot be had.
    """

    def __init__(self, choice: Choice = AUTO, short_side: int = SHORT_SIDE) -> None:
        self.short_side = short_side
        self.missing: str | None = None
        names = _PARTS_OF_OVERALL if choice == AUTO else checked(choice)
        if choice == AUTO and is_cached():
            names = (*names, "lpips")
        elif choice == AUTO:
            self.missing = (
                "LPIPS is left out, for its network is not on this machine: "
                f"--scores {','.join((*names, 'lpips'))} downloads it once (233 MB)"
            )
        self._scores = {name: _make(name, short_side) for name in NAMES if name in names}

    @property
    def lpips(self) -> Lpips | None:
        """The metric behind the score `lpips`, None where it is not taken."""
        score = self._scores.get("lpips")
        return score.metric if isinstance(score, _Lpips) else None

    def reference(self, content: Tensor, styles: Sequence[Tensor]) -> Reference:
        """Returns what is kept of a pair's images, for outputs of the content's size.

        Args:
            content: (1, 3, H, W), sRGB in [0, 1].
            styles: One or more (1, 3, h, w), likewise, in the size that the texture is to have in the output.
        """
        size = (content.shape[-2], content.shape[-1])
        styles = [as_written(style) for style in styles]
        stretched = [images.resize(style, size).clamp(0, 1) for style in styles]
        seen = [Seen(rgb) for rgb in working_size(content, *styles, *stretched, short_side=self.short_side)]
        sources = Sources(seen[0], seen[1 : 1 + len(styles)], seen[1 + len(styles) :])
        return Reference(seen[0], {name: score.reference(sources) for name, score in self._scores.items()})

    @torch.no_grad()
    def scores(self, output: Tensor, reference: Reference) -> dict[str, float]:
        """Returns an output's numbers by name, NaN where one is undefined.

        Args:
            output: (1, 3, H, W), sRGB in [0, 1]; of the size that the reference is for.
            reference: What `reference` returned for its pair.
        """
        (rgb,) = working_size(output, short_side=self.short_side)
        seen = Seen(rgb)
        found: dict[str, Tensor] = {}
        for name, score in self._scores.items():
            found.update(score.values(seen, reference.kept[name]))
        if all(part in found for part in _PARTS_OF_OVERALL):
            found["overall"] = overall_score(*(found[part] for part in _PARTS_OF_OVERALL))
        return {name: value.item() for name, value in found.items()}

    @torch.no_grad()
    def map(self, output: Tensor, reference: Reference) -> Tensor | None:
        """Returns where an output differs from the content, by LPIPS: (1, 1, h, w), or None without LPIPS."""
        if self.lpips is None:
            return None
        (rgb,) = working_size(output, short_side=self.short_side)
        return self.lpips.spatial_map(rgb, reference.content.rgb)


@dataclass(frozen=True)
class Reference:
    """What is kept of a pair's images.

    Attributes:
        content: The content image.
        kept: What each score keeps, by its name.
    """

    content: Seen
    kept: Mapping[str, Any]


def checked(choice: Sequence[str]) -> tuple[str, ...]:
    """Returns the names of scores that were chosen.

    Raises:
        InputError: If one is unknown.
    """
    for name in choice:
        if name not in NAMES:
            msg = f"unknown score {name!r}; known are {', '.join(NAMES)}, or auto for all that need no download by name"
            raise InputError(msg)
    return tuple(choice)


def _make(name: str, short_side: int) -> Score:
    if name == "lpips":
        return _Lpips(Lpips(short_side=short_side))
    if name == "features":
        return _Features(FeatureDistance(short_side=short_side))
    simple: Mapping[str, Callable[[], Score]] = {
        "outline": _Outline,
        "palette": _Palette,
        "texture": _Texture,
        "leak": _Leak,
    }
    return simple[name]()


def _levels(image: Seen) -> list[Tensor]:
    """Returns the texture of an image at every level that it has, none where it is smaller than a window."""
    return texture_of(image.lab) if min(image.lab.shape[-2:]) >= WINDOW else []


def _mean_over_styles(texture: Sequence[Tensor], styles: Sequence[Sequence[Tensor]], device: torch.device) -> Tensor:
    """Returns the texture's distance on every level that all of the style images have, (1, levels); NaN if none."""
    shared = min(map(len, styles))
    if shared == 0 or not texture:
        return torch.full((1, 1), torch.nan, device=device)
    return _over(styles, lambda style: texture_levels_score(texture, style[:shared])).mean(0)


def _over(references: Sequence[Any], compare: Callable[[Any], Tensor]) -> Tensor:
    """Returns what a comparison gives with each of the style images, stacked."""
    return torch.stack([compare(reference) for reference in references])
