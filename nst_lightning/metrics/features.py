"""How far an output's features are from the style's, as distributions and on a network that was not optimised.

Heitz et al. (2021) compare all of a layer's distribution by its projections on random directions, where a Gram matrix
has its second moments only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from nst_lightning.backbones import Backbone, spec_of
from nst_lightning.metrics.base import Frozen, Score, Seen, Sources
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


class FeatureDistance(Score):
    """The mean over images of `feature_distance` between output and style, at least 0; of several styles the mean.

    Images smaller than the network takes have no number, nor have those whose style leaves a layer at 0.

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
    def in_auto(cls) -> bool:
        """Never: it takes a second network."""
        return False

    def reference(self, sources: Sources) -> list[dict[str, Projections]]:
        """Returns what is compared of every style."""
        return [self.network(style.rgb) for style in sources.styles]

    def values(self, output: Seen, reference: Sequence[Mapping[str, Projections]]) -> dict[str, Tensor]:
        """Returns `feature_distance`."""
        found = self.network(output.rgb)
        return {self.name: torch.stack([feature_distance(found, style) for style in reference]).mean(0)}


def feature_distance(output: Mapping[str, Projections], style: Mapping[str, Projections]) -> Tensor:
    """Returns how far the features of outputs are from those of styles, (N,), at least 0.

    For each layer the mean absolute difference of quantiles, over directions, by the mean absolute value of the
    style's projections; and the mean over layers. That is a Wasserstein distance, sliced (Heitz et al., 2021), without
    a unit. Channels are not brought to one variance: those that hardly respond would be most of it. Both are of the
    same `Projector`, the style of N images or of one for all.
    """
    distances = [
        (output[layer].quantiles - style[layer].quantiles).abs().mean(dim=(1, 2)) / style[layer].magnitude
        for layer in style
    ]
    return torch.stack(distances).mean(dim=0)


class Projector(nn.Module):
    """A backbone, and for each of its layers unit vectors of the layer's channels, the same ones every time.

    Arguments and errors are those of `FeatureDistance`.
    """

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

    def forward(self, image: Tensor) -> dict[str, Projections]:
        """Returns what is compared of sRGB images (N, 3, H, W) in [0, 1], by layer; NaN where they are too small."""
        if min(image.shape[-2:]) < self.min_side:
            nothing = image.new_full((len(image), DIRECTIONS, QUANTILES), torch.nan)
            return {layer: Projections(nothing, nothing[:, 0, 0]) for layer in self.layers}
        found = {}
        for place, (layer, feature) in enumerate(self.backbone(image).items()):
            projected = torch.einsum("nchw,ck->nkhw", feature, self.get_buffer(f"directions{place}")).flatten(2)
            found[layer] = Projections(quantiles(projected, QUANTILES), projected.abs().mean(dim=(1, 2)))
        return found
