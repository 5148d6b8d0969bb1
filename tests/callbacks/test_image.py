"""What the image writer does beyond what the command line's tests see."""

from __future__ import annotations

import re

import pytest

from nst_lightning.callbacks import ImageWriter
from nst_lightning.errors import InputError


@pytest.mark.parametrize("every", [0, -3])
def test_refuses_an_interval_below_1(every: int) -> None:
    with pytest.raises(InputError, match=f"save_every must be at least 1, got {every}"):
        ImageWriter(every=every)


def test_numbers_no_picture_before_one_is_finished() -> None:
    assert ImageWriter().written == []
    assert re.fullmatch(r".*\.png", str(ImageWriter("x.png").file))
