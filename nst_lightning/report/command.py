"""The command `nst report`: results on disk as one page of HTML."""

from __future__ import annotations

import datetime
from argparse import ArgumentError, HelpFormatter
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from nst_lightning import findings, images, runs
from nst_lightning.errors import InputError, refused
from nst_lightning.report import page, sources

SUFFIXES = (".html", ".htm")


def main(arguments: Sequence[str]) -> int:
    """Runs `nst report`: writes the page and prints its path.

    Args:
        arguments: The options, without the command.

    Returns:
        The exit code: 0, or 2 after one line on what cannot be used.
    """
    try:
        given = _parser().parse_args(list(arguments))
        if given.predictions is not None:
            for path in check(given.predictions, given.folder, given.overwrite):
                print(path)
        print(write(given.folder, given.output, given.width, given.overwrite))
    except (InputError, ArgumentError) as error:
        return refused(error)
    return 0


def check(predictions: str | Path, folder: str | Path, overwrite: bool = False) -> tuple[Path, Path]:
    """Checks predictions about the sweeps in a folder, and returns where the findings are: a table and what a page has.

    Args:
        predictions: A file of predictions, see `findings.read_predictions`.
        folder: The folder that holds the sweeps; findings.md and findings.json are written there.
        overwrite: Whether findings of other predictions, or of other results, may be replaced.

    Raises:
        InputError: If a file cannot be read, or findings that differ are there already.
    """
    found = findings.check(findings.read_predictions(Path(predictions)), folder)
    texts = {"findings.md": findings.as_markdown(found), sources.FINDINGS: findings.as_json(found)}
    images.check_writable(folder)
    for name, text in texts.items():
        path = Path(folder) / name
        if path.is_file() and not overwrite and path.read_text(encoding="utf-8") != text:
            msg = f"{path}: holds other findings; say --overwrite true to replace them"
            raise InputError(msg)
        path.write_text(text, encoding="utf-8")
    table, plain = (Path(folder) / name for name in texts)
    return table, plain


def write(
    folder: str | Path, output: str | Path | None = None, width: int = page.SMALL, overwrite: bool = False
) -> Path:
    """Writes the page about a folder of results, and returns its path.

    Args:
        folder: The folder of a sweep, of several sweeps or of a run.
        output: The file; None for report.html in the folder. A name that is taken gets a number.
        width: Long side in pixels of a picture in a grid, at least `images.MIN_SIDE`.
        overwrite: Whether the file may be replaced instead.

    Raises:
        InputError: If the results cannot be read or the page cannot be written.
    """
    if not images.MIN_SIDE <= width <= images.MAX_SIDE:
        msg = f"width must be {images.MIN_SIDE} to {images.MAX_SIDE} pixels, got {width}"
        raise InputError(msg)
    target = Path(folder) / "report.html" if output is None else Path(output)
    if target.suffix.lower() not in SUFFIXES:
        msg = f"output must end with {' or '.join(SUFFIXES)}, got {target}"
        raise InputError(msg)
    if target.is_dir():
        msg = f"output {target} is a folder; name a file"
        raise InputError(msg)
    made = f"nst-lightning {version('nst-lightning')}, {datetime.date.today().isoformat()}"
    text = page.render(sources.read(Path(folder), made), width)
    images.check_writable(target.parent)
    if not overwrite:
        free = runs.free(target.with_suffix(""), [target.suffix])
        target = free.with_name(free.name + target.suffix)
    try:
        with target.open("w" if overwrite else "x", encoding="utf-8") as stream:
            stream.write(text)
    except OSError as error:
        msg = f"{target}: cannot be written ({error.strerror})"
        raise InputError(msg) from error
    return target


def _parser() -> Any:  # noqa: ANN401 - jsonargparse has no types
    parser = ArgumentParser(
        prog="nst report",
        usage="nst report FOLDER [options]",
        description="Makes one page of HTML about the results in a folder, with all pictures in it: the folder of a "
        "sweep (it has results.json), one that holds the folders of several sweeps, or that of a run of nst fit (it "
        "has config.yaml). The page needs no network and no other file.",
        formatter_class=HelpFormatter,  # jsonargparse's own shows Python types
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_argument("folder", type=str, metavar="FOLDER", help="where the results are")
    for name, kind, default, metavar, text in (
        ("predictions", str | None, None, "FILE", "check these on the sweeps, e.g. configs/figures/predictions.yaml"),
        ("output", str | None, None, "FILE", "the page; an earlier one is kept [FOLDER/report.html]"),
        ("width", int, page.SMALL, "PIXELS", f"long side of a picture before it is enlarged [{page.SMALL}]"),
        ("overwrite", bool, False, "true|false", "whether an earlier page of that name may be replaced [false]"),
    ):
        parser.add_argument(f"--{name}", type=kind, default=default, metavar=metavar, help=text)
    return parser
