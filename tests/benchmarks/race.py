"""Seconds to the peers' final value of their own objective, from their default start.

    python -m tests.benchmarks.race --record FOLDER [--size 512] [--iterations 1000] [--device cpu]
        [--stages '[[256, 150], [512, 150]]']
        [--neural-style-pt CHECKOUT] [--gordicaleksa CHECKOUT] [--crowsonkb CHECKOUT]

Each peer runs as in `tests.benchmarks.contenders`, with its defaults, to its end, which takes tens of minutes of two
cores at 512 px; then this project on the same objective, coarse to fine, from the same start. Time begins with the
process, so imports count. Only evaluations at full size are counted as reaching a value. What was run is kept in the
folder and not run again. Prints seconds, ratios, the objective of the pictures as they were written (read again and
evaluated by this project, whoever made them), and their scores; draws the curves into FOLDER/curves.png.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from nst_lightning.cli.score import score
from nst_lightning.metrics import table
from nst_lightning.metrics.scorer import Scorer
from nst_lightning.pairs import Pair
from tests.benchmarks.contenders import Contender, Point, Rival, ours
from tests.benchmarks.machine import machine
from tests.benchmarks.peers import add_checkouts, named_rivals

PRECISIONS = {"ours": "32-true", "ours, bf16": "bf16-mixed"}


@dataclass(frozen=True)
class Curve:
    """What one contender did: its losses at full size against seconds."""

    name: str
    points: list[Point]
    picture: Path | None

    def near(self, target: float) -> str:
        """Returns in words when the curve came near a value."""
        times = {share: self.seconds_to(share * target) for share in (1.2, 1.1, 1.05, 1.02)}
        return ", ".join(f"{share:g} {'never' if at is None else f'{at:.0f} s'}" for share, at in times.items())

    def seconds_to(self, loss: float) -> float | None:
        """Returns when the loss was first no higher, None where it never was."""
        return next((point.seconds for point in self.points if point.loss <= loss), None)


def run(name: str, contender: Contender, record: Path) -> Curve:
    """Returns the record of a contender, made if there is none."""
    stem = name.replace(", ", "_").replace(" ", "_")
    file, picture = record / f"{stem}.json", record / f"{stem}.png"
    if not file.exists():
        points = contender.run()
        made = contender.picture
        if made is not None and made.is_dir():
            made = next(iter(sorted(made.iterdir())), None)
        if made is not None:
            shutil.copy(made, picture)
        text = {"machine": machine(), "points": [[round(point.seconds, 3), point.loss] for point in points]}
        file.write_text(json.dumps(text) + "\n")
    found = json.loads(file.read_text())["points"]
    return Curve(name, [Point(*point) for point in found], picture if picture.exists() else None)


def draw(groups: Mapping[str, Sequence[Curve]], file: Path) -> None:
    """Draws a panel for each objective."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, len(groups), figsize=(6 * len(groups), 4.5), squeeze=False)
    for axes, (name, curves) in zip(panels[0], groups.items(), strict=True):
        last = curves[0].points[-1].loss
        for curve in curves:
            label = name if curve is curves[0] else curve.name.removesuffix(f" {name}")
            axes.plot([point.seconds for point in curve.points], [point.loss for point in curve.points], label=label)
        axes.axhline(last, color="grey", linewidth=0.5)
        axes.set(title=f"objective of {name}", xlabel="seconds since the command", ylabel="objective", yscale="log")
        axes.set_ylim(min(point.loss for curve in curves for point in curve.points) * 0.9, last * 10)
        axes.legend()
    figure.tight_layout()
    figure.savefig(file, dpi=100)


def objective_at(init: str, rival: Rival, device: str, folder: Path) -> float:
    """Returns the value of an objective at a start or in a picture's file, evaluated by this project."""
    arguments = {**rival.arguments, "init": init, "stages": 1, "steps": 1}
    return ours(arguments, "32-true", device, folder).run()[0].loss


def check_objective(name: str, first: float, rival: Rival, device: str, folder: Path) -> None:
    """Ends the program where the peer's first loss is not what this project finds at the same start."""
    found = objective_at(rival.start, rival, device, folder)
    if not math.isclose(found, first, rel_tol=1e-3):
        raise SystemExit(f"{name} begins at {first:.6g}, by this project's objective at {found:.6g}: not one objective")


def report(name: str, curves: Sequence[Curve], values: Mapping[str, float], rival: Rival) -> None:
    """Prints who reached the peer's final value and when, and what the pictures score."""
    target, reference = curves[0].points[-1].loss, curves[0].points[-1].seconds
    print(f"objective of {name}: {target:.6g} after {len(curves[0].points)} evaluations at full size")
    for curve in curves:
        reached = curve.seconds_to(target)
        when = "not reached" if reached is None else f"{reached:8.1f} s, {reached / reference:.3f} of the peer's time"
        last = curve.points[-1]
        text = f"  {curve.name:28}{when}; in the end {last.loss / target:.3f} of it after {last.seconds:.1f} s"
        print(text + (f", as written {values[curve.name] / target:.3f}" if curve.name in values else ""))
        print(f"{'':30}first within a factor of {curve.near(target)}")
    arguments = rival.arguments
    pair = Pair(arguments["content"], (arguments["style"],), name)
    scorer, style_scale = Scorer(), arguments.get("style_scale", 1.0)
    pictures = {curve.name: curve.picture for curve in curves if curve.picture is not None}
    found = {of: score(picture, pair.content, pair.styles, scorer, style_scale) for of, picture in pictures.items()}
    print(table.text(found), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", type=Path, required=True, help="folder for what was run")
    parser.add_argument("--size", type=int, default=512, help="long side in pixels")
    parser.add_argument("--iterations", type=int, default=1000, help="of neural-style-pt; the others' are fixed")
    parser.add_argument("--stages", type=json.loads, default=[[256, 150], [512, 150]], help="ours: sizes and steps")
    parser.add_argument("--history-size", type=int, default=20, help="of our L-BFGS")
    parser.add_argument("--smoothness", type=float, default=1.0, help="of our L-BFGS's preconditioner; 0 has none")
    parser.add_argument("--ours", nargs="+", choices=tuple(PRECISIONS), default=list(PRECISIONS), help="who races")
    add_checkouts(parser)
    options = parser.parse_args()
    size, device, record = options.size, options.device, options.record
    record.mkdir(parents=True, exist_ok=True)
    groups: dict[str, list[Curve]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        rivals = named_rivals(options, folder, size // 4, options.iterations)
        if not rivals:
            parser.error("name a checkout: --neural-style-pt, --gordicaleksa or --crowsonkb")
        print(f"{machine(torch.device(device))}; {size} px, VGG16; ours: stages {options.stages}", flush=True)
        chosen = {option: getattr(options, option) for option in ("history_size", "smoothness")}
        for name, rival in rivals.items():
            arguments = {**rival.arguments, **chosen, "stages": options.stages, "init": rival.start}
            groups[name] = [run(name, rival.contender, record)]
            if not rival.coarse_first:
                check_objective(name, groups[name][0].points[0].loss, rival, device, folder)
            for label in options.ours:
                contender = ours(arguments, PRECISIONS[label], device, folder, folder / "ours.png")
                groups[name].append(run(f"{label} {name}", contender, record))
            pictures = {curve.name: curve.picture for curve in groups[name] if curve.picture is not None}
            values = {of: objective_at(str(picture), rival, device, folder) for of, picture in pictures.items()}
            report(name, groups[name], values, rival)
        draw(groups, record / "curves.png")


if __name__ == "__main__":
    main()
