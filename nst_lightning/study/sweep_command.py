"""The command `nst sweep`: a figure of a study out of one file."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from nst_lightning.cli.registry import Parser
from nst_lightning.errors import InputError

HELP = """usage: nst sweep FILE [--output FOLDER] [--dry-run] [options of nst fit]

Runs a base configuration with every combination of values of some axes, on every pair, and puts the pictures in a
labelled grid. What is finished is not run again: the same command goes on with a sweep that was broken off.

  FILE                     a YAML file, e.g. configs/figures/initialization.yaml: title, about, base, axes, seeds
  --output FOLDER          [data/output-images/<the file's name>]
  --dry-run                list the runs and their cells, and how long they would take; write nothing
  --overwrite true|false   throw away what a sweep of other settings left in the folder [false]
  other options            replace those of the file's base, e.g. --size 512 or --devices 8 --strategy pair_parallel

The folder gets grid.png, table.md (means with intervals over the pairs), cells.csv, plots/, results.json, which
nst report reads, and runs/ with an ordinary run folder each (TensorBoard: --logdir FOLDER).
"""


def main(arguments: Sequence[str]) -> int:
    """Runs the sweep and returns 0, or 1 where runs failed, each with a line, or it was interrupted."""
    try:
        return _run(arguments)
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on", file=sys.stderr)
        return 1


def _run(arguments: Sequence[str]) -> int:
    parser = Parser("sweep", "--output")
    parser.add_argument("file", nargs="?")
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--overwrite", choices=["true", "false"], default="false")
    given, rest = parser.parse_known_args(arguments)
    if given.file is None:
        msg = "no file was given; name one, e.g. one of configs/figures"
        raise InputError(msg)
    overrides = _overrides(rest)

    from nst_lightning.study import sweeps

    folder = sweeps.folder_of(Path(given.file), given.output)
    if given.dry_run:
        sweeps.describe(Path(given.file), folder, overrides)
        return 0
    began = time.monotonic()
    results = sweeps.sweep(given.file, folder, given.overwrite == "true", **overrides)
    for name in sweeps.FILES:
        print(folder / name)
    print(f"{len(results.cells)} cells, {time.monotonic() - began:.0f} s", file=sys.stderr)
    for name, reason in results.failed.items():
        print(f"nst: error: {name} was not run: {reason}", file=sys.stderr)
    return 1 if results.failed else 0


def _overrides(arguments: Sequence[str]) -> dict[str, str]:
    """Returns options given as `--name value` or `--name=value`."""
    overrides: dict[str, str] = {}
    left = list(arguments)
    while left:
        name, equals, value = left.pop(0).partition("=")
        if not name.startswith("--"):
            msg = f"unexpected {name!r}; options are given as --name value"
            raise InputError(msg)
        if not equals and not left:
            msg = f"{name} needs a value"
            raise InputError(msg)
        overrides[name[2:]] = value if equals else left.pop(0)
    return overrides
