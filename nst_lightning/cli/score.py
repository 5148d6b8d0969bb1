"""The command `nst score`: pictures of any program against their content and style images."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from nst_lightning import runs
from nst_lightning.cli.options import score_names
from nst_lightning.cli.registry import Parser
from nst_lightning.errors import InputError

# What needs torch is imported where it is used: the help is to answer at once.
if TYPE_CHECKING:
    from nst_lightning.images import Source
    from nst_lightning.metrics.scorer import Scorer
    from nst_lightning.pairs import Pair

_ASPECT_TOLERANCE = 0.02


def main(arguments: Sequence[str]) -> None:
    """Scores the pictures that the options name, prints the table, and writes it."""
    given = _parser().parse_args(arguments)
    from nst_lightning import images
    from nst_lightning.metrics import table
    from nst_lightning.metrics.scorer import AUTO, Scorer, checked

    if not 0 < given.style_scale < float("inf"):
        raise InputError(f"style_scale must be a finite number above 0, got {given.style_scale}")
    choice = AUTO if given.scores == AUTO else checked(given.scores.replace(" ", "").split(","))
    compared = _compared(given)
    results = runs.free(Path(given.results), table.SUFFIXES)
    images.check_writable(results.parent)
    scorer = Scorer(choice)
    rows: list[table.Row] = []
    shown = {}
    for picture, pair in tqdm(compared, desc="scoring", unit="picture", disable=None if len(compared) > 1 else True):
        values = score(picture, pair.content, pair.styles, scorer, given.style_scale)
        sources = {"content": str(pair.content), "style": "|".join(map(str, pair.styles))}
        rows.append({"output": str(picture), **sources, **values})
        name = Path(str(picture)).stem
        shown[name if name not in shown else str(picture)] = values
    if scorer.missing is not None:
        print(f"nst: {scorer.missing}", file=sys.stderr)
    print(table.text(shown), *table.write(results, rows), sep="\n")


def score(
    output: Source, content: Source, styles: Sequence[Source], scorer: Scorer, style_scale: float = 1.0
) -> dict[str, float]:
    """Returns the scores of one picture by name, NaN where one is undefined.

    The content gets its size, styles `style_scale` times its long side; an InputError where the proportions differ.
    """
    from nst_lightning import images
    from nst_lightning.cards import is_card

    picture, photograph = images.read(output).rgb, images.read(content).rgb
    (rows, columns), (height, width) = picture.shape[-2:], photograph.shape[-2:]
    expected = height * columns / width
    if abs(expected / rows - 1) > _ASPECT_TOLERANCE and abs(expected - rows) > 1:
        msg = f"{output}: {columns}x{rows} px, its content image {content} {width}x{height} px: other proportions"
        raise InputError(f"{msg}, so its outlines are elsewhere")
    for style in filter(is_card, styles):
        raise InputError(f"{style}: a style card holds no painting to score against")
    side = max(1, round(max(rows, columns) * style_scale))
    read = [images.read(style).rgb for style in styles]
    scaled = [images.resize(rgb, images.fit(rgb.shape[-2], rgb.shape[-1], side)).clamp(0, 1) for rgb in read]
    return scorer.scores(picture, scorer.reference(images.resize(photograph, (rows, columns)).clamp(0, 1), scaled))


def _compared(given: Namespace) -> list[tuple[Source, Pair]]:
    """Returns the pictures, each with the pair that it is of."""
    from nst_lightning import files, pairs

    if given.pairs is not None:
        of_list = pairs.chosen(given.content, given.style, listed=given.pairs)
        return [(_of_pair(given.output, pair), pair) for pair in of_list]
    pictures = files.find("output", given.output, runs.FOLDER)
    chosen = pairs.chosen(given.content, given.style)
    if len(chosen) not in (1, len(pictures)):
        counts = f"{len(pictures)} outputs and {len(chosen)} pairs of content and style image"
        raise InputError(f"{counts}: as many of both, or one pair")
    return list(zip(pictures, chosen if len(chosen) > 1 else chosen * len(pictures), strict=True))


def _of_pair(folders: list[str] | None, pair: Pair) -> Path:
    """Returns the picture of a pair in the folder of a run."""
    if folders is None or len(folders) != 1 or not Path(folders[0]).is_dir():
        given = " ".join(folders or ["none"])
        raise InputError(f"with pairs, output must be the folder that holds a picture for each, got {given}")
    run = runs.Run(Path(folders[0]))
    if run.picture(pair.name).is_file():  # by nst fit, beside a film of the same name perhaps
        return run.picture(pair.name)
    found = [path for path in run.folder.iterdir() if path.is_file() and path.stem == pair.name]
    if len(found) != 1:
        raise InputError(f"{run.folder}: has {len(found)} pictures called {pair.name}, expected one")
    return found[0]


def _parser() -> Parser:
    parser = Parser(
        "score",
        usage="nst score PICTURES --content FILES --style FILES [options]\n"
        "       nst score FOLDER --pairs CSV [options]",
        description="Scores pictures, of this program or another: what they keep of the content and take of the style. "
        "Prints a table and writes it as CSV and JSON. FILES are files, folders or patterns: as many of each as there "
        "are outputs, or one content or style image for all.",
    )
    several, looked_up = {"nargs": "+"}, "a name is also looked up in"
    results = str(runs.FOLDER / "scores")
    choice = f"auto (all that need no download), or some of {','.join(score_names())} [auto]"
    options: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
        ("content", "FILES", f"the photographs; {looked_up} data/content-images", several),
        ("style", "FILES", f"the paintings; {looked_up} data/style-images", several),
        ("output", "FILES", f"the pictures; {looked_up} {runs.FOLDER}", several),
        ("pairs", "CSV", "the list that nst fit was given; output is its folder then", {}),
        ("style_scale", "X", "the style's long side in those of the picture [1]", {"type": float, "default": 1.0}),
        ("scores", "NAMES", choice, {"default": "auto"}),
        ("results", "PATH", f"PATH.csv and PATH.json are written [{results}]", {"default": results}),
    )
    for name, metavar, text, settings in options:
        parser.add_argument(f"--{name}", metavar=metavar, help=text, **settings)
    return parser
