"""Feeds made-up inputs of a kind to the program, and prints how it took them; exits with 1 where it should not have.

python -m tests.fuzzers images [--count 20000] [--seed 0] [--keep FOLDER]
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch

from tests.fuzzers import configuration_files
from tests.fuzzers.harness import run
from tests.fuzzers.kinds import KINDS


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="where the smallest inputs that failed, and the slowest, are written")
    given = parser.parse_args()
    torch.set_num_threads(1)
    configuration_files.prepare(setattr)
    began = time.process_time()  # of one core
    report = run(KINDS[given.kind], given.count, given.seed)
    print(f"{given.kind}: {given.count} inputs of seed {given.seed} in {time.process_time() - began:.0f} s: {report}")
    print(report.told(), end="")
    if given.keep is not None:
        given.keep.mkdir(parents=True, exist_ok=True)
        kept = {f"failed_{number}": case for number, case in enumerate(report.failures.values())}
        for name, (suffix, content) in {**kept, "slowest": report.slowest}.items():
            (given.keep / f"{given.kind}_{name}{suffix}").write_bytes(content)
    return 0 if report.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
