"""Style transfer: content from one image, style from another."""

from __future__ import annotations

from typing import get_args

from lightning.pytorch.callbacks import Callback
from lightning.pytorch.cli import OptimizerCallable

from nst_lightning import optim
from nst_lightning.backbones import Backbone, Border, Pooling, spec_of
from nst_lightning.errors import InputError
from nst_lightning.losses import CONTENT_LOSSES, IMAGE, STYLE_LOSSES, Objective, Temporal, Term
from nst_lightning.modules.optimization import ImageOptimization
from nst_lightning.modules.problem import (
    Convention,
    Layers,
    Losses,
    Problem,
    Tile,
    listed,
    representation,
    smoothness,
)
from nst_lightning.modules.strength import Strength
from nst_lightning.regions import Edge


class StyleTransfer(ImageOptimization):
    """Paints content images in the manner of style images, Gatys et al. (2016).

    By default every comparison is divided by the size of what it compares with, which is what an image without features
    would be compared as: one set of weights then serves every network. Departs from Gatys et al. (2016), equations 1 to
    7, whose losses grow with the second and fourth power of the features; those are the convention `absolute`.

    Args:
        backbone: The network whose features are compared: `vgg16`, `vgg16_experimental`, `vgg19`,
            `resnet50` or `inception_v3`.
        weights: `oxford` (bundled, VGGs only), `torchvision` (downloaded once) or a .safetensors or .pth file;
            by default the first of these that the backbone has.
        pooling: `max`, whose gradients alias; `avg` or `l2`, smoother ones; or `avg_plain`, which fades with depth.
        border: What the network sees beyond the image: `zeros`, or `replicate`, its outermost pixels.
        pixel_range: Feeds the network the image times a number, less the mean colour on 0 to 255; by default it is fed
            what its weights were trained on.
        normalized: Whether a VGG's bundled weights are scaled so that every filter's mean activation is 1,
            as Gatys et al. (2016) did: the layers then weigh alike.
        content_layers: A layer or several (`relu3_1,relu4_2` or a list), a mapping from layers to their relative
            weights, or a place in the study's table, from 0, see `backbones.Spec`.
        style_layers: As content_layers, but a number n stands for the style layers among the first n of the table. The
            weights of a mapping are divided by their sum.
        style_loss: What the style is compared by, names of `losses.STYLE_LOSSES` between commas, or names with their
            weights (`{gram: 1, histogram: 0.1}`), or with those of their layers (`{gram: {relu1_1: 1, relu3_1: 2}}`).
        content_loss: What the content is compared by, likewise of `losses.CONTENT_LOSSES`.
        tv_loss: What smoothness is measured by: `l1_mean`; `l1`, which grows with the image and counts on 0 to 255; or
            `nine_point`, squared differences.
        style_rotations: Whether the style images are seen turned by 90, 180 and 270 degrees as well.
        mask_edge: Which positions of a layer a mask counts: `even`, by the part of them that it covers; `inside`, those
            that see nothing else, where there are any; `grown`, all that see any of it.
        convention: `relative` divides each comparison by its target's size; `absolute` does not, and its weights belong
            to one network, see the presets.
        content_weight: How much the outlines count. 0 leaves the content out.
        style_weight: How much the palette and the texture count. 0 leaves the style out.
        tv_weight: How much smoothness counts. 0 leaves it out.
        temporal_weight: How much a frame of a film is held to the one before, where that shows the same. 0 leaves that
            out.
        init: What to start from: `content`, `style`, `gaussian` or `uniform` noise, a blank of the style's `mean`
            colour or a `grey` one, a picture's file, or `painter:` before that of a painter (`nst train`).
        optimizer: Makes the optimiser of the image; by default one L-BFGS an image, `optim.LBFGS`.
        seed: The seed of the noise to start from.
        tile: Side of the tiles in pixels that the network sees one at a time, so that its memory does not grow with
            the image; the result is the same. `auto` takes the largest that fits, `off` the whole image at once.
        compile: Whether torch.compile makes the network, anew for every size. On the CPUs where it was measured it
            takes half a minute and the steps are no faster.
        graph: Whether a GPU is given a whole step as one CUDA graph, recorded anew at every stage, instead of hundreds
            of kernels one by one, which below 1024 px take longer to be launched than to run. For `lbfgs` alone;
            callbacks do not see the image's gradient.

    Raises:
        InputError: If a name is unknown or a weight out of range; as `WeightsError`, if the weights cannot be had.
    """

    def __init__(
        self,
        backbone: str = "vgg16",
        weights: str | None = None,
        pooling: Pooling = "max",
        border: Border = "zeros",
        pixel_range: float | None = None,
        normalized: bool = False,
        content_layers: Layers = None,
        style_layers: Layers = None,
        style_loss: Losses = "gram,matched,nearest",
        content_loss: Losses = "features",
        tv_loss: str = "l1_mean",
        style_rotations: bool = False,
        mask_edge: Edge = "even",
        convention: Convention = "relative",
        content_weight: float = 1.0,
        style_weight: float = 2.5,
        tv_weight: float = 0.0,
        temporal_weight: float = 0.0,
        init: str = "content",
        # Not LBFGS itself: jsonargparse would hand its learning rate on to whichever class is named instead.
        optimizer: OptimizerCallable | None = None,
        seed: int = 0,
        tile: Tile = "off",
        compile: bool = False,
        graph: bool = False,
    ) -> None:
        optimizer = optim.LBFGS if optimizer is None else optimizer
        spec = spec_of(backbone)
        if convention not in get_args(Convention):
            raise InputError(f"unknown convention {convention!r}; known are {', '.join(get_args(Convention))}")
        of_groups = {"content": content_weight, "style": style_weight, "tv": tv_weight}
        of_groups |= {"temporal": temporal_weight}
        unit = 1.0 if normalized else spec.origin(weights, pixel_range).unit
        relative = convention == "relative"
        content = representation("content", content_layers, spec, content_loss, CONTENT_LOSSES, unit, relative)
        style = representation("style", style_layers, spec, style_loss, STYLE_LOSSES, unit, relative)
        temporal = [Term("temporal", (IMAGE,), Temporal(), 1.0)] if temporal_weight > 0 else []
        objective = Objective([*content, *style, smoothness(tv_loss), *temporal])
        of_network = pooling, border, pixel_range, normalized
        network = Backbone(backbone, objective.layers, weights, *of_network)
        of_masks = style_rotations, mask_edge
        super().__init__(Problem(network, objective, of_groups, optimizer, init, seed, tile, compile, graph, *of_masks))
        self.save_hyperparameters(ignore="optimizer")
        self.settings = {
            **self.hparams,
            **self.problem.settings,
            "style_loss": str(style_loss),
            "content_loss": str(content_loss),
            "content_layers": listed(objective, "content"),
            "style_layers": listed(objective, "style"),
        }

    def configure_callbacks(self) -> list[Callback]:
        """Returns what finds the style weights of pairs that have a strength."""
        return [Strength()]
