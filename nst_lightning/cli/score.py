"""The command `nst score`: pictures of any program against their content and style images."""

from __future__ import annotations

import glob
import sys
from argparse import ArgumentError, HelpFormatter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser
from tqdm import tqdm

from nst_lightning import images, pairs, runs
from nst_lightning.errors import InputError, refused
from nst_lightning.metrics import table
from nst_lightning.metrics.scorer import AUTO, NAMES, Choice, Scorer, checked
from nst_lightning.pairs import Pair

_ASPECT_TOLERANCE = 0.02


def main(arguments: Sequence[str]) -> int:
    """Runs `nst score`: prints a table of scores and writes them as CSV and JSON.

    Args:
        arguments: The options, without the command.

    Returns:
        The exit code: 0, or 2 after one line on what cannot be used.
    """
    try:
        _run(_parser().parse_args(list(arguments)))
    except (InputError, ArgumentError) as error:
        return refused(error)
    return 0


def score(
    output: images.Source,
    content: images.Source,
    styles: Sequence[images.Source],
    scorer: Scorer,
    style_scale: float = 1.0,
) -> dict[str, float]:
    """Returns the scores of one picture by name, NaN where one is undefined.

    Args:
        output: The picture.
        content: Its content image, which is brought to the picture's size.
        styles: Its style images, one or more.
        scorer: What scores it.
        style_scale: The style's long side as a multiple of the picture's, as the run had it.

    Raises:
        InputError: If an image cannot be read, or the content has other proportions than the picture.
    """
    picture = images.read(output).rgb
    size = (picture.shape[-2], picture.shape[-1])
    of_content = images.read(content)
    height, width = of_content.rgb.shape[-2:]
    if (
        abs(height * size[1] / (width * size[0]) - 1) > _ASPECT_TOLERANCE
        and abs(height * size[1] / width - size[0]) > 1
    ):
        msg = (
            f"{output}: {size[1]}x{size[0]} px, its content image {content} {width}x{height} px: "
            "other proportions, so its outlines are elsewhere"
        )
        raise InputError(msg)
    side = max(1, round(max(size) * style_scale))
    read = [images.read(style).rgb for style in styles]
    scaled = [images.resize(rgb, images.fit(rgb.shape[-2], rgb.shape[-1], side)).clamp(0, 1) for rgb in read]
    return scorer.scores(picture, scorer.reference(images.resize(of_content.rgb, size).clamp(0, 1), scaled))


def _run(given: Any) -> None:  # noqa: ANN401 - a namespace
    if not 0 < given.style_scale < float("inf"):
        msg = f"style_scale must be a finite number above 0, got {given.style_scale}"
        raise InputError(msg)
    choice: Choice = AUTO if given.scores == AUTO else checked(given.scores.replace(" ", "").split(","))
    compared = _compared(given)
    results = runs.free(Path(runs.FOLDER / "scores" if given.results is None else given.results), table.SUFFIXES)
    images.check_writable(results.parent)
    scorer = Scorer(choice)
    rows: list[table.Row] = []
    shown: dict[str, Mapping[str, float]] = {}
    for picture, pair in tqdm(compared, desc="scoring", unit="picture", disable=None if len(compared) > 1 else True):
        values = score(picture, pair.content, pair.styles, scorer, given.style_scale)
        names = {"output": str(picture), "content": str(pair.content), "style": "|".join(map(str, pair.styles))}
        rows.append({**names, **values})
        shown[_shown(picture, shown)] = values
    if scorer.missing is not None:
        print(f"nst: {scorer.missing}", file=sys.stderr)
    print(table.text(shown))
    for path in table.write(results, rows):
        print(path)


def _compared(given: Any) -> list[tuple[images.Source, Pair]]:  # noqa: ANN401 - a namespace
    """Returns the pictures, each with the pair that it is of."""
    if given.pairs is not None:
        if given.content is not None or given.style is not None:
            msg = f"pairs {given.pairs} names the images already: leave out content and style"
            raise InputError(msg)
        return [(_of_pair(given.output, pair), pair) for pair in pairs.read_pairs(given.pairs)]
    found = [pairs.find("output", given.output, runs.FOLDER)]
    for argument, folder in (("content", pairs.CONTENT_FOLDER), ("style", pairs.STYLE_FOLDER)):
        found.append(pairs.find(argument, getattr(given, argument), folder))
    pictures, contents, styles = found
    for argument, those in (("content", contents), ("style", styles)):
        if len(those) not in (1, len(pictures)):
            msg = (
                f"{len(pictures)} outputs and {len(those)} {argument} images: as many of both, or one {argument} image"
            )
            raise InputError(msg)
    many = [those * len(pictures) if len(those) == 1 else those for those in (contents, styles)]
    return [(picture, Pair(content, (style,), "")) for picture, content, style in zip(pictures, *many, strict=True)]


def _of_pair(folders: list[str] | None, pair: Pair) -> Path:
    """Returns the picture of a pair in the folder of a run."""
    if folders is None or len(folders) != 1 or not Path(folders[0]).is_dir():
        msg = (
            f"with pairs, output must be the folder that holds a picture for each, got {' '.join(folders or ['none'])}"
        )
        raise InputError(msg)
    folder = Path(folders[0])
    written = folder / f"{pair.name}.png"
    if written.is_file():  # by nst fit, beside a film of the same name perhaps
        return written
    matches = [Path(str(path)) for path in pairs.find("output", folder / f"{glob.escape(pair.name)}.*", runs.FOLDER)]
    found = [path for path in matches if path.stem == pair.name]  # not that of pair.b
    if len(found) != 1:
        msg = f"{folder}: has {len(found)} pictures called {pair.name}, expected one"
        raise InputError(msg)
    return found[0]


def _shown(picture: images.Source, taken: Collection[str]) -> str:
    """Returns what a picture is called in the table: its name, or its path where that is another's name too."""
    name = Path(str(picture)).stem
    return str(picture) if name in taken else name


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="nst score",
        usage="nst score --content FILES --style FILES --output FILES [options]\n"
        "       nst score --pairs CSV --output FOLDER [options]",
        description="Scores pictures, of this program or another: do they keep the outlines of the content, do they "
        "take the palette and the texture of the style, do outlines of the style leak into them. Prints a table and "
        "writes it as CSV and JSON. FILES are files, folders or patterns: as many of each as there are outputs, or "
        "one content or style image for all.",
        formatter_class=HelpFormatter,  # jsonargparse's own shows Python types
        exit_on_error=False,
        allow_abbrev=False,
    )
    for name, metavar, text in (
        ("content", "FILES", f"the photographs; a name is also looked up in {pairs.CONTENT_FOLDER}"),
        ("style", "FILES", f"the paintings; a name is also looked up in {pairs.STYLE_FOLDER}"),
        ("output", "FILES", f"the pictures; a name is also looked up in {runs.FOLDER}"),
    ):
        parser.add_argument(f"--{name}", nargs="+", default=None, metavar=metavar, help=text)
    scores = f"auto, or some of {', '.join(NAMES)}; auto is all but features, and LPIPS if its network is there [auto]"
    for name, kind, default, metavar, text in (
        ("pairs", str | None, None, "CSV", "the list that nst fit was given; output is its folder then"),
        ("style_scale", float, 1.0, "X", "the style's long side as a multiple of the picture's, as it was painted [1]"),
        ("scores", str, AUTO, "NAMES", scores),
        ("results", str | None, None, "PATH", f"PATH.csv and PATH.json are written [{runs.FOLDER}/scores]"),
    ):
        parser.add_argument(f"--{name}", type=kind, default=default, metavar=metavar, help=text)
    return parser
