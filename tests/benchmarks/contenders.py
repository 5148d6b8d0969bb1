"""The peers and this project as commands whose every evaluation is timed, on the same images, weights and objective.

Checkouts of ProGamerGov/neural-style-pt, gordicaleksa/pytorch-neural-style-transfer (which imports cv2) and
crowsonkb/style-transfer-pytorch are run as their users run them; nothing is written to them. All compute with VGG16's
bundled weights in the layout that each reads, so that nothing has to be downloaded.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from nst_lightning import images
from nst_lightning.backbones import spec_of, weights

ROOT = Path(__file__).parents[2]
DATA = ROOT / "data"
CONTENT, STYLE = DATA / "content-images/temple.jpg", DATA / "style-images/church_at_auvers.jpg"
NUMBER = r"(?P<loss>[-+.\deEnaif]+)"
Pair = tuple[Path, Path]
_CHANNELS = (64, 128, 256, 512, 512)
_AS_THEY_COUNT = {"convention": "absolute", "style_loss": "gram", "tv_loss": "l1"}


@dataclass(frozen=True)
class Point:
    """One evaluation: seconds since the process began, and the loss."""

    seconds: float
    loss: float


@dataclass(frozen=True)
class Contender:
    """How one of them is run.

    Attributes:
        command: Its command line, without the interpreter.
        line: What its output says of an evaluation at full size, with a group `loss`.
        folder: The working directory.
        picture: Where it leaves its result, None where it leaves none.
        environment: What it needs in its environment.
    """

    command: list[str]
    line: str
    folder: Path
    picture: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)

    def run(self, evaluations: int | None = None) -> list[Point]:
        """Runs it to its end, or stops it after so many evaluations."""
        began = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-u", *self.command],
            cwd=self.folder,
            env={**os.environ, **self.environment, "PYTHONWARNINGS": "ignore"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        points: list[Point] = []
        said: list[str] = []
        assert process.stdout is not None
        for line in process.stdout:
            said.append(line)
            if (found := re.search(self.line, line)) is not None:
                points.append(Point(time.perf_counter() - began, float(found["loss"])))
                if evaluations is not None and len(points) == evaluations:
                    process.kill()
                    break
        process.wait()
        if not points or (evaluations is None and process.returncode != 0):
            raise SystemExit("".join(said[-30:]))
        return points


@dataclass(frozen=True)
class Rival:
    """A peer, and this project's arguments for the same objective.

    Attributes:
        contender: How the peer is run.
        arguments: Those of `drive.ours`.
        start: What the peer starts from by default, as `init`.
        coarse_first: Whether the peer comes to its full size from smaller ones.
    """

    contender: Contender
    arguments: Mapping[str, Any]
    start: str
    coarse_first: bool = False


def source(file: Path, folder: Path, long_side: int) -> Path:
    """Writes an image at exactly the size that is computed with, so that nobody resizes it in another way.

    Smaller ones are enlarged, as the peers do and this project does not: the objective would be another.
    """
    image = images.read(str(file)).rgb
    height, width = image.shape[-2:]
    resized = images.resize(image, images.fit(height, width, long_side, upscale=True)).clamp(0, 1)
    return images.write(folder / f"{file.parent.name}_{file.stem}_{long_side}.png", resized, overwrite=True)


def bundled(name: str = "vgg16") -> dict[str, torch.Tensor]:
    """Returns the bundled weights of a VGG in float32, red first, for pixels from 0 to 255 minus a mean colour."""
    state = weights.load(weights.OXFORD, bundled=spec_of(name).bundled)
    return {key: value.float() for key, value in state.items()}


def neural_style_pt(
    checkout: Path, folder: Path, size: int, device: str, iterations: int = 1000, pair: Pair = (CONTENT, STYLE)
) -> Rival:
    """Returns ProGamerGov's script with its defaults but for the network."""
    content, style = (source(file, folder, size) for file in pair)
    state = bundled()
    state["features.0.weight"] = state["features.0.weight"].flip(1)  # it reads blue first
    torch.save(state, folder / "vgg16.pth")
    script = [str(checkout / "neural_style.py"), "-gpu", "c" if device == "cpu" else "0", "-seed", "0"]
    files = ["-content_image", str(content), "-style_image", str(style), "-model_file", str(folder / "vgg16.pth")]
    steps = ["-image_size", str(size), "-num_iterations", str(iterations), "-print_iter", "1", "-save_iter", "0"]
    picture = folder / "neural_style_pt.png"
    command = [*script, *files, *steps, "-disable_check", "-output_image", str(picture)]
    if device != "cpu":
        command += ["-backend", "cudnn", "-cudnn_autotune"]
    # Its style term is 100 times the mean over C^2 entries of the squared difference, summed over layers; ours the sum
    # over entries, with weights that a layer's share is taken of.
    shares = {f"relu{block}_1": 1 / channels**2 for block, channels in zip(range(1, 6), _CHANNELS, strict=True)}
    arguments = {
        "content": str(content),
        "style": str(style),
        "size": size,
        **_AS_THEY_COUNT,
        "content_weight": 5.0,
        "style_weight": 100 * sum(shares.values()),
        "style_layers": shares,
        "content_layers": "relu4_2",
        "tv_weight": 1e-3,
    }
    return Rival(Contender(command, rf"Total loss: {NUMBER}", folder, picture), arguments, "mean colour")


def gordicaleksa(
    checkout: Path, folder: Path, size: int, device: str, every: int | None = None, pair: Pair = (CONTENT, STYLE)
) -> Rival:
    """Returns gordicaleksa's script with its defaults but for network and height; `every` so often it writes."""
    content = source(pair[0], folder, size)
    height = images.read(str(content)).rgb.shape[-2]
    style = source(pair[1], folder, height)  # the sample is a portrait, which it brings to the content's height
    copy = folder / "gordicaleksa"  # it writes beside itself
    shutil.copytree(checkout, copy, ignore=shutil.ignore_patterns("data", ".git"), dirs_exist_ok=True)
    state = bundled()
    for layer, shape in {0: (4096, 25088), 3: (4096, 4096), 6: (1000, 4096)}.items():
        state[f"classifier.{layer}.weight"] = torch.zeros(shape)
        state[f"classifier.{layer}.bias"] = torch.zeros(shape[0])
    hub = folder / "torch/hub/checkpoints"
    hub.mkdir(parents=True, exist_ok=True)
    torch.save(state, hub / "vgg16-397923af.pth")  # where torchvision looks for its own
    ours = folder / "vgg16_features.pth"  # a file is fed on the predecessor's scale: torchvision's mean colour
    torch.save(bundled(), ours)
    command = ["neural_style_transfer.py", "--model", "vgg16", "--height", str(height)]
    files = ["--content_img_name", str(content), "--style_img_name", str(style)]
    if every is not None:
        files += ["--saving_freq", str(every)]
    environment = {"TORCH_HOME": str(folder / "torch"), "MPLBACKEND": "agg"}
    if device == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = ""
    picture = copy / f"data/output-images/combined_{content.stem}_{style.stem}"  # a folder of one file
    arguments = {
        "content": str(content),
        "style": str(style),
        "size": size,
        "style_scale": height / size,
        "weights": str(ours),
        "pixel_range": 255,
        **_AS_THEY_COUNT,
        "content_layers": "relu2_2",
        "style_layers": "relu1_2,relu2_2,relu3_3,relu4_3",
        "content_weight": 1e5,
        "style_weight": 3e4,
        "tv_weight": 1.0,
    }
    line = rf"total loss= *{NUMBER}"
    return Rival(Contender([*command, *files], line, copy, picture, environment), arguments, "content")


def crowsonkb(
    checkout: Path,
    folder: Path,
    size: int,
    device: str,
    least: int,
    iterations: int = 500,
    pair: Pair = (CONTENT, STYLE),
) -> Rival:
    """Returns crowsonkb's package with its defaults but for the network, the smallest of its scales and iterations."""
    content, style = (str(source(file, folder, size)) for file in pair)
    picture = folder / "crowsonkb.png"
    path = os.pathsep.join([str(checkout), str(ROOT)])
    peer = driven("crowsonkb", [content, style, least, size, iterations, device, str(picture)], folder, picture, path)
    arguments = {"content": content, "style": style, "size": size, "objective": "crowsonkb"}
    return Rival(peer, arguments, "content", coarse_first=least < size)


def kolkin(name: str, checkout: Path, folder: Path, device: str, pair: Pair) -> Contender:
    """Returns the script of NNST or STROTSS as it is but for the weights, for a picture of 512 px."""
    picture = folder / f"{name}.png"
    copy = folder / name
    shutil.copytree(checkout, copy, ignore=shutil.ignore_patterns(".git", "inputs"), dirs_exist_ok=True)
    given = [name, *(str(file) for file in pair), device, str(picture)]
    contender = driven("kolkin", given, folder, picture, os.pathsep.join([str(copy), str(folder), str(ROOT)]))
    return replace(contender, line=r"(?:total time: |Finished in: *)" + NUMBER)


def ours(
    arguments: Mapping[str, Any], precision: str, device: str, folder: Path, picture: Path | None = None
) -> Contender:
    """Returns this project through Trainer, see `drive.ours`; its losses are those of the last stage."""
    output = None if picture is None else str(picture)
    return driven("ours", [dict(arguments), precision, device, output], folder, picture, str(ROOT))


def driven(name: str, given: list[Any], folder: Path, picture: Path | None, path: str) -> Contender:
    """Returns a contender that `drive` runs."""
    command = ["-m", "tests.benchmarks.drive", name, json.dumps(given)]
    return Contender(command, rf"full size: loss {NUMBER}", folder, picture, {"PYTHONPATH": path})
