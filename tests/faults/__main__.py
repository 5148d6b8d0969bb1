"""Breaks the program on purpose, cell by cell, and prints a table of what became of it: `python -m tests.faults`."""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import sys
import tempfile
from collections import Counter
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # before torch is imported

from tests.faults.bench import OK, Cell, outcome
from tests.faults.matrix import cells, prepared

_HEAD = """# Fault matrix

The program, broken on purpose: each cell starts `nst fit`, breaks it, and looks at what is left. `ok` is an ending as
documented, and where the run was to go on, `--resume` gave the very pixels of the undisturbed run. `LOST`: finished
work or a checkpoint is gone. `SILENT`: code 0 and a wrong or unfinished result. `TRACEBACK`, `HANG`: what they say.
`WRONG`: another code, line or file than documented. Cells of signals, ranks, outputs and memory, and some of the
environment, start the program anew, the others fork it from a process that has imported it. All of it, where mounting
is allowed (as root): `python -m tests.faults --to tests/faults/README.md`; a few cells run with the tests.
"""


def work(chosen: list[Cell], todo: int, results: Path, shared: Path, seed: int, timing: tuple[float, float]) -> None:
    """Takes cells by their numbers from a pipe that all workers share, until there is none."""
    with results.open("a", encoding="utf-8") as file:
        while number := os.read(todo, 4):
            found = outcome(chosen[int.from_bytes(number, "big")], shared, seed, timing)
            file.write(json.dumps(found) + "\n")
            file.flush()
            line = f"{found['verdict']:<10}{found['kind']}: {found['name']}  {found['note']}"
            print(line.encode("ascii", "backslashreplace").decode(), f"({found['s']} s)", flush=True)


def kept(results: Path) -> list[dict[str, Any]]:
    """Returns what cells came to so far."""
    return [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()] if results.exists() else []


def table(found: list[dict[str, Any]], seed: int) -> str:
    """Returns the results as Markdown."""
    verdicts, kinds = Counter(str(each["verdict"]) for each in found), Counter(str(each["kind"]) for each in found)
    minutes = sum(float(str(each["s"])) for each in found) / 60
    counted = ", ".join(f"{count} {verdict}" for verdict, count in verdicts.most_common())
    lines = [_HEAD, f"{len(found)} cells: {counted}. {date.today()}, seed {seed}, {minutes:.0f} minutes of cells on"]
    lines[-1] += (
        f" {os.cpu_count()} cores ({platform.machine()}, {platform.system()}, Python {platform.python_version()})."
    )
    for name in sorted({key for each in found for key in each if key.startswith("SIG")}):
        times = sorted(float(str(each[name])) for each in found if name in each)
        lines.append(
            f"{name} to exit: at most {times[-1]:.2f} s, median {times[len(times) // 2]:.2f} s of {len(times)}."
        )
    for kind in kinds:
        of_kind = [each for each in found if each["kind"] == kind]
        good = sum(each["verdict"] == OK for each in of_kind)
        lines += ["", f"## {kind}: {good} of {len(of_kind)}", "", "| cell | verdict | |", "|---|---|---|"]
        for each in of_kind:
            row = "".join(f"| {each[key]} " for key in ("name", "verdict"))
            note = " ".join(str(each["note"]).replace("|", "/").replace("`", "'").split())
            lines.append(f"{row}| {note.encode('ascii', 'backslashreplace').decode()} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Runs the chosen cells and returns 1 where one is not as it must be."""
    parser = argparse.ArgumentParser("tests.faults", description=__doc__)
    parser.add_argument("--only", metavar="PATTERN", help="cells that this pattern is found in, as KIND: NAME")
    parser.add_argument("--seed", type=int, default=0, help="of the moments of signals and the places of damage [0]")
    parser.add_argument("--workers", type=int, default=2, help="processes that work on cells [2]")
    parser.add_argument("--to", type=Path, metavar="FILE", help="where to write the table")
    parser.add_argument(
        "--keep", type=Path, metavar="FILE", help="where results are kept, to go on with those that are not"
    )
    given = parser.parse_args()
    chosen = [cell for cell in cells() if given.only is None or re.search(given.only, f"{cell.kind}: {cell.name}")]
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # where every sync is free
    root = Path(tempfile.mkdtemp(prefix="faults-", dir=memory))
    shared, results = root / "shared", given.keep or root / "results.jsonl"
    done = {(each["kind"], each["name"]) for each in kept(results)}
    left = [cell for cell in chosen if (cell.kind, cell.name) not in done]
    timing = prepared(shared) if left else (0.0, 0.0)
    todo, numbers = os.pipe()
    os.write(numbers, b"".join(index.to_bytes(4, "big") for index in range(len(left))))
    os.close(numbers)
    workers = []
    for _ in range(given.workers):
        workers.append(os.fork())
        if workers[-1] == 0:
            with suppress(KeyboardInterrupt):
                work(left, todo, results, shared, given.seed, timing)
            os._exit(0)
    for worker in workers:
        os.waitpid(worker, 0)
    order = {(cell.kind, cell.name): index for index, cell in enumerate(chosen)}
    found = [each for each in kept(results) if (each["kind"], each["name"]) in order]
    found.sort(key=lambda each: order[each["kind"], each["name"]])
    text = table(found, given.seed)
    if given.to is not None:
        given.to.write_text(text, encoding="utf-8", errors="backslashreplace")
    for line in text.splitlines():
        if "| ok |" not in line and line.strip("|- "):
            print(line.encode("ascii", "backslashreplace").decode())
    shutil.rmtree(root, ignore_errors=True)
    return int(len(found) < len(chosen) or any(each["verdict"] != OK for each in found))


if __name__ == "__main__":
    sys.exit(main())
