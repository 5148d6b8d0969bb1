"""A painter beside the optimiser, on the objective that it was trained on.

    python -m tests.benchmarks.painter PHOTOGRAPHS [--painter FILE] [--style FILE] [--crops 8] [--side 128] [--pairs 6]
        [--size 256] [--steps 300] [--processes 1] [--device cpu] [-o FILE]

First, on crops of photographs that are held out: the loss of the painting, and of L-BFGS's picture after 50, 100, 200
and 300 steps from the photograph; to how many steps the painter comes, by the mean of the logarithms. Then, on whole
photographs: the steps to the loss that L-BFGS reaches from the photograph, from there and from the painting. The file
shows photograph, painting, and the optimiser's picture from either.
"""

from __future__ import annotations

import argparse
import inspect
import math
import statistics
import time
from argparse import Namespace
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import chain
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor, nn

from nst_lightning import figures, files, images, optim, painters
from nst_lightning.cli.options import NOT_OF_PAINTERS
from nst_lightning.crops import Crops
from nst_lightning.data import Worker
from nst_lightning.modules import Painter, StyleTransfer
from nst_lightning.tiling import ALONE
from tests.benchmarks.machine import machine

AT = (50, 100, 200, 300)


def objective_of(trained: painters.Trained, style: str, device: torch.device) -> Painter:
    """Returns a painter in training whose losses are those that another was trained on."""
    known = {*inspect.signature(StyleTransfer).parameters} - {*NOT_OF_PAINTERS}
    options = {name: each for name, each in trained.settings.items() if name in known}
    painter = Painter(StyleTransfer(**options).problem, style, trained.settings["style_size"], trained.network.width)
    painter.to(device).look_at_styles(Worker(device, "32-true", torch.no_grad, ALONE, False, 1, lambda value: value))
    return painter


def curve(painter: Painter, photograph: Tensor, start: Tensor, steps: int) -> tuple[list[float], Tensor, float]:
    """Returns the loss after each number of steps of L-BFGS from 0, the last image, and the seconds of a step."""
    image, place = nn.Parameter(start.clone()), torch.tensor([0], device=start.device)
    optimizer, found = optim.LBFGS([image]), [math.inf]

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = painter.losses(image, photograph, place)["total"]
        torch.autograd.backward(loss.sum())
        found.append(min(found[-1], float(loss.detach())))
        return loss.detach()

    begun = time.perf_counter()
    for _ in range(steps + 1):  # whose last evaluates what the one before it made
        optimizer.step(closure)
    return found[1:], image.detach(), (time.perf_counter() - begun) / (steps + 1)


def reached(losses: list[float], wanted: float) -> float:
    """Returns after how many steps a loss is at most what is wanted; infinite where it is not."""
    return next((float(step) for step, loss in enumerate(losses) if loss <= wanted), math.inf)


class Measured(NamedTuple):
    """What is known of one crop: the losses of its painting and after each step of L-BFGS; seconds of either."""

    own: float
    losses: list[float]
    painting: float
    step: float


def begun(given: Namespace) -> tuple[painters.Trained, Painter, list[Path]]:
    """Returns the painter, its objective and the photographs, in a process of several."""
    trained = painters.load(given.painter)
    trained.network.to(given.device)
    painter = objective_of(trained, given.style, given.device)
    found = [Path(str(each)) for each in files.find("photographs", given.photographs, files.CONTENT_FOLDER)]
    return trained, painter, found


def of_crops(given: Namespace, first: int) -> list[Measured]:
    """Returns what is measured of every crop that falls to a process."""
    trained, painter, found = begun(given)
    rows, crops, place = [], Crops(found, given.side, 1), torch.tensor([0], device=given.device)
    for number in range(first, given.crops, given.processes):
        photograph = crops[number][0][None].to(given.device)
        since = time.perf_counter()
        painted = trained.paint(photograph)
        painted.sum().item()  # which a GPU has then painted
        seconds = time.perf_counter() - since
        with torch.no_grad():
            own = float(painter.losses(painted, photograph, place)["total"])
        losses, _, of_step = curve(painter, photograph, photograph, given.steps)
        rows.append(Measured(own, losses, seconds, of_step))
        told = f"crop {number}: painter {own:.4f}, photograph {losses[0]:.4f}, as after {reached(losses, own):g}"
        print(told, flush=True)
    return rows


def of_pairs(given: Namespace, first: int) -> list[tuple[float, list[Image.Image]]]:
    """Returns after what part of the steps a painting is as far, and the pictures, of every pair of a process."""
    trained, painter, found = begun(given)
    rows = []
    for each in found[first : given.pairs : given.processes]:
        picture = images.read(each)
        photograph = images.resize(picture.rgb, images.fit(*picture.size, given.size)).clamp(0, 1).to(given.device)
        painted = trained.paint(photograph)
        plain, last, _ = curve(painter, photograph, photograph, given.steps)
        begun_at, other, _ = curve(painter, photograph, painted, given.steps)
        ratio = reached(begun_at, plain[-1]) / given.steps
        told = f"{picture.name}: {plain[-1]:.4f} after {given.steps} steps; from the painter {begun_at[-1]:.4f}"
        print(f"{told}, the other's after {ratio:.3f} of them", flush=True)
        rows.append((ratio, [images.to_pil(one.cpu()) for one in (photograph, painted, last, other)]))
    return rows


def main() -> None:
    """Measures, and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", nargs="+")
    parser.add_argument("--painter", default=painters.BUNDLED)
    parser.add_argument("--style", default="church_at_auvers")
    for name, default in (("crops", 8), ("side", 128), ("pairs", 6), ("size", 256), ("steps", 300), ("processes", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--device", type=torch.device, default="cpu")
    parser.add_argument("-o", "--output", type=Path, default=Path("data/output-images/painter_benchmark"))
    given = parser.parse_args()
    print(machine(given.device), flush=True)
    threads = max(1, torch.get_num_threads() // given.processes)
    with ProcessPoolExecutor(given.processes, get_context("spawn"), torch.set_num_threads, (threads,)) as pool:
        crops = list(chain(*pool.map(partial(of_crops, given), range(given.processes if given.crops > 0 else 0))))
        pairs = list(chain(*pool.map(partial(of_pairs, given), range(given.processes if given.pairs > 0 else 0))))
    if crops:
        means = [statistics.fmean(map(math.log, at)) for at in zip(*(each.losses for each in crops), strict=True)]
        of_step = statistics.fmean(each.step for each in crops)
        mean = statistics.fmean(math.log(each.own) for each in crops)
        for step in (each for each in (0, *AT) if each <= given.steps):
            print(f"L-BFGS {step:>3} steps: {math.exp(means[step]):.4f}, {step * of_step:.2f} s")
        told = f"as L-BFGS after {reached(means, mean):g} steps"
        print(f"painter: {math.exp(mean):.4f}, {statistics.median(each.painting for each in crops):.3f} s, {told}")
    if pairs:
        ratios = [ratio for ratio, _ in pairs]
        print(f"from the painter: {statistics.median(ratios):.3f} of the steps (median), {max(ratios):.3f} at most")
        labels = ["photograph", "painter", f"L-BFGS {given.steps}", "painter, L-BFGS"]
        grid = figures.grid([shown for _, shown in pairs], [""] * len(pairs), labels, "", "", width=given.size)
        print(images.write(given.output.with_suffix(".png"), images.read(grid).rgb, overwrite=True))


if __name__ == "__main__":
    main()
