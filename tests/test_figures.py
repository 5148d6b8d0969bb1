"""Pictures in a grid."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from nst_lightning.errors import InputError
from nst_lightning.figures import LABEL_HEIGHT, grid

Pixels: TypeAlias = "npt.NDArray[np.uint8]"


LABELS = 150  # px, the width of the column of the rows' labels
LONG = "temple_langlois_bridge_with_a_very_long_name 10000:10000 and seed 12345"
WORD = "style_weight-" + "1234567890" * 6


def drawn(rows: int = 2, columns: int = 2, label: str = "row", head: str = "column") -> Pixels:
    picture = Image.new("RGB", (64, 48), "red")
    labels = [f"{label} {row}" for row in range(rows)]
    return np.asarray(grid([[picture] * columns] * rows, labels, [head] * columns, "Title", "size 64", width=128))


def test_a_grid_has_a_place_for_every_picture_below_its_heads() -> None:
    pictures: list[list[Image.Image | None]] = [
        [Image.new("RGB", (64, 48), "red"), Image.new("RGB", (32, 24), "blue")],
        [None, Image.new("L", (64, 32))],
    ]
    sheet = np.asarray(grid(pictures, ["a", "b"], ["c", "d"], "Title", "size 64", width=128))
    top = 2 * LABEL_HEIGHT + 18
    assert sheet.shape == (top + 96 + 4 + 64 + 4 + 18 + 8, LABELS + 2 * (128 + 4), 3)
    places = [(top, LABELS, 96, (255, 0, 0)), (top, LABELS + 132, 96, (0, 0, 255)), (top + 100, LABELS + 132, 64, 0)]
    for above, left, height, colour in places:
        assert (sheet[above : above + height, left : left + 128] == colour).all()
    assert (sheet[top + 100 : top + 164, LABELS : LABELS + 132] == 255).all()  # None


def test_a_grid_has_words_for_title_heads_rows_and_settings() -> None:
    sheet = drawn()
    top = 2 * LABEL_HEIGHT + 18
    for part in (
        sheet[: 2 * LABEL_HEIGHT - 6],
        sheet[2 * LABEL_HEIGHT - 6 : top, LABELS : LABELS + 128],
        sheet[2 * LABEL_HEIGHT - 6 : top, LABELS + 132 :],
        sheet[top : top + 96, :LABELS],
        sheet[top + 100 : top + 196, :LABELS],
        sheet[top + 200 :],
    ):
        assert part.min() < 150


@pytest.mark.parametrize("label", [LONG, WORD, "x" * 90, "ü" * 50, "W" * 40])
def test_long_labels_of_rows_do_not_reach_the_pictures(label: str) -> None:
    picture = Image.new("RGB", (64, 48), "white")
    rows: list[list[Image.Image | None]] = [[None, picture], [picture, None]]
    sheet = np.asarray(grid(rows, [label, label], ["", ""], "", "", width=128))
    assert sheet[:, :LABELS].min() < 100
    assert (sheet[:, LABELS:] == 255).all()
    assert (sheet[:, LABELS - 4 : LABELS] == 255).all()


def test_a_label_of_more_lines_than_its_picture_is_high_has_room() -> None:
    wide = Image.new("RGB", (256, 16), "red")
    sheet = np.asarray(grid([[wide], [wide]], [LONG * 2, ""], ["head"], "Title", "size 64", width=128))
    reds = np.flatnonzero((sheet[:, LABELS] == (255, 0, 0)).all(axis=1))
    second = reds[np.flatnonzero(np.diff(reds) > 1)[0] + 1]
    dark = np.flatnonzero(sheet[2 * LABEL_HEIGHT + 18 :, :LABELS].min(axis=(1, 2)) < 100) + 2 * LABEL_HEIGHT + 18
    assert dark[dark < reds[-1]].max() < second


@pytest.mark.parametrize("head", [LONG, WORD])
def test_long_heads_stand_over_their_own_column(head: str) -> None:
    picture = Image.new("RGB", (64, 48), "red")
    sheet = np.asarray(grid([[picture, picture]], [""], [head, ""], "", "", width=128))
    top = int(np.flatnonzero((sheet[:, LABELS] == (255, 0, 0)).all(axis=1))[0])
    assert top >= 2 * LABEL_HEIGHT + 3 * 18
    assert sheet[:top, LABELS : LABELS + 132].min() < 100
    assert (sheet[:top, LABELS + 132 :] == 255).all()
    assert (sheet[top - 1] == 255).all()  # the words end above the picture


def test_long_settings_are_broken_into_lines() -> None:
    picture = Image.new("RGB", (64, 48), "red")
    short, long = (grid([[picture]], ["a"], ["b"], "T", "size 64, " * times, width=128) for times in (1, 30))
    assert short.width == long.width
    assert long.height >= short.height + 5 * 18
    assert (np.asarray(long)[:, -3:] == 255).all()


def test_a_grid_needs_pictures_and_labels_that_fit() -> None:
    picture = Image.new("RGB", (4, 4))
    with pytest.raises(InputError, match="a grid needs at least one picture"):
        grid([[None, None]], ["a"], ["b", "c"], "", "")
    with pytest.raises(InputError, match="a grid needs at least one picture"):
        grid([], [], [], "", "")
    with pytest.raises(InputError, match="1 rows, 2 labels of rows and 1 of columns: do not fit"):
        grid([[picture]], ["a", "b"], ["c"], "", "")
    with pytest.raises(InputError, match="2 rows, 2 labels of rows and 1 of columns: do not fit"):
        grid([[picture], [picture, None]], ["a", "b"], ["c"], "", "")
