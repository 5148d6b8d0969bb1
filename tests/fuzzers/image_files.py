"""Image files, mutated, those of PNG with sums that are right again; and bytes of no format."""

from __future__ import annotations

import io
import struct
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from PIL import Image, ImageCms

from nst_lightning import images
from nst_lightning.image_files import read_metadata
from tests.fuzzers.mutations import mutated

_SIZE = (20, 18)
_CHANNELS = {"L": 1, "LA": 2, "RGB": 3, "LAB": 3, "RGBA": 4, "CMYK": 4, "I;16": 2, "I": 4, "F": 4}
_WITH_EXTRAS = ("PNG", "JPEG", "WEBP", "TIFF")
_FORMS: list[tuple[str, str, dict[str, Any]]] = [
    *((form, "RGB", {}) for form in (*_WITH_EXTRAS, "GIF", "BMP", "PPM", "ICO", "TGA", "JPEG2000", "PCX", "SGI")),
    *((form, "RGBA", {}) for form in ("PNG", "WEBP", "TIFF")),
    *((form, mode, {}) for form in ("PNG", "TIFF") for mode in ("1", "L", "LA", "P", "I;16")),
    *(("TIFF", mode, {}) for mode in ("F", "I", "CMYK", "LAB")),
    *(("TIFF", "RGB", {"compression": each}) for each in ("tiff_lzw", "tiff_deflate", "jpeg", "packbits")),
    ("JPEG", "CMYK", {}),
    ("JPEG", "RGB", {"progressive": True}),
    ("WEBP", "RGB", {"lossless": True}),
]


def feed(path: Path) -> None:
    """Reads an image and what it has of metadata."""
    picture = images.read(path, 48)
    assert picture.rgb.shape[:2] == (1, 3)
    assert bool(((picture.rgb >= 0) & (picture.rgb <= 1)).all()), "values out of range"
    read_metadata(path)


@st.composite
def inputs(draw: st.DrawFn) -> tuple[str, bytes]:
    """Returns what an image file may hold."""
    content = draw(_any())
    return ".png", _repaired(content) if draw(st.booleans()) else content


@cache
def _any() -> st.SearchStrategy[bytes]:
    return mutated(_whole()) | st.binary(max_size=300)


@cache
def _whole() -> tuple[bytes, ...]:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x0112] = 6  # turned
    found = set()
    for form, mode, options in _FORMS:
        for extra in ({}, {"exif": exif, "icc_profile": profile}) if form in _WITH_EXTRAS else ({},):
            stream = io.BytesIO()
            _image(mode).save(stream, format=form, **options, **extra)
            found.add(stream.getvalue())
    return tuple(sorted(found, key=lambda each: (len(each), each)))


def _image(mode: str) -> Image.Image:
    if mode in ("1", "P"):
        return _image("L").convert(mode)
    size = _SIZE[0] * _SIZE[1] * _CHANNELS[mode]
    data = np.random.default_rng(0).integers(0, 64, size, dtype=np.uint8).tobytes()
    return Image.frombytes(mode, _SIZE, data)


def _repaired(content: bytes) -> bytes:
    """A PNG with the sums of its chunks put right, and any other file as it is."""
    if not content.startswith(b"\x89PNG\r\n\x1a\n"):
        return content
    found, place = bytearray(content), 8
    while place + 12 <= len(found):
        end = place + 8 + struct.unpack_from(">I", found, place)[0]
        if end + 4 > len(found):
            break
        struct.pack_into(">I", found, end, zlib.crc32(found[place + 4 : end]))
        place = end + 4
    return bytes(found)
