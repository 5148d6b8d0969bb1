"""How far an output is from the content to the eye: LPIPS of Zhang et al. (2018), as a number and as a map.

LPIPS compares the features of a network trained on ImageNet, position by position, with weights fitted to what people
judged. A copy of the content scores best, so it is a score of content and never of the whole picture. The fitted
weights come with torchmetrics and lpips; the network's own are torchvision's, downloaded once.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import lpips  # type: ignore[import-untyped]
import torch
from torch import Tensor, nn
from torchmetrics.functional.image.lpips import _NoTrainLpips
from torchvision.models import (
    AlexNet_Weights,
    SqueezeNet1_1_Weights,
    VGG16_Weights,
    alexnet,
    squeezenet1_1,
    vgg16,
)
from torchvision.models._api import WeightsEnum

from nst_lightning.backbones import weights as weights_
from nst_lightning.errors import InputError
from nst_lightning.metrics.base import ImageScore
from nst_lightning.metrics.frozen import Frozen
from nst_lightning.metrics.lab import SHORT_SIDE, working_size
from nst_lightning.metrics.outline import check_alike

Net = Literal["alex", "squeeze", "vgg"]


@dataclass(frozen=True)
class Trunk:
    """A network of torchvision's that LPIPS was fitted to.

    Attributes:
        build: Makes it without weights.
        weights: Those that LPIPS was fitted to.
        min_side: The smallest height and width of an image in pixels.
    """

    build: Callable[[], nn.Module]
    weights: WeightsEnum
    min_side: int


TRUNKS: Mapping[Net, Trunk] = {
    "alex": Trunk(alexnet, AlexNet_Weights.IMAGENET1K_V1, min_side=31),
    "squeeze": Trunk(squeezenet1_1, SqueezeNet1_1_Weights.IMAGENET1K_V1, min_side=17),
    "vgg": Trunk(vgg16, VGG16_Weights.IMAGENET1K_V1, min_side=16),
}


class Lpips(ImageScore):
    """The mean over images of LPIPS between output and content, from 0, alike, to about 1; lower is better.

    Of Zhang et al. (2018), version 0.1, by torchmetrics. Images smaller than the network takes have no number:
    `TRUNKS` says the limits, 16 to 31 px.

    The network's weights are taken from torch.hub's cache or downloaded into it. A file that is in the cache already
    is not checked against the hash in its name, so with another file under that name this is not LPIPS; code in it is
    not run.

    Args:
        net: The network; Zhang et al. found `alex` nearest to people's judgment, and it is the fastest.
        short_side: What the output is reduced to before it is scored, in pixels; None for no limit.
        kwargs: Further ones of `torchmetrics.Metric`.

    Raises:
        InputError: If the network is unknown.
        WeightsError: If its weights are not in the cache and cannot be downloaded, or are damaged.
    """

    higher_is_better = False
    plot_lower_bound = 0.0

    def __init__(self, net: Net = "alex", short_side: int | None = SHORT_SIDE, **kwargs: Any) -> None:
        super().__init__(short_side, **kwargs)
        self.net = net
        self.network = distance_network(net)
        self.map_network: Frozen | None = None  # made when the first map is asked for

    def update(self, output: Tensor, content: Tensor) -> None:
        """Scores a batch of images.

        Args:
            output: (N, 3, H, W), sRGB in [0, 1].
            content: Likewise, of the output's size.

        Raises:
            InputError: If the images differ in size or number, or are none.
        """
        sized_output, sized_content = working_size(output, content, short_side=self.short_side)
        check_alike(output, content)
        self.add(self.distance(sized_output, sized_content))

    def distance(self, output: Tensor, content: Tensor) -> Tensor:
        """Returns `perceptual_distance` of images at the size that they have, (N,); counts nothing."""
        return perceptual_distance(self.network, output, content)

    def spatial_map(self, output: Tensor, content: Tensor) -> Tensor:
        """Returns `spatial_map` of images at the size that they have, (N, 1, H, W); counts nothing."""
        if self.map_network is None:
            self.map_network = map_network(self.net)
        return spatial_map(self.map_network.to(output.device), output, content)


def is_cached(net: Net = "alex") -> bool:
    """Whether a network's weights are on this machine, so that `Lpips` needs no download."""
    return weights_.cached(TRUNKS[net].weights).exists()


def distance_network(net: Net = "alex") -> Frozen:
    """Returns torchmetrics' network for `perceptual_distance`; raises as `Lpips` does."""
    # Its public class would have torchvision read the file in the cache, which unpickles whatever is there.
    return _with_trunk(lambda: _NoTrainLpips(net=net, pnet_rand=True), net)


def map_network(net: Net = "alex") -> Frozen:
    """Returns the lpips package's network for `spatial_map`; raises as `Lpips` does."""

    def build() -> nn.Module:
        with warnings.catch_warnings():
            # The package asks torchvision for `pretrained=False`, which has been called `weights=None` since 0.13.
            warnings.filterwarnings("ignore", "The parameter 'pretrained' is deprecated", UserWarning)
            warnings.filterwarnings("ignore", "Arguments other than a weight enum", UserWarning)
            network: nn.Module = lpips.LPIPS(net=net, spatial=True, pnet_rand=True, verbose=False)
        return network

    return _with_trunk(build, net)


def perceptual_distance(network: Frozen, output: Tensor, content: Tensor) -> Tensor:
    """Returns LPIPS of images, (N,), at least 0; NaN where they are smaller than the network takes.

    Args:
        network: Of `distance_network`.
        output: (N, 3, H, W), sRGB in [0, 1], of the size at which it is to be compared.
        content: Likewise.

    Raises:
        InputError: If the images differ in size or number.
    """
    check_alike(output, content)
    if _too_small(network, output):
        return output.new_full((len(output),), torch.nan)
    distance: Tensor = network(output, content, normalize=True)
    return distance.flatten()


def spatial_map(network: Frozen, output: Tensor, content: Tensor) -> Tensor:
    """Returns where output and content differ, (N, 1, H, W), at least 0; NaN where they are too small.

    The layers' maps, enlarged to the images' size and added up. Its mean is `perceptual_distance`, but for what the
    enlarging weighs unevenly where a side is no multiple of a layer's: a part of 1e-4 of it at the sizes tried, from
    40 to 384 px.

    Args:
        network: Of `map_network`.
        output: (N, 3, H, W), sRGB in [0, 1], of the size at which it is to be compared.
        content: Likewise.

    Raises:
        InputError: If the images differ in size or number.
    """
    check_alike(output, content)
    if _too_small(network, output):
        return torch.full_like(output[:, :1], torch.nan)
    found: Tensor = network(output, content, normalize=True)
    return found


def _too_small(network: Frozen, image: Tensor) -> bool:
    net: Net = network.network.pnet_type  # type: ignore[assignment]  # torch has attributes of modules be tensors
    return min(image.shape[-2:]) < TRUNKS[net].min_side


def _with_trunk(build: Callable[[], nn.Module], net: Net) -> Frozen:
    """Returns a network of LPIPS with torchvision's weights, which are there or not before anything is built."""
    if net not in TRUNKS:
        msg = f"unknown net {net!r} of LPIPS; known are {', '.join(TRUNKS)}"
        raise InputError(msg)
    trunk = TRUNKS[net]
    file = str(weights_.fetch(trunk.weights))
    state = weights_.load(file, None)
    with torch.device("meta"):
        whole = trunk.build().state_dict()
    with torch.random.fork_rng(devices=[]):  # building draws weights at first, and a run's noise is not to depend on it
        network = build()
    # Both packages sort the modules of torchvision's `features` into slices, and leave them their numbers.
    slices = network.get_submodule("net")
    names = {name: re.sub(r"^slices?\.?\d+\.", "features.", name) for name in slices.state_dict()}
    weights_.check(state, whole, set(names.values()), file)
    slices.load_state_dict({name: state[torchvisions] for name, torchvisions in names.items()})
    return Frozen(network)
