"""Image files: opened whatever is in them, and the texts that are in them. It needs no torch."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError
from PIL.PngImagePlugin import PngImageFile, PngInfo

from nst_lightning import runs
from nst_lightning.errors import InputError

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".tif": "TIFF", ".tiff": "TIFF"}
"""The formats that pictures are written in, by suffix."""

DEEP = {"PNG": "png", "TIFF": "tifffile"}
"""The formats with 16 bits a channel, which Pillow writes no colours in, and the modules that do."""

_PILLOW_SETTINGS = threading.Lock()


class ImageError(InputError):
    """An image that cannot be read or written; one line: the file, what came and what is allowed."""


@contextmanager
def opened(source: str | os.PathLike[str] | Image.Image, label: str) -> Iterator[Image.Image]:
    """An image or that in a file, its pixels not decoded yet; whatever Pillow raises over it is an `ImageError`."""
    try:
        stream = nullcontext(source) if isinstance(source, Image.Image) else runs.regular(Path(source)).open("rb")
    except (OSError, ValueError) as err:  # ValueError: a null character in the path
        raise ImageError(f"{label}: cannot be opened ({reason(err)}); expected an image file") from err
    # Pillow's settings are global, hence the lock. Its pixel limit would refuse sizes that are allowed here, and
    # sizes are checked before decoding; its leniency, which other libraries switch on, pads a file with grey.
    with stream as file, _PILLOW_SETTINGS:
        before = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
        Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = None, False
        try:
            yield file if isinstance(file, Image.Image) else Image.open(file)
        except (ImageError, MemoryError):
            raise
        except UnidentifiedImageError as err:
            empty = not isinstance(source, Image.Image) and Path(source).stat().st_size == 0
            told = (
                "is empty (0 bytes); expected an image file"
                if empty
                else "is not an image in a format that Pillow reads"
            )
            raise ImageError(f"{label}: {told}") from err
        except Exception as err:  # the decoders raise nearly anything over a damaged file
            raise ImageError(f"{label}: cannot be decoded, damaged or truncated ({reason(err)})") from err
        finally:
            Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = before


def read_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """Returns the texts that `images.write` stored in a file; empty where there are none.

    Raises:
        ImageError: If the file is not an image, or damaged.
    """
    with opened(path, str(Path(path))) as image:
        if isinstance(image, PngImageFile):
            return {str(key): str(text) for key, text in image.text.items()}
        description = image.getexif().get(ExifTags.Base.ImageDescription)
    try:
        return {name: text for name, text in json.loads(str(description)).items() if isinstance(text, str)}
    except (ValueError, AttributeError):  # none, or one that a camera or another program wrote
        return {}


def metadata_options(form: str, metadata: Mapping[str, str], dpi: int | None = None) -> dict[str, Any]:
    """Returns what Pillow is to be told so that a file has texts, under ASCII names, and pixels an inch in it."""
    resolution = {} if dpi is None else {"dpi": (dpi, dpi)}
    if form == "PNG":
        chunks = PngInfo()
        for name in sorted(metadata):
            chunks.add_text(name, metadata[name])  # as iTXt where tEXt, which is Latin-1, cannot hold it
        return {"pnginfo": chunks, **resolution}
    exif = Image.Exif()
    if len(metadata) > 0:
        exif[ExifTags.Base.ImageDescription] = json.dumps(dict(metadata), sort_keys=True)
    if dpi is not None and form == "WEBP":  # which has no other place for it
        exif[ExifTags.Base.XResolution] = exif[ExifTags.Base.YResolution] = dpi
        exif[ExifTags.Base.ResolutionUnit] = 2  # inch
    return {"exif": exif, **resolution}


def write_deep(stream: BinaryIO, pixels: np.ndarray[Any, Any], form: str, options: Mapping[str, Any]) -> None:
    """Writes whole numbers of 16 bits, (H, W, 3) or (H, W, 4), with what Pillow would be told, see `DEEP`."""
    has_alpha = pixels.shape[2] == 4
    if form == "TIFF":
        import tifffile  # an extra, as the next

        tifffile.imwrite(
            stream,
            pixels.astype(np.uint16),
            photometric="rgb",
            extrasamples=["unassalpha"] if has_alpha else None,
            compression="zlib",
            description=options["exif"].get(ExifTags.Base.ImageDescription),
            iccprofile=options["icc_profile"],
            resolution=options.get("dpi"),
            resolutionunit="INCH",
            metadata=None,
            software=False,
        )
        return
    import png

    # Pillow's own chunks, of an image of one pixel, around the pixels.
    around, own = BytesIO(), BytesIO()
    Image.new("RGB", (1, 1)).save(around, form, **options)
    writer = png.Writer(pixels.shape[1], pixels.shape[0], greyscale=False, alpha=has_alpha, bitdepth=16)
    writer.write_packed(own, (row.tobytes() for row in pixels.astype(">u2")))
    first, *rest = png.Reader(bytes=own.getvalue()).chunks()
    texts = (chunk for chunk in png.Reader(bytes=around.getvalue()).chunks() if chunk[0] not in _OF_PIXELS)
    png.write_chunks(stream, [first, *texts, *rest])


_OF_PIXELS = (b"IHDR", b"IDAT", b"IEND")


def reason(err: BaseException) -> str:
    """Returns in a few words why something failed."""
    text = err.strerror if isinstance(err, OSError) and err.strerror is not None else str(err)
    return " ".join(text.split()) if text.strip() != "" else type(err).__name__
