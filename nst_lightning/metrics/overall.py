"""One number of outline, palette, texture and leak: a convention, not a measurement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from nst_lightning.metrics.base import Score, Seen, Sources
from nst_lightning.metrics.lab import SHORT_SIDE
from nst_lightning.metrics.leak import Leak
from nst_lightning.metrics.outline import Outline
from nst_lightning.metrics.palette import Palette
from nst_lightning.metrics.texture import Texture


def overall_score(outline: Tensor, palette: Tensor, texture: Tensor, leak: Tensor) -> Tensor:
    """Returns (O P T)^(1/3) (1 - L) of four scores, (N,) each, with P and T clipped to [0, 1]: (N,), in [0, 1].

    The geometric mean asks for all three heuristics at once, the factor that the style's motifs do not show through.
    """
    return (outline * palette.clamp(0, 1) * texture.clamp(0, 1)) ** (1 / 3) * (1 - leak)


class Overall(Score):
    """The mean over images of `overall_score`, in [0, 1]; NaN where one of its four parts is."""

    name = "overall"
    parts = (Outline, Palette, Texture, Leak)
    order = 100
    higher_is_better = True

    def __init__(self, short_side: int | None = SHORT_SIDE, **kwargs: Any) -> None:
        super().__init__(short_side, **kwargs)
        self._parts = [part(short_side) for part in self.parts]

    def reference(self, sources: Sources) -> list[Any]:
        """Returns what each part keeps."""
        return [part.reference(sources) for part in self._parts]

    def values(self, output: Seen, reference: Sequence[Any]) -> dict[str, Tensor]:
        """Returns `overall`."""
        found = [part.values(output, kept)[part.name] for part, kept in zip(self._parts, reference, strict=True)]
        return {self.name: overall_score(*found)}
