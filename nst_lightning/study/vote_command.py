"""The command `nst vote`: a page that asks which of two pictures is better, and the count of what was answered."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

from nst_lightning import files, images, runs
from nst_lightning.cli.registry import Parser
from nst_lightning.errors import InputError
from nst_lightning.study import page, votes

HELP = """usage: nst vote FOLDER FOLDER [FOLDER ...] [options]
       nst vote --count CSV [CSV ...] --key FILE

Makes one page of HTML that shows two pictures of a pair side by side, without their methods' names, and asks which is
better; it needs no network and no other file. Who has answered saves votes.csv. Then counts such files: how good each
method is by the model of Bradley and Terry, with intervals.

  FOLDER                   the pictures of a method, as nst fit --output FOLDER writes them; pictures of the same name
                           in two or more folders are compared
  --content FOLDER         the photographs, by the same names, to be shown above
  --style FOLDER           the paintings, likewise
  --output FILE            the page; which method is which is written beside it, to <page>_key.json [vote.html]
  --width PIXELS           long side of its pictures [512]
  --overwrite              whether an earlier page of that name may be replaced [false]
  --count CSV [CSV ...]    files of votes
  --key FILE               the page's key
"""


def main(arguments: Sequence[str]) -> None:
    """Writes the page and its key and prints their paths, or counts votes and prints the table."""
    parser = Parser("vote", "--content", "--style", "--key")
    parser.add_argument("folders", nargs="*")
    parser.add_argument("--output", default="vote.html")
    parser.add_argument("--count", nargs="+")
    parser.add_argument("--width", type=int, default=512)
    parser.switch("--overwrite")
    given = parser.parse_args(arguments)
    if given.count is None:
        sources = [Path(folder) for folder in (given.content, given.style) if folder is not None]
        folders = [Path(folder) for folder in given.folders]
        for path in write(folders, sources, Path(given.output), given.width, given.overwrite):
            print(path)
    elif given.key is None:
        raise InputError("count needs key, the file that nst vote wrote beside its page")
    else:
        print(votes.table(votes.read([Path(file) for file in given.count], _key(Path(given.key)))))


def write(
    folders: Sequence[Path], sources: Sequence[Path], output: Path, width: int, overwrite: bool = False
) -> tuple[Path, Path]:
    """Writes a page about pictures of equal names in the folders, and its key; returns their paths.

    Raises:
        InputError: If there is nothing to compare, a picture cannot be read, or a path cannot be written.
    """
    page.check(output, width)
    key_file = output.with_name(f"{output.stem}_key.json")
    for path in (output, key_file):
        if path.exists() and not overwrite:
            raise InputError(
                f"{path}: is there already, and votes may belong to it; say --overwrite true to replace it"
            )
    images.check_writable(output.parent)
    methods = _named(folders)
    found = {name: _pictures(folder) for name, folder in methods.items()}
    ids = [f"m{number}" for number in range(len(methods))]
    random.SystemRandom().shuffle(ids)
    key = dict(zip(ids, methods, strict=True))
    stems = sorted({stem for each in found.values() for stem in each})
    pictures = {
        pair: {
            one: page.encoded(str(found[key[one]][pair]), "", width)["src"]
            for one in sorted(ids)
            if pair in found[key[one]]
        }
        for pair in stems
        if sum(pair in each for each in found.values()) > 1
    }
    if not pictures:
        counts = ", ".join(f"{folder} has {len(found[name])}" for name, folder in methods.items())
        raise InputError(f"no two folders have pictures of the same name: {counts}")
    shown = [_pictures(folder) for folder in sources]
    above = {
        pair: [page.encoded(str(each[pair]), "", width // 2)["src"] for each in shown if pair in each]
        for pair in pictures
    }
    text = page.template("vote.html").render(pictures=pictures, sources=above, columns=votes.COLUMNS)
    with runs.replacing(output) as written:
        written.write_text(text, encoding="utf-8")
    key_file.write_text(json.dumps(key, indent=1) + "\n", encoding="utf-8")
    return output, key_file


def _named(folders: Sequence[Path]) -> dict[str, Path]:
    """Returns the folders by their own names, or as they were given where two are called alike."""
    if len(folders) < 2:
        raise InputError(f"name two folders or more, each with the pictures of a method, got {len(folders)}")
    alike = len({folder.resolve().name for folder in folders}) < len(folders)
    named = {str(folder) if alike else folder.resolve().name: folder for folder in folders}
    if len(named) < len(folders):
        raise InputError("a folder was given twice")
    return named


def _pictures(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such folder")
    return {file.stem: file for file in (Path(str(found)) for found in files.find("folder", str(folder)))}


def _key(file: Path) -> dict[str, str]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: the key cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise InputError(f"{file}: is not the key of a page of nst vote")
    return {str(one): str(name) for one, name in found.items()}
