"""What scoring a picture costs: seconds of each score, once for a pair's images and for every output.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.scores [--size 512] [--repeats 5]

The picture is the blend of the temple and a painting. LPIPS and the distance of features take random weights, which
cost as much as real ones: nothing is read or downloaded.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import torch
from torch import Tensor
from torchmetrics.functional.image.lpips import _NoTrainLpips

from nst_lightning import images
from nst_lightning.backbones import SPECS
from nst_lightning.metrics import features, perceptual
from nst_lightning.metrics.base import Frozen
from nst_lightning.metrics.scorer import Scorer
from tests.benchmarks.machine import machine

DATA = Path(__file__).parents[2] / "data"
WITHOUT_A_NETWORK = ("outline", "palette", "texture", "leak")


def median_seconds(step: Callable[[], object], repeats: int) -> float:
    """Returns the median time of a step, after one that is not counted."""
    times = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        step()
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])


@contextmanager
def random_weights() -> Iterator[None]:
    """Has the networks of scores made with random weights."""

    def alexnet(net: perceptual.Net, spatial: bool = False) -> Frozen:
        return Frozen(_NoTrainLpips(net=net, spatial=spatial, pnet_rand=True))

    projector = features.Projector
    with TemporaryDirectory() as folder:
        file = Path(folder) / "resnet50.pth"
        torch.save(SPECS["resnet50"].build().state_dict(), file)
        with (
            patch.object(perceptual, "lpips_network", alexnet),
            patch.object(
                features, "Projector", lambda backbone, layers, weights: projector(backbone, layers, str(file))
            ),
        ):
            yield


def sample(name: str, size: int) -> Tensor:
    rgb = images.read(DATA / name).rgb
    return images.resize(rgb, images.fit(rgb.shape[-2], rgb.shape[-1], size)).clamp(0, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=512, help="long side in pixels")
    parser.add_argument("--repeats", type=int, default=5, help="counted ones; the median is printed")
    options = parser.parse_args()
    content = sample("content-images/temple.jpg", options.size)
    style = sample("style-images/church_at_auvers.jpg", options.size)
    height, width = content.shape[-2:]
    output = (content + images.resize(style, (height, width)).clamp(0, 1)) / 2
    print(f"{machine()}; {width}x{height} px, median of {options.repeats}", flush=True)

    def report(label: str, *names: str) -> None:
        scorer = Scorer(names)
        reference = scorer.reference(content, [style])
        once = median_seconds(lambda: scorer.reference(content, [style]), options.repeats)
        each = median_seconds(lambda: scorer.scores(output, reference), options.repeats)
        print(f"{label:<40}{once:8.3f} s once{each:8.3f} s an output{once + each:8.3f} s together", flush=True)

    for name in WITHOUT_A_NETWORK:
        report("outline, with ms_ssim" if name == "outline" else name, name)
    report("all of these, with overall", *WITHOUT_A_NETWORK)
    with random_weights():
        report("lpips (AlexNet, random weights)", "lpips")
        report("features (ResNet50, random weights)", "features")
        report("all", *WITHOUT_A_NETWORK, "lpips", "features")
    print("Each line has the reduction and the conversion to CIELAB in it, which `all` needs but once.")


if __name__ == "__main__":
    main()
