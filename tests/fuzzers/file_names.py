"""Names of pairs, of images and of outputs."""

from __future__ import annotations

import csv
import io
import json
import os
from contextlib import suppress
from functools import partial
from pathlib import Path

from hypothesis import strategies as st

from nst_lightning import files, images, runs
from nst_lightning.errors import InputError
from nst_lightning.image_files import ImageError
from nst_lightning.pairs import pair_up, read_pairs
from tests.fuzzers.texts import odd


def feed(path: Path) -> None:
    """Names pairs, looks images up and claims outputs, all in the current folder; what one refuses the others try."""
    names, output = json.loads(path.read_bytes())
    _pair_names(names)
    refused = None
    for use in (partial(_listed, names), partial(_looked_up, names), partial(_claimed, output, names)):
        try:
            use()
        except InputError as error:
            refused = error
    if refused is not None:
        raise refused


def _pair_names(names: list[str]) -> None:
    """Files of all names make pairs whose names can all be files side by side."""
    possible = [Path("photos") / name for name in names if _can_be_of_a_file(name)]
    if possible:
        found = [pair.name for pair in pair_up(possible, possible)]
        assert len({name.casefold() for name in found}) == len(possible)
        assert all(len(os.fsencode(runs.Run(Path()).picture(name).name)) <= 255 for name in found)


def _can_be_of_a_file(name: str) -> bool:
    surrogates = any("\ud800" <= each <= "\udfff" and not "\udc80" <= each <= "\udcff" for each in name)
    return not surrogates and not {"/", "\0"} & {*name} and name.strip(".") != ""


def _listed(names: list[str]) -> None:
    Path("photo.png").touch()
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["content", "style", "name"])
    for name in names:
        writer.writerow(["photo.png", "photo.png", name])
    Path("names.csv").write_text(text.getvalue(), encoding="utf-8", errors="surrogatepass", newline="")
    for pair in read_pairs("names.csv"):
        with runs.replacing(runs.Run(Path("run")).picture(pair.name)) as file:
            file.touch()
        runs.Run(Path("run")).picture(pair.name).unlink()


def _looked_up(names: list[str]) -> None:
    for source in files.find("content", names, files.CONTENT_FOLDER):
        images.read(source)


def _claimed(output: str, names: list[str]) -> None:
    if not _can_be_of_a_file(output.replace("/", "").replace("\0", "")):  # nor could it have been typed
        return
    here = str(Path("outputs/a/b/c").absolute()) + "/" + output.lstrip("/")
    with runs.claimed(here if output != "" else output, names, False) as (run, file):
        assert run.folder.is_dir()
        if file is not None:
            with suppress(ImageError):
                images.format_of(file)


_NAME = odd(20) | st.builds("".join, st.lists(odd(4), max_size=3))
_NAMES = st.lists(_NAME, min_size=1, max_size=3)
_END = st.sampled_from(["", "", ".png", ".jpg", "/", "/."])


def inputs() -> st.SearchStrategy[tuple[str, bytes]]:
    """Returns names of pairs, and an output."""
    both = st.builds(lambda names, name, end: json.dumps([names, name + end]).encode(), _NAMES, _NAME, _END)
    return st.tuples(st.just(".json"), both)
