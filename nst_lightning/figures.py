"""Pictures beside each other, with words on them."""

from __future__ import annotations

from collections.abc import Sequence

import PIL.Image
from PIL import ImageDraw, ImageFont

from nst_lightning.errors import InputError

LABEL_HEIGHT = 22
"""Height of a label above a picture in pixels."""
_GAP = 4


def strip(pictures: Sequence[PIL.Image.Image], labels: Sequence[str]) -> PIL.Image.Image:
    """Returns pictures in a row on white, each under its label.

    Args:
        pictures: RGB pictures, at least one, of any sizes.
        labels: A short text for each.

    Raises:
        InputError: If there are no pictures, or not as many labels.
    """
    if not pictures or len(pictures) != len(labels):
        msg = f"a strip needs pictures and a label for each, got {len(pictures)} pictures and {len(labels)} labels"
        raise InputError(msg)
    width = sum(picture.width for picture in pictures) + _GAP * (len(pictures) - 1)
    height = max(picture.height for picture in pictures) + LABEL_HEIGHT
    sheet = PIL.Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=14)
    left = 0
    for picture, label in zip(pictures, labels, strict=True):
        sheet.paste(picture, (left, LABEL_HEIGHT))
        draw.text((left + 2, 2), label, fill="black", font=font)
        left += picture.width + _GAP
    return sheet
