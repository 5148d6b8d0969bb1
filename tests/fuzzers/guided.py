"""As `python -m tests.fuzzers`, but led by what an input covers of the package's code: with atheris, where it installs.

    pip install atheris && python -m tests.fuzzers.guided pairs [--count 20000] [--seed 1]

It begins with a hundred inputs of the kind as hypothesis makes them.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import atheris

with atheris.instrument_imports(include=["nst_lightning"]):
    from tests.fuzzers import configuration_files
    from tests.fuzzers.harness import Kind, Report, run, take, workplace
    from tests.fuzzers.kinds import KINDS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    kind, report, suffixes = KINDS[given.kind], Report(), list[str]()
    configuration_files.prepare(setattr)
    with TemporaryDirectory() as first, workplace() as folder:

        def keep(path: Path) -> None:
            suffixes.append(path.suffix)
            Path(first, f"{len(suffixes):04d}").write_bytes(path.read_bytes())

        run(Kind(kind.inputs, keep), 100, given.seed)

        def one(content: bytes) -> None:
            suffix = suffixes[sum(content[:64]) % len(suffixes)]  # the same for the same content
            take(kind, (suffix, content), folder, report)
            if report.outcomes.total() == given.count:  # libFuzzer ends the process without a word from Python
                print(
                    f"{given.kind}: {given.count} inputs, guided, of seed {given.seed}: {report}\n{report.told()}",
                    end="",
                )
                sys.stdout.flush()

        options = [f"-runs={given.count}", f"-seed={given.seed}", "-max_len=4096", "-timeout=0", "-verbosity=0"]
        atheris.Setup([sys.argv[0], *options, first], one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
