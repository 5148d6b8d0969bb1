"""Seconds per evaluation beside the peers: the same weights, images, losses and optimiser, each in its own code.

    python -m tests.benchmarks.peers [--size 512] [--evaluations 12] [--rounds 2] [--device cpu] [--compile]
        [--precisions 32-true bf16-mixed]
        [--neural-style-pt CHECKOUT] [--gordicaleksa CHECKOUT] [--crowsonkb CHECKOUT]

See `tests.benchmarks.contenders` for how they are run; their lines are timed as they come. Beside each stands this
project on the same objective through Trainer, in float32 and in bf16-mixed. In the last columns is the first loss that
each of both finds, which shows that the objectives are the same.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from itertools import pairwise
from pathlib import Path

import torch

from tests.benchmarks.contenders import Point, Rival, crowsonkb, gordicaleksa, neural_style_pt, ours
from tests.benchmarks.machine import machine

CHECKOUTS = ("neural-style-pt", "gordicaleksa", "crowsonkb")


def add_checkouts(parser: argparse.ArgumentParser) -> None:
    """Adds an option for each peer's checkout, and the device."""
    for name in CHECKOUTS:
        parser.add_argument(f"--{name}", type=lambda path: Path(path).resolve(), default=None, metavar="CHECKOUT")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")


def named_rivals(options: argparse.Namespace, folder: Path, least: int, iterations: int = 1000) -> dict[str, Rival]:
    """Returns the peers whose checkouts the options name, at their size and on their device.

    Args:
        options: With those of `add_checkouts`, and `size`.
        folder: Where they find their files.
        least: The smallest scale of crowsonkb.
        iterations: Of neural-style-pt.
    """
    size, device = options.size, options.device
    rivals: dict[str, Rival] = {}
    if options.neural_style_pt is not None:
        rivals["neural-style-pt"] = neural_style_pt(options.neural_style_pt, folder, size, device, iterations)
    if options.gordicaleksa is not None:
        rivals["gordicaleksa"] = gordicaleksa(options.gordicaleksa, folder, size, device)
    if options.crowsonkb is not None:
        rivals["crowsonkb"] = crowsonkb(options.crowsonkb, folder, size, device, least)
    return rivals


def seconds_each(points: list[Point]) -> float:
    """Returns the median time of an evaluation, after two that are not counted."""
    return statistics.median(later.seconds - before.seconds for before, later in pairwise(points[2:]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=512, help="long side in pixels")
    parser.add_argument("--evaluations", type=int, default=12, help="of each, in each round")
    parser.add_argument("--rounds", type=int, default=2, help="each runs everyone once; the least time counts")
    parser.add_argument("--compile", action="store_true", help="ours, as with nst fit --compile true")
    parser.add_argument("--precisions", nargs="+", default=["32-true"], help="ours; 32-true, bf16-mixed, ...")
    add_checkouts(parser)
    options = parser.parse_args()
    size, device = options.size, options.device
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        rivals = named_rivals(options, folder, least=size)
        if not rivals:
            parser.error("name a checkout: --neural-style-pt, --gordicaleksa or --crowsonkb")
        print(
            f"{machine(torch.device(device))}; {size} px, VGG16; s per evaluation, median of a round, least of rounds"
        )
        columns = "".join(f"{precision:>12}{'ratio':>7}" for precision in options.precisions)
        print(f"{'':18}{'peer':>9}{columns}   first loss: peer, ours", flush=True)
        for name, rival in rivals.items():
            arguments = {
                **rival.arguments,
                **({"init": rival.start, "stages": 1, "steps": options.evaluations, "compile": options.compile}),
            }
            rounds = [
                [
                    rival.contender.run(options.evaluations),
                    *(ours(arguments, precision, device, folder).run() for precision in options.precisions),
                ]
                for _ in range(options.rounds)
            ]
            theirs, *own = (min(map(seconds_each, of_one)) for of_one in zip(*rounds, strict=True))
            line = f"{name:18}{theirs:9.4f}" + "".join(f"{each:12.4f}{theirs / each:7.2f}" for each in own)
            print(f"{line}   {rounds[0][0][0].loss:.6g}, {rounds[0][1][0].loss:.6g}", flush=True)


if __name__ == "__main__":
    main()
