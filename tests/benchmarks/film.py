"""How much a film flickers whose frames start from the one before, beside frames that were painted by themselves.

    python -m tests.benchmarks.film --size 160 --frames 48 [--painter FILE [--weights 0 4]]

The clip is made here: the cat moves over the temple, which stands still, with a tone. What flickers is what differs
between a frame and the one before that was carried along the clip's own flow, where that can be trusted: the warping
error of Lai et al. (2018), *Learning Blind Video Temporal Consistency*, section 4.1, and its root, on 0 to 255; `still`
is that of the places that nothing moves in, for which no flow is needed, and `the clip` that of what was painted.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from nst_lightning import flow, images
from nst_lightning.__main__ import main as nst
from nst_lightning.film import Film
from nst_lightning.painters import BUNDLED
from tests.benchmarks.machine import machine
from tests.conftest import SAMPLES

RATE, SOUND_RATE = 24, 44_100


def clip(path: Path, count: int, side: int) -> Path:
    """Writes a clip of so many frames, 4 to 3, in which one half of the picture stands still."""
    height = side * 3 // 8 * 2
    with Image.open(SAMPLES / "content-images/temple.jpg") as image:
        still = image.convert("RGB").resize((side, height))
    with Image.open(SAMPLES / "content-images/chelsea.jpg") as image:
        moving = image.convert("RGB").resize((side * 2 // 5, height * 2 // 5))
    with av.open(str(path), "w") as container:
        pictures = container.add_stream("libx264", RATE, options={"crf": "12"})
        pictures.width, pictures.height, pictures.pix_fmt = side, height, "yuv420p"
        sound = container.add_stream("aac", SOUND_RATE, layout="mono")
        for number in range(count):
            shown = still.copy()
            shown.paste(moving, (round(side * (number / 64 - 0.1)), height // 2))
            container.mux(pictures.encode(av.VideoFrame.from_image(shown)))  # type: ignore[no-untyped-call]
        container.mux(pictures.encode(None))
        seconds = np.arange(SOUND_RATE * count // RATE) / SOUND_RATE
        tone = av.AudioFrame.from_ndarray(np.sin(2764 * seconds).astype(np.float32)[None] / 4, "fltp", "mono")
        tone.sample_rate, tone.pts = SOUND_RATE, 0
        container.mux(sound.encode(tone))
        container.mux(sound.encode(None))
    return path


def flicker(painted: Sequence[Tensor], frames: Sequence[Tensor]) -> tuple[float, float]:
    """Returns the warping error of pictures (1, 3, H, W) of frames of a clip, and that of where nothing moves."""
    errors, still = [], []
    for (picture, following), (before, now) in zip(pairwise(painted), pairwise(frames), strict=True):
        carried, trusted = flow.carried(picture, before, now)
        errors.append(float((trusted * (following - carried).square()).sum() / (3 * trusted.sum())))
        rests = ((before - now).abs().amax(dim=1, keepdim=True) < 3 / 255).float()
        still.append(float((rests * (following - picture).square()).sum() / (3 * rests.sum())))
    return float(np.mean(errors)), float(np.mean(still))


def pictures_of(film: Film) -> tuple[list[Tensor], list[Tensor]]:
    """Returns the painted frames of a film and those of its clip."""
    numbers = range(1, len(film.clock.times) + 1)
    return [images.read(each).rgb for each in film.pictures()], [
        images.read(film.unpacked(film.folder, number)).rgb for number in numbers
    ]


def strip(film: Film, file: Path, count: int = 6, width: int = 200) -> None:
    """Writes some frames of a film, evenly spaced, in a row."""
    shown = list(film.pictures())
    chosen = [shown[round(place * (len(shown) - 1) / (count - 1))] for place in range(count)]
    height = round(width * chosen[0].height / chosen[0].width)
    row = Image.new("RGB", (count * width + (count - 1) * 4, height), "white")
    for place, picture in enumerate(chosen):
        row.paste(picture.resize((width, height), Image.Resampling.LANCZOS), (place * (width + 4), 0))
    row.save(file, quality=80)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=160, help="long side in pixels")
    parser.add_argument("--frames", type=int, default=48)
    parser.add_argument("--steps", type=int, default=60, help="of a frame by itself")
    parser.add_argument("--frame-steps", type=int, default=20, help="of a frame that starts from the one before")
    parser.add_argument("--style", default="church_at_auvers")
    parser.add_argument("--style-loss", default="gram")
    parser.add_argument("--painter", nargs="?", const=BUNDLED, help="paints the frames, in place of the optimiser")
    parser.add_argument("--weights", type=float, nargs="+", default=[50.0], help="of the temporal term")
    parser.add_argument("--folder", type=Path, help="where the films are kept, and gone on with")
    parser.add_argument("--strip", type=Path, nargs=2, help="the folder of a film, and a file for six of its frames")
    options = parser.parse_args()
    if options.strip is not None:
        strip(Film.read(options.strip[0]), options.strip[1])
        return
    folder = Path(tempfile.mkdtemp()) if options.folder is None else options.folder
    folder.mkdir(exist_ok=True)
    given = clip(folder / "clip.mp4", options.frames, options.size)
    manner = options.style_loss if options.painter is None else f"painter {options.painter}"
    print(f"{machine()}; {options.frames} frames of {options.size} px, {manner}", flush=True)
    print(f"{'':32}{'seconds':>8}{'error':>10}{'root':>7}{'still':>7}", flush=True)
    alone = ["--chunks", str(options.frames), "--overlap", "0"]
    common: list[object] = ["--size", options.size]
    if options.painter is None:
        common += [options.style, "--steps", options.steps, "--frame_steps", options.frame_steps]
        common += ["--style_loss", options.style_loss, "--trainer.enable_progress_bar", "false"]
    else:
        common += ["--painter", options.painter]
        alone = ["--temporal_weight", "0"]
    kinds = {"each by itself": alone}
    for weight in options.weights:
        kinds[f"from the one before, {weight:g}"] = ["--temporal_weight", str(weight)]
    for name, own in kinds.items():
        output, began = folder / f"{name.replace(' ', '_').replace(',', '')}.mp4", time.monotonic()
        again = output.with_suffix("")
        words = ["--resume", again] if (again / "film.json").exists() else [given, "-o", output, *common]
        assert nst(["film", *map(str, words), *([] if "--resume" in words else own)]) == 0
        painted, frames = pictures_of(Film.read(again))
        if name == "each by itself":
            _tell("the clip", 0.0, *flicker(frames, frames))
        _tell(name, time.monotonic() - began, *flicker(painted, frames))


def _tell(name: str, seconds: float, error: float, still: float) -> None:
    roots = "".join(f"{255 * math.sqrt(each):7.2f}" for each in (error, still))
    print(f"{name:32}{seconds:8.0f}{error:10.5f}{roots}", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
