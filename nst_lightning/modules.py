"""The image as a LightningModule: the output is the parameter, the frozen backbone a submodule."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn

from nst_lightning import images, initializers, optim
from nst_lightning.backbones import Backbone, Pooling, Spec, spec_of
from nst_lightning.data import Step
from nst_lightning.errors import InputError
from nst_lightning.losses import IMAGE, Content, Gram, Objective, Source, Term, TotalVariation

Layers = int | list[str] | dict[str, float] | str | None


class ImageOptimization(L.LightningModule):
    """Optimises the pixels of images so that their features meet an objective.

    The only parameter is `image`, float32 (N, 3, H, W), sRGB in [0, 1] but not held there while it is
    optimised. A run is one epoch over the steps of a `data.Timeline`; where a step belongs to another batch or
    stage than the image does, the image, its optimiser and its targets are made anew.

    Args:
        backbone: The frozen network.
        objective: The weighted losses; their layers are the backbone's.
        optimizer: Makes the optimiser of a list with the one parameter.
        init: What the first stage starts from: `content`, `style`, `gaussian` or `uniform`.
        seed: The seed of the noise.

    Attributes:
        losses: What the images as they are were found to give, by name, (N,) each: `total` and its weighted
            parts `content`, `style`, `tv`; and the unweighted score of every term, e.g. `style/relu3_1`.
        targets: What the losses compare with, by the term's name, (N, ...) each; of the current batch and stage.
        settings: What the run was asked for, for the pictures' metadata and TensorBoard.
    """

    def __init__(
        self,
        backbone: Backbone,
        objective: Objective,
        optimizer: OptimizerCallable,
        init: str = "content",
        seed: int = 0,
    ) -> None:
        super().__init__()
        if init not in initializers.INITIALIZERS:
            msg = f"unknown init {init!r}; known are {', '.join(initializers.INITIALIZERS)}"
            raise InputError(msg)
        if not 0 <= seed < 2**63:
            msg = f"seed must be a whole number from 0 to 2**63 - 1, got {seed}"
            raise InputError(msg)
        self.backbone = backbone
        self.objective = objective
        self.make_optimizer = optimizer
        self.init = init
        self.seed = seed
        self.image = nn.Parameter(torch.zeros(1, 3, 1, 1))  # of no meaning before the first step
        self.losses: dict[str, Tensor] = {}
        self.settings: dict[str, str | int | float] = {}
        self._position: tuple[int, int] | None = None
        self.targets: dict[str, Tensor] = {}
        self._targets_position: tuple[int, int] | None = None

    @property
    def result(self) -> Tensor:
        """The output images (N, 3, H, W), clamped to [0, 1], detached."""
        return self.image.detach().clamp(0, 1)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Makes the optimiser of the current image.

        Raises:
            InputError: If a batch would share the curvature of one L-BFGS.
        """
        optimizer = self.make_optimizer([self.image])
        if isinstance(optimizer, torch.optim.LBFGS) and len(self.image) > 1:
            msg = "torch.optim.LBFGS couples the images of a batch: use nst_lightning.optim.LBFGS or batch_size 1"
            raise InputError(msg)
        return optimizer

    def on_fit_start(self) -> None:
        """Checks the trainer, see `check_trainer`."""
        check_trainer(self.trainer)

    def on_train_batch_start(self, batch: Step, batch_idx: int) -> None:
        """Moves on to the next batch or stage where the step belongs to one."""
        if batch.position != self._position:
            self._begin(batch)
        if batch.position != self._targets_position:  # also after a resume in the middle of a stage
            self._check_size(batch)
            self.targets = self._targets_of(batch)
            self._targets_position = batch.position

    def training_step(self, batch: Step, batch_idx: int) -> Tensor:
        """Returns the losses of the images, (N,)."""
        features = self._features(self.image)
        scores = self.objective.scores(self.objective.statistics(features, self.targets), self.targets)
        total = self.objective.total(scores)
        contributions = self.objective.contributions({name: score.detach() for name, score in scores.items()})
        self.losses = {**{name: score.detach() for name, score in scores.items()}, **contributions}
        return total

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Calls backward on the sum over images, so that each one's gradient is that of its own loss."""
        torch.autograd.backward(loss.sum())

    def optimizer_step(
        self,
        epoch: int,
        batch_idx: int,
        optimizer: torch.optim.Optimizer | LightningOptimizer,
        optimizer_closure: Callable[[], Any] | None = None,
    ) -> None:
        """Takes a step, and keeps the losses of the images that the optimiser took back with the images.

        Raises:
            InputError: If a stage begins with a loss that is not finite, which no optimiser could lower.
        """
        before = self.losses
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        inner = optimizer.optimizer if isinstance(optimizer, LightningOptimizer) else optimizer
        if not before:
            self._check_finite()
        elif isinstance(inner, optim.LBFGS):
            self.losses = {
                name: torch.where(inner.accepted, value, before[name]) for name, value in self.losses.items()
            }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Saves which batch and stage the image belongs to."""
        checkpoint["position"] = self._position

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Gives the parameter its shape before its values and its optimiser's state are loaded."""
        self.image = nn.Parameter(torch.empty_like(checkpoint["state_dict"]["image"]))
        position = checkpoint["position"]
        self._position = None if position is None else tuple(position)

    def _check_finite(self) -> None:
        wrong = [name for name, value in self.losses.items() if not bool(value.isfinite().all())]
        if wrong:
            msg = (
                f"the loss is not finite when a stage begins ({', '.join(wrong[:3])}): "
                "are the weights, or is the learning rate, far too large?"
            )
            raise InputError(msg)

    def _check_order(self, step: Step) -> None:
        if self._position is None:
            return
        batch_index, stage_index = self._position
        if step.position not in {(batch_index, stage_index + 1), (batch_index + 1, 0)}:
            msg = (
                f"the checkpoint is from stage {stage_index + 1} of batch {batch_index + 1}, this run would go on with "
                f"stage {step.stage_index + 1} of batch {step.batch_index + 1}: resume with the settings of that run"
            )
            raise InputError(msg)

    def _check_size(self, step: Step) -> None:
        expected = (len(step.batch.pairs), *step.batch.output_size(step.stage))
        count, _, height, width = self.image.shape
        if (count, height, width) != expected:
            msg = (
                f"the checkpoint holds {count} images of {width}x{height} px, this run asks for {expected[0]} of "
                f"{expected[2]}x{expected[1]} px: resume with the settings of that run"
            )
            raise InputError(msg)

    def _features(self, image: Tensor) -> dict[str, Tensor]:
        return {IMAGE: image, **self.backbone(image)}

    def _begin(self, step: Step) -> None:
        """Makes the image and its optimiser for a batch or stage that begins."""
        self._check_order(step)
        size = step.batch.output_size(step.stage)
        batch_index, stage_index = step.position
        if self._position == (batch_index, stage_index - 1):
            (optimizer,) = self.trainer.optimizers
            within_range = partial(nn.functional.interpolate, size=size, mode="bilinear", antialias=True)
            state = optim.carried_state(optimizer.state[self.image], self.image.shape, within_range)
            image = images.resize(self.image.detach(), size)
        else:
            state = None
            image = self._initial_image(step).to(self.device)
        self.image = nn.Parameter(image)
        self.losses = {}
        self._position = step.position
        self.trainer.strategy.setup_optimizers(self.trainer)
        if state is not None:
            self.trainer.optimizers[0].state[self.image] = state

    def _initial_image(self, step: Step) -> Tensor:
        contents, styles = step.batch.contents(step.stage), step.batch.styles(step.stage)
        return torch.cat(
            [
                initializers.initial_image(self.init, content[None], of_pair[0], self.seed)
                for content, of_pair in zip(contents, styles, strict=True)
            ]
        )

    @torch.no_grad()
    def _targets_of(self, step: Step) -> dict[str, Tensor]:
        # In the precision of training, so that the content loss of the content image is 0.
        with self.trainer.precision_plugin.forward_context():
            targets = {}
            if "content" in self.objective.sources:
                targets.update(self._source_targets("content", step.batch.contents(step.stage)))
            if "style" in self.objective.sources:
                of_pairs = [
                    _mean([self._source_targets("style", style) for style in styles])
                    for styles in step.batch.styles(step.stage)
                ]
                targets.update({name: torch.cat([of_pair[name] for of_pair in of_pairs]) for name in of_pairs[0]})
        return targets

    def _source_targets(self, source: Source, image: Tensor) -> dict[str, Tensor]:
        return self.objective.targets(source, self._features(image.to(self.device)))


def check_trainer(trainer: L.Trainer) -> None:
    """Refuses settings under which a step would not be one evaluation of one image.

    Raises:
        InputError: If the trainer accumulates gradients, has another number of epochs than 1, or several processes,
            which would average the gradients of unlike images.
    """
    for name, value in (
        ("accumulate_grad_batches", trainer.accumulate_grad_batches),
        ("max_epochs", trainer.max_epochs),
        ("devices", trainer.world_size),
    ):
        if value != 1:
            msg = f"trainer.{name} must be 1, got {value}: a run is one epoch of one process (see data.steps)"
            raise InputError(msg)


def _mean(targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([each[name] for each in targets]).mean(dim=0) for name in targets[0]}


class StyleTransfer(ImageOptimization):
    """Paints content images in the manner of style images, Gatys et al. (2016).

    The meaning of the weights is that of gordicaleksa's pytorch-neural-style-transfer: the
    backbone sees pixels times 255 minus the mean colour, content is the mean squared difference of features,
    style the mean over layers of the summed squared difference of Gram matrices F F^T / (C H W), and the total
    variation the sum of absolute differences on the 0-255 scale.

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
        content_weight: How much the outlines count. 0 leaves the content out. By default 1e5 with a VGG.
        style_weight: How much the palette and the texture count. 0 leaves the style out. By default 100 with the
            bundled weights and the predecessor's 3e4 with torchvision's VGGs, see `backbones.Origin`.
        tv_weight: How much smoothness counts. 0 leaves it out.
        init: What to start from: `content`, `style`, `gaussian` or `uniform` noise.
        optimizer: Makes the optimiser of the image; by default one L-BFGS an image, `optim.LBFGS`.
        seed: The seed of the noise to start from.

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
        content_weight: float | None = None,
        style_weight: float | None = None,
        tv_weight: float = 1.0,
        init: Literal["content", "style", "gaussian", "uniform"] = "content",
        # Not LBFGS itself: jsonargparse would hand its learning rate on to whichever class is named instead.
        optimizer: OptimizerCallable | None = None,
        seed: int = 0,
    ) -> None:
        spec = spec_of(backbone)
        optimizer = optim.LBFGS if optimizer is None else optimizer
        of = spec.origin(weights)
        content_weight = of.content_weight if content_weight is None else content_weight
        style_weight = of.style_weight if style_weight is None else style_weight
        objective = Objective(
            [
                *_terms("content", content_weight, _layer_weights("content", content_layers, spec)),
                *_terms("style", style_weight, _layer_weights("style", style_layers, spec)),
                *_terms("tv", tv_weight, {IMAGE: 1.0}),
            ]
        )
        network = Backbone(backbone, objective.layers, weights, pooling)
        super().__init__(network, objective, optimizer, init, seed)
        self.settings = {
            "backbone": backbone,
            "weights": network.origin,
            "pooling": pooling,
            "content_layers": _listed(objective, "content"),
            "style_layers": _listed(objective, "style"),
            "content_weight": content_weight,
            "style_weight": style_weight,
            "tv_weight": tv_weight,
            "init": init,
            "optimizer": _described(optimizer),
            "seed": seed,
        }


def _listed(objective: Objective, group: str) -> str:
    return ",".join(term.layer for term in objective.terms if term.group == group)


def _described(make_optimizer: OptimizerCallable) -> str:
    """Names an optimiser with the settings it makes of its defaults."""
    optimizer = make_optimizer([nn.Parameter(torch.zeros(1, 3, 1, 1))])
    settings = ", ".join(
        f"{name}={value}" for name, value in optimizer.defaults.items() if isinstance(value, (int, float, tuple))
    )
    return f"{type(optimizer).__name__}({settings})"


class Reconstruction(ImageOptimization):
    """Rebuilds an image from one representation of it, Gatys et al. (2016), figure 1 and section 2.

    What comes back is what the layers hold: from the content representation, features at their places; from the
    style representation, Gram matrices, so textures without places.

    Args:
        layers: The layers of the representation: names, a mapping to relative weights, or a place in the study's
            table, as for `StyleTransfer`.
        source: The representation: `content` or `style`.
        backbone: The network.
        weights: As for `StyleTransfer`.
        pooling: As for `StyleTransfer`.
        tv_weight: How much smoothness counts beside a weight of 1 for the representation. Gatys et al. have none.
        init: What to start from; the predecessor's is `uniform` noise.
        optimizer: Makes the optimiser of the image; by default `optim.LBFGS`.
        seed: The seed of the noise.

    Raises:
        InputError: If a name is unknown or a weight is out of range.
        WeightsError: If the backbone's weights cannot be had.
    """

    def __init__(
        self,
        layers: Layers,
        source: Source = "content",
        backbone: str = "vgg16",
        weights: str | None = None,
        pooling: Pooling = "max",
        tv_weight: float = 0.0,
        init: Literal["content", "style", "gaussian", "uniform"] = "uniform",
        optimizer: OptimizerCallable | None = None,
        seed: int = 0,
    ) -> None:
        if source not in {"content", "style"}:
            msg = f"unknown representation {source!r}; known are content, style"
            raise InputError(msg)
        optimizer = optim.LBFGS if optimizer is None else optimizer
        chosen = _layer_weights(source, layers, spec_of(backbone))
        objective = Objective([*_terms(source, 1.0, chosen), *_terms("tv", tv_weight, {IMAGE: 1.0})])
        network = Backbone(backbone, objective.layers, weights, pooling)
        super().__init__(network, objective, optimizer, init, seed)
        self.settings = {
            "backbone": backbone,
            "weights": network.origin,
            "pooling": pooling,
            "source": source,
            "layers": _listed(objective, source),
            "tv_weight": tv_weight,
            "init": init,
            "optimizer": _described(optimizer),
            "seed": seed,
        }


_LOSSES: Mapping[str, type[Content] | type[Gram] | type[TotalVariation]] = {
    "content": Content,
    "style": Gram,
    "tv": TotalVariation,
}


def _layer_weights(group: str, given: Layers, spec: Spec) -> Mapping[str, float]:
    """Returns the layers that were chosen by name or by their place in the study's table, with relative weights."""
    if given is None:
        given = list(spec.content_layers if group == "content" else spec.style_layers)
    if isinstance(given, Mapping):
        return given
    if isinstance(given, str):
        given = int(given) if given.isdecimal() else given.replace(" ", "").split(",")
    if isinstance(given, int):
        given = list(spec.content_at(given) if group == "content" else spec.style_up_to(given))
    return dict.fromkeys(given, 1.0)


def _terms(group: str, weight: float, layers: Mapping[str, float]) -> list[Term]:
    """Returns the terms of a group, whose weights sum to the group's; none where that is 0."""
    if not (math.isfinite(weight) and weight >= 0):
        msg = f"{group}_weight must be a finite number, 0 or above, got {weight}"
        raise InputError(msg)
    total = sum(layers.values())
    if weight == 0:
        return []
    if not layers or not (math.isfinite(total) and total > 0):
        msg = f"{group}_layers must name at least one layer, with weights above 0, got {dict(layers)}"
        raise InputError(msg)
    return [Term(group, layer, _LOSSES[group](), weight * share / total) for layer, share in layers.items()]
