"""The command `nst inspect`: what a network sees in an image, as pictures."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from nst_lightning import runs
from nst_lightning.cli.registry import Parser
from nst_lightning.errors import InputError


def main(arguments: Sequence[str]) -> None:
    """Writes the pictures of `inspection.inspect` and prints their paths.

    Raises:
        InputError: If anything given cannot be used.
    """
    given = _parser().parse_args(arguments)
    from nst_lightning import files, images, inspection  # not above: help needs no torch

    found = files.find("image", given.image, files.CONTENT_FOLDER, files.STYLE_FOLDER)
    if len(found) > 1:
        raise InputError(f"image must be one file, got {len(found)} in {given.image}")
    source = Path(str(found[0]))
    if given.output is not None and Path(given.output).suffix:
        raise InputError(f"output must be a folder, for there are several pictures, got {given.output}")
    settings = {key: getattr(given, key) for key in ("layers", "backbone", "weights", "size")}
    pictures = inspection.inspect(source, **settings, most=given.most)
    metadata = {"Software": "nst-lightning", "nst_lightning": json.dumps({"image": str(source), **settings})}
    with runs.claimed(given.output, [f"{source.stem}_inspect"], overwrite=False) as (run, _):
        for name, picture in pictures.items():
            print(images.write(run.folder / f"{source.stem}_{name}.png", picture, metadata=metadata))


def _parser() -> Parser:
    parser = Parser(
        "inspect",
        usage="nst inspect IMAGE [options]",
        description="Shows what a network sees in an image. For every layer it writes the feature maps as tiles, "
        "<image>_<layer>_features.png, and the Gram matrix, which the style loss compares, as a heat map, "
        "<image>_<layer>_gram.png.",
    )
    for name, kind, default, metavar, text in (
        ("image", str, None, "FILE", "a name is also looked up in data/content-images and data/style-images"),
        ("layers", str, None, "LAYERS", "e.g. relu1_1,relu4_2 [those that nst fit reads]"),
        ("backbone", str, "vgg16", "NAME", "one of nst backbones [vgg16]"),
        ("weights", str, None, "NAME", "oxford (bundled), torchvision (download) or a file [oxford]"),
        ("size", int, 512, "PIXELS", "long side that a larger image is reduced to [512]"),
        ("most", _number_or_all, 16, "N", "how many feature maps to show, the most active ones, or all [16]"),
        ("output", str, None, "FOLDER", f"a new folder [{runs.FOLDER}/<image>_inspect]"),
    ):
        parser.add_argument(f"--{name}", type=kind, default=default, metavar=metavar, help=text)
    return parser


def _number_or_all(text: str) -> int | None:
    try:
        return None if text == "all" else int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"must be a whole number or all, got {text!r}") from error
