"""Scores of pictures against their content and style images, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from nst_lightning.errors import InputError
from nst_lightning.metrics.base import Seen, Sources, known
from nst_lightning.metrics.lab import SHORT_SIDE, reduced
from nst_lightning.metrics.perceptual import Lpips

Choice: TypeAlias = 'Sequence[str] | Literal["auto", "off"]'
AUTO = "auto"
OFF = "off"

Reference: TypeAlias = Mapping[str, Any]
"""What each score keeps of a pair's images, by its name."""

NAMES = tuple(dict.fromkeys(score.asked for score in known() if score.asked is not None))
"""What can be asked for by name; a score with parts is taken where all of them are."""


class Scorer:
    """Scores outputs against their content and style images.

    Of several style images the palette's and the texture's distance is the mean over them, the leak the largest.

    Args:
        choice: `auto` for all that need no network of their own, and LPIPS where torch.hub has its network already; or
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
        if choice == AUTO:
            left_out = [score for score in known() if not score.in_auto()]
            names = tuple(name for name in NAMES if name not in {score.asked for score in left_out})
            lines = [score.left_out.format(names=",".join([*names, str(score.asked)])) for score in left_out]
            self.missing = "; ".join(filter(None, lines)) or None
        else:
            names = checked(choice)
        chosen = [score for score in known() if score.asked in names]
        chosen += [score for score in known() if score.parts and set(score.parts) <= set(chosen)]
        self._scores = [score(short_side=short_side) for score in chosen]

    def reference(self, content: Tensor, styles: Sequence[Tensor]) -> Reference:
        """Returns what is kept of a pair's images, (1, 3, H, W) of sRGB in [0, 1], for outputs of the content's size.

        There are one or more styles, in the size that the texture is to have in the output.
        """
        sources = Sources(content, content, styles, self.short_side)
        return {score.name: score.to(content.device).reference(sources) for score in self._scores}

    @torch.no_grad()
    def scores(self, output: Tensor, reference: Reference) -> dict[str, float]:
        """Returns the numbers of an output, (1, 3, H, W), sRGB in [0, 1], by name, NaN where one is undefined.

        The reference is what `reference` returned for its pair.
        """
        found: dict[str, Tensor] = {}
        seen = Seen(reduced(output, output, self.short_side))
        for score in self._scores:
            found |= score.values(seen, reference[score.name])
        return {name: value.item() for name, value in found.items()}

    @torch.no_grad()
    def map(self, output: Tensor, reference: Reference) -> Tensor | None:
        """Returns where an output differs from the content, by LPIPS: (1, 1, h, w), or None without LPIPS."""
        for score in self._scores:
            if isinstance(score, Lpips):
                return score.map(reduced(output, output, self.short_side), reference[score.name])
        return None


def checked(choice: Sequence[str]) -> tuple[str, ...]:
    """Returns the names of scores that were chosen; raises InputError if one is unknown."""
    for name in choice:
        if name not in NAMES:
            msg = f"unknown score {name!r}; known are {', '.join(NAMES)}, or auto for all that need no download by name"
            raise InputError(msg)
    return tuple(choice)
