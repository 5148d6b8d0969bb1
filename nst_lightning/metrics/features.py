"""How far features are from the style's, on a network that was not optimised (Heitz et al., 2021)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from nst_lightning.backbones import Backbone, spec_of
from nst_lightning.metrics.base import Comparison, Frozen, Seen
from nst_lightning.metrics.distributions import quantiles
from nst_lightning.metrics.lab import SHORT_SIDE

DIRECTIONS = 64
"""How many random directions a layer's features are projected on."""
QUANTILES = 256
"""At how many ranks the projections of two images are compared, so that their sizes may differ."""


class Projections(NamedTuple):
    """What is kept of a layer of an image: its features projected on each direction."""

    quantiles: Tensor  # (N, directions, quantiles)
    magnitude: Tensor  # (N,), the mean absolute value


Layers: TypeAlias = Mapping[str, Projections]


class FeatureDistance(Comparison):
    """How far an output's features are from the style's, at least 0, without a unit; of several styles the mean.

    For each layer the mean absolute difference of quantiles, over directions, by the mean absolute value of the
    style's projections; and the mean over layers. NaN for images smaller than the network takes, and where the style
    leaves a layer at 0.

    Args:
        backbone: A key of `SPECS`; of another family than the one optimised, or the score is circular.
        layers: The names of the layers to compare; None for the backbone's style layers.
        weights: `oxford`, `torchvision`, a file's path, or None for the backbone's default.
        short_side, kwargs: Those of `Score`.

    Raises:
        InputError: If the backbone or a layer is unknown.
        WeightsError: If the weights cannot be had or do not fit.
    """

    name = "feature_distance"
    asked = "features"
    order = 60
    higher_is_better = False
    plot_upper_bound = None

    def __init__(
        self,
        backbone: str = "resnet50",
        layers: Sequence[str] | None = None,
        weights: str | None = None,
        short_side: int | None = SHORT_SIDE,
        **kwargs: Any,
    ) -> None:
        super().__init__(short_side, **kwargs)
        self.network = Frozen(Projector(backbone, layers, weights))

    @classmethod
    def left_out(cls) -> str:
        """Returns nothing to say: it takes a second network, which is only for those who ask."""
        return ""

    def describe(self, image: Seen) -> Layers:
        """Returns the projections, by layer."""
        found: Layers = self.network(image.rgb)
        return found

    def compare(self, output: Layers, source: Layers) -> Tensor:
        """Returns the distance of projections, (N,), the source's of N images or of one for all."""
        pairs = [(output[layer].quantiles, *kept) for layer, kept in source.items()]
        return torch.stack([(one - other).abs().mean(dim=(1, 2)) / scale for one, other, scale in pairs]).mean(dim=0)


class Projector(nn.Module):
    """A backbone, and for each of its layers unit vectors of its channels, ever the same; see `FeatureDistance`."""

    def __init__(self, backbone: str, layers: Sequence[str] | None = None, weights: str | None = None) -> None:
        super().__init__()
        self.layers = tuple(spec_of(backbone).style_layers if layers is None else layers)
        self.backbone = Backbone(backbone, self.layers, weights)
        self.min_side = self.backbone.min_side
        generator = torch.Generator().manual_seed(0)
        smallest = torch.zeros(1, 3, self.min_side, self.min_side)
        for place, feature in enumerate(self.backbone(smallest).values()):
            drawn = torch.randn(feature.shape[1], DIRECTIONS, generator=generator)
            self.register_buffer(f"directions{place}", drawn / drawn.norm(dim=0))

    def forward(self, image: Tensor) -> Layers:
        """Returns what is compared of sRGB images (N, 3, H, W) in [0, 1], by layer; NaN where they are too small."""
        if min(image.shape[-2:]) < self.min_side:
            nothing = image.new_full((len(image), DIRECTIONS, QUANTILES), torch.nan)
            return {layer: Projections(nothing, nothing[:, 0, 0]) for layer in self.layers}
        found = {}
        for place, (layer, feature) in enumerate(self.backbone(image).items()):
            projected = torch.einsum("nchw,ck->nkhw", feature, self.get_buffer(f"directions{place}")).flatten(2)
            found[layer] = Projections(quantiles(projected, QUANTILES), projected.abs().mean(dim=(1, 2)))
        return found
