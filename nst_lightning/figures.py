"""Pictures beside each other, with words on them."""

from __future__ import annotations

from collections.abc import Sequence

import PIL.Image
from PIL import ImageDraw, ImageFont

from nst_lightning.errors import InputError

LABEL_HEIGHT = 22
"""Half the height of the title with its gaps in pixels."""
_GAP = 4  # px
_ROW_LABEL_WIDTH = 150  # px
_LINE = 18  # px
_LETTERS = 14  # px


def grid(
    rows: Sequence[Sequence[PIL.Image.Image | None]],
    row_labels: Sequence[str],
    column_labels: Sequence[str],
    title: str,
    settings: str,
    width: int = 256,
) -> PIL.Image.Image:
    """Returns pictures in a labelled grid on white, below a title and above the settings that they share.

    All rows have as many pictures, brought to one width in pixels; None leaves a place empty. Labels are broken into
    lines.

    Raises:
        InputError: If there is no picture, or the labels do not go with the rows and columns.
    """
    if not any(picture is not None for row in rows for picture in row):
        msg = "a grid needs at least one picture"
        raise InputError(msg)
    if len(row_labels) != len(rows) or any(len(row) != len(column_labels) for row in rows):
        msg = f"{len(rows)} rows, {len(row_labels)} labels of rows and {len(column_labels)} of columns: do not fit"
        raise InputError(msg)
    first = _ROW_LABEL_WIDTH if any(row_labels) else 0
    lefts = [first + column * (width + _GAP) for column in range(len(column_labels))]
    heads = [_wrapped(label, width) for label in column_labels]
    names = [_wrapped(label, _ROW_LABEL_WIDTH - 2 * _GAP) for label in row_labels]
    footer = _wrapped(settings, lefts[-1] + width - _GAP)
    scaled = [[None if each is None else _to_width(each, width) for each in row] for row in rows]
    tops = [2 * LABEL_HEIGHT + max(map(_height, heads))]
    for row, name in zip(scaled, names, strict=True):
        tops.append(tops[-1] + _GAP + max(_height(name), *(each.height for each in row if each is not None), 0))
    sheet = PIL.Image.new("RGB", (lefts[-1] + width + _GAP, tops[-1] + _height(footer) + 2 * _GAP), "white")
    ImageDraw.Draw(sheet).text((_GAP, _GAP), title, fill="black", font=ImageFont.load_default(size=20))
    texts = [(left + 2, 2 * LABEL_HEIGHT - 6, head) for left, head in zip(lefts, heads, strict=True)]
    for left, top, text in [*texts, *((_GAP, top, text) for top, text in zip(tops, [*names, footer], strict=True))]:
        ImageDraw.Draw(sheet).text((left, top), text, fill="black", font=ImageFont.load_default(size=_LETTERS))
    for row, top in zip(scaled, tops, strict=False):
        for left, picture in zip(lefts, row, strict=True):
            if picture is not None:
                sheet.paste(picture, (left, top))
    return sheet


def _height(text: str) -> int:
    return (text.count("\n") + 1) * _LINE


def _to_width(picture: PIL.Image.Image, width: int) -> PIL.Image.Image:
    height = max(1, round(picture.height * width / picture.width))
    return picture.convert("RGB").resize((width, height), PIL.Image.Resampling.LANCZOS)


def _wrapped(text: str, width: int) -> str:
    """Returns a text with line breaks so that it is no wider: at spaces, behind underscores, else anywhere."""
    font = ImageFont.load_default(size=_LETTERS)
    lines = [""]
    for word in text.replace("_", "_\u200b").replace(" ", " \u200b").split("\u200b"):
        for part in [word] if font.getlength(word.rstrip()) <= width else word:
            if lines[-1] != "" and font.getlength((lines[-1] + part).rstrip()) > width:
                lines.append("")
            lines[-1] += part
    return "\n".join(line.rstrip() for line in lines)
