"""Style transfer: content from one image, style from another."""

from __future__ import annotations

from typing import Literal

from lightning.pytorch.cli import OptimizerCallable

from nst_lightning import optim
from nst_lightning.backbones import Backbone, Pooling, spec_of
from nst_lightning.losses import Objective
from nst_lightning.modules.optimization import ImageOptimization
from nst_lightning.modules.problem import SMOOTHNESS, Layers, Problem, Tile, listed, representation


class StyleTransfer(ImageOptimization):
    """Paints content images in the manner of style images, Gatys et al. (2016).

    The weights mean what they do in gordicaleksa's pytorch-neural-style-transfer: the backbone sees pixels times 255
    minus the mean colour, content is the mean squared difference of features, style the mean over layers of the summed
    squared difference of Gram matrices F F^T / (C H W), and the total variation the sum of absolute differences on the
    0-255 scale.

    Args:
        backbone: The network whose features are compared: `vgg16`, `vgg16_experimental`, `vgg19`,
            `resnet50` or `inception_v3`.
        weights: `oxford` (bundled, VGG16 only), `torchvision` (downloaded once) or a .safetensors or .pth file;
            by default the first of these that the backbone has.
        pooling: `max`, or `avg` for smoother gradients.
        content_layers: A layer or several (`relu3_1,relu4_2` or a list), a mapping from layers to their relative
            weights, or a place in the study's table, from 0, see `backbones.Spec`.
        style_layers: Likewise, but a number n stands for the style layers among the first n of the table. The
            weights of a mapping are divided by their sum.
        style_loss: What the style is compared by: `gram`, or `wasserstein`, the distance of Gaussians with the
            features' means and covariances, see `losses`.
        content_weight: How much the outlines count. 0 leaves the content out. By default 1e5 with a VGG.
        style_weight: How much the palette and the texture count. 0 leaves the style out. By default 100 with the
            bundled weights and the predecessor's 3e4 with torchvision's VGGs, see `backbones.Origin`.
        tv_weight: How much smoothness counts. 0 leaves it out.
        init: What to start from: `content`, `style`, `gaussian` or `uniform` noise.
        optimizer: Makes the optimiser of the image; by default one L-BFGS an image, `optim.LBFGS`.
        seed: The seed of the noise to start from.
        tile: Side of the tiles in pixels that the network sees one at a time, so that its memory does not grow with
            the image; the result is the same. `auto` takes the largest that fits, `off` the whole image at once.
        compile: Whether torch.compile makes the evaluation, anew for every size, on a GPU as CUDA graphs. On the CPUs
            where it was measured it takes half a minute and the steps are no faster.

    Raises:
        InputError: If a name is unknown or a weight is negative or not finite.
        WeightsError: If the backbone's weights cannot be had.
    """

    def __init__(
        self,
        backbone: str = "vgg16",
        weights: str | None = None,
        pooling: Pooling = "max",
        content_layers: Layers = None,
        style_layers: Layers = None,
        style_loss: str = "gram",
        content_weight: float | None = None,
        style_weight: float | None = None,
        tv_weight: float = 1.0,
        init: Literal["content", "style", "gaussian", "uniform"] = "content",
        # Not LBFGS itself: jsonargparse would hand its learning rate on to whichever class is named instead.
        optimizer: OptimizerCallable | None = None,
        seed: int = 0,
        tile: Tile = "off",
        compile: bool = False,
    ) -> None:
        optimizer = optim.LBFGS if optimizer is None else optimizer
        spec = spec_of(backbone)
        origin = spec.origin(weights)
        content_weight = origin.content_weight if content_weight is None else content_weight
        style_weight = origin.style_weight if style_weight is None else style_weight
        of_groups = {"content": content_weight, "style": style_weight, "tv": tv_weight}
        content = representation("content", content_layers, spec, style_loss)
        objective = Objective([*content, *representation("style", style_layers, spec, style_loss), SMOOTHNESS])
        network = Backbone(backbone, objective.layers, weights, pooling)
        super().__init__(Problem(network, objective, of_groups, optimizer, init, seed, tile, compile))
        self.save_hyperparameters(ignore="optimizer")
        self.settings = {
            **self.hparams,
            **self.problem.settings,
            "content_layers": listed(objective, "content"),
            "style_layers": listed(objective, "style"),
            "content_weight": content_weight,
            "style_weight": style_weight,
        }
