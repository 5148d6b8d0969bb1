"""Pictures beside each other, with words on them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import PIL.Image
from PIL import ImageDraw, ImageFont

from nst_lightning.errors import InputError

LABEL_HEIGHT = 22
"""Height of a label above a picture in pixels."""
_GAP = 4  # px
_ROW_LABEL_WIDTH = 150  # px
_LINE = 18  # px
_LETTERS = 14  # px


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
    lefts = list(itertools.accumulate((picture.width + _GAP for picture in pictures), initial=0))
    height = max(picture.height for picture in pictures) + LABEL_HEIGHT
    placed = [(picture, (left, LABEL_HEIGHT)) for picture, left in zip(pictures, lefts, strict=False)]
    texts = [(label, (left + 2, 2), _LETTERS) for label, left in zip(labels, lefts, strict=False)]
    return _sheet((lefts[-1] - _GAP, height), placed, texts)


def grid(
    rows: Sequence[Sequence[PIL.Image.Image | None]],
    row_labels: Sequence[str],
    column_labels: Sequence[str],
    title: str,
    settings: str,
    width: int = 256,
) -> PIL.Image.Image:
    """Returns pictures in a labelled grid on white, below a title and above the settings that they share.

    All rows have as many pictures, brought to one width in pixels; None leaves a place empty. Labels of rows, heads of
    columns and the settings are broken into lines.

    Raises:
        InputError: If there is no picture, or the labels do not go with the rows and columns.
    """
    if not any(picture is not None for row in rows for picture in row):
        msg = "a grid needs at least one picture"
        raise InputError(msg)
    if len(row_labels) != len(rows) or any(len(row) != len(column_labels) for row in rows):
        msg = f"{len(rows)} rows, {len(row_labels)} labels of rows and {len(column_labels)} of columns: do not fit"
        raise InputError(msg)
    lefts = [_ROW_LABEL_WIDTH + column * (width + _GAP) for column in range(len(column_labels) + 1)]
    heads = [_wrapped(label, width) for label in column_labels]
    top = 2 * LABEL_HEIGHT + max(map(_height, heads))
    texts = [(title, (_GAP, _GAP), 20)]
    texts += [(head, (left + 2, 2 * LABEL_HEIGHT - 6), _LETTERS) for head, left in zip(heads, lefts, strict=False)]
    placed = []
    for row, label in zip(rows, row_labels, strict=True):
        words = _wrapped(label, _ROW_LABEL_WIDTH - 2 * _GAP)
        texts.append((words, (_GAP, top), _LETTERS))
        there = [(each, left) for each, left in zip(row, lefts, strict=False) if each is not None]
        line = [(_to_width(picture, width), (left, top)) for picture, left in there]
        placed += line
        top += max(_height(words), *(picture.height for picture, _ in line), 0) + _GAP
    footer = _wrapped(settings, lefts[-1] - 2 * _GAP)
    texts.append((footer, (_GAP, top + _GAP), _LETTERS))
    return _sheet((lefts[-1], top + _height(footer) + 2 * _GAP), placed, texts)


def _sheet(
    size: tuple[int, int],
    placed: Iterable[tuple[PIL.Image.Image, tuple[int, int]]],
    texts: Iterable[tuple[str, tuple[int, int], int]],
) -> PIL.Image.Image:
    """Returns pictures and words, of a size in pixels, at their places, (left, top)."""
    sheet = PIL.Image.new("RGB", size, "white")
    for picture, place in placed:
        sheet.paste(picture, place)
    for text, place, height in texts:
        ImageDraw.Draw(sheet).text(place, text, fill="black", font=ImageFont.load_default(size=height))
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
