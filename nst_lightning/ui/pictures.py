"""Pictures that people hand in, which are looked at before they are believed, and small ones to be shown."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import ExifTags, Image, ImageOps

from nst_lightning.errors import InputError

_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP")
_SUFFIXES = {
    "PNG": ".png",
    "JPEG": ".jpg",
    "MPO": ".jpg",
    "WEBP": ".webp",
    "TIFF": ".tif",
    "BMP": ".bmp",
}  # MPO: telephones' JPEG
_MAX_PIXELS = 2**27  # 134 million: more is no photograph
_MAX_TEXT = 2**20  # characters of settings
_THUMBNAIL = 320  # px


def kept(given: Path, folder: Path) -> Path:
    """Copies a picture into a folder, under the sum of its bytes and what is plain of its name, and returns the copy.

    Raises:
        InputError: If it is no picture in a usual format, or has too many pixels; none of them is decoded.
    """
    with _opened(given) as image:
        suffix = _SUFFIXES[str(image.format)]
    stem = re.sub(r"\W+", "_", given.stem, flags=re.ASCII).strip("_")[:60].lower() or "picture"
    copy = folder / total(given)[:12] / f"{stem}{suffix}"
    if not copy.exists():
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(given, copy)
    return copy


def total(file: Path) -> str:
    """Returns the SHA-256 of a file's bytes."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def texts_of(given: Path) -> dict[str, str]:
    """Returns the texts that `images.write` stored in a picture, without decoding it; none where there are none.

    Raises:
        InputError: If it is no picture in a usual format.
    """
    with _opened(given) as image:
        found = image.info if image.format == "PNG" else image.getexif().get(ExifTags.Base.ImageDescription)
    if isinstance(found, str):
        try:
            found = json.loads(found[:_MAX_TEXT])
        except (ValueError, RecursionError):
            return {}
    texts = found if isinstance(found, dict) else {}
    return {str(name): text for name, text in texts.items() if isinstance(text, str) and len(text) <= _MAX_TEXT}


def thumbnail(picture: Path, small: Path) -> Path:
    """Writes a small copy of a picture unless there is one as new, and returns it."""
    if not small.exists() or small.stat().st_mtime_ns < picture.stat().st_mtime_ns:
        with _opened(picture) as image:
            image.thumbnail((_THUMBNAIL, _THUMBNAIL))
            small.parent.mkdir(parents=True, exist_ok=True)
            image.convert("RGB").save(small, "JPEG", quality=88)
    return small


def resized(photograph: Path, picture: Path) -> Image.Image:
    """Returns a photograph, upright, in the size of the picture that was made of it."""
    with _opened(picture) as image:
        size = image.size
    with _opened(photograph) as image:
        image.draft("RGB", (2 * size[0], 2 * size[1]))
        return ImageOps.exif_transpose(image).convert("RGB").resize(size, Image.Resampling.LANCZOS)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            opened = Image.open(path, formats=_FORMATS)
    except Image.DecompressionBombError as error:
        raise InputError(f"{path.name}: has more than {_MAX_PIXELS:,} pixels") from error
    except (OSError, ValueError, SyntaxError) as error:
        allowed = "PNG, JPEG, WebP, TIFF or BMP"
        raise InputError(f"{path.name}: is not a picture that can be read; expected {allowed}") from error
    with opened as image:
        if image.width * image.height > _MAX_PIXELS:
            raise InputError(f"{path.name}: has more than {_MAX_PIXELS:,} pixels")
        yield image
