"""Whether more strength is more: outline and overall of sample pairs at strengths of 0.25, 0.5 and 0.75.

    python -m tests.benchmarks.strengths [--size 192] [--steps 60] [--pairs 8]

Each strength finds its style weight as `nst fit --strength` does, and the pictures of it are scored. The outline should
fall; `overall`, which asks for outline, palette and texture at once, rises for as long as more of the painting is worth
the outlines that it costs.
"""

from __future__ import annotations

import argparse
import time
from itertools import pairwise, product
from pathlib import Path

from nst_lightning import images
from nst_lightning.api import painted, quiet
from nst_lightning.data import PairDataModule
from nst_lightning.metrics.scorer import Scorer
from nst_lightning.modules import StyleTransfer
from nst_lightning.pairs import Pair
from tests.benchmarks.machine import machine

DATA = Path(__file__).parents[2] / "data"
CONTENTS = ("temple", "chelsea", "coffee", "astronaut")
STYLES = ("church_at_auvers", "night_cafe", "harvest_at_la_crau", "pere_tanguy")
STRENGTHS = (0.25, 0.5, 0.75)
SCORES = ("outline", "palette", "texture", "leak", "overall")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=192, help="long side in pixels")
    parser.add_argument("--steps", type=int, default=60, help="of each picture")
    parser.add_argument("--pairs", type=int, default=8, help="how many of the sixteen")
    options = parser.parse_args()
    print(f"{machine()}; {options.size} px, {options.steps} steps", flush=True)
    print(f"{'':<32}" + "".join(f"{name:>9}" for name in ("weight", *SCORES)))
    scorer, rises, falls = Scorer(SCORES[:-1]), 0, 0
    # Each photograph with each painting once before any comes a second time with another.
    chosen = [
        (content, STYLES[(place + turn) % 4]) for turn, (place, content) in product(range(4), enumerate(CONTENTS))
    ]
    for content, style in chosen[: options.pairs]:
        photo, painting = DATA / f"content-images/{content}.jpg", DATA / f"style-images/{style}.jpg"
        pairs = tuple(Pair(photo, (painting,), str(strength), strength=strength) for strength in STRENGTHS)
        began = time.monotonic()
        with quiet():
            data = PairDataModule(pairs=pairs, size=options.size, steps=options.steps, batch_size=3)  # type: ignore[arg-type]
            made = painted(StyleTransfer(), data, progress=False, accelerator="cpu")
        side = max(made[0][1].size)
        rgb = [images.read(photo).rgb, images.read(painting).rgb]
        sources = [images.resize(each, images.fit(each.shape[-2], each.shape[-1], side)).clamp(0, 1) for each in rgb]
        reference = scorer.reference(sources[0], sources[1:])
        found = [scorer.scores(images.read(picture).rgb, reference) for _, picture in made]
        for (pair, _), scores in zip(made, found, strict=True):
            numbers = "".join(f"{number:>9.3f}" for number in (pair.weights["style"], *map(scores.get, SCORES)))
            print(f"{content + ' ' + style:<26}{pair.name:>6}{numbers}", flush=True)
        falls += all(one["outline"] > other["outline"] for one, other in pairwise(found))
        rises += all(one["overall"] < other["overall"] for one, other in pairwise(found))
        print(f"  {time.monotonic() - began:.0f} s", flush=True)
    count = len(chosen[: options.pairs])
    print(f"outline falls in {falls} of {count} pairs, overall rises in {rises}")


if __name__ == "__main__":
    main()
