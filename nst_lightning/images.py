"""Image files in, float tensors out, and back again, without a silent loss in either direction."""

import functools
import io
import os
import struct
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image, ImageCms, ImageOps
from torch import Tensor
from torch.nn import functional as F

from nst_lightning import runs
from nst_lightning.image_files import DEEP, FORMATS, ImageError, metadata_options, opened, reason, write_deep

MAX_SIDE = 16_384  # px
LARGE = 2**25  # pixels, above usual photographs, from which on a file is reduced before it becomes a tensor
MIN_SIDE = 16  # px; below it the deep layers of a network have nothing left to see
Source: TypeAlias = "str | os.PathLike[str] | Image.Image | Tensor | np.ndarray[Any, Any]"

_ENCODERS: dict[str, dict[str, Any]] = {
    "PNG": {},
    "JPEG": {"quality": 95, "subsampling": "4:4:4"},
    "WEBP": {"quality": 95},
    "TIFF": {"compression": "tiff_deflate"},
}
_IN_MEMORY = "image"
_FOLDS = 32  # by how much CUDA reduces at once, whose threads share little memory


@dataclass(frozen=True, eq=False)  # comparing tensors with == has no single truth value
class Picture:
    """An image that was read, on the CPU.

    Attributes:
        rgb: (1, 3, H, W), float32 sRGB in [0, 1], composited over white where the source was transparent.
        alpha: (1, 1, H, W), float32 opacity in [0, 1]; None where the source was opaque throughout.
        name: The file's name without folder and suffix; "image" for a source that was in memory.
        size: Height and width of the source in pixels, upright.
    """

    rgb: Tensor
    alpha: Tensor | None
    name: str
    size: tuple[int, int]


def read(source: Source, side: int | None = None) -> Picture:
    """Reads the (first) image of a source, upright, in sRGB and composited over white.

    A file of more than `LARGE` pixels is reduced as it is decoded (JPEG) or right after (others but deep greys), to no
    less than twice the long side that is wanted of it, `side` in pixels: that takes 1 to 8 bytes a pixel at its peak,
    and what is read whole up to 48.

    EXIF orientation and ICC profile are applied. 16-bit greyscale keeps its depth, unless a profile is applied, which
    takes 8 bits; 16-bit colour comes from Pillow at 8 bits. A tensor is copied: (3, H, W) or (1, 3, H, W), 4 channels
    for RGBA, float in [0, 1] or uint8; so is an array (H, W, 3) or (H, W, 4). A profile or an orientation that is
    broken is ignored with a warning.

    Raises:
        ImageError: If the source cannot be read, or a side is below `MIN_SIDE` or above `MAX_SIDE` pixels.
    """
    name = Path(source).stem if isinstance(source, (str, os.PathLike)) else _IN_MEMORY
    if isinstance(source, np.ndarray):
        source = torch.from_numpy(np.array(source)).movedim(-1, 0)
    if isinstance(source, Tensor):
        rgb, alpha = _from_tensor(source)
        size = rgb.shape[2], rgb.shape[3]
    else:
        image, size, label = _decoded(source, side)
        rgb, alpha = _from_pil(image, label, side, mine=image is not source)
        if (size[0] > size[1]) != (rgb.shape[2] > rgb.shape[3]):  # it was turned
            size = size[1], size[0]
    if alpha is None or bool((alpha == 1).all()):
        return Picture(rgb, None, name, size)
    return Picture(rgb * alpha + (1 - alpha), alpha, name, size)


def fit(height: int, width: int, long_side: int, upscale: bool = False) -> tuple[int, int]:
    """Returns (H, W) in pixels, >= 1, with `long_side` as the longer; a smaller size is kept without `upscale`."""
    longest = max(height, width)
    if longest <= long_side and not upscale:
        return height, width
    return max(1, round(height * long_side / longest)), max(1, round(width * long_side / longest))


def resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Resizes (N, C, H, W) float to (H, W) pixels, where needed: bicubic, antialiased, as Pillow, but not clamped."""
    if tuple(image.shape[-2:]) == tuple(size):
        return image
    if image.device.type != "cpu" and any(
        side > _FOLDS * end for side, end in zip(image.shape[-2:], size, strict=True)
    ):
        return resize(image.cpu(), size).to(image.device)
    return F.interpolate(image, size=size, mode="bicubic", align_corners=False, antialias=True)


def to_pil(rgb: Tensor, alpha: Tensor | None = None, label: str = _IN_MEMORY) -> Image.Image:
    """Converts (1, 3, H, W) or (3, H, W) float to an 8-bit RGB image: clamped to [0, 1], rounded to nearest.

    With `alpha`, (1, 1, H, W) or (1, H, W), it is RGBA, whose colours give `rgb` when they are composited over white.

    Raises:
        ImageError: If a value is not finite; begins with the label.
    """
    return Image.fromarray(_levels(rgb, alpha, label, 8))


def write(
    path: str | os.PathLike[str],
    rgb: Tensor,
    alpha: Tensor | None = None,
    metadata: Mapping[str, str] | None = None,
    overwrite: bool = False,
    bits: int = 8,
    dpi: int | None = None,
) -> Path:
    """Writes a tensor as an sRGB file that appears complete or not at all, and returns its path.

    .png and .tif/.tiff are lossless, .jpg/.jpeg (4:4:4, no alpha) and .webp lossy at quality 95. `rgb` and `alpha` are
    those of `to_pil`; `metadata` are texts, under ASCII names, see `image_files.read_metadata`. A folder is made
    and a file replaced only with `overwrite`. Equal content gives identical bytes. A channel has so many `bits`, 8 or
    16; `dpi` is how many pixels an inch are to be printed.

    Raises:
        ImageError: If a value is not finite, the file exists or cannot be written, or its format has no 16 bits.
    """
    target = Path(path)
    form = format_of(target, bits)
    pixels = _levels(rgb, None if form == "JPEG" else alpha, str(target), bits)
    options = {"icc_profile": _srgb_profile(), **metadata_options(form, {} if metadata is None else metadata, dpi)}
    check_writable(target.parent)
    try:
        with runs.replacing(target, overwrite) as temporary, temporary.open("wb") as stream:
            if bits == 16:
                write_deep(stream, pixels, form, options)
            else:
                Image.fromarray(pixels).save(stream, format=form, **_ENCODERS[form], **options)
    except FileExistsError as err:
        raise ImageError(f"{target}: exists already; pass overwrite=True to replace it") from err
    except (OSError, ValueError, KeyError, struct.error) as err:
        raise ImageError(f"{target}: cannot be written as {form} ({reason(err)})") from err
    return target


def format_of(path: str | os.PathLike[str], bits: int = 8) -> str:
    """Returns Pillow's name of the format that a file's suffix asks for, e.g. `PNG`.

    Raises:
        ImageError: If pictures are not written in that format with so many bits a channel.
        ModuleNotFoundError: If that takes an extra of this package.
    """
    suffix = Path(path).suffix
    if suffix.lower() not in FORMATS:
        raise ImageError(f"{Path(path)}: has suffix {suffix!r}; allowed are {', '.join(FORMATS)}")
    form = FORMATS[suffix.lower()]
    if bits != 8 and (bits != 16 or form not in DEEP):
        raise ImageError(f"{Path(path)}: cannot have {bits} bits a channel; 8 are allowed, and 16 as .png, .tif, .tiff")
    if bits == 16:
        import_module(DEEP[form])
    return form


def check_writable(folder: str | os.PathLike[str]) -> None:
    """Creates the folder if missing, and for a moment a file in it: a run should fail now, not at its end.

    Raises:
        ImageError: If a file cannot be created there.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder, buffering=0) as probe:
            probe.write(b"\0")  # an empty file would still fit on a disk that is full
    except (OSError, ValueError) as err:
        blocked = any(each.is_file() for each in (Path(folder), *Path(folder).parents))
        told = "a file is in the way" if blocked else reason(err)
        raise ImageError(f"{folder}: cannot create files there ({told}); choose a writable folder") from err


def _decoded(source: object, side: int | None) -> tuple[Image.Image, tuple[int, int], str]:
    """The pixels of a file or of an image in memory, the height and width that it has, and what an error calls it."""
    if not isinstance(source, (str, os.PathLike, Image.Image)):
        got = type(source).__name__
        raise ImageError(f"{_IN_MEMORY}: got {got}; expected a path, a Pillow image or a tensor")
    label = _IN_MEMORY if isinstance(source, Image.Image) else str(Path(source))
    with opened(source, label) as image:
        if image.format == "EPS":  # a program, which Pillow has Ghostscript run
            raise ImageError(f"{label}: is EPS, which is not read; save it as PNG")
        width, height = image.size
        _check_size(height, width, label)
        if image is not source and (factor := _factor(width, height, side)) > 1:
            image.draft(image.mode, (width // factor, height // factor))
        image.load()
    return image, (height, width), label


def _factor(width: int, height: int, side: int | None) -> int:
    """How many times an image may be reduced whose long side is wanted at so many pixels."""
    return 1 if side is None or width * height <= LARGE else max(1, max(width, height) // (2 * side))


def _reduced(image: Image.Image, factor: int) -> Image.Image:
    """An image reduced so many times, but for deep greys, of which Pillow makes no means."""
    if image.mode == "F" or image.mode.startswith("I"):
        return image
    if image.has_transparency_data and image.mode not in ("LA", "RGBA"):
        image = image.convert("RGBA")
    elif image.mode in ("1", "P", "HSV"):
        image = image.convert("L" if image.mode == "1" else "RGB")
    size = -(-image.width // factor), -(-image.height // factor)
    return image.resize(size, Image.Resampling.BOX)


def _check_size(height: int, width: int, label: str) -> None:
    if not (MIN_SIDE <= min(height, width) and max(height, width) <= MAX_SIDE):
        allowed = f"{MIN_SIDE} to {MAX_SIDE} px a side are allowed"
        raise ImageError(f"{label}: is {width} px wide and {height} px high; {allowed}")


def _from_tensor(source: Tensor) -> tuple[Tensor, Tensor | None]:
    got = f"{_IN_MEMORY}: got a tensor of shape {tuple(source.shape)} and {source.dtype}"
    allowed = "expected (3, H, W) or (1, 3, H, W), 4 channels for RGBA, float in [0, 1] or uint8"
    image = source.detach()[None] if source.ndim == 3 else source.detach()
    good_shape = image.ndim == 4 and image.shape[0] == 1 and image.shape[1] in (3, 4)
    if not (good_shape and (image.dtype == torch.uint8 or image.is_floating_point())):
        raise ImageError(f"{got}; {allowed}")
    _check_size(image.shape[2], image.shape[3], _IN_MEMORY)
    image = image.to("cpu", torch.float32) / (255 if source.dtype == torch.uint8 else 1)  # a copy
    low, high = (float(bound) for bound in image.aminmax())
    if not (0 <= low and high <= 1):  # also true of NaN, which aminmax passes on
        raise ImageError(f"{got}, in [{low:.4g}, {high:.4g}]; {allowed}")
    return image[:, :3], image[:, 3:] if image.shape[1] == 4 else None


def _from_pil(image: Image.Image, label: str, side: int | None, mine: bool) -> tuple[Tensor, Tensor | None]:
    """Straight (not composited) sRGB colour and opacity of an image that has been decoded."""
    try:
        if mine:
            ImageOps.exif_transpose(image, in_place=True)  # a copy would double the peak
        else:
            image = ImageOps.exif_transpose(image)
    except Exception as err:  # a broken EXIF block raises nearly anything, over pixels that are fine
        warnings.warn(f"{label}: its EXIF orientation is ignored ({reason(err)})", stacklevel=3)
        image = image if mine else image.copy()  # what follows may change it
    if (factor := _factor(image.width, image.height, side)) > 1:
        image = _reduced(image, factor)
    profile = image.info.get("icc_profile")
    if image.mode == "F" or image.mode.startswith("I"):
        grey = _deep_grey(image, label)
        if profile in (None, b"", _srgb_profile()):
            return _to_tensor(grey).expand(1, 3, -1, -1).clone(), None
        colour, alpha = Image.fromarray((grey * 255).round().astype(np.uint8)), None
    else:
        colour, alpha = _split_alpha(image)
    return _to_tensor(np.array(_to_srgb(colour, profile, label))) / 255, alpha


def _deep_grey(image: Image.Image, label: str) -> np.ndarray[Any, Any]:
    """Luminance (H, W) in [0, 1] of the modes with more than 8 bits, which Pillow would clip."""
    values = np.array(image)
    limit = 1 if image.mode == "F" else 65_535
    low, high = values.min(), values.max()
    if not (0 <= low and high <= limit):
        raise ImageError(f"{label}: has values in [{low}, {high}]; mode {image.mode} must be in [0, {limit}]")
    return np.asarray(values / np.float64(limit), np.float32)


def _split_alpha(image: Image.Image) -> tuple[Image.Image, Tensor | None]:
    """Colour, in a mode that an ICC profile can describe, and opacity."""
    if image.mode in ("CMYK", "LAB"):
        return image, None
    colour = "L" if image.mode in ("1", "L", "LA") else "RGB"
    if not image.has_transparency_data:
        return image.convert(colour), None
    full = image.convert("LA" if colour == "L" else "RGBA")
    return full.convert(colour), _to_tensor(np.array(full.getchannel("A"))) / 255


def _to_srgb(colour: Image.Image, profile: bytes | None, label: str) -> Image.Image:
    """An RGB image of colour in the profile's space, or in sRGB where there is none that can be used."""
    if profile is None or profile in (b"", _srgb_profile()):
        return colour.convert("RGB")
    try:
        embedded = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = embedded.profile.xcolor_space.strip()
        described = colour.convert("RGB") if (space, colour.mode) == ("RGB", "L") else colour
        srgb = ImageCms.ImageCmsProfile(io.BytesIO(_srgb_profile()))
        # By default littlecms tabulates a grey curve at 33 points, which is off by 10/255 in the shadows.
        flags = ImageCms.Flags.GRIDPOINTS(255) if described.mode == "L" else ImageCms.Flags.HIGHRESPRECALC
        transform = ImageCms.buildTransform(embedded, srgb, described.mode, "RGB", flags=flags)
        return transform.apply(described)
    except (ImageCms.PyCMSError, OSError, ValueError) as err:
        message = f"{label}: its ICC profile cannot be used ({reason(err)}); the colours are taken as sRGB"
        warnings.warn(message, stacklevel=4)
        return colour.convert("RGB")


def _to_tensor(pixels: np.ndarray[Any, Any]) -> Tensor:
    """(H, W) or (H, W, C) as (1, C, H, W) float32, values unchanged."""
    return torch.from_numpy(np.atleast_3d(pixels)).permute(2, 0, 1)[None].contiguous().to(torch.float32)


@functools.cache
def _srgb_profile() -> bytes:
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    # Bytes 24 to 35 of an ICC header are the time of creation: two writes of one image would differ.
    profile[24:36] = struct.pack(">6H", 2000, 1, 1, 0, 0, 0)
    return bytes(profile)


def _levels(rgb: Tensor, alpha: Tensor | None, label: str, bits: int) -> np.ndarray[Any, Any]:
    """Whole numbers (H, W, 3), or with `alpha` (H, W, 4) of straight colour, see `to_pil`, in so many bits."""
    top = 2**bits - 1
    planes = _rounded(rgb, label, top)
    if alpha is not None:
        opacity = _rounded(alpha, label, top)
        share = opacity / top
        straight = (rgb.detach().to("cpu", torch.float32) - (1 - share)) / share.clamp(min=1 / top)
        planes = torch.cat([_rounded(torch.where(share > 0, straight, 1.0), label, top), opacity])
    return planes.permute(1, 2, 0).contiguous().numpy()


def _rounded(image: Tensor, label: str, top: int) -> Tensor:
    if wrong := int((~torch.isfinite(image)).sum()):
        raise ImageError(f"{label}: {wrong} values are NaN or infinite; all must be finite")
    planes = image.detach().reshape(image.shape[-3:]).to("cpu", torch.float32)
    return (planes.clamp(0, 1) * top).round().to(torch.uint8 if top == 255 else torch.int32)
