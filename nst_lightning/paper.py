"""Pictures for print: a paper's size and resolution, and the pixels that fill it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from nst_lightning.errors import InputError

_SIZES = ((841, 1189), (594, 841), (420, 594), (297, 420), (210, 297), (148, 210), (105, 148))  # mm, A0 to A6, ISO 216
_INCHES = {"mm": 1 / 25.4, "cm": 1 / 2.54, "in": 1.0}


@dataclass(frozen=True)
class Paper:
    """A paper, which lies as the photograph does, and its resolution."""

    short: float  # inches
    long: float  # inches
    dpi: int  # pixels an inch

    @classmethod
    def of(cls, text: str) -> Paper:
        """Returns the paper in a text such as `60x40cm@300dpi`, `12x8in@300dpi` or `A2@200dpi`.

        Raises:
            InputError: If it is none, or not of a pixel.
        """
        number = r"(\d+(?:\.\d+)?)"
        found = re.fullmatch(
            rf"(?:A([0-6])|{number}x{number}(mm|cm|in))@(\d+)dpi", text.replace(" ", ""), re.IGNORECASE
        )
        if found is None:
            wanted = "a paper and its resolution, as 60x40cm@300dpi, 12x8in@300dpi or A2@200dpi"
            raise InputError(f"print must be {wanted}, got {text!r}")
        name, *sides, unit, dpi = found.groups()
        inches = _INCHES["mm" if unit is None else unit.lower()]
        short, long = sorted(float(side) * inches for side in (_SIZES[int(name)] if name is not None else sides))
        if round(short * int(dpi)) < 1:
            raise InputError(f"print must be a pixel wide at least, got {text!r}")
        return cls(short, long, int(dpi))

    @property
    def side(self) -> int:
        """The long side in pixels."""
        return round(self.long * self.dpi)

    def told(self, height: int, width: int) -> str:
        """Returns what a picture of so many pixels measures, in words."""
        return f"{width / self.dpi * 2.54:.1f}x{height / self.dpi * 2.54:.1f} cm at {self.dpi} dpi"

    def long_side(self, height: int, width: int) -> int:
        """Returns the long side in pixels, >= 1, of the largest picture of a photograph's proportions on the paper."""
        short = round(self.short * self.dpi) * max(height, width) // min(height, width)
        return max(1, min(self.side, short))
