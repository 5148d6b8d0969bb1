"""Pictures that people hand in, which are looked at before they are believed, and small ones to be shown."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, ImageOps

from nst_lightning.image_files import ImageError, opened
from nst_lightning.recipe import digest

_SUFFIXES = {"PNG": ".png", "JPEG": ".jpg", "MPO": ".jpg", "WEBP": ".webp", "TIFF": ".tif", "BMP": ".bmp"}
_MAX_PIXELS = 2**26  # what is decoded takes 4 to 8 bytes each
_THUMBNAIL = 320  # px


def kept(given: Path, folder: Path) -> Path:
    """Copies a picture into a folder, under the sum of its bytes and what is plain of its name, and returns the copy.

    Raises:
        ImageError: If it is no picture in a usual format, or has too many pixels; none of them is decoded.
    """
    with checked(given) as image:
        suffix = _SUFFIXES[str(image.format)]
    stem = re.sub(r"\W+", "_", given.stem, flags=re.ASCII).strip("_")[:60].lower() or "picture"
    copy = folder / digest(given).partition(" ")[2] / f"{stem}{suffix}"
    if not copy.exists():
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(given, copy)
    return copy


def of_sum(told: str, folder: Path) -> Path | None:
    """Returns the copy of a picture whose sum a recipe tells, None where there is none."""
    found = re.fullmatch(r"sha256 ([0-9a-f]+)", told)
    return None if found is None else next((folder / found[1]).glob("*"), None)


def thumbnail(picture: Path, small: Path) -> Path:
    """Writes a small copy of a picture unless there is one as new, and returns it."""
    if not small.exists() or small.stat().st_mtime_ns < picture.stat().st_mtime_ns:
        with checked(picture) as image:
            image.thumbnail((_THUMBNAIL, _THUMBNAIL))
            small.parent.mkdir(parents=True, exist_ok=True)
            ImageOps.exif_transpose(image).convert("RGB").save(small, "JPEG", quality=88)
    return small


def resized(photograph: Path, picture: Path) -> Image.Image:
    """Returns a photograph, upright, in the size of the picture that was made of it."""
    with checked(picture) as image:
        size = image.size
    with checked(photograph) as image:
        image.draft("RGB", (2 * max(size), 2 * max(size)))
        return ImageOps.exif_transpose(image).convert("RGB").resize(size, Image.Resampling.LANCZOS)


@contextmanager
def checked(path: Path) -> Iterator[Image.Image]:
    """Yields a picture, not decoded yet; an ImageError where it is none in a usual format, or has too many pixels."""
    with opened(path, path.name) as image:
        if image.format not in _SUFFIXES:
            raise ImageError(f"{path.name}: is {image.format}; expected PNG, JPEG, WebP, TIFF or BMP")
        if image.width * image.height > _MAX_PIXELS:
            raise ImageError(f"{path.name}: has more than {_MAX_PIXELS:,} pixels")
        yield image
