"""Pictures in a row."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from nst_lightning.errors import InputError
from nst_lightning.figures import LABEL_HEIGHT, strip


def test_pictures_stand_in_a_row_under_their_labels() -> None:
    pictures = [Image.new("RGB", (40, 30), "red"), Image.new("RGB", (20, 50), "blue")]
    sheet = np.asarray(strip(pictures, ["one", "two"]))
    assert sheet.shape == (LABEL_HEIGHT + 50, 40 + 4 + 20, 3)
    assert (sheet[LABEL_HEIGHT : LABEL_HEIGHT + 30, :40] == (255, 0, 0)).all()
    assert (sheet[LABEL_HEIGHT:, 44:] == (0, 0, 255)).all()
    assert (sheet[LABEL_HEIGHT + 30 :, :44] == 255).all()
    for left in (0, 44):
        assert sheet[:LABEL_HEIGHT, left : left + 20].min() < 100  # there are words


def test_every_picture_needs_a_label() -> None:
    with pytest.raises(InputError, match="got 1 pictures and 2 labels"):
        strip([Image.new("RGB", (4, 4))], ["a", "b"])
    with pytest.raises(InputError, match="got 0 pictures and 0 labels"):
        strip([], [])
