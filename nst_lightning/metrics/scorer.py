"""Scores of pictures against their content and style images, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from nst_lightning.errors import InputError
from nst_lightning.metrics.base import Missing, Seen, Sources, known
from nst_lightning.metrics.lab import SHORT_SIDE
from nst_lightning.metrics.perceptual import Lpips, perceptual_distance

Choice: TypeAlias = 'Sequence[str] | Literal["auto", "off"]'
AUTO = "auto"
OFF = "off"

Reference: TypeAlias = Mapping[str, Any]  # what each score keeps of a pair's images, by its name

NAMES = tuple(dict.fromkeys(score.asked for score in known() if score.asked is not None))
"""What can be asked for by name; a score with parts is taken where all of them are."""


class Scorer:
    """Scores outputs against their content and style images; an InputError if a score or its network cannot be had.

    Args:
        choice: `auto` for all that need no network of their own, and LPIPS where torch.hub has its network already; or
            those of `NAMES` that are wanted, whose networks are downloaded once.
        short_side: What outputs are reduced to before they are scored, in pixels.
    """

    def __init__(self, choice: Choice = AUTO, short_side: int = SHORT_SIDE) -> None:
        self.short_side = short_side
        reasons = {str(score.asked): score.left_out() for score in known()} if choice == AUTO else {}
        names = tuple(name for name in NAMES if reasons[name] is None) if choice == AUTO else checked(choice)
        lines = [why.format(names=",".join([*names, name])) for name, why in reasons.items() if why]
        self.missing = "; ".join(lines) or None  # why scores of `auto` are left out, in one line; None if none is
        chosen = [score for score in known() if score.asked in names]
        chosen += [score for score in known() if score.parts and set(score.parts) <= set(chosen)]
        self._scores = [score(short_side=short_side) for score in chosen]

    def reference(self, content: Tensor, styles: Sequence[Tensor]) -> Reference:
        """Returns what is kept of a pair's images, (1, 3, H, W), sRGB in [0, 1], for outputs of the content's size.

        Without styles, as of a style card, of the scores that need none.
        """
        sources, found = Sources(content, content, styles, self.short_side), {}
        for score in self._scores:
            with suppress(Missing):
                found[score.name] = score.to(content.device).reference(sources)
        return found

    @torch.no_grad()
    def scores(self, output: Tensor, reference: Reference) -> dict[str, float]:
        """Returns the numbers of an output, (1, 3, H, W), sRGB in [0, 1], by name, NaN where one is undefined."""
        seen = Seen(output, output, self.short_side)
        taken = [score.values(seen, reference[score.name]) for score in self._scores if score.name in reference]
        found = {name: value.to(output.device) for values in taken for name, value in values.items()}
        # Asked for together: a GPU has to wait for every answer.
        numbers = torch.cat([*found.values()]).cpu().tolist() if found else []
        return dict(zip(found, numbers, strict=True))

    @torch.no_grad()
    def map(self, output: Tensor, reference: Reference) -> Tensor | None:
        """Returns where an output differs from the content, by LPIPS: (1, 1, h, w), or None without LPIPS."""
        for score in self._scores:
            if isinstance(score, Lpips):
                image, (content,) = Seen(output, output, self.short_side).rgb, reference[score.name]
                return perceptual_distance(score.network, image, content, spatial=True)
        return None


def checked(choice: Sequence[str]) -> tuple[str, ...]:
    """Returns the names of scores that were chosen; raises InputError if one is unknown."""
    for name in choice:
        if name not in NAMES:
            known_names = f"{', '.join(NAMES)}, or auto for all that need no download by name"
            raise InputError(f"unknown score {name!r}; known are {known_names}")
    return tuple(choice)
