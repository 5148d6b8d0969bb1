"""Two styles in the halves of a picture: how far each half is from its style's own picture, and how wide the seam is.

python -m tests.benchmarks.regions [--size 128] [--steps 40]
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from nst_lightning import images, stylize
from nst_lightning.backbones.anatomy import layers_of

CONTENT = Path("data/content-images/chelsea.jpg")
STYLES = [Path("data/style-images/cafe_terrace_at_night.jpg"), Path("data/style-images/langlois_bridge.jpg")]


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--style_loss", default="gram,moments")
    given = parser.parse_args()
    layers = ["relu1_1", "relu2_1", "relu3_1", "relu4_1"]
    fields = {layer.name: layer.receptive_field for layer in layers_of("vgg16")}
    options = {**vars(given), "stages": 1, "style_layers": layers, "progress": False}
    with Image.open(CONTENT) as image:
        mask = np.zeros((image.height, image.width), np.uint8)
    mask[:, : mask.shape[1] // 2] = 255
    masks = [Image.fromarray(mask), Image.fromarray(255 - mask)]
    alone = [images.read(stylize(str(CONTENT), str(style), **options)).rgb[0] for style in STYLES]
    apart = (alone[0] - alone[1]).abs().mean(dim=(0, 1))
    print(f"single styles differ by {float(apart.mean()):.4f}; relu4_1 sees {fields['relu4_1']} px")
    for edge in ("even", "inside", "grown"):
        painted: Any = stylize(str(CONTENT), [*map(str, STYLES)], content_mask=masks, mask_edge=edge, **options)
        picture = images.read(painted).rgb[0]
        left, right = ((picture - own).abs().mean(dim=(0, 1)) for own in alone)
        middle = picture.shape[2] // 2
        own, other = torch.cat([left[:middle], right[middle:]]), torch.cat([right[:middle], left[middle:]])
        # The seam: where a column is no nearer to its own style's picture than half of what it is far from there.
        far = own[: middle // 2].mean()
        wide = int((own > far + 0.5 * (other - far).clamp(min=0)).nonzero().numel())
        print(f"{edge}: own {float(own.mean()):.4f}, other {float(other.mean()):.4f}, seam {wide} px")


if __name__ == "__main__":
    main()
