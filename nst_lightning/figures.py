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


def grid(
    rows: Sequence[Sequence[PIL.Image.Image | None]],
    row_labels: Sequence[str],
    column_labels: Sequence[str],
    title: str,
    settings: str,
    width: int = 256,
) -> PIL.Image.Image:
    """Returns pictures in a labelled grid on white, below a title and above the settings that they share.

    Args:
        rows: RGB pictures, as many in every row, brought to one width; None leaves a place empty.
        row_labels: What stands at the left of each row.
        column_labels: What stands above each column.
        title: The heading.
        settings: What stands below, broken into lines.
        width: Of every picture, in pixels.

    Raises:
        InputError: If there is no picture, or the labels do not go with the rows and columns.
    """
    if not any(picture is not None for row in rows for picture in row):
        msg = "a grid needs at least one picture"
        raise InputError(msg)
    if len(row_labels) != len(rows) or any(len(row) != len(column_labels) for row in rows):
        msg = f"{len(rows)} rows, {len(row_labels)} labels of rows and {len(column_labels)} of columns: do not fit"
        raise InputError(msg)
    font, large = ImageFont.load_default(size=14), ImageFont.load_default(size=20)
    scaled = [[None if each is None else _to_width(each, width) for each in row] for row in rows]
    labels = [_wrapped(label, _ROW_LABEL_WIDTH - 2 * _GAP, font) for label in row_labels]
    heights = [
        max((label.count("\n") + 1) * _LINE, *(each.height for each in row if each is not None), 0)
        for row, label in zip(scaled, labels, strict=True)
    ]
    heads = [_wrapped(label, width, font) for label in column_labels]
    top = 2 * LABEL_HEIGHT + max(head.count("\n") + 1 for head in heads) * _LINE
    across = _ROW_LABEL_WIDTH + len(column_labels) * (width + _GAP)
    footer = _wrapped(settings, across - 2 * _GAP, font)
    down = top + sum(height + _GAP for height in heights) + (footer.count("\n") + 1) * _LINE + 2 * _GAP
    sheet = PIL.Image.new("RGB", (across, down), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((_GAP, _GAP), title, fill="black", font=large)
    for column, head in enumerate(heads):
        draw.text((_ROW_LABEL_WIDTH + column * (width + _GAP) + 2, 2 * LABEL_HEIGHT - 6), head, fill="black", font=font)
    for row, label, height in zip(scaled, labels, heights, strict=True):
        draw.text((_GAP, top), label, fill="black", font=font)
        for column, picture in enumerate(row):
            if picture is not None:
                sheet.paste(picture, (_ROW_LABEL_WIDTH + column * (width + _GAP), top))
        top += height + _GAP
    draw.text((_GAP, top + _GAP), footer, fill="dimgray", font=font)
    return sheet


_ROW_LABEL_WIDTH = 150  # px
_LINE = 18  # px


def _to_width(picture: PIL.Image.Image, width: int) -> PIL.Image.Image:
    height = max(1, round(picture.height * width / picture.width))
    return picture.convert("RGB").resize((width, height), PIL.Image.Resampling.LANCZOS)


def _wrapped(text: str, width: int, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> str:
    """Returns a text with line breaks so that it is no wider: at spaces, behind underscores, else anywhere."""
    lines = [""]
    for word in text.replace("_", "_\u200b").replace(" ", " \u200b").split("\u200b"):
        for part in [word] if font.getlength(word.rstrip()) <= width else word:
            if lines[-1] != "" and font.getlength((lines[-1] + part).rstrip()) > width:
                lines.append("")
            lines[-1] += part
    return "\n".join(line.rstrip() for line in lines)
