"""Reconstruction: an image out of one representation of it."""

from __future__ import annotations

from lightning.pytorch.cli import OptimizerCallable

from nst_lightning import optim
from nst_lightning.backbones import Backbone, Pooling, spec_of
from nst_lightning.errors import InputError
from nst_lightning.losses import CONTENT_LOSSES, STYLE_LOSSES, Objective, Source
from nst_lightning.modules.optimization import ImageOptimization
from nst_lightning.modules.problem import Layers, Losses, Problem, Tile, listed, representation, smoothness


class Reconstruction(ImageOptimization):
    """Rebuilds an image from one representation of it, Gatys et al. (2016), figure 1 and section 2.

    What comes back is what the layers hold: from the content representation, features at their places; from the
    style representation, Gram matrices, so textures without places.

    Args:
        layers: The layers of the representation, as those of content or style of `StyleTransfer`, as is all else.
        source: The representation: `content` or `style`.
        tv_weight: How much smoothness counts beside a weight of 1 for the representation. Gatys et al. have none.
        init: What to start from; the predecessor's is `uniform` noise.
    """

    def __init__(
        self,
        layers: Layers,
        source: Source = "content",
        style_loss: Losses = "gram",
        backbone: str = "vgg16",
        weights: str | None = None,
        pooling: Pooling = "max",
        tv_weight: float = 0.0,
        init: str = "uniform",
        optimizer: OptimizerCallable | None = None,
        seed: int = 0,
        tile: Tile = "off",
        compile: bool = False,
        graph: bool = False,
    ) -> None:
        if source not in {"content", "style"}:
            raise InputError(f"unknown representation {source!r}; known are content, style")
        optimizer = optim.LBFGS if optimizer is None else optimizer
        losses, known = ("features", CONTENT_LOSSES) if source == "content" else (style_loss, STYLE_LOSSES)
        spec = spec_of(backbone)
        terms = representation(source, layers, spec, losses, known, spec.origin(weights).unit, relative=False)
        objective = Objective([*terms, smoothness("l1")])
        network = Backbone(backbone, objective.layers, weights, pooling)
        of_groups = {source: 1.0, "tv": tv_weight}
        super().__init__(Problem(network, objective, of_groups, optimizer, init, seed, tile, compile, graph))
        self.save_hyperparameters(ignore="optimizer")
        self.settings = {**self.hparams, **self.problem.settings, "layers": listed(objective, source)}
