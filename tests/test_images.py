import io
import json
import os
import struct
import time
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms, ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from torch import Tensor

from nst_lightning import image_files, images
from nst_lightning.image_files import ImageError
from nst_lightning.images import read, write

Pixels = NDArray[np.uint8]
SUFFIXES = [".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff"]
TEXTS = {"seed": "7", "prompt": "Brücke → 梵高 🌻", "lines": 'a "quoted"\nsecond line', "empty": ""}


def noise(*shape: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def smooth(height: int = 24, width: int = 32) -> Pixels:
    """A gradient that lossy formats keep."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 255 / width, y * 255 / height, 60 + 0 * x], -1).astype(np.uint8)


def expected(rgb: NDArray[Any], alpha: NDArray[Any] | None = None) -> Tensor:
    """(1, 3, H, W) of straight colour in 0..255 over white, in double precision."""
    colour = np.broadcast_to(rgb[..., None], (*rgb.shape, 3)) if rgb.ndim == 2 else rgb
    straight = colour.astype(np.float64) / 255
    if alpha is not None:
        opacity = alpha.astype(np.float64)[..., None] / 255
        straight = straight * opacity + (1 - opacity)
    return torch.from_numpy(straight.transpose(2, 0, 1).copy())[None].float()


def assert_same(actual: Tensor, target: Tensor, atol: float = 1e-6) -> None:
    torch.testing.assert_close(actual, target, rtol=0, atol=atol)


def saved(image: Image.Image, path: Path, **options: Any) -> Path:
    image.save(path, **options)
    return path


# ---- reading: modes ----


@pytest.mark.parametrize("form", ["png", "tif", "bmp", "ppm"])
def test_rgb_is_read_exactly(tmp_path: Path, form: str) -> None:
    pixels = noise(20, 30, 3)
    picture = read(saved(Image.fromarray(pixels), tmp_path / f"a.b.{form}"))
    assert picture.rgb.dtype == torch.float32
    assert picture.rgb.shape == (1, 3, 20, 30)
    assert picture.rgb.is_contiguous()
    assert torch.equal(picture.rgb, expected(pixels))
    assert picture.alpha is None
    assert picture.name == "a.b"


def test_path_may_be_a_string(tmp_path: Path) -> None:
    path = saved(Image.fromarray(noise(16, 16, 3)), tmp_path / "photo.png")
    assert torch.equal(read(str(path)).rgb, read(path).rgb)
    assert read(str(path)).name == "photo"


@pytest.mark.parametrize("form", ["png", "tif"])
def test_grayscale_is_repeated(tmp_path: Path, form: str) -> None:
    pixels = noise(20, 30)
    assert torch.equal(read(saved(Image.fromarray(pixels), tmp_path / f"a.{form}")).rgb, expected(pixels))


@pytest.mark.parametrize("form", ["png", "tif"])
def test_one_bit(tmp_path: Path, form: str) -> None:
    pixels = (noise(20, 30) > 127).astype(np.uint8) * 255
    image = Image.fromarray(pixels).convert("1")
    assert torch.equal(read(saved(image, tmp_path / f"a.{form}")).rgb, expected(pixels))


@pytest.mark.parametrize("form", ["png", "tif", "webp"])
def test_rgba_is_composited_over_white_in_float(tmp_path: Path, form: str) -> None:
    pixels = noise(20, 30, 4)
    options = {"lossless": True, "exact": True} if form == "webp" else {}
    picture = read(saved(Image.fromarray(pixels), tmp_path / f"a.{form}", **options))
    assert_same(picture.rgb, expected(pixels[..., :3], pixels[..., 3]))
    assert picture.alpha is not None
    assert picture.alpha.shape == (1, 1, 20, 30)
    assert_same(picture.alpha[0, 0], torch.from_numpy(pixels[..., 3].astype(np.float32) / 255))
    assert float(picture.rgb.max()) <= 1


def test_gray_with_alpha(tmp_path: Path) -> None:
    pixels = noise(20, 30, 2)
    picture = read(saved(Image.fromarray(pixels, "LA"), tmp_path / "a.png"))
    assert_same(picture.rgb, expected(pixels[..., 0], pixels[..., 1]))
    assert picture.alpha is not None


def test_alpha_that_is_1_everywhere_is_none(tmp_path: Path) -> None:
    pixels = noise(20, 30, 4)
    pixels[..., 3] = 255
    picture = read(saved(Image.fromarray(pixels), tmp_path / "a.png"))
    assert picture.alpha is None
    assert torch.equal(picture.rgb, expected(pixels[..., :3]))


def paletted() -> tuple[Image.Image, Pixels, Pixels]:
    colours, indices = noise(4, 3), noise(20, 30) % 4
    image = Image.fromarray(indices)
    image.putpalette(colours.tobytes())
    return image, colours, indices


@pytest.mark.parametrize("form", ["png", "gif", "tif"])
def test_palette(tmp_path: Path, form: str) -> None:
    image, colours, indices = paletted()
    picture = read(saved(image, tmp_path / f"a.{form}"))
    assert torch.equal(picture.rgb, expected(colours[indices]))
    assert picture.alpha is None


@pytest.mark.parametrize("form", ["png", "gif"])
def test_palette_with_one_transparent_entry(tmp_path: Path, form: str) -> None:
    image, colours, indices = paletted()
    picture = read(saved(image, tmp_path / f"a.{form}", transparency=2))
    opacity = np.where(indices == 2, 0, 255)
    assert_same(picture.rgb, expected(colours[indices], opacity))
    assert picture.alpha is not None
    assert torch.equal(picture.alpha[0, 0], torch.from_numpy(opacity / 255).float())


def test_palette_with_an_opacity_per_entry(tmp_path: Path) -> None:
    image, colours, indices = paletted()
    picture = read(saved(image, tmp_path / "a.png", transparency=bytes([255, 128, 0, 7])))
    opacity = np.array([255, 128, 0, 7])[indices]
    assert_same(picture.rgb, expected(colours[indices], opacity))


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_transparent_colour(tmp_path: Path, mode: str) -> None:
    pixels = noise(20, 30, 3) if mode == "RGB" else noise(20, 30)
    pixels[3:9, 4:8] = 40
    key: Any = (40, 40, 40) if mode == "RGB" else 40
    picture = read(saved(Image.fromarray(pixels), tmp_path / "a.png", transparency=key))
    hit = (pixels == 40).all(-1) if mode == "RGB" else pixels == 40
    assert picture.alpha is not None
    assert torch.equal(picture.alpha[0, 0], torch.from_numpy(~hit).float())
    assert_same(picture.rgb, expected(pixels, np.where(hit, 0, 255)))


def png(width: int, height: int, depth: int = 8, kind: int = 2, rest: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + rest


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


@pytest.mark.parametrize(("mode", "form"), [("I;16", "png"), ("I;16", "tif"), ("I;16B", "tif"), ("I", "tif")])
def test_16_bit_gray_keeps_its_depth(tmp_path: Path, mode: str, form: str) -> None:
    values = np.random.default_rng(0).integers(0, 65536, (20, 30))
    values[0, :3] = 0, 1, 65535
    dtype = {"I;16": "<u2", "I;16B": ">u2", "I": "<i4"}[mode]
    image = Image.frombytes(mode, (30, 20), values.astype(dtype).tobytes())
    for source in (saved(image, tmp_path / f"a.{form}"), image):
        assert_same(read(source).rgb[0, 1], torch.from_numpy(values / 65535).float(), atol=1e-7)


def test_float_gray(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((20, 30), dtype=np.float32)
    picture = read(saved(Image.fromarray(values), tmp_path / "a.tif"))
    assert torch.equal(picture.rgb[0, 2], torch.from_numpy(values))


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (
            np.full((16, 16), 65_536, np.int32),
            r"a\.tif: has values in \[65536, 65536\]; mode I must be in \[0, 65535\]",
        ),
        (np.full((16, 16), -1, np.int32), r"a\.tif: has values in \[-1, -1\]; mode I must"),
        (
            np.full((16, 16), 1.5, np.float32),
            r"a\.tif: has values in \[1\.5, 1\.5\]; mode F must be in \[0, 1\]",
        ),
        (np.full((16, 16), np.nan, np.float32), r"a\.tif: has values in \[nan, nan\]; mode F must"),
    ],
)
def test_deep_gray_out_of_range(tmp_path: Path, values: NDArray[Any], text: str) -> None:
    path = saved(Image.fromarray(values), tmp_path / "a.tif")
    with pytest.raises(ImageError, match=text):
        read(path)


def test_cmyk_without_a_profile(tmp_path: Path) -> None:
    ink = noise(20, 30, 4)
    ink[..., 3] //= 4
    picture = read(saved(Image.fromarray(ink, "CMYK"), tmp_path / "a.tif"))
    paper = 255 - ink.astype(np.float64)
    assert_same(picture.rgb, expected(paper[..., :3] * paper[..., 3:] / 255), atol=1.01 / 255)


def test_cmyk_jpeg_is_not_inverted(tmp_path: Path) -> None:
    path = saved(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), tmp_path / "a.jpg", quality=100)
    assert_same(read(path).rgb[0, :, 8, 8], torch.tensor([1.0, 0, 0]), atol=0.02)


@pytest.mark.parametrize("mode", ["HSV", "YCbCr", "RGBX"])
def test_colour_modes_in_memory(mode: str) -> None:
    pixels = smooth()
    picture = read(Image.fromarray(pixels).convert(mode))
    assert_same(picture.rgb, expected(pixels), atol=6 / 255)
    assert picture.alpha is None


@pytest.mark.parametrize("mode", ["RGBa", "PA"])
def test_alpha_modes_in_memory(mode: str) -> None:
    pixels = np.concatenate([np.full((20, 30, 3), 90, np.uint8), np.full((20, 30, 1), 200, np.uint8)], -1)
    straight = Image.fromarray(pixels)
    image = straight.convert("RGBa")
    if mode == "PA":
        image = Image.new("PA", (30, 20), (1, 200))
        image.putpalette([0, 0, 0, 90, 90, 90])
    picture = read(image)
    assert picture.alpha is not None
    assert_same(picture.alpha, torch.full((1, 1, 20, 30), 200 / 255))
    assert_same(picture.rgb, expected(pixels[..., :3], pixels[..., 3]), atol=1.01 / 255)


def test_first_frame_of_an_animation(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "lime", "blue")]
    for form in ("gif", "png", "webp", "tif"):
        options = {"lossless": True} if form == "webp" else {}
        path = saved(frames[0], tmp_path / f"a.{form}", save_all=True, append_images=frames[1:], **options)
        assert read(path).rgb[0, :, 8, 8].tolist() == [1, 0, 0], form


# ---- reading: orientation and colour ----


UPRIGHT: dict[int, Callable[[Pixels], Pixels]] = {
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.transpose(1, 0, 2),
    6: lambda p: np.rot90(p, -1),
    7: lambda p: p[::-1, ::-1].transpose(1, 0, 2),
    8: lambda p: np.rot90(p),
}


@pytest.mark.parametrize("form", ["png", "tif", "webp", "memory"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_orientation(tmp_path: Path, orientation: int, form: str) -> None:
    pixels = noise(18, 26, 3)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(pixels)
    if form == "memory":
        image.getexif()[0x0112] = orientation
        picture = read(image)
        assert image.getexif()[0x0112] == orientation  # the caller's image is as it was
    else:
        options = {"lossless": True} if form == "webp" else {}
        picture = read(saved(image, tmp_path / f"a.{form}", exif=exif, **options))
    assert torch.equal(picture.rgb, expected(UPRIGHT[orientation](pixels)))


def test_orientation_of_16_bit_and_of_several_pages(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    values = np.arange(16 * 20, dtype=np.uint16).reshape(16, 20) * 200
    deep = read(saved(Image.fromarray(values), tmp_path / "deep.png", exif=exif))
    assert_same(deep.rgb[0, 0], torch.from_numpy(np.rot90(values, -1) / 65535).float())
    page = Image.fromarray(noise(16, 20, 3))
    pages = read(saved(page, tmp_path / "pages.tif", save_all=True, append_images=[page], exif=exif))
    assert torch.equal(pages.rgb, expected(np.rot90(np.asarray(page), -1)))


def test_broken_exif_is_a_warning_that_names_the_file(tmp_path: Path) -> None:
    pixels = smooth()
    path = saved(Image.fromarray(pixels), tmp_path / "a.png", exif=b"Exif\0\0neither II nor MM")
    with pytest.warns(UserWarning, match=r"a\.png: its EXIF orientation is ignored \(.+\)") as record:
        picture = read(path)
    assert [Path(w.filename).name for w in record] == ["test_images.py"]
    assert torch.equal(picture.rgb, expected(pixels))


def swapped_primaries() -> bytes:
    """The sRGB profile with red and blue exchanged: an oracle that needs no colour management."""
    profile = bytes(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    return profile.replace(b"rXYZ", b"????", 1).replace(b"bXYZ", b"rXYZ", 1).replace(b"????", b"bXYZ", 1)


def icc(space: bytes, connection: bytes, kind: bytes, tags: dict[bytes, bytes]) -> bytes:
    """A version 2 ICC profile."""
    offset, table, body = 128 + 4 + 12 * len(tags), b"", b""
    for name, tag in tags.items():
        padded = tag + b"\0" * (-len(tag) % 4)
        table += struct.pack(">4sII", name, offset + len(body), len(tag))
        body += padded
    white = struct.pack(">3i", 63190, 65536, 54061)
    date = struct.pack(">6H", 2000, 1, 1, 0, 0, 0)
    header = struct.pack(
        ">I4sI4s4s4s12s4s", offset + len(body), b"none", 0x02400000, kind, space, connection, date, b"acsp"
    )
    header += b"\0" * 28 + white
    return header + b"\0" * (128 - len(header)) + struct.pack(">I", len(tags)) + table + body


def linear_gray() -> bytes:
    """A gray profile whose values are proportional to light."""
    white = b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061)
    return icc(b"GRAY", b"XYZ ", b"mntr", {b"wtpt": white, b"kTRC": b"curv" + struct.pack(">III", 0, 0, 0)})


def black_ink_only() -> bytes:
    """A CMYK profile whose L* falls from 100 to 0 with K, whatever the other inks."""
    corners = b"".join(bytes([255 * (i % 2 == 0), 128, 128]) for i in range(16))
    ramp = bytes(range(256))
    identity = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
    table = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + identity + ramp * 4 + corners + ramp * 3
    return icc(b"CMYK", b"Lab ", b"prtr", {b"A2B0": table})


def srgb_of_light(light: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * np.maximum(light, 1e-9) ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize("form", ["png", "tif", "webp"])
@pytest.mark.parametrize("alpha", [False, True])
def test_rgb_profile_is_applied(tmp_path: Path, form: str, alpha: bool) -> None:
    pixels = noise(20, 30, 4 if alpha else 3)
    options = {"lossless": True, "exact": True} if form == "webp" else {}
    image = Image.fromarray(pixels)
    picture = read(saved(image, tmp_path / f"a.{form}", icc_profile=swapped_primaries(), **options))
    swapped = pixels[..., 2::-1]
    assert_same(picture.rgb, expected(swapped, pixels[..., 3] if alpha else None), atol=1.01 / 255)
    assert (picture.alpha is None) == (not alpha)


def test_profile_of_jpeg_and_of_an_image_in_memory(tmp_path: Path) -> None:
    image = Image.new("RGB", (16, 16), (250, 120, 10))
    path = saved(image, tmp_path / "a.jpg", quality=100, icc_profile=swapped_primaries())
    image.info["icc_profile"] = swapped_primaries()
    for source in (path, image):
        assert_same(read(source).rgb[0, :, 8, 8] * 255, torch.tensor([10.0, 120, 250]), atol=2.5)


def test_profile_of_a_palette(tmp_path: Path) -> None:
    image, colours, indices = paletted()
    picture = read(saved(image, tmp_path / "a.png", icc_profile=swapped_primaries()))
    assert_same(picture.rgb, expected(colours[indices][..., ::-1]), atol=1.01 / 255)


@pytest.mark.parametrize("mode", ["L", "LA", "I;16"])
def test_gray_profile(tmp_path: Path, mode: str) -> None:
    values = np.tile(np.arange(256, dtype=np.uint8), (16, 1))
    image = Image.fromarray(values.astype(np.uint16) * 257 if mode == "I;16" else values)
    image = image if mode == "I;16" else image.convert(mode)
    picture = read(saved(image, tmp_path / "a.png", icc_profile=linear_gray()))
    assert_same(picture.rgb, expected(srgb_of_light(values / 255) * 255), atol=1.01 / 255)


def test_gray_image_with_an_rgb_profile(tmp_path: Path) -> None:
    pixels = noise(16, 16)
    picture = read(saved(Image.fromarray(pixels), tmp_path / "a.png", icc_profile=swapped_primaries()))
    assert_same(picture.rgb, expected(pixels), atol=1.01 / 255)


def test_cmyk_profile(tmp_path: Path) -> None:
    ink = noise(16, 16, 4)
    image = Image.fromarray(ink, "CMYK")
    picture = read(saved(image, tmp_path / "a.tif", icc_profile=black_ink_only()))
    lightness = 100 * (1 - ink[..., 3] / 255)
    light = np.where(lightness > 8, ((lightness + 16) / 116) ** 3, lightness / 903.3)
    assert_same(picture.rgb, expected(srgb_of_light(light) * 255), atol=2.5 / 255)


@pytest.mark.parametrize("profile", [False, True])
def test_lab(tmp_path: Path, profile: bool) -> None:
    lab = np.random.default_rng(0).uniform([40, -20, -20], [85, 20, 20], (16, 16, 3)).round()  # within sRGB
    pixels = (lab * [2.55, 1, 1]).round().astype(np.int16).astype(np.uint8)  # a and b are signed bytes
    lab[..., 0] = pixels[..., 0] / 2.55
    options = {"icc_profile": ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()} if profile else {}
    picture = read(saved(Image.fromarray(pixels, "LAB"), tmp_path / "a.tif", **options))
    y = (lab[..., 0] + 16) / 116
    roots = np.stack([y + lab[..., 1] / 500, y, y - lab[..., 2] / 200], -1)
    xyz = np.where(roots > 6 / 29, roots**3, (roots - 4 / 29) * 108 / 841) * [0.96422, 1, 0.82521]
    to_rgb = [[3.1338561, -1.6168667, -0.4906146], [-0.9787684, 1.9161415, 0.0334540]]  # D50, Lindbloom
    light = xyz @ np.array([*to_rgb, [0.0719453, -0.2289914, 1.4052427]]).T
    assert_same(picture.rgb, expected(srgb_of_light(light) * 255), atol=3 / 255)


@pytest.mark.parametrize("profile", [b"not a profile", linear_gray()])
def test_unusable_profile_is_a_warning_that_names_the_file(tmp_path: Path, profile: bytes) -> None:
    pixels = noise(16, 16, 3)
    path = saved(Image.fromarray(pixels), tmp_path / "odd.png", icc_profile=profile)
    text = r"odd\.png: its ICC profile cannot be used \(.+\); the colours are taken as sRGB$"
    with pytest.warns(UserWarning, match=text) as record:
        picture = read(path)
    assert [Path(w.filename).name for w in record] == ["test_images.py"]
    assert torch.equal(picture.rgb, expected(pixels))


# ---- reading: memory ----


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("batched", [False, True])
def test_tensor_is_copied(dtype: torch.dtype, batched: bool) -> None:
    pixels = torch.from_numpy(noise(3, 20, 30))
    source = pixels if dtype == torch.uint8 else (pixels / 255).to(dtype)
    source = source[None] if batched else source
    target = source.float().reshape(1, 3, 20, 30) / (255 if dtype == torch.uint8 else 1)
    picture = read(source)
    source.zero_()
    assert torch.equal(picture.rgb, target)
    assert (picture.rgb.dtype, picture.alpha, picture.name) == (torch.float32, None, "image")


def test_tensor_with_alpha_is_composited() -> None:
    pixels = noise(20, 30, 4)
    picture = read(torch.from_numpy(pixels).permute(2, 0, 1))
    assert_same(picture.rgb, expected(pixels[..., :3], pixels[..., 3]))
    assert picture.alpha is not None
    assert picture.alpha.shape == (1, 1, 20, 30)


def test_tensor_that_requires_grad_is_detached() -> None:
    assert not read(torch.rand(3, 16, 16, requires_grad=True)).rgb.requires_grad


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (torch.rand(16, 16), r"shape \(16, 16\) and torch\.float32; expected \(3, H, W\) or"),
        (torch.rand(2, 3, 16, 16), r"shape \(2, 3, 16, 16\)"),
        (torch.rand(1, 16, 16), r"shape \(1, 16, 16\)"),
        (torch.zeros(3, 16, 16, dtype=torch.int64), r"torch\.int64; expected .* float in \[0, 1\] or uint8"),
        (torch.full((3, 16, 16), 255.0), r"torch\.float32, in \[255, 255\]; expected"),
        (torch.full((3, 16, 16), -0.5), r"in \[-0\.5, -0\.5\]; expected"),
        (torch.rand(3, 16, 16).index_fill(1, torch.tensor(3), torch.nan), r"in \[nan, nan\]; expected"),
        (torch.rand(3, 16, 16).index_fill(1, torch.tensor(3), torch.inf), r"inf\]; expected"),
        (torch.rand(3, 15, 16), "is 16 px wide and 15 px high; 16 to 16384 px a side are allowed"),
        (torch.rand(3, 0, 16), "is 16 px wide and 0 px high"),
        (None, "got NoneType; expected a path, a Pillow image or a tensor"),
        (Image.new("RGB", (16, 15)), "is 16 px wide and 15 px high"),
    ],
)
def test_wrong_source_in_memory(source: Any, text: str) -> None:  # noqa: ANN401
    with pytest.raises(ImageError, match=rf"^image: .*{text}"):
        read(source)


@pytest.mark.filterwarnings("ignore:image. its EXIF orientation is ignored")
@pytest.mark.parametrize("exif", [None, b"Exif\0\0neither II nor MM"])
def test_image_in_memory_is_left_alone(exif: bytes | None) -> None:
    image, _, _ = paletted()
    image.info["transparency"] = bytes([255, 128, 0, 7])
    if exif is not None:
        image.info["exif"] = exif
    before = image.tobytes(), image.getpalette("RGBA"), dict(image.info)
    picture = read(image)
    assert (image.tobytes(), image.getpalette("RGBA"), image.info) == before
    assert picture.name == "image"
    assert picture.alpha is not None


# ---- reading: errors ----


def refused(path: Path, text: str) -> None:
    with pytest.raises(ImageError, match=text) as error:
        read(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_missing_file(tmp_path: Path) -> None:
    refused(tmp_path / "a.png", r"cannot be opened \(No such file or directory\); expected an image file$")


def test_directory(tmp_path: Path) -> None:
    refused(tmp_path, r"cannot be opened \(Is a directory\)")


def test_null_character() -> None:
    refused(Path("a\0.png"), r"cannot be opened \(embedded null byte\)")


def test_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    path = saved(Image.new("RGB", (16, 16)), tmp_path / "a.png")
    monkeypatch.setattr(Path, "open", deny)  # as root, mode bits would not stop us
    refused(path, r"cannot be opened \(Permission denied\)")


def test_empty_file(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    refused(tmp_path / "a.png", r"is empty \(0 bytes\); expected an image file$")


def test_text_that_is_called_png(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("a letter")
    refused(tmp_path / "a.png", "is not an image in a format that Pillow reads$")


@pytest.mark.parametrize("lenient", [False, True])
@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("jpg", {}),
        ("jpg", {"progressive": True}),
        ("png", {}),
        ("gif", {}),
        ("webp", {}),
        ("bmp", {}),
        ("tif", {}),
    ],
)
def test_truncated_file(
    tmp_path: Path, form: str, options: dict[str, Any], lenient: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(Image.fromarray(noise(64, 64, 3)), tmp_path / f"a.{form}", **options)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", lenient)
    refused(path, r"cannot be decoded, damaged or truncated \(.+\)$")
    assert ImageFile.LOAD_TRUNCATED_IMAGES == lenient


@pytest.mark.parametrize("size", [(1, 1), (15, 40), (40, 15)])
def test_image_that_is_too_small(tmp_path: Path, size: tuple[int, int]) -> None:
    path = saved(Image.new("RGB", size), tmp_path / "a.png")
    refused(path, f"is {size[0]} px wide and {size[1]} px high; 16 to 16384 px a side are allowed$")


@pytest.mark.parametrize(
    "size", [(30_000, 16), (16, 30_000), (16_385, 16_000), (30_000, 30_000), (2**31 - 1, 2**31 - 1)]
)
def test_image_that_is_too_large_is_refused_by_its_header(tmp_path: Path, size: tuple[int, int]) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png(*size, rest=chunk(b"IDAT", b"")))
    refused(path, f"is {size[0]} px wide and {size[1]} px high; 16 to 16384 px a side are allowed$")


@pytest.mark.parametrize("limit", [100, 700, None])  # 32 x 32 would be an error, a warning, nothing
def test_the_pixel_limit_of_pillow_does_not_apply_and_is_restored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int | None
) -> None:
    path = saved(Image.new("RGB", (32, 32)), tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        assert read(path).rgb.shape == (1, 3, 32, 32)
    assert record == []
    assert limit == Image.MAX_IMAGE_PIXELS
    refused(tmp_path / "missing.png", "No such file")
    assert limit == Image.MAX_IMAGE_PIXELS


def test_limits_themselves_are_read() -> None:
    assert read(torch.zeros(3, images.MIN_SIDE, images.MIN_SIDE)).rgb.shape[-1] == 16
    assert read(Image.new("L", (images.MAX_SIDE, images.MIN_SIDE))).rgb.shape[-1] == 16_384


# ---- sizes ----


@pytest.mark.parametrize(
    ("height", "width", "long_side", "upscale", "size"),
    [
        (600, 800, 400, False, (300, 400)),
        (800, 600, 400, False, (400, 300)),
        (500, 500, 64, False, (64, 64)),
        (1000, 3, 100, False, (100, 1)),
        (301, 400, 200, False, (150, 200)),
        (303, 400, 200, False, (152, 200)),
        (300, 400, 800, False, (300, 400)),
        (300, 400, 800, True, (600, 800)),
        (300, 400, 400, True, (300, 400)),
    ],
)
def test_fit(height: int, width: int, long_side: int, upscale: bool, size: tuple[int, int]) -> None:
    assert images.fit(height, width, long_side, upscale) == size


@pytest.mark.parametrize("size", [(11, 17), (40, 60), (90, 31)])
def test_resize_agrees_with_pillow(size: tuple[int, int]) -> None:
    plane = np.random.default_rng(0).random((40, 60), dtype=np.float32)
    reference = Image.fromarray(plane).resize(size[::-1], Image.Resampling.BICUBIC)
    resized = images.resize(torch.from_numpy(plane)[None, None], size)
    assert resized.shape == (1, 1, *size)
    assert_same(resized[0, 0], torch.from_numpy(np.array(reference)), atol=1e-5)


def test_resize_does_not_clamp() -> None:
    step = torch.zeros(1, 1, 16, 16)
    step[..., 8:] = 1
    assert float(images.resize(step, (32, 32)).max()) > 1.01


def test_resize_to_the_same_size_is_the_same_tensor() -> None:
    image = torch.rand(2, 3, 8, 9)
    assert images.resize(image, (8, 9)) is image


# ---- writing ----


def test_to_pil_rounds_and_clamps() -> None:
    values = torch.tensor([-3, 0, 0.4999 / 255, 0.5001 / 255, 100 / 255, 254.49 / 255, 254.51 / 255, 1, 7])
    image = images.to_pil(values.expand(3, 2, 9))
    assert (image.mode, image.size) == ("RGB", (9, 2))
    assert np.asarray(image)[1, :, 2].tolist() == [0, 0, 0, 1, 100, 254, 255, 255, 255]


def test_to_pil_inverts_read() -> None:
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16)[..., None].repeat(3, -1)
    assert np.array_equal(np.asarray(images.to_pil(read(Image.fromarray(pixels)).rgb)), pixels)


def test_to_pil_undoes_the_compositing_of_read() -> None:
    pixels = noise(16, 17, 4)
    pixels[..., 3] = np.maximum(pixels[..., 3], 8)  # below that 8 bits hold next to nothing of the colour
    pixels[0, :, 3] = 0
    picture = read(Image.fromarray(pixels))
    image = np.asarray(images.to_pil(picture.rgb, picture.alpha))
    assert np.array_equal(image[..., 3], pixels[..., 3])
    assert np.array_equal(image[0, :, :3], np.full((17, 3), 255))
    assert np.abs(image[1:].astype(int) - pixels[1:]).max() <= 1


@pytest.mark.parametrize(
    ("rgb", "alpha", "text"),
    [
        (
            torch.tensor([0.5, torch.nan, -torch.inf]).expand(3, 8, 3),
            None,
            "48 values are NaN or infinite; all must",
        ),
        (torch.rand(3, 8, 8), torch.full((1, 8, 8), torch.nan), "64 values are NaN or infinite"),
    ],
)
def test_tensor_that_cannot_be_written(tmp_path: Path, rgb: Tensor, alpha: Tensor | None, text: str) -> None:
    with pytest.raises(ImageError, match=rf"^image: .*{text}"):
        images.to_pil(rgb, alpha)
    with pytest.raises(ImageError, match=rf"a\.png: .*{text}"):
        write(tmp_path / "a.png", rgb, alpha)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".PNG"])
def test_written_file_is_read_back(tmp_path: Path, suffix: str) -> None:
    rgb = expected(smooth())
    path = write(tmp_path / "new" / "folders" / f"a{suffix}", rgb)
    assert path == tmp_path / "new" / "folders" / f"a{suffix}"
    lossless = suffix in (".png", ".PNG", ".tif", ".tiff")
    assert_same(read(path).rgb, rgb, atol=1e-6 if lossless else 12 / 255)
    with Image.open(path) as image:
        names = {
            ".jpg": "JPEG",
            ".jpeg": "JPEG",
            ".png": "PNG",
            ".webp": "WEBP",
            ".tif": "TIFF",
            ".tiff": "TIFF",
        }
        assert (image.format, image.mode) == (names[suffix.lower()], "RGB")
        assert "sRGB" in ImageCms.getProfileDescription(io.BytesIO(image.info["icc_profile"]))


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
def test_alpha_is_written(tmp_path: Path, suffix: str) -> None:
    alpha = expected(smooth())[:, :1]
    back = read(write(tmp_path / f"a{suffix}", torch.full((3, 24, 32), 0.5), alpha)).alpha
    assert back is not None
    assert_same(back, alpha)


def test_jpeg_drops_alpha_and_keeps_colour_resolution(tmp_path: Path) -> None:
    stripes = torch.tensor([[1.0, 0], [0, 0], [0, 1]]).repeat(1, 16)[:, None].expand(3, 32, 32)
    path = write(tmp_path / "a.jpg", stripes, torch.zeros(1, 32, 32))
    picture = read(path)
    assert picture.alpha is None
    assert_same(picture.rgb[0], stripes, atol=0.1)  # 4:2:0 would make one colour of red and blue
    with Image.open(path) as image:
        assert isinstance(image, JpegImageFile)
        tables = image.quantization
    assert tables[0][0] == 2  # of quality 95: 16 at quality 50, times (200 - 2 * 95) / 100


@pytest.mark.parametrize("suffix", [".bmp", "", ".pngx"])
def test_suffix_that_is_not_allowed(tmp_path: Path, suffix: str) -> None:
    text = rf"a{suffix}: has suffix '{suffix}'; allowed are \.png, \.jpg, \.jpeg, \.webp, \.tif, \.tiff$"
    with pytest.raises(ImageError, match=text):
        write(tmp_path / f"a{suffix}", torch.rand(3, 8, 8))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_metadata(tmp_path: Path, suffix: str) -> None:
    assert image_files.read_metadata(write(tmp_path / f"a{suffix}", torch.rand(3, 16, 16), metadata=TEXTS)) == TEXTS
    assert image_files.read_metadata(write(tmp_path / f"b{suffix}", torch.rand(3, 16, 16))) == {}


def test_metadata_is_open_to_other_programs(tmp_path: Path) -> None:
    path = write(tmp_path / "a.png", torch.rand(3, 16, 16), metadata=TEXTS)
    assert b"tEXtseed\x007" in path.read_bytes()
    assert b"iTXtprompt\0" in path.read_bytes()
    assert TEXTS["prompt"].encode() in path.read_bytes()
    with Image.open(write(tmp_path / "a.jpg", torch.rand(3, 16, 16), metadata=TEXTS)) as image:
        assert json.loads(image.getexif()[0x010E]) == TEXTS


@pytest.mark.parametrize("description", ["a holiday", "[1, 2]", "12", '{"a": 1}'])
def test_metadata_of_other_programs_is_not_ours(tmp_path: Path, description: str) -> None:
    exif = Image.Exif()
    exif[0x010E] = description
    path = saved(Image.new("RGB", (16, 16)), tmp_path / "a.jpg", exif=exif)
    assert image_files.read_metadata(path) == {}


def test_metadata_too_long_for_the_format(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"a\.jpg: cannot be written as JPEG \(EXIF data is too long\)"):
        write(tmp_path / "a.jpg", torch.rand(3, 16, 16), metadata={"log": "x" * 70_000})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_metadata_of_an_output_too_small_to_be_read(tmp_path: Path, suffix: str) -> None:
    assert image_files.read_metadata(write(tmp_path / f"a{suffix}", torch.rand(3, 9, 1), metadata=TEXTS)) == TEXTS


def test_metadata_of_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"a\.png: cannot be opened"):
        image_files.read_metadata(tmp_path / "a.png")


def test_equal_content_gives_equal_bytes_at_any_time(tmp_path: Path) -> None:
    rgb, names = torch.rand(3, 16, 16), [f"a{suffix}" for suffix in SUFFIXES]
    first = [write(tmp_path / "1" / name, rgb, metadata=TEXTS).read_bytes() for name in names]
    images._srgb_profile.cache_clear()
    time.sleep(1.1)  # littlecms stamps profiles with the second
    reordered = dict(reversed(TEXTS.items()))
    assert [write(tmp_path / "2" / name, rgb, metadata=reordered).read_bytes() for name in names] == first


def test_existing_file_is_kept_unless_told(tmp_path: Path) -> None:
    path = write(tmp_path / "a.png", torch.zeros(3, 16, 16))
    before = path.read_bytes()
    with pytest.raises(ImageError, match=r"a\.png: exists already; pass overwrite=True to replace it$"):
        write(path, torch.ones(3, 16, 16))
    assert path.read_bytes() == before
    write(path, torch.ones(3, 16, 16), overwrite=True)
    assert float(read(path).rgb.min()) == 1
    assert list(tmp_path.iterdir()) == [path]


def test_file_that_appears_meanwhile_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, save = tmp_path / "a.png", Image.Image.save

    def slow_save(image: Image.Image, *args: Any, **kwargs: Any) -> None:
        save(image, *args, **kwargs)
        path.write_text("another writer's")

    monkeypatch.setattr(Image.Image, "save", slow_save)
    with pytest.raises(ImageError, match=r"a\.png: exists already"):
        write(path, torch.rand(3, 16, 16))
    assert path.read_text() == "another writer's"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("step", ["save", "replace"])
def test_failure_leaves_nothing_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overwrite: bool, step: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "a.png"
    if overwrite:
        path.write_text("before")
    monkeypatch.setattr(f"PIL.Image.Image.{step}" if step == "save" else f"os.{step}", fail)
    with pytest.raises(ImageError, match=r"a\.png: cannot be written as PNG \(No space left on device\)$"):
        write(path, torch.rand(3, 16, 16), overwrite=overwrite)
    assert [p.read_text() for p in tmp_path.iterdir()] == (["before"] if overwrite else [])


def test_file_is_never_seen_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, replace = tmp_path / "a.png", os.replace
    seen: list[tuple[str, bytes]] = []

    def watch(source: Path, target: Path) -> None:
        assert source.parent == target.parent  # one file system, so that the move is atomic
        seen.append((source.name, source.read_bytes()))
        replace(source, target)

    monkeypatch.setattr(os, "replace", watch)
    write(path, torch.rand(3, 16, 16))
    assert [content for _, content in seen] == [path.read_bytes()]
    assert seen[0][0] != path.name


def test_written_file_has_the_usual_mode(tmp_path: Path) -> None:
    (tmp_path / "usual").touch()
    path = write(tmp_path / "a.png", torch.rand(3, 16, 16))
    assert path.stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_target_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a.png").mkdir()
    with pytest.raises(ImageError, match=r"a\.png: cannot be written as PNG \(.+\)"):
        write(tmp_path / "a.png", torch.rand(3, 16, 16), overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_check_writable_creates_the_folder_and_leaves_it_empty(tmp_path: Path) -> None:
    images.check_writable(tmp_path / "new" / "folder")
    assert list((tmp_path / "new" / "folder").iterdir()) == []


@pytest.mark.parametrize("below", ["", "folder", "folder/folder"])
def test_check_writable_where_a_file_is_in_the_way(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / below
    text = rf"^{folder}: cannot create files there \(a file is in the way\); choose a writable folder$"
    with pytest.raises(ImageError, match=text):
        images.check_writable(folder)
    with pytest.raises(ImageError, match=text):
        write(folder / "a.png", torch.rand(3, 16, 16))


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs /proc")
@pytest.mark.parametrize("folder", ["/proc/nst", "/proc/self"])
def test_check_writable_on_a_read_only_file_system(folder: str) -> None:
    with pytest.raises(ImageError, match=rf"^{folder}: cannot create files there \(No such file or directory\)"):
        images.check_writable(folder)


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(28, "No space left on device")])
def test_check_writable_without_permission_or_room(
    error: OSError, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    text = rf"cannot create files there \({error.strerror}\); choose a writable folder$"
    monkeypatch.setattr("tempfile.TemporaryFile", fail)
    with pytest.raises(ImageError, match=text):
        images.check_writable(tmp_path)
    monkeypatch.setattr(Path, "mkdir", fail)
    with pytest.raises(ImageError, match=text):
        images.check_writable(tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "1", "P", "CMYK"])
def test_a_large_file_is_reduced_to_twice_what_is_wanted_and_looks_the_same(
    tmp_path: Path, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    waves = np.indices((120, 96)).astype(float)
    planes = [128 + 100 * np.sin(waves[0] / 21 + k) * np.cos(waves[1] / 17) for k in range(4)]
    picture = Image.fromarray(np.stack(planes, axis=-1).astype(np.uint8), "RGBA" if "A" in mode else "CMYK")
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    (picture if mode == picture.mode else picture.convert("RGB").convert(mode)).save(path)
    whole = read(path, 20)
    assert whole.rgb.shape[2:] == whole.size == (120, 96)
    monkeypatch.setattr(images, "LARGE", 120 * 96 - 1)
    assert read(path, 61).rgb.shape[2:] == (120, 96)
    reduced = read(path, 20)
    assert (reduced.rgb.shape[2:], reduced.size) == ((40, 32), (120, 96))
    expected = images.resize(whole.rgb, (20, 16))
    assert (images.resize(reduced.rgb, (20, 16)) - expected).abs().mean() < (0.05 if mode == "1" else 0.01)
    if mode == "RGBA":
        assert reduced.alpha is not None
        assert whole.alpha is not None
        assert (images.resize(reduced.alpha, (20, 16)) - images.resize(whole.alpha, (20, 16))).abs().max() < 0.02


def test_a_large_jpeg_is_reduced_as_it_is_decoded_and_turned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.linear_gradient("L").resize((160, 80)).convert("RGB").save(tmp_path / "a.jpg", exif=exif, quality=95)
    whole = read(tmp_path / "a.jpg").rgb
    monkeypatch.setattr(images, "LARGE", 1000)
    reduced = read(tmp_path / "a.jpg", 20)
    assert (reduced.rgb.shape[2:], reduced.size, whole.shape[2:]) == ((40, 20), (160, 80), (160, 80))
    assert (images.resize(whole, (20, 10)) - images.resize(reduced.rgb, (20, 10))).abs().max() < 0.03


def test_too_little_memory_is_not_taken_for_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    monkeypatch.setattr(PngImageFile, "load", fail)
    with pytest.raises(MemoryError):
        read(tmp_path / "a.png")


def test_no_program_is_run_to_read_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (40, 40), "red").save(tmp_path / "a.png", format="EPS")
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *_, **__: pytest.fail("Ghostscript was run"))
    refused(tmp_path / "a.png", "is EPS, which is not read; save it as PNG$")
