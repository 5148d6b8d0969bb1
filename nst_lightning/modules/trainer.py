"""Which settings and callbacks of a Trainer have no meaning where a run is one epoch and its parameter an image."""

from __future__ import annotations

import timeit
from collections.abc import Mapping
from typing import Any

import lightning as L
import torch
from lightning.pytorch import callbacks

from nst_lightning.errors import InputError
from nst_lightning.parallel import check_world
from nst_lightning.terminal import say

_PRECISIONS = ("32-true", "64-true", "bf16-mixed", "16-mixed")  # image and losses are float32 at least
_HALF = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
_SLOWER = 1.2  # from which ratio of times to float32's on it is said, beyond what measuring is off by
_MANY = 1000  # epochs, Lightning's where none are asked for

_EPOCH = "a run is one epoch (see data.steps)"
_VALIDATION = "nothing is validated while images are painted; --score_every scores them, nst validate a checkpoint"
_NETWORK = "the network is frozen"
_IMAGE = "the image is another parameter at every stage"
# What a setting may be, the first by default, and why nothing else.
_SETTINGS: Mapping[str, tuple[tuple[object, ...], str]] = {
    **dict.fromkeys(("accumulate_grad_batches", "max_epochs"), ((1,), _EPOCH)),
    "min_epochs": ((None, 0, 1), _EPOCH),
    "reload_dataloaders_every_n_epochs": ((0, 1), _EPOCH),
    **dict.fromkeys(("limit_val_batches", "limit_test_batches", "limit_predict_batches"), ((None, 0), _VALIDATION)),
    **dict.fromkeys(("val_check_interval", "num_sanity_val_steps"), ((None, 0), _VALIDATION)),
    "check_val_every_n_epoch": ((1,), _VALIDATION),
    "inference_mode": ((True,), _VALIDATION),
    "sync_batchnorm": ((False,), _NETWORK),
    "default_root_dir": ((None,), "that is the run's folder, see --output"),
    "model_registry": ((None,), "checkpoints stay in the run's folder"),
    "barebones": ((False,), "it leaves out the callbacks that write the picture"),
}
_CALLBACKS: Mapping[type[callbacks.Callback], str] = {
    **dict.fromkeys((callbacks.BaseFinetuning, callbacks.ModelPruning), _NETWORK),
    **dict.fromkeys((callbacks.WeightAveraging, callbacks.StochasticWeightAveraging), _IMAGE),
    callbacks.LearningRateFinder: f"{_IMAGE}; --model.optimizer.lr sets the rate",
    callbacks.BatchSizeFinder: "--batch_size auto does what it does",
    callbacks.GradientAccumulationScheduler: "a step is one evaluation",
    callbacks.SpikeDetection: "the loss leaps wherever a stage or a pair begins",
    callbacks.BasePredictionWriter: "nothing is predicted",
}


def check_settings(settings: Mapping[str, Any]) -> None:
    """Raises an InputError for the first of a trainer's settings that a run could but ignore."""
    for name, (allowed, reason) in _SETTINGS.items():
        if settings[name] not in allowed:
            wanted = "cannot be" if allowed[0] is None else f"must be {allowed[0]}, got"
            raise InputError(f"trainer.{name} {wanted} {settings[name]}: {reason}")
    if settings["gradient_clip_algorithm"] is not None and settings["gradient_clip_val"] is None:
        raise InputError("trainer.gradient_clip_algorithm needs trainer.gradient_clip_val beside it")
    if settings["log_every_n_steps"] is None or settings["log_every_n_steps"] < 1:
        raise InputError(f"trainer.log_every_n_steps must be at least 1, got {settings['log_every_n_steps']}")


def check_trainer(trainer: L.Trainer) -> None:
    """Refuses settings under which a step is not one evaluation of one image, and what `check_world` refuses."""
    if trainer.max_epochs == _MANY:
        trainer.fit_loop.max_epochs = 1
    for name in ("accumulate_grad_batches", "max_epochs"):
        if (value := getattr(trainer, name)) != 1:
            raise InputError(f"trainer.{name} must be 1, got {value}: {_EPOCH}")
    if trainer.precision not in _PRECISIONS:
        raise InputError(f"trainer.precision must be one of {', '.join(_PRECISIONS)}, got {trainer.precision}")
    for each in trainer.callbacks:  # type: ignore[attr-defined] # set by a connector
        for kind, reason in _CALLBACKS.items():
            if isinstance(each, kind):
                raise InputError(f"{type(each).__name__} cannot be used: {reason}")
    check_world(trainer)


def tell_of_precision(trainer: L.Trainer) -> None:
    """Says where features of half precision take longer than those of float32, as on most processors."""
    if trainer.strategy.root_device.type == "cpu" and trainer.precision in _HALF and trainer.is_global_zero:
        ratio = _seconds(_HALF[trainer.precision]) / _seconds(torch.float32)
        if ratio > _SLOWER:
            say(f"nst: {trainer.precision} is slower on this processor: convolutions take {ratio:.1f} times as long")


def _seconds(dtype: torch.dtype) -> float:
    """Returns the least time of a few runs of a convolution."""
    image, weight = (torch.zeros(shape, dtype=dtype) for shape in ((1, 64, 32, 32), (64, 64, 3, 3)))
    image, weight = (each.contiguous(memory_format=torch.channels_last) for each in (image, weight))
    return min(timeit.repeat(lambda: torch.nn.functional.conv2d(image, weight, padding=1), number=1, repeat=4))
