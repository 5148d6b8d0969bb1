"""Cells of what is given: names, configurations, lists, images, options, the environment."""

from __future__ import annotations

import io
import os
import re
import shutil
import struct
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import yaml
from PIL import Image, PngImagePlugin

from tests.faults.bench import LOST, OK, SILENT, WRONG, Bench, Cell, Fault, contents, same

TABLES = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
BAD_NAMES = {"long": "x" * 300, "very long": "x" * 5000, "deep": "x/" * 2500 + "x", "not UTF-8": "\udcff.png"}
CONFIGURATIONS = {
    "UTF-16": "size: 3".encode("utf-16"), "Latin-1": "output: gr\u00fcn".encode("latin-1"), "binary": bytes(range(256)),
    "NUL": b"output: a\0b", "deep": b"[" * 10_000,
}  # fmt: skip
LISTS = {
    "not UTF-8": b"content,style\n\xff.png,s.png", "NUL": b"content,style\nc\0.png,s.png", "binary": bytes(range(256)),
    "a huge cell": b"content,style\n" + b"x" * 200_000 + b",s.png",
    "a name from right to left": "content,style,name\nc1.png,s.png,\u202ex".encode(),
    "a long name": b"content,style,name\nc1.png,s.png," + b"x" * 300,
    "a huge size": b"content,style,size\nc1.png,s.png," + b"9" * 400,
}  # fmt: skip


def cells() -> Iterator[Cell]:
    """Yields the cells."""
    for name, given in {**TABLES["bad_names"], **BAD_NAMES}.items():
        yield Cell("names", f"output: {name}", partial(_refused, partial(_words, f"--output={given}")))
    for odd in TABLES["odd_names"]:
        yield Cell("names", f"{odd!r} for images and output", partial(_odd_name, odd))
    for key in TABLES["nullable"]:
        yield Cell("configuration", f"null for {key}", partial(_null, key))
    for name, data in {**_bytes(TABLES["configurations"]), **CONFIGURATIONS}.items():
        yield Cell("configuration", name, partial(_refused, partial(_written, "--config", "given.yaml", data)))
    for name, data in {**_bytes(TABLES["lists"]), **LISTS}.items():
        yield Cell("lists", name, partial(_refused, partial(_written, "--pairs", "given.csv", data)))
    for name, make in IMAGES.items():
        yield Cell("images", name, partial(_image, make))
    for options in (*TABLES["options"], "--content=\udcff.png"):
        yield Cell("options", options, partial(_refused, partial(_words, options)))
    for options in TABLES["early"]:
        yield Cell("options", f"{options}: stops early", partial(_early, options))
    for environment in TABLES["environments"]:
        yield Cell("environment", environment, partial(_environment, environment))
    for name, row in TABLES["pairs"].items():
        yield Cell("pairs", f"good, {name}, good", partial(_bad_pair, row))


def _bytes(texts: dict[str, str]) -> dict[str, bytes]:
    return {name: text.encode() for name, text in texts.items()}


def _refused(options: Callable[[Bench], list[str]], bench: Bench) -> str:
    """One line on stderr, code 2, nothing written, and an earlier file of the output's name is as it was."""
    for name in ("c1", "c2", "s"):
        shutil.copy(bench.shared / f"{name}.png", bench.folder)
    (bench.folder / "taken.png").write_text("an earlier result")
    os.mkfifo(bench.folder / "pipe")
    given = options(bench)
    command = [*bench.fit()[:1], *_without(bench.fit(), given), "--output", "taken.png", "--overwrite", "true", *given]
    before = contents(bench.folder)
    ended = bench.started(*command).wait(60).refused(2)
    if contents(bench.folder) != before:
        raise Fault(WRONG, f"written: {sorted(contents(bench.folder).items() ^ before.items())[:2]}"[:150])
    return ended.err.strip()[11:110]


def _words(options: str, bench: Bench) -> list[str]:
    return options.split(" ") if not options.startswith("--output=") else [options]


def _without(command: list[str], given: list[str]) -> list[str]:
    """Returns the options of a command but those of images that are given otherwise."""
    named = {each.partition("=")[0] for each in given}
    dropped = {"--content", "--style"} if named & {"--pairs", "--resume"} else named & {"--content", "--style"}
    pairs = zip(command[1::2], command[2::2], strict=True)
    return [each for pair in pairs if pair[0] not in dropped for each in pair]


def _written(option: str, name: str, data: bytes, bench: Bench) -> list[str]:
    (bench.folder / name).write_bytes(data)
    return [option, name]


def _odd_name(odd: str, bench: Bench) -> None:
    """It is painted, its configuration gives the same again, and resumed there is nothing left."""
    whole = bench.undisturbed("only c1") / "c1_s.png"
    content = bench.folder / f"{odd}.png"
    shutil.copy(bench.shared / "c1.png", content)
    command = [*bench.fit(), f"--output={odd}"]
    command[2] = str(content)
    for again in (command, ["fit", f"--config={odd}/config.yaml", "--output=again"], ["fit", f"--resume={odd}"]):
        ended = bench.started(*again).wait().expect(0)
        if "--resume" not in again[1]:
            (picture,) = (bench.folder / (odd if again is command else "again")).glob("*.png")
            same(whole, picture)
    if "nothing left to do" not in ended.out:
        raise Fault(WRONG, ended.out[-100:])


def _null(key: str, bench: Bench) -> str:
    group, _, name = key.rpartition(".")
    (bench.folder / "given.yaml").write_text(f"{group}:\n  {name}: null\n" if group else f"{key}:\n")
    options = [
        each for pair in zip(bench.fit()[1::2], bench.fit()[2::2], strict=True) if pair[0][2:] != name for each in pair
    ]
    output = [] if name == "output" else ["--output", "run"]
    ended = bench.started("fit", *options, *output, "--config", "given.yaml").wait().expect(0, 2)
    if ended.code == 2:
        return ended.refused(2).err.strip()[11:110]
    if not all((bench.folder / path).is_file() for path in ended.out.splitlines()) or not ended.out:
        raise Fault(SILENT, "no picture")
    return "painted"


def _png(*chunks: tuple[bytes, bytes]) -> bytes:
    parts = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _saved(mode: str, form: str, size: tuple[int, int] = (48, 36), **options: object) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, form, **options)
    return buffer.getvalue()


def _orientation(field: bytes) -> bytes:
    return b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01" + field + bytes(4)


def _text_bomb() -> bytes:
    info = PngImagePlugin.PngInfo()
    info.add_text("x", "x" * 50_000_000, zip=True)
    return _saved("RGB", "PNG", pnginfo=info)


IMAGES: dict[str, Callable[[], bytes]] = {
    "empty": lambda: b"",
    "text": lambda: b"not an image",
    "zeros": lambda: bytes(1000),
    "PNG cut off": lambda: _saved("RGB", "PNG")[:900],
    "JPEG cut off": lambda: _saved("RGB", "JPEG")[:900],
    "PNG of 65535 px": lambda: _png((b"IHDR", struct.pack(">IIBBBBB", 65535, 65535, 8, 2, 0, 0, 0)), (b"IEND", b"")),
    "PNG of 2147483647 px": lambda: _png((b"IHDR", struct.pack(">IIBBBBB", 2**31 - 1, 2**31 - 1, 8, 2, 0, 0, 0))),
    "PNG of 0 px": lambda: _png((b"IHDR", struct.pack(">IIBBBBB", 0, 0, 8, 2, 0, 0, 0)), (b"IEND", b"")),
    "PNG without pixels": lambda: _png((b"IHDR", struct.pack(">IIBBBBB", 48, 36, 8, 2, 0, 0, 0)), (b"IEND", b"")),
    "1x1": lambda: _saved("RGB", "PNG", (1, 1)),
    "1x3000": lambda: _saved("RGB", "PNG", (1, 3000)),
    "8192x8192 of one colour": lambda: _saved("1", "PNG", (8192, 8192)),
    "grey": lambda: _saved("L", "PNG"),
    "bilevel": lambda: _saved("1", "PNG"),
    "palette": lambda: _saved("P", "PNG"),
    "palette, transparent": lambda: _saved("P", "PNG", transparency=3),
    "CMYK": lambda: _saved("CMYK", "JPEG"),
    "16 bits": lambda: _saved("I;16", "PNG"),
    "float TIFF": lambda: _saved("F", "TIFF"),
    "LAB TIFF": lambda: _saved("LAB", "TIFF"),
    "GIF": lambda: _saved("P", "GIF"),
    "ICO": lambda: _saved("RGB", "ICO"),
    "PDF": lambda: _saved("RGB", "PDF"),
    "EPS": lambda: _saved("RGB", "EPS"),
    "EXIF broken": lambda: _saved("RGB", "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff"),
    "EXIF orientation 99": lambda: _saved("RGB", "JPEG", exif=_orientation(b"\x03\0\x01\0\0\0\x63\0\0\0")),
    "EXIF orientation is text": lambda: _saved("RGB", "JPEG", exif=_orientation(b"\x02\0\x04\0\0\0abc\0")),
    "ICC broken": lambda: _saved("RGB", "JPEG", icc_profile=b"x" * 500),
    "ICC empty": lambda: _saved("RGB", "PNG", icc_profile=b""),
    "ICC of CMYK in RGB": lambda: _saved("RGB", "PNG", icc_profile=bytes(16) + b"CMYK" + bytes(200)),
    "a bomb of text": _text_bomb,
    "XMP broken": lambda: _saved("RGB", "WEBP", xmp=b"<x" * 99),
    "dpi 0": lambda: _saved("RGB", "JPEG", dpi=(0, 0)),
    "a bad CRC": lambda: _saved("RGB", "PNG").replace(b"IDAT", b"IDAT", 1)[:-20] + bytes(20),
    "SVG": lambda: b'<svg xmlns="http://www.w3.org/2000/svg" width="48" height="36"/>',
}


def _image(make: Callable[[], bytes], bench: Bench) -> str:
    """It is painted, or refused in a line that names it with nothing written; as photograph and as painting."""
    told = []
    (bench.folder / "given.png").write_bytes(make())
    before = contents(bench.folder)
    for option in ("--content", "--style"):
        command = [*bench.fit(steps=2), "--output", "run", "--upscale", "true"]
        command[command.index(option) + 1] = "given.png"
        ended = bench.started(*command).wait(60).expect(0, 2)
        if ended.code == 0:
            same(bench.folder / ended.out.strip(), bench.folder / ended.out.strip())
            shutil.rmtree(bench.folder / "run")
        elif contents(bench.folder) != before:
            raise Fault(WRONG, "something was written")
        elif "given.png" not in ended.refused(2).err and "given" not in ended.err:
            raise Fault(WRONG, ended.err.strip()[-120:])
        told.append(OK if ended.code == 0 else ended.err.strip()[11:80])
    return " / ".join(dict.fromkeys(told)) if told != [OK, OK] else ""


def _early(options: str, bench: Bench) -> str:
    whole = bench.undisturbed("only c1")
    ended = bench.started(*bench.fit(), "--output", "run", *options.split(" ")).wait().expect(2, 3)
    if ended.code == 3:
        config = bench.folder / "run/config.yaml"
        kept = {"max_steps": "-1", "limit_train_batches": "null", "max_time": "null", "fast_dev_run": "false"}
        lines = [line for line in config.read_text().splitlines() if line.split(":")[0].strip() not in kept]
        config.write_text("\n".join(lines) + "\n")
        bench.go_on(whole, bench.folder / "run", [])
    return ended.err.strip().splitlines()[-1][:100]


_AT_ANY_TIME = re.compile(
    "RANK|WORLD|LOCAL_RANK|SLURM|NODE|GROUP|MASTER|TORCHELASTIC|OMPI|PL_|NST_"
)  # not as it starts


def _environment(given: str, bench: Bench) -> str:
    """The same picture, or a line and nothing written."""
    whole = bench.undisturbed("only c1")
    variables = dict(each.split("=", 1) for each in given.split(" "))
    run = bench.started(*bench.fit(), "--output", "run", anew=not _AT_ANY_TIME.match(given), environment=variables)
    ended = run.wait().expect(0, 2)
    if ended.code == 0:
        bench.compare(whole, bench.folder / "run")
        return ""
    if contents(bench.folder):
        raise Fault(WRONG, "something was written")
    return ended.refused(2).err.strip()[11:110]


def _bad_pair(row: str, bench: Bench) -> str:
    """It is refused before anything is written, or the other pairs are painted and it is named at the end."""
    bad = {
        "cut": _saved("RGB", "PNG")[:900],
        "one": _saved("RGB", "PNG", (1, 1)),
        "narrow": _saved("RGB", "PNG", (3, 400)),
    }
    for name, data in {
        **bad,
        **{each: (bench.shared / f"{each}.png").read_bytes() for each in ("c1", "c2", "c3", "s")},
    }.items():
        (bench.folder / f"{name}.png").write_bytes(data)
    columns, good = "content,style,style_weight,size,init", ("c1.png,s.png,,,", "c3.png,s.png,,,")
    (bench.folder / "pairs.csv").write_text("\n".join([columns, good[0], row, good[1]]))
    before, whole = contents(bench.folder), bench.undisturbed("four", *bench.fit("c1", "c2", "c3", "c4", steps=60))
    command = [*_without(bench.fit(steps=60), ["--pairs"]), "--pairs", "pairs.csv", "--output", "run"]
    ended = bench.started("fit", *command).wait().expect(0, 1, 2, 3)
    painted = sorted(path.stem for path in bench.folder.glob("run/*.png"))
    last = (ended.err.strip().splitlines() or [""])[-1]
    if ended.code == 0:
        return f"painted: {' '.join(painted)}"
    if contents(bench.folder) == before:
        return ended.refused(2).err.strip()[11:110]
    for name in ("c1_s", "c3_s"):
        if name not in painted:
            raise Fault(LOST, f"{name} is not painted: {last[-120:]}")
        same(whole / f"{name}.png", bench.folder / f"run/{name}.png")
    if row.partition(".")[0] not in ended.err:
        raise Fault(SILENT, f"not named: {last[-120:]}")
    return f"code {ended.code}: {last[-100:]}"
