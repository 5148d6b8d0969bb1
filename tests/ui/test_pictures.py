"""Pictures that are handed in: what is kept of them, what is read of them, and what is refused."""

from __future__ import annotations

import re
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from nst_lightning.callbacks.checkpoints import sums
from nst_lightning.errors import InputError
from nst_lightning.pairs import Pair
from nst_lightning.ui import pictures


def test_a_copy_lies_under_a_name_of_its_own(tmp_path: Path, content_jpeg: Path) -> None:
    given = tmp_path / "..Mein Bild; rm -rf ~ (1).exe"
    given.write_bytes(content_jpeg.read_bytes())
    copy = pictures.kept(given, tmp_path / "uploads")
    assert re.fullmatch(r"[0-9a-f]{12}/mein_bild_rm_rf_1\.jpg", copy.relative_to(tmp_path / "uploads").as_posix())
    assert copy.read_bytes() == given.read_bytes()
    assert pictures.kept(given, tmp_path / "uploads") == copy
    given.rename(tmp_path / "写真.jpg")
    assert pictures.kept(tmp_path / "写真.jpg", tmp_path / "uploads").name == "picture.jpg"


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


HUGE = (
    b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)) + chunk(b"IEND", b"")
)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "is empty"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "is not an image in a format that Pillow reads"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "is EPS; expected PNG, JPEG"),
        (HUGE, "has more than 67,108,864 pixels"),
    ],
    ids=["empty", "svg", "eps", "huge"],
)
def test_what_is_no_picture_is_refused_before_it_is_kept(tmp_path: Path, data: bytes, said: str) -> None:
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(InputError, match=f"a.png: {said}"):
        pictures.kept(tmp_path / "a.png", tmp_path / "uploads")
    assert not (tmp_path / "uploads").exists()


def test_a_copy_is_found_by_the_sum_that_a_recipe_tells(tmp_path: Path, content_jpeg: Path, style_png: Path) -> None:
    copies = [pictures.kept(path, tmp_path) for path in (content_jpeg, style_png)]
    told = sums(Pair(content_jpeg, (style_png,), "a")).values()
    assert [pictures.of_sum(each, tmp_path) for each in told] == copies
    for other in ("", "sha256 ../../../etc", "sha256 0123456789ab", f"sha256 {'0' * 64}"):
        assert pictures.of_sum(other, tmp_path) is None


def test_small_ones_are_made_once_and_anew_where_the_picture_is(tmp_path: Path, content_png: Path) -> None:
    picture = tmp_path / "a.png"
    picture.write_bytes(content_png.read_bytes())
    small = pictures.thumbnail(picture, tmp_path / "small" / "a.jpg")
    first = small.stat().st_mtime_ns
    assert pictures.thumbnail(picture, small).stat().st_mtime_ns == first
    Image.new("RGB", (900, 300)).save(picture)
    with Image.open(pictures.thumbnail(picture, small)) as image:
        assert image.size == (320, 107)


def test_the_photograph_is_shown_in_the_size_of_its_picture(tmp_path: Path, content_jpeg: Path) -> None:
    Image.new("RGB", (33, 22)).save(tmp_path / "a.png")
    assert pictures.resized(content_jpeg, tmp_path / "a.png").size == (33, 22)
