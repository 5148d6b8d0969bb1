"""How many images an hour: a job of 100 small pairs by batch size, with one process and with two.

    python -m tests.benchmarks.pairs [--size 64] [--steps 8] [--threads 1] [--folder FOLDER]
        [--neural-style-pt CHECKOUT]

Ten contents and ten styles, square pieces of the samples, are painted all with all through the command line, each time
in a new process, whose start the rates include; `start` is what the same command takes for a single pair and step.
`--threads` sets OMP_NUM_THREADS for the jobs; left out, one process takes all cores and two share them. The peer paints
one image of that size with as many evaluations, a process an image as it has to, with all cores.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

from tests.benchmarks.contenders import neural_style_pt
from tests.benchmarks.machine import machine

DATA = Path(__file__).parents[2] / "data"
BATCHES = (1, 4, 16)
PROCESSES = (1, 2)
COUNT = 10  # of contents, and of styles
SIDE = 96  # of the pieces, in pixels


def pieces(samples: Path, folder: Path) -> Path:
    """Writes square pieces of the samples, each half as wide as its sample, from places that differ."""
    folder.mkdir(parents=True, exist_ok=True)
    files = sorted(samples.glob("*.jpg"))
    for number in range(COUNT):
        with Image.open(files[number % len(files)]) as image:
            half = min(image.size) // 2
            shift = number // len(files) * half // 2
            piece = image.convert("RGB").crop((shift, shift, shift + half, shift + half)).resize((SIDE, SIDE))
        piece.save(folder / f"{files[number % len(files)].stem}_{number}.png")
    return folder


def seconds(content: Path, style: Path, output: Path, arguments: list[str], threads: int | None) -> float:
    """Returns how long a job takes from its command to its end."""
    command = [sys.executable, "-m", "nst_lightning", "fit", "--content", str(content), "--style", str(style)]
    command += ["--pairing", "product", "--output", str(output), "--trainer.accelerator", "cpu", *arguments]
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
    parser.add_argument("--neural-style-pt", type=lambda path: Path(path).resolve(), metavar="CHECKOUT")
    options = parser.parse_args()
    threads = "OMP_NUM_THREADS " + ("not set" if options.threads is None else str(options.threads))
    print(f"{machine()}; {threads}; {COUNT**2} pairs, {options.size} px, {options.steps} steps, VGG16")
    print(f"{'processes':>9}{'batch':>7}{'start':>9}{'job':>9}{'images/h':>11}{'ratio':>7}", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary) if options.folder is None else options.folder
        contents = pieces(DATA / "content-images", root / "contents")
        styles = pieces(DATA / "style-images", root / "styles")
        first = None
        for processes in PROCESSES:
            world = ["--devices", str(processes), *["--strategy", "pair_parallel"] * (processes > 1)]
            one = [sorted(folder.iterdir())[0] for folder in (contents, styles)]
            short = [*world, "--size", str(options.size), "--steps", "1", "--stages", "1"]
            start = seconds(one[0], one[1], root / f"start-{processes}", short, options.threads)
            for batch in BATCHES:
                job = [*world, "--size", str(options.size), "--steps", str(options.steps), "--batch_size", str(batch)]
                took = seconds(contents, styles, root / f"job-{processes}-{batch}", job, options.threads)
                made = len(list((root / f"job-{processes}-{batch}").glob("*.png")))
                assert made == COUNT**2, f"{made} pictures"
                rate = 3600 * COUNT**2 / took
                first = rate if first is None else first
                print(f"{processes:9}{batch:7}{start:7.1f} s{took:7.1f} s{rate:11.0f}{rate / first:7.2f}", flush=True)
        if options.neural_style_pt is not None and first is not None:
            rival = neural_style_pt(options.neural_style_pt, root, options.size, "cpu", options.steps)
            times = []
            for _ in range(3):
                began = time.perf_counter()
                rival.contender.run()
                times.append(time.perf_counter() - began)
            rate = 3600 / min(times)
            print(f"{'neural-style-pt':>16}{'':9}{min(times):7.1f} s{rate:11.0f}{rate / first:7.2f}")


if __name__ == "__main__":
    main()
