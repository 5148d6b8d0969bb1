"""`nst reproduce`: makes a picture again from what its file says of it."""

import os
from collections.abc import Sequence
from pathlib import Path

from nst_lightning import recipe
from nst_lightning.cli import arguments as typed
from nst_lightning.cli import fit
from nst_lightning.cli.registry import Parser
from nst_lightning.errors import InputError

_MASKS = ("--content_mask", "--style_mask")
HELP = """
usage: nst reproduce PICTURE [-o OUT] [options of nst fit]

Makes a picture of nst fit again, from the settings in its file and the images that it names: the same file, where the
same versions run on the same kind of machine. Options change a setting. No code that the picture names is run, see
--safe of nst fit.

  PICTURE                  a finished picture, PNG, JPEG, WebP or TIFF, as it was written
  --content, --style FILE  where the photograph and the paintings are now, if they were moved
  --content_mask, --style_mask FILE  where the masks are
  -o, --output             as in nst fit [data/output-images/<pair>]

example:
  nst reproduce picture.png -o again.png
"""


def main(arguments: Sequence[str]) -> None:
    """Paints the picture again, and says whether it is the same."""
    given, rest = Parser("reproduce", "--picture", "--content", "--style", *_MASKS).parse_known_args(arguments)
    if given.picture is None:
        raise InputError("no picture was given: nst reproduce PICTURE")
    sums = recipe.read(given.picture).sums
    settings = typed.read(["--config", given.picture, "--safe", *rest])
    (row,) = next(each["data"]["pairs"] for each in settings.configurations if "pairs" in each.get("data", {}))
    row |= {name: _found(row[name]) if named is None else named for name, named in vars(given).items() if name in row}
    (made,) = fit.paint(settings, sums)

    from nst_lightning import images  # not above: a slip is answered before torch could be imported

    before, now = (images.read(file).rgb for file in (given.picture, made))
    if before.shape != now.shape:
        print(f"{made}: of another size than {given.picture}")
    elif furthest := round(float((before - now).abs().max()) * 255):
        print(f"{made}: its pixels differ from {given.picture} by {furthest} of 255 at most")
    else:
        print(f"{made}: the same pixels as {given.picture}")


def _found(cell: object) -> str:
    """Returns the names of images, alone where there is no such file: elsewhere it may be here, or a sample."""
    names = str(cell).split("|")
    return "|".join(name if os.path.isfile(os.path.expanduser(name)) else Path(name).name for name in names)
