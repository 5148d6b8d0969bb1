"""`nst strengths`: what the strengths from 0 to 1 make of a pair, small and in a row."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from nst_lightning import figures, images, runs
from nst_lightning.api import painted, quiet
from nst_lightning.cli.arguments import read
from nst_lightning.cli.configuration import Configuration
from nst_lightning.errors import InputError
from nst_lightning.modules import StyleTransfer

HELP = """
usage: nst strengths PHOTO PAINTING [-o OUT] [options of nst fit]

Paints a pair at five strengths, from the photograph at 0 to the painting at 1, small and together, and puts the
pictures in a row, each with its strength and the style weight that was found for it, for nst fit --strength.

  -o, --output FILE        the row [data/output-images/<pair>_strengths.png]
  --size PIXELS, --steps N of each picture [192, 30]

example:
  nst strengths photo.jpg painting.jpg -o strengths.png
"""

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)


def main(arguments: Sequence[str]) -> None:
    """Paints the five as one batch, and writes the row."""
    given = read(arguments)
    if given.values("data.strength") is not None:
        raise InputError("nst strengths paints the strengths from 0 to 1: leave out strength")
    with quiet():
        configuration = Configuration(given, StyleTransfer, {"data.size": 192, "data.steps": 30, "data.batch_size": 5})
        module, data, settings = configuration.make()
        if len(data.pairs) > 1:
            raise InputError(f"nst strengths paints one pair, got {len(data.pairs)}")
        (pair,), values = data.pairs, configuration.values
        wished = runs.FOLDER / f"{pair.name}_strengths.png" if values.output is None else Path(values.output)
        images.format_of(wished)
        images.check_writable(wished.parent)
        others = {group: weight for group, weight in pair.weights.items() if group != "style"}
        data.pairs = tuple(
            replace(pair, name=f"strength {each:g}", weights=others, strength=each) for each in STRENGTHS
        )
        made = painted(module, data, settings["enable_progress_bar"] is not False, settings["accelerator"])
    labels = [f"{each.name} style_weight {each.weights['style']:g}" for each, _ in made]
    row = figures.grid([[each for _, each in made]], [""], labels, pair.name, "", width=made[0][1].width)
    file = runs.untaken(wished, values.overwrite)
    print(images.write(file, images.read(row).rgb, overwrite=values.overwrite))
