"""`nst paint`: paints photographs in one pass, by a painter of `nst train`."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nst_lightning import files, runs
from nst_lightning.cli.registry import Parser
from nst_lightning.errors import InputError
from nst_lightning.interruption import importing
from nst_lightning.recipe import digest, portable
from nst_lightning.terminal import say, tell

if TYPE_CHECKING:
    from nst_lightning.painters import Trained

HELP = """
usage: nst paint PHOTOS [--painter FILE] [-o OUTPUT] [options]

Paints photographs of any size in one pass, which takes seconds; nst train makes painters.

  PHOTOS                   files, folders or patterns; a name is also looked up in data/content-images
  --painter FILE           a painter, or a checkpoint of nst train [bundled: the one
                           that comes with this program]
  -o, --output FILE        the picture, or a folder for several [data/output-images/<photo>_<styles>.png]
  --styles NAME=WEIGHT     of a painter of several: their mixture, e.g. dawn=0.3 dusk=0.7 [the first]
  --strength X             how far to go from the photograph, 0, to the painting, 1 [1]
  --size PIXELS            long side, where that is smaller than the photograph's
  --bits 8|16              a channel; 16 as PNG or TIFF [8]
  --accelerator NAME       what to compute on: cpu, gpu, mps, ... [auto]
  --export FILE            writes the painter itself as an .onnx file, checked against its paintings here
  --overwrite              replaces an earlier output; else the new one gets a number

example:
  nst paint photos/ -o painted/ --size 1024
"""


def main(arguments: Sequence[str]) -> int:
    """Paints photographs and prints the pictures' paths; of several, one that cannot be read is left out."""
    parser = parser_of("paint")
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--painter", default="bundled")
    parser.add_argument("--bits", type=int, default=8, choices=[8, 16])
    parser.add_argument("--export", type=Path)
    parser.switch("--overwrite")
    given = parser.parse_intermixed_args(arguments)
    if not given.photographs and given.export is None:
        raise InputError("no photograph was given: nst paint PHOTOS -o OUTPUT")
    photographs = files.find("photographs", given.photographs, files.CONTENT_FOLDER) if given.photographs else []
    with importing():  # not above: a slip is answered before torch could be imported
        from nst_lightning import images
        from nst_lightning.image_files import ImageError
        from nst_lightning.naming import draft, unique
        from nst_lightning.painters.export import export
        from nst_lightning.painters.photographs import device_of, painted_by

    trained, manner = chosen(given.painter, given)
    device = device_of(given.accelerator)
    if given.export is not None:
        tell(export(trained, runs.untaken(given.export, given.overwrite), given.overwrite))
        if not photographs:
            return 0
    of_styles = "_".join(name for name, weight in manner["styles"].items() if weight > 0)
    names = unique([draft(each, of_styles) for each in photographs])
    file = given.output if given.output is not None and given.output.suffix else None
    if file is not None and len(photographs) > 1:
        raise InputError(f"{file}: one file cannot hold {len(photographs)} pictures; name a folder as output")
    folder = runs.FOLDER if given.output is None else given.output
    images.format_of("picture.png" if file is None else file, given.bits)
    images.check_writable(folder if file is None else file.parent)
    failed = 0
    for photograph, name in zip(photographs, names, strict=True):
        wished = folder / f"{name}.png" if file is None else file
        try:
            rgb, alpha = painted_by(trained, photograph, given.size, manner["styles"], given.strength, device)
        except ImageError as error:
            if len(photographs) == 1:
                raise
            say(f"nst: error: {error}")
            failed += 1
            continue
        path = runs.untaken(wished, given.overwrite)
        tell(images.write(path, rgb, alpha, metadata(photograph, manner), given.overwrite, given.bits))
    if failed > 0:
        say(f"nst: {failed} of {len(photographs)} photographs cannot be read and were skipped")
    return 2 if failed > 0 else 0


def parser_of(command: str) -> Parser:
    """Returns the parser of what photographs and films are painted by alike."""
    parser = Parser(command)
    parser.add_argument("photographs", nargs="*")
    parser.add_argument("--styles", nargs="+")
    parser.add_argument("--strength", type=float, default=1.0)
    parser.add_argument("--size", type=int)
    parser.add_argument("--accelerator", default="auto")
    return parser


def chosen(painter: str, given: Namespace) -> tuple[Trained, dict[str, Any]]:
    """Returns a painter, and what pictures say of it and how it paints."""
    from nst_lightning import painters

    weights = None if given.styles is None else dict(map(_weight, ",".join(given.styles).split(",")))
    trained = painters.load(painter)
    mix = dict(zip(trained.styles, trained.mix(weights)[0].tolist(), strict=True))
    file = painters.located(painter)
    told = {"painter": f"{portable(file)} {digest(file)}", "styles": mix, "strength": given.strength}
    return trained, {**told, "trained": {**trained.settings}}


def metadata(content: object, manner: Mapping[str, Any]) -> dict[str, str]:
    """Returns the texts of a picture's file."""
    told = {"content": portable(str(content)), **manner}
    return {"Software": "nst-lightning", "nst_lightning": json.dumps(told)}


def _weight(text: str) -> tuple[str, float]:
    name, _, weight = text.rpartition("=")
    try:
        return name, float(weight)
    except ValueError as error:
        raise InputError(f"styles are given as NAME=WEIGHT, e.g. dawn=0.3 dusk=0.7, got {text!r}") from error
