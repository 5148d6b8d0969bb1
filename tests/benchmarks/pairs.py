"""How many images an hour: a job of pairs by batch size, with one process and with two, and beside the peers.

    python -m tests.benchmarks.pairs [--size 64] [--steps 8] [--threads 1] [--folder FOLDER] [--count 10]
        [--batches 1 4 16] [--processes 1 2] [--device cpu] [--precision 32-true] [--compile]
        [--neural-style-pt CHECKOUT] [--gordicaleksa CHECKOUT] [--crowsonkb CHECKOUT]

So many contents and as many styles, square pieces of the samples, are painted all with all through the command line,
each time in a new process, whose start the rates include; `start` is what the same command takes for a single pair and
step. `--threads` sets OMP_NUM_THREADS for the jobs; left out, one process takes all cores and two share them. The peers
evaluate one image of that size as often, a process an image as they have to, with all cores, and are stopped before
they write it; the least of three counts. On a GPU: `--device cuda --processes 1 --precision bf16-mixed --size 512
--steps 300 --count 4`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from PIL import Image

from tests.benchmarks.machine import machine
from tests.benchmarks.peers import add_checkouts, named_rivals

DATA = Path(__file__).parents[2] / "data"
SIDE = 96  # of the pieces, in pixels, or the outputs' if that is more


def pieces(samples: Path, folder: Path, count: int, side: int) -> Path:
    """Writes square pieces of the samples, each half as wide as its sample, from places that differ."""
    folder.mkdir(parents=True, exist_ok=True)
    files = sorted(samples.glob("*.jpg"))
    for number in range(count):
        with Image.open(files[number % len(files)]) as image:
            half = min(image.size) // 2
            shift = number // len(files) * half // 2
            piece = image.convert("RGB").crop((shift, shift, shift + half, shift + half)).resize((side, side))
        piece.save(folder / f"{files[number % len(files)].stem}_{number}.png")
    return folder


def seconds(content: Path, style: Path, output: Path, arguments: list[str], threads: int | None) -> float:
    """Returns how long a job takes from its command to its end."""
    command = [sys.executable, "-m", "nst_lightning", "fit", "--content", str(content), "--style", str(style)]
    command += ["--pairing", "product", "--output", str(output), *arguments]
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    if threads is not None:
        environment["OMP_NUM_THREADS"] = str(threads)
    began = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    took = time.perf_counter() - began
    if done.returncode != 0:
        raise SystemExit(done.stderr)
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=64, help="long side of the outputs in pixels")
    parser.add_argument("--steps", type=int, default=8, help="for each pair, in two stages")
    parser.add_argument("--threads", type=int, default=None, help="of each process")
    parser.add_argument("--folder", type=Path, default=None, help="where to leave the jobs' folders")
    parser.add_argument("--count", type=int, default=10, help="of contents, and of styles")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 16], help="batch sizes")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2], help="how many share the job")
    parser.add_argument("--precision", default="32-true", choices=("32-true", "bf16-mixed"), help="ours")
    parser.add_argument("--compile", action="store_true", help="compile our step")
    add_checkouts(parser)
    options = parser.parse_args()
    size, count, pairs = options.size, options.count, options.count**2
    threads = "OMP_NUM_THREADS " + ("not set" if options.threads is None else str(options.threads))
    print(f"{machine(torch.device(options.device))}; {threads}; ", end="")
    print(f"{pairs} pairs, {size} px, {options.steps} steps, VGG16, {options.precision}")
    print(f"{'processes':>9}{'batch':>7}{'start':>9}{'job':>9}{'images/h':>11}{'ratio':>7}", flush=True)
    common = ["--size", str(size), "--trainer.accelerator", "cpu" if options.device == "cpu" else "gpu"]
    common += ["--precision", options.precision, "--compile", str(options.compile).lower()]
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary) if options.folder is None else options.folder
        contents = pieces(DATA / "content-images", root / "contents", count, max(SIDE, size))
        styles = pieces(DATA / "style-images", root / "styles", count, max(SIDE, size))
        first = None
        for processes in options.processes:
            world = [*common, "--devices", str(processes), *["--strategy", "pair_parallel"] * (processes > 1)]
            one = [sorted(folder.iterdir())[0] for folder in (contents, styles)]
            short = [*world, "--steps", "1", "--stages", "1"]
            start = seconds(one[0], one[1], root / f"start-{processes}", short, options.threads)
            for batch in options.batches:
                job = [*world, "--steps", str(options.steps), "--batch_size", str(batch)]
                took = seconds(contents, styles, root / f"job-{processes}-{batch}", job, options.threads)
                made = len(list((root / f"job-{processes}-{batch}").glob("*.png")))
                assert made == pairs, f"{made} pictures"
                rate = 3600 * pairs / took
                first = rate if first is None else first
                print(f"{processes:9}{batch:7}{start:7.1f} s{took:7.1f} s{rate:11.0f}{rate / first:7.2f}", flush=True)
        for name, rival in named_rivals(options, root, size, options.steps).items():
            took = min(rival.contender.run(options.steps)[-1].seconds for _ in range(3))
            rate = 3600 / took
            assert first is not None
            print(f"{name:>16}{'':9}{took:7.1f} s{rate:11.0f}{rate / first:7.2f}", flush=True)


if __name__ == "__main__":
    main()
