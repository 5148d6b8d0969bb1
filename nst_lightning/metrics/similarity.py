"""How similar an output is to its content as photographs are compared: MS-SSIM of the lightness."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

from nst_lightning.metrics.base import Comparison, Seen

SHORTEST = 176
"""The shortest side in pixels that the five scales have room for: 11 px after 16-fold reduction."""


class Similarity(Comparison):
    """The multi-scale structural similarity of output and content by lightness, in [0, 1].

    Wang, Simoncelli and Bovik (2003), equation 7, with their exponents, as torchmetrics computes it. A structure that
    is inverted at any scale makes the whole 0. NaN where a side is below `SHORTEST`.
    """

    name = "ms_ssim"
    asked = "outline"
    order = 11
    higher_is_better = True
    against = "content"

    def describe(self, image: Seen) -> Tensor:
        """Returns the lightness, (N, 1, H, W), in [0, 100]."""
        return image.lab[:, :1]

    def compare(self, output: Tensor, source: Tensor) -> Tensor:
        """Returns the similarity, (N,)."""
        if min(output.shape[-2:]) < SHORTEST:
            return output.new_full((len(output),), torch.nan)
        # Variances are differences of squares of up to 10,000. In float32 that costs 1e-5, or 1e-3 where all is flat;
        # but CUDA rounds convolutions of float32 to TF32. On CPUs float64 takes 18 times as long.
        dtype = torch.float64 if output.is_cuda else torch.float32
        with torch.autocast(output.device.type, enabled=False):
            found = multiscale_structural_similarity_index_measure(
                output.to(dtype), source.to(dtype), data_range=100.0, reduction="none", normalize="relu"
            )
        assert isinstance(found, Tensor)  # a pair only where images of similarity are asked for
        return found.reshape(len(output)).to(output).clamp(max=1)
