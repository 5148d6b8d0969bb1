"""How far an output's features are from the style's, as distributions and on a network that was not optimised.

Heitz et al. (2021) compare all of a layer's distribution by its projections on random directions, where a Gram matrix
has its second moments only. On the network whose Gram matrices were minimised that is circular, and other layers of
the same network or of another VGG are no way out, for they move together: take a backbone of another family. What is
best depends on the family too, so backbones cannot be compared by it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nst_lightning.backbones import Backbone, spec_of
from nst_lightning.metrics.base import ImageScore
from nst_lightning.metrics.distributions import check_as_many, quantiles
from nst_lightning.metrics.frozen import Frozen
from nst_lightning.metrics.lab import SHORT_SIDE, working_size

DIRECTIONS = 64
"""How many random directions a layer's features are projected on."""
QUANTILES = 256
"""At how many ranks the projections of two images are compared, so that their sizes may differ."""
_SEED = 0


@dataclass(frozen=True, eq=False)  # comparing tensors with == has no single truth value
class Projections:
    """What is kept of a layer of an image.

    Attributes:
        quantiles: (N, directions, quantiles), of the features projected on each direction.
        magnitude: (N,), the mean absolute value of what was projected.
    """

    quantiles: Tensor
    magnitude: Tensor


class FeatureDistance(ImageScore):
    """The mean over images of `feature_distance` between output and style; at least 0, lower is better.

    Images smaller than the network takes have no number, nor have those whose style leaves a layer at 0.

    Args:
        backbone: A key of `SPECS`; of another family than the one optimised, or the score is circular.
        layers: The names of the layers to compare; None for the backbone's style layers.
        weights: `oxford`, `torchvision`, a file's path, or None for the backbone's default.
        short_side: What the output is reduced to before it is scored, in pixels, and the style by the same factor;
            None for no limit.
        kwargs: Further ones of `torchmetrics.Metric`.

    Raises:
        InputError: If the backbone or a layer is unknown.
        WeightsError: If the weights cannot be had or do not fit.
    """

    higher_is_better = False
    plot_lower_bound = 0.0

    def __init__(
        self,
        backbone: str = "resnet50",
        layers: Sequence[str] | None = None,
        weights: str | None = None,
        short_side: int | None = SHORT_SIDE,
        **kwargs: Any,
    ) -> None:
        super().__init__(short_side, **kwargs)
        self.network = FeatureNetwork(backbone, layers, weights)

    def update(self, output: Tensor, style: Tensor) -> None:
        """Scores a batch of images.

        Args:
            output: (N, 3, H, W), sRGB in [0, 1].
            style: (N, 3, h, w), likewise.

        Raises:
            InputError: If an image is none, see `as_written`, or there are not as many styles as outputs.
        """
        sized_output, sized_style = working_size(output, style, short_side=self.short_side)
        check_as_many(output, style)
        self.add(self.distance(sized_output, self.reference(sized_style)))

    def reference(self, style: Tensor) -> dict[str, Projections]:
        """Returns what `distance` needs of styles (N, 3, h, w), sRGB in [0, 1], at the size that they have."""
        return features_of(self.network, style)

    def distance(self, output: Tensor, reference: Mapping[str, Projections]) -> Tensor:
        """Returns `feature_distance` of outputs (N, 3, H, W) at the size that they have, (N,); counts nothing."""
        return feature_distance(features_of(self.network, output), reference)


class FeatureNetwork(Frozen):
    """A backbone and the directions that its features are projected on; arguments and errors as `FeatureDistance`'s.

    Attributes:
        layers: The names of the layers.
        min_side: The smallest height and width of an image in pixels.
    """

    def __init__(
        self, backbone: str = "resnet50", layers: Sequence[str] | None = None, weights: str | None = None
    ) -> None:
        chosen = spec_of(backbone).style_layers if layers is None else layers
        network = Backbone(backbone, chosen, weights)
        super().__init__(_Projector(network))
        self.layers = tuple(chosen)
        self.min_side = network.min_side


def features_of(network: FeatureNetwork, image: Tensor) -> dict[str, Projections]:
    """Returns what is compared of sRGB images (N, 3, H, W) in [0, 1], by layer; NaN where they are too small."""
    if min(image.shape[-2:]) < network.min_side:
        nothing = image.new_full((len(image), DIRECTIONS, QUANTILES), torch.nan)
        return {layer: Projections(nothing, nothing[:, 0, 0]) for layer in network.layers}
    found: dict[str, Projections] = network(image)
    return found


def feature_distance(output: Mapping[str, Projections], style: Mapping[str, Projections]) -> Tensor:
    """Returns how far the features of outputs are from those of styles, (N,), at least 0.

    For each layer the mean absolute difference of quantiles, over directions, by the mean absolute value of the
    style's projections; and the mean over layers. That is a Wasserstein distance, sliced (Heitz et al., 2021), without
    a unit. Channels are not brought to one variance: those that hardly respond would be most of it.

    Args:
        output: Of `features_of`.
        style: Likewise, of the same network; of N images, or of one for all.
    """
    distances = [
        (output[layer].quantiles - style[layer].quantiles).abs().mean(dim=(1, 2)) / style[layer].magnitude
        for layer in style
    ]
    return torch.stack(distances).mean(dim=0)


class _Projector(nn.Module):
    """A backbone, and for each of its layers unit vectors of the layer's channels, the same ones every time."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        generator = torch.Generator().manual_seed(_SEED)
        smallest = torch.zeros(1, 3, backbone.min_side, backbone.min_side)
        for place, feature in enumerate(backbone(smallest).values()):
            drawn = torch.randn(feature.shape[1], DIRECTIONS, generator=generator)
            self.register_buffer(f"directions{place}", drawn / drawn.norm(dim=0))

    def forward(self, image: Tensor) -> dict[str, Projections]:
        found = {}
        for place, (layer, feature) in enumerate(self.backbone(image).items()):
            directions = self.get_buffer(f"directions{place}")
            projected = torch.einsum("nchw,ck->nkhw", feature, directions).flatten(2)
            found[layer] = Projections(quantiles(projected, QUANTILES), projected.abs().mean(dim=(1, 2)))
        return found
