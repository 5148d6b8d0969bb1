"""The command `nst score`: pictures of any program against their content and style images."""

from __future__ import annotations

import glob
import re
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from nst_lightning import runs
from nst_lightning.cli.registry import Parser
from nst_lightning.errors import InputError

# What needs torch is imported where it is used: the help is to answer at once.
if TYPE_CHECKING:
    from nst_lightning.images import Source
    from nst_lightning.metrics.scorer import Scorer
    from nst_lightning.pairs import Pair

_ASPECT_TOLERANCE = 0.02


def main(arguments: Sequence[str]) -> None:
    """Scores pictures, prints the table and writes it."""
    _run(_parser().parse_args(arguments))


def names() -> list[str]:
    """Returns the names of scores that can be asked for, as the scores' files declare them, without torch."""
    files = (Path(__file__).parents[1] / "metrics").glob("*.py")
    found = [re.search(r'^    asked = "(\w+)"$', file.read_text(encoding="utf-8"), re.MULTILINE) for file in files]
    return sorted({declared.group(1) for declared in found if declared is not None})


def score(
    output: Source, content: Source, styles: Sequence[Source], scorer: Scorer, style_scale: float = 1.0
) -> dict[str, float]:
    """Returns the scores of one picture by name, NaN where one is undefined.

    The content image is brought to the picture's size, the style images' long sides to `style_scale` times its long
    side, as the run had it.

    Raises:
        InputError: If an image cannot be read, or the content has other proportions than the picture.
    """
    from nst_lightning import images

    picture, photograph = images.read(output).rgb, images.read(content).rgb
    (rows, columns), (height, width) = picture.shape[-2:], photograph.shape[-2:]
    expected = height * columns / width
    if abs(expected / rows - 1) > _ASPECT_TOLERANCE and abs(expected - rows) > 1:
        msg = f"{output}: {columns}x{rows} px, its content image {content} {width}x{height} px: other proportions"
        raise InputError(f"{msg}, so its outlines are elsewhere")
    side = max(1, round(max(rows, columns) * style_scale))
    read = [images.read(style).rgb for style in styles]
    scaled = [images.resize(rgb, images.fit(rgb.shape[-2], rgb.shape[-1], side)).clamp(0, 1) for rgb in read]
    return scorer.scores(picture, scorer.reference(images.resize(photograph, (rows, columns)).clamp(0, 1), scaled))


def _run(given: Namespace) -> None:
    from nst_lightning import images
    from nst_lightning.metrics import table
    from nst_lightning.metrics.scorer import AUTO, Scorer, checked

    if not 0 < given.style_scale < float("inf"):
        msg = f"style_scale must be a finite number above 0, got {given.style_scale}"
        raise InputError(msg)
    choice = AUTO if given.scores == AUTO else checked(given.scores.replace(" ", "").split(","))
    compared = _compared(given)
    results = runs.free(Path(given.results), table.SUFFIXES)
    images.check_writable(results.parent)
    scorer = Scorer(choice)
    rows: list[table.Row] = []
    shown: dict[str, Mapping[str, float]] = {}
    for picture, pair in tqdm(compared, desc="scoring", unit="picture", disable=None if len(compared) > 1 else True):
        values = score(picture, pair.content, pair.styles, scorer, given.style_scale)
        sources = {"content": str(pair.content), "style": "|".join(map(str, pair.styles))}
        rows.append({"output": str(picture), **sources, **values})
        name = Path(str(picture)).stem
        shown[name if name not in shown else str(picture)] = values
    if scorer.missing is not None:
        print(f"nst: {scorer.missing}", file=sys.stderr)
    print(table.text(shown), *table.write(results, rows), sep="\n")


def _compared(given: Namespace) -> list[tuple[Source, Pair]]:
    """Returns the pictures, each with the pair that it is of."""
    from nst_lightning import pairs

    if given.pairs is not None:
        if given.content is not None or given.style is not None:
            msg = f"pairs {given.pairs} names the images already: leave out content and style"
            raise InputError(msg)
        of_list = pairs.read_pairs(given.pairs)
        return [(_of_pair(given.output, pair), pair) for pair in of_list]
    pictures = pairs.find("output", given.output, runs.FOLDER)
    sources = []
    for kind, folder in (("content", pairs.CONTENT_FOLDER), ("style", pairs.STYLE_FOLDER)):
        found = pairs.find(kind, getattr(given, kind), folder)
        if len(found) not in (1, len(pictures)):
            msg = f"{len(pictures)} outputs and {len(found)} {kind} images: as many of both, or one {kind} image"
            raise InputError(msg)
        sources.append(found * len(pictures) if len(found) == 1 else found)
    of_pairs = [pairs.Pair(content, (style,), "") for content, style in zip(*sources, strict=True)]
    return list(zip(pictures, of_pairs, strict=True))


def _of_pair(folders: list[str] | None, pair: Pair) -> Path:
    """Returns the picture of a pair in the folder of a run."""
    from nst_lightning import pairs

    if folders is None or len(folders) != 1 or not Path(folders[0]).is_dir():
        msg = "with pairs, output must be the folder that holds a picture for each, got "
        raise InputError(msg + " ".join(folders or ["none"]))
    run = runs.Run(Path(folders[0]))
    if run.picture(pair.name).is_file():  # by nst fit, beside a film of the same name perhaps
        return run.picture(pair.name)
    matches = pairs.find("output", run.folder / f"{glob.escape(pair.name)}.*", runs.FOLDER)
    found = [path for path in map(Path, map(str, matches)) if path.stem == pair.name]  # not that of pair.b
    if len(found) != 1:
        msg = f"{run.folder}: has {len(found)} pictures called {pair.name}, expected one"
        raise InputError(msg)
    return found[0]


def _parser() -> Parser:
    parser = Parser(
        "score",
        usage="nst score --content FILES --style FILES --output FILES [options]\n"
        "       nst score --pairs CSV --output FOLDER [options]",
        description="Scores pictures, of this program or another: what they keep of the content and take of the style. "
        "Prints a table and writes it as CSV and JSON. FILES are files, folders or patterns: as many of each as there "
        "are outputs, or one content or style image for all.",
    )
    results = str(runs.FOLDER / "scores")
    add = parser.add_argument
    add(
        "--content", nargs="+", metavar="FILES", help="the photographs; a name is also looked up in data/content-images"
    )
    add("--style", nargs="+", metavar="FILES", help="the paintings; a name is also looked up in data/style-images")
    add("--output", nargs="+", metavar="FILES", help=f"the pictures; a name is also looked up in {runs.FOLDER}")
    add("--pairs", metavar="CSV", help="the list that nst fit was given; output is its folder then")
    scale = "the style's long side as a multiple of the picture's, as it was painted [1]"
    add("--style_scale", type=float, default=1.0, metavar="X", help=scale)
    choice = f"auto, which is all that need no download, or some of {', '.join(names())} [auto]"
    add("--scores", default="auto", metavar="NAMES", help=choice)
    add("--results", default=results, metavar="PATH", help=f"PATH.csv and PATH.json are written [{results}]")
    return parser
