"""The command `nst sweep`: a figure of a study out of one file."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from nst_lightning.cli.registry import Parser
from nst_lightning.errors import InputError
from nst_lightning.study import sweeps
from nst_lightning.terminal import say

HELP = """usage: nst sweep FILE [--output FOLDER] [--dry-run] [options of nst fit]

Runs a base configuration with every combination of values of some axes, on every pair, and puts the pictures in a
labelled grid. What is finished is not run again: the same command goes on with a sweep that was broken off.

  FILE                     a YAML file, e.g. configs/figures/initialization.yaml: title, about, base, axes, seeds
  --output FOLDER          [data/output-images/<the file's name>]
  --dry-run                list the runs and their cells, and how long they would take; write nothing
  --overwrite              throw away what a sweep of other settings left in the folder [false]
  other options            replace those of the file's base, e.g. --size 512 or --devices 8 --strategy pair_parallel

The folder gets grid.png, table.md (means with intervals over the pairs), cells.csv, plots/, results.json, which
nst report reads, and runs/ with an ordinary run folder each (TensorBoard: --logdir FOLDER). What the figure calls B3,
nst fit --from FOLDER:B3 --size 2048 goes on with.
"""


def main(arguments: Sequence[str]) -> int:
    """Runs a sweep and prints its files; returns 1 where runs failed, each with a line."""
    parser = Parser("sweep", "--output")
    parser.add_argument("file", nargs="?")
    parser.switch("--dry_run")
    parser.switch("--overwrite")
    given, rest = parser.parse_known_args(arguments)
    if given.file is None:
        raise InputError("no file was given; name one, e.g. one of configs/figures")
    overrides = _overrides(rest)
    folder = sweeps.folder_of(Path(given.file), given.output)
    if given.dry_run:
        sweeps.describe(Path(given.file), folder, overrides)
        return 0
    began = time.monotonic()
    results = sweeps.sweep(given.file, folder, given.overwrite, **overrides)
    for name in sweeps.FILES:
        print(folder / name)
    say(f"{len(results.cells)} cells, {time.monotonic() - began:.0f} s")
    for name, reason in results.failed.items():
        say(f"nst: error: {name} was not run: {reason}")
    return 1 if results.failed else 0


def _overrides(arguments: Sequence[str]) -> dict[str, str]:
    """Returns options given as `--name value` or `--name=value`."""
    overrides: dict[str, str] = {}
    left = iter(arguments)
    for argument in left:
        name, equals, value = argument.partition("=")
        if not name.startswith("--"):
            raise InputError(f"unexpected {name!r}; options are given as --name value")
        following = value if equals else next(left, None)
        if following is None:
            raise InputError(f"{name} needs a value")
        overrides[name[2:]] = following
    return overrides
