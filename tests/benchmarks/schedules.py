"""Objective against seconds for coarse-to-fine schedules and lengths of L-BFGS's memory.

    python -m tests.benchmarks.schedules [--size 256] [--steps 300] [--style-weight 100] [--init content]

Every row is a process of its own through Trainer, on the temple in the manner of the church at Auvers; time begins
with the process. `loss` is the last one, as a ratio to the defaults'; `to it` are the seconds until the defaults' last
loss was first reached at full size, as a ratio to the defaults' seconds; the scores are those of `nst score`.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from nst_lightning.cli.score import score
from nst_lightning.metrics.scorer import Scorer
from nst_lightning.pairs import Pair
from nst_lightning.schedule import coarse_to_fine
from tests.benchmarks.contenders import CONTENT, STYLE, ours, source
from tests.benchmarks.machine import machine
from tests.benchmarks.race import Curve

SHOWN = ("outline", "palette", "texture", "overall")


def variants(size: int, steps: int) -> dict[str, dict[str, Any]]:
    """Returns what is compared, the defaults first, by what differs from them."""
    half = [[stage.size, stage.steps] for stage in coarse_to_fine(size, steps, 2)]
    third = steps // 3
    return {
        "2 stages, memory 10 (default)": {"stages": half},
        "smoothness 0.5": {"stages": half, "smoothness": 0.5},
        "smoothness 1": {"stages": half, "smoothness": 1.0},
        "memory 5": {"stages": half, "history_size": 5},
        "memory 20": {"stages": half, "history_size": 20},
        "memory 50": {"stages": half, "history_size": 50},
        "1 stage": {"stages": [[size, steps]]},
        "2 stages, 2/3 of the steps coarse": {"stages": [[size // 2, 2 * third], [size, third]]},
        "2 stages, 1/3 of the steps coarse": {"stages": [[size // 2, third], [size, 2 * third]]},
        "3 stages": {"stages": [[size // 4, third], [size // 2, third], [size, third]]},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=256, help="long side in pixels")
    parser.add_argument("--steps", type=int, default=300, help="of all stages together")
    parser.add_argument("--style-weight", type=float, default=100.0)
    parser.add_argument("--init", default="content")
    options = parser.parse_args()
    print(
        f"{machine()}; {options.size} px, {options.steps} steps, {options.init}, style weight {options.style_weight:g}"
    )
    print(f"{'':36}{'seconds':>8}{'loss':>7}{'to it':>7}" + "".join(f"{name:>9}" for name in SHOWN), flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        content, style = (str(source(name, folder, options.size)) for name in (CONTENT, STYLE))
        common = {"content": content, "style": style, "init": options.init, "style_weight": options.style_weight}
        pair, scorer = Pair(content, (style,), "pair"), Scorer()
        default: Curve | None = None
        for name, chosen in variants(options.size, options.steps).items():
            picture = folder / "picture.png"
            points = ours({**common, **chosen}, "32-true", "cpu", folder, picture).run()
            curve = Curve(name, points, picture)
            default = curve if default is None else default
            end = default.points[-1]
            reached = curve.seconds_to(end.loss)
            to_it = "never" if reached is None else f"{reached / end.seconds:.2f}"
            found = score(picture, pair.content, pair.styles, scorer, 1.0)
            line = f"{name:36}{points[-1].seconds:8.1f}{points[-1].loss / end.loss:7.3f}{to_it:>7}"
            print(line + "".join(f"{found[each]:9.3f}" for each in SHOWN), flush=True)


if __name__ == "__main__":
    main()
