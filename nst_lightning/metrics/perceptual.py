"""How far an output is from the content to the eye: LPIPS of Zhang et al. (2018), as a number and as a map."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torchmetrics.functional.image.lpips import _NoTrainLpips
from torchvision import models
from torchvision.models._api import WeightsEnum

from nst_lightning.backbones import weights as weights_
from nst_lightning.errors import InputError
from nst_lightning.metrics.base import Comparison, Frozen, Seen
from nst_lightning.metrics.lab import SHORT_SIDE

Net = Literal["alex", "squeeze", "vgg"]
_MISSING = "LPIPS is left out, for its network is not on this machine: --scores {names} downloads it once (233 MB)"


class Trunk(NamedTuple):
    """A network of torchvision's, the weights that LPIPS was fitted to, and the smallest side of an image in pixels."""

    build: Callable[[], nn.Module]
    weights: WeightsEnum
    min_side: int


TRUNKS: Mapping[Net, Trunk] = {
    "alex": Trunk(models.alexnet, models.AlexNet_Weights.IMAGENET1K_V1, min_side=31),
    "squeeze": Trunk(models.squeezenet1_1, models.SqueezeNet1_1_Weights.IMAGENET1K_V1, min_side=17),
    "vgg": Trunk(models.vgg16, models.VGG16_Weights.IMAGENET1K_V1, min_side=16),
}


class Lpips(Comparison):
    """LPIPS 0.1 between output and content, from 0, alike, to about 1; NaN for images smaller than the network takes.

    Args:
        net: The network; Zhang et al. found `alex` nearest to people's judgment, and it is the fastest.
        short_side, kwargs: Those of `Score`.

    Raises:
        InputError: If the network is unknown.
        WeightsError: If its weights are not in the cache and cannot be downloaded, or are damaged.
    """

    name = "lpips"
    asked = "lpips"
    order = 50
    higher_is_better = False
    plot_upper_bound = None
    against = "content"

    def __init__(self, net: Net = "alex", short_side: int | None = SHORT_SIDE, **kwargs: Any) -> None:
        super().__init__(short_side, **kwargs)
        self.network = lpips_network(net)

    @classmethod
    def left_out(cls) -> str | None:
        """Returns how to have the network where it is not on this machine."""
        return None if weights_.cached(TRUNKS["alex"].weights).exists() else _MISSING

    def describe(self, image: Seen) -> Tensor:
        """Returns the images themselves, sRGB in [0, 1]."""
        return image.rgb

    def compare(self, output: Tensor, source: Tensor) -> Tensor:
        """Returns the distance, (N,)."""
        return perceptual_distance(self.network, output, source).flatten()


def lpips_network(net: Net = "alex") -> Frozen:
    """Returns torchmetrics' network of LPIPS with torchvision's weights; errors as of `Lpips`."""
    if net not in TRUNKS:
        raise InputError(f"unknown net {net!r} of LPIPS; known are {', '.join(TRUNKS)}")
    trunk = TRUNKS[net]
    file = str(weights_.fetch(trunk.weights))  # before anything is built, which takes longer than to find it missing
    state = weights_.load(file, None)
    with torch.device("meta"):
        whole = trunk.build().state_dict()
    with torch.random.fork_rng(devices=[]):  # building draws weights at first, and a run's noise is not to depend on it
        # torchmetrics' public class would have torchvision read the file, which unpickles whatever is there.
        network = _NoTrainLpips(net=net, pnet_rand=True)
    # torchvision's `features`, sorted into slices in which they keep their numbers.
    names = {name: re.sub(r"^slices?\.?\d+\.", "features.", name) for name in network.net.state_dict()}
    weights_.check(state, whole, set(names.values()), file)
    network.net.load_state_dict({name: state[torchvisions] for name, torchvisions in names.items()})
    return Frozen(network)


def perceptual_distance(network: Frozen, output: Tensor, content: Tensor, spatial: bool = False) -> Tensor:
    """Returns LPIPS of sRGB images in [0, 1], (N, 3, H, W), at least 0: (N, 1, 1, 1), or a map, (N, 1, H, W).

    NaN where they are too small. A map's mean is LPIPS but for a part of 1e-4, for the layers' maps are enlarged.
    """
    lpips = network.network
    assert isinstance(lpips, _NoTrainLpips)
    if min(output.shape[-2:]) < TRUNKS[lpips.pnet_type].min_side:
        return torch.full_like(output[:, :1] if spatial else output[:, :1, :1, :1], torch.nan)
    lpips.spatial = spatial
    found: Tensor = network(output, content, normalize=True)
    return found
