"""The command `nst report`: results on disk as one page of HTML."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path

from nst_lightning import __version__, images, runs
from nst_lightning.cli.registry import Parser
from nst_lightning.errors import InputError
from nst_lightning.study import page, report, schema, verdicts
from nst_lightning.study.predictions import read_predictions

HELP = """usage: nst report FOLDER [options]

Makes one page of HTML about the results in a folder, with all pictures in it: the folder of a sweep (it has
results.json), one that holds the folders of several sweeps, or that of a run of nst fit (it has config.yaml). The page
needs no network and no other file.

  FOLDER                   where the results are
  --predictions FILE       check these on the sweeps, e.g. configs/figures/predictions.yaml
  --output FILE            the page; an earlier one is kept [FOLDER/report.html]
  --width PIXELS           long side of its pictures [768]
  --overwrite              whether an earlier page of that name may be replaced [false]
"""


def main(arguments: Sequence[str]) -> None:
    """Checks predictions where some are given, writes the page, and prints the paths."""
    parser = Parser("report", "--predictions", "--output")
    parser.add_argument("folder", nargs="?")
    parser.add_argument("--width", type=int, default=page.SIDE)
    parser.switch("--overwrite")
    given = parser.parse_args(arguments)
    if given.folder is None:
        raise InputError("no folder was given; name one of results")
    if given.predictions is not None:
        for path in check(given.predictions, given.folder, given.overwrite):
            print(path)
    print(write(given.folder, given.output, given.width, given.overwrite))


def check(predictions: str | Path, folder: str | Path, overwrite: bool = False) -> tuple[Path, Path]:
    """Checks predictions about the sweeps in a folder, and writes findings.md and findings.json there.

    Raises:
        InputError: If a file cannot be read, or findings that differ are there already and may not be replaced.
    """
    found = verdicts.check(read_predictions(predictions), folder)
    table, plain = Path(folder) / "findings.md", Path(folder) / verdicts.FILE
    images.check_writable(folder)
    for path, text in ((table, verdicts.as_markdown(found)), (plain, schema.as_json(verdicts.Findings(found)))):
        if path.is_file() and not overwrite and path.read_text(encoding="utf-8") != text:
            raise InputError(f"{path}: holds other findings; say --overwrite true to replace them")
        path.write_text(text, encoding="utf-8")
    return table, plain


def write(
    folder: str | Path, output: str | Path | None = None, width: int = page.SIDE, overwrite: bool = False
) -> Path:
    """Writes the page about a folder of results, by default to report.html in it, and returns its path.

    A name that is taken gets a number, unless it may be overwritten; the pictures have a width in pixels.

    Raises:
        InputError: If the results cannot be read or the page cannot be written.
    """
    target = Path(folder) / "report.html" if output is None else Path(output)
    page.check(target, width)
    made = f"Made by nst-lightning {__version__}, {datetime.date.today().isoformat()}."
    text = page.render(report.read(Path(folder)), made, width)
    images.check_writable(target.parent)
    target = runs.untaken(target, overwrite)
    with runs.replacing(target) as written:
        written.write_text(text, encoding="utf-8")
    return target
