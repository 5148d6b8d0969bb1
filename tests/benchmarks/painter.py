"""A painter beside the optimiser, on the objective that it was trained on.

    python -m tests.benchmarks.painter PHOTOGRAPHS [--painter FILE] [--style FILE] [--crops 8] [--side 128] [--pairs 6]
        [--size 256] [--steps 300] [--device cpu] [-o FOLDER]

First, on crops of photographs that are held out: the loss of the painting, and of L-BFGS's picture after 50, 100, 200
and 300 steps from the photograph; to how many steps the painter comes, by the mean of the logarithms. Then, on whole
photographs: the steps to the loss that L-BFGS reaches from the photograph, from there and from the painting. The
pictures go into the folder: photograph, painting, and the optimiser's from either.
"""

from __future__ import annotations

import argparse
import inspect
import math
import statistics
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from nst_lightning import figures, files, images, optim, painters
from nst_lightning.crops import Crops
from nst_lightning.data import Worker
from nst_lightning.modules import Painter, StyleTransfer
from nst_lightning.tiling import ALONE
from tests.benchmarks.machine import machine

AT = (50, 100, 200, 300)


def objective_of(trained: painters.Trained, style: str, device: torch.device) -> Painter:
    """Returns a painter in training whose losses are those that another was trained on."""
    known = inspect.signature(StyleTransfer).parameters
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


def main() -> None:
    """Measures, and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", nargs="+")
    parser.add_argument("--painter", default=str(painters.BUNDLED))
    parser.add_argument("--style", default="cafe_terrace_at_night")
    for name, default in (("crops", 8), ("side", 128), ("pairs", 6), ("size", 256), ("steps", 300)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--device", type=torch.device, default="cpu")
    parser.add_argument("-o", "--output", type=Path, default=Path("data/output-images/painter_benchmark"))
    given = parser.parse_args()
    trained = painters.load(given.painter)
    trained.network.to(given.device)
    painter = objective_of(trained, given.style, given.device)
    found = [Path(str(each)) for each in files.find("photographs", given.photographs, files.CONTENT_FOLDER)]
    print(machine(given.device))
    place = torch.tensor([0], device=given.device)
    rows, ratios, own, of_step, of_painting = [], [], [], [], []
    crops = Crops(found, given.side, 1)
    for number in range(given.crops):
        photograph = crops[number][0][None].to(given.device)
        begun = time.perf_counter()
        painted = trained.paint(photograph)
        painted.sum().item()  # which a GPU has then painted
        of_painting.append(time.perf_counter() - begun)
        with torch.no_grad():
            own.append(float(painter.losses(painted, photograph, place)["total"]))
        losses, _, seconds = curve(painter, photograph, photograph, given.steps)
        of_step.append(seconds)
        rows.append(losses)
        print(
            f"crop {number}: painter {own[-1]:.4f}, photograph {losses[0]:.4f}, as after {reached(losses, own[-1]):g}"
        )
    means = [statistics.fmean(math.log(each[step]) for each in rows) for step in range(given.steps + 1)] if rows else []
    for step in (0, *AT) if rows else ():
        if step <= given.steps:
            print(f"L-BFGS {step:>3} steps: {math.exp(means[step]):.4f}, {step * statistics.fmean(of_step):.2f} s")
    if rows:
        mean = statistics.fmean(map(math.log, own))
        told = f"as L-BFGS after {reached(means, mean):g} steps"
        print(f"painter: {math.exp(mean):.4f}, {statistics.median(of_painting):.3f} s, {told}")
    pictures = []
    for each in found[: given.pairs]:
        picture = images.read(each)
        photograph = images.resize(picture.rgb, images.fit(*picture.size, given.size)).clamp(0, 1).to(given.device)
        painted = trained.paint(photograph)
        plain, last, _ = curve(painter, photograph, photograph, given.steps)
        begun_at, other, _ = curve(painter, photograph, painted, given.steps)
        ratios.append(reached(begun_at, plain[-1]) / given.steps)
        print(
            f"{picture.name}: {plain[-1]:.4f} after {given.steps} steps; from the painter {begun_at[-1]:.4f}, "
            f"the other's after {ratios[-1]:.3f} of them"
        )
        pictures.append([images.to_pil(one.cpu()) for one in (photograph, painted, last, other)])
    if ratios:
        print(f"from the painter: {statistics.median(ratios):.3f} of the steps (median), {max(ratios):.3f} at most")
        labels = ["photograph", "painter", f"L-BFGS {given.steps}", "painter, L-BFGS"]
        grid = figures.grid(pictures, [""] * len(pictures), labels, "", "", width=given.size)
        print(images.write(given.output.with_suffix(".png"), images.read(grid).rgb, overwrite=True))


if __name__ == "__main__":
    main()
