"""The arena: pictures of many methods on many pairs, with scores and defects, on sheets that hide the names.

    python -m tests.benchmarks.arena gather --packages FOLDER --to PAIRS
    python -m tests.benchmarks.arena paint --pairs PAIRS --to ARENA [--size 512] [--methods NAMES] [--only PAIRS]
        [--device cpu] [--workers 1] [--peers FOLDER] [--steps N]
    python -m tests.benchmarks.arena score --pairs PAIRS --to ARENA
    python -m tests.benchmarks.arena sheets --pairs PAIRS --to ARENA [--methods NAMES] [--seed 0]

`gather` writes the pairs at 768 px at most: the project's samples, and pictures that may not all be shipped, from
Debian's packages and scikit-image's wheel, which are unpacked in FOLDER (`dpkg -x PACKAGE FOLDER`, `unzip WHEEL
'skimage/data/*' -d FOLDER`). `paint` paints them by the methods of arena.yaml and by the peers, whose checkouts are
folders of --peers, into ARENA/SIZE/METHOD, and adds a line a picture to ARENA/seconds.csv; what is there is not painted
again. `score` writes their scores and defects into ARENA/scores.csv. `sheets` writes a sheet a pair with the methods
under letters, in an order that follows from the seed, and what the letters stand for into key.json beside.
"""

from __future__ import annotations

import argparse
import csv
import json
import multiprocessing
import random
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from PIL import Image, ImageDraw

from nst_lightning import images, presets, stylize
from nst_lightning.metrics.scorer import Scorer
from nst_lightning.schedule import Stage
from tests.benchmarks.contenders import DATA, Contender, Pair, crowsonkb, gordicaleksa, kolkin, neural_style_pt
from tests.benchmarks.machine import machine

GIVEN = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text())
SIDE = 768
METHODS: Mapping[str, Mapping[str, Any]] = GIVEN["methods"]
PAIRS: Mapping[str, Sequence[str]] = GIVEN["pairs"]


def gather(packages: Path, to: Path) -> None:
    """Writes content and style image of every pair."""
    for name, files in PAIRS.items():
        for kind, file in zip(("content", "style"), files, strict=True):
            package = file.partition("/")[0] not in {"content-images", "style-images"}
            with Image.open((packages if package else DATA) / file) as image:
                image.draft("RGB", (2 * SIDE, 2 * SIDE))
                opaque = Image.new("RGBA", image.size, "white")
                opaque.alpha_composite(image.convert("RGBA"))
            picture = opaque.convert("RGB")
            picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
            (to / kind).mkdir(parents=True, exist_ok=True)
            picture.save(to / kind / f"{name}.jpg", quality=92)


def pair_of(pairs: Path, name: str) -> Pair:
    """Returns the files of a pair."""
    return (pairs / "content" / f"{name}.jpg").resolve(), (pairs / "style" / f"{name}.jpg").resolve()


def picture_of(options: argparse.Namespace, method: str, name: str) -> Path:
    """Returns the file of a picture, painted or to be painted."""
    return Path(options.to / str(options.size) / method / f"{name}.png")


def by_peer(given: Mapping[str, Any], peers: Path, pair: Pair, folder: Path, size: int, device: str) -> Path:
    """Returns the picture that a peer leaves after so many evaluations as its method says."""
    name, evaluations = given["peer"], given.get("evaluations", 0)
    checkout = (peers / name).resolve()
    stop: int | None = None
    contender: Contender
    if name == "neural-style-pt":
        contender = neural_style_pt(checkout, folder, size, device, evaluations, pair).contender
    elif name == "crowsonkb":
        contender = crowsonkb(checkout, folder, size, device, 128, evaluations, pair).contender
    elif name == "gordicaleksa":
        contender = gordicaleksa(checkout, folder, size, device, evaluations, pair).contender
        stop = evaluations + 1  # it writes its picture behind the line of the evaluation
    else:
        contender = kolkin(name, checkout, folder, device, pair)
    contender.run(stop)
    assert contender.picture is not None
    if contender.picture.is_dir():
        return sorted(contender.picture.glob("*.jpg"))[-1]
    return contender.picture


def paint(job: tuple[str, str, argparse.Namespace]) -> dict[str, Any]:
    """Paints one picture and returns its line of the table."""
    method, name, options = job
    pair = pair_of(options.pairs, name)
    picture = picture_of(options, method, name)
    given = dict(METHODS[method])
    began = time.perf_counter()
    try:
        if "peer" in given:
            with tempfile.TemporaryDirectory() as folder:
                made = by_peer(given, options.peers, pair, Path(folder), options.size, options.device)
                rgb = images.read(str(made)).rgb
        else:
            if options.steps is not None:
                given.setdefault("steps", options.steps)
            if "preset" in given:
                given = {**presets.options(given.pop("preset")), **given}
            if isinstance(given.get("stages"), list):
                given["stages"] = [Stage(**stage) for stage in given["stages"]]
            accelerator = "cpu" if options.device == "cpu" else "gpu"
            made_here = stylize(*map(str, pair), progress=False, accelerator=accelerator, size=options.size, **given)
            rgb = images.read(made_here).rgb
    except (Exception, SystemExit) as error:  # the others go on
        return {"method": method, "pair": name, "size": options.size, "error": " ".join(str(error).split())[-300:]}
    seconds = time.perf_counter() - began
    images.write(picture, rgb, overwrite=True)
    return {"method": method, "pair": name, "size": options.size, "seconds": round(seconds, 2)}


def score(options: argparse.Namespace) -> None:
    """Writes scores and defects of all pictures."""
    rows = []
    scorer = Scorer()
    for picture in sorted(options.to.glob("*/*/*.*g")):
        content, style = (images.read(str(file)).rgb for file in pair_of(options.pairs, picture.stem))
        rgb = images.read(str(picture)).rgb
        size = (rgb.shape[-2], rgb.shape[-1])
        style = images.resize(style, images.fit(style.shape[-2], style.shape[-1], max(size))).clamp(0, 1)
        found = scorer.scores(rgb, scorer.reference(images.resize(content, size).clamp(0, 1), [style]))
        of = {"size": picture.parts[-3], "method": picture.parts[-2], "pair": picture.stem}
        rows.append({**of, **{name: round(value, 4) for name, value in found.items()}})
        print(" ".join(f"{key}={value}" for key, value in rows[-1].items()), flush=True)
    written(rows, options.to / "scores.csv")


def written(rows: Sequence[Mapping[str, Any]], table: Path) -> None:
    """Writes rows as a table."""
    with table.open("w") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(key for row in rows for key in row)))
        writer.writeheader()
        writer.writerows(rows)


def painted(options: argparse.Namespace) -> None:
    """Paints what is not there yet."""
    table = options.to / "seconds.csv"
    rows = list(csv.DictReader(table.open())) if table.exists() else []
    done = {(row["method"], row["pair"], row["size"]) for row in rows if not row.get("error")}
    wanted = [(method, name, options) for method in options.methods for name in options.only]
    jobs = [job for job in wanted if (job[0], job[1], str(options.size)) not in done]
    options.to.mkdir(parents=True, exist_ok=True)
    print(f"{machine(torch.device(options.device))}; {len(jobs)} pictures at {options.size} px", flush=True)
    with multiprocessing.get_context("spawn").Pool(options.workers) as pool:
        for row in pool.imap_unordered(paint, jobs):
            print(" ".join(f"{key}={value}" for key, value in row.items()), flush=True)
            rows.append(row)
            written(rows, table)  # each time: what was painted stays if this breaks off


def sheets(options: argparse.Namespace) -> None:
    """Writes a sheet a pair, and the key."""
    folder = options.to / f"sheets-{options.size}-{options.seed}"
    folder.mkdir(parents=True, exist_ok=True)
    key = {}
    for name in options.only:
        painters = [m for m in options.methods if picture_of(options, m, name).exists()]
        random.Random(f"{options.seed} {name}").shuffle(painters)
        key[name] = dict(zip("ABCDEFGHIJKLMNOPQRSTUVWXYZ", painters, strict=False))
        files = [*pair_of(options.pairs, name), *(picture_of(options, m, name) for m in painters)]
        contact(files, ["content", "style", *key[name]], options.side).save(folder / f"{name}.jpg", quality=90)
    (folder / "key.json").write_text(json.dumps(key, indent=1) + "\n")


def contact(files: Sequence[Path], labels: Sequence[str], side: int) -> Image.Image:
    """Returns pictures side by side, the first two above each other and half as large."""
    pictures = []
    for place, file in enumerate(files):
        with Image.open(file) as image:
            picture = image.convert("RGB")
        picture.thumbnail((side // 2, side // 2) if place < 2 else (side, side), Image.Resampling.LANCZOS)
        pictures.append(picture)
    sources, made = pictures[:2], pictures[2:]
    height = max(sum(each.height + 16 for each in sources), *(each.height + 16 for each in made))
    left = max(each.width for each in sources) + 6
    sheet = Image.new("RGB", (left + sum(each.width + 6 for each in made), height), "white")
    draw = ImageDraw.Draw(sheet)
    corners = [(0, 0), (0, sources[0].height + 16)]
    for each in made:
        corners.append((left, 0))
        left += each.width + 6
    for picture, label, (x, y) in zip(pictures, labels, corners, strict=True):
        draw.text((x, y + 2), label, fill="black")
        sheet.paste(picture, (x, y + 15))
    return sheet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("gather", "paint", "score", "sheets"))
    parser.add_argument("--packages", type=Path, help="where packages and the wheel are unpacked")
    parser.add_argument("--pairs", type=Path, help="what gather wrote")
    parser.add_argument("--to", type=Path, required=True, help="the folder to write to")
    parser.add_argument("--peers", type=Path, default=Path("peers"), help="the folder of the peers' checkouts")
    parser.add_argument("--size", type=int, default=512, help="long side in pixels")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--only", nargs="+", choices=PAIRS, default=list(PAIRS), help="the pairs")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--workers", type=int, default=1, help="pictures that are painted at the same time")
    parser.add_argument("--steps", type=int, help="of our methods that name none [their own]")
    parser.add_argument("--seed", type=int, default=0, help="of the order on the sheets")
    parser.add_argument("--side", type=int, default=512, help="of the pictures on the sheets, in pixels")
    options = parser.parse_args()
    if options.command == "gather":
        gather(options.packages, options.to)
    else:
        {"paint": painted, "score": score, "sheets": sheets}[options.command](options)


if __name__ == "__main__":
    main()
