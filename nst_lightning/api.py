"""Style transfer and reconstruction from Python, in one call each."""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import lightning as L
import PIL.Image

from nst_lightning import images, optim
from nst_lightning.backbones import spec_of
from nst_lightning.callbacks import ProgressBar
from nst_lightning.data import PairDataModule
from nst_lightning.errors import InputError
from nst_lightning.modules import ImageOptimization, Reconstruction, StyleTransfer

RECONSTRUCTION_STAGES = {"content": 2, "style": 1}
"""Coarse-to-fine stages by representation. A coarse stage lets relu1_2 come back at 34.5 instead of 21.6 dB; from the
style, whose features have no places, its few pixels would pin the painting's layout."""

_OPTIMIZERS = {"lbfgs": optim.LBFGS, "adam": optim.Adam}


def stylize(
    content: images.Source, style: images.Source, *, progress: bool = True, accelerator: str = "auto", **options: Any
) -> PIL.Image.Image:
    """Paints a content image in the manner of a style image.

    The result is, to the pixel, that of `nst fit` with the same options.

    Args:
        content: The photograph: a file, a PIL image or a tensor (3, H, W) in [0, 1].
        style: The painting, likewise.
        progress: Whether to show a progress bar.
        accelerator: What to compute on, one of Lightning's accelerators: `auto`, `cpu`, `gpu`, ...
        options: Those of `data.PairDataModule` (`size`, `steps`, `stages`, ...) and `modules.StyleTransfer`
            (`content_weight`, `style_weight`, `init`, `optimizer`, `seed`, ...).

    Returns:
        The painted photograph, with its transparency if it had any.

    Raises:
        InputError: If an option is unknown, or anything given cannot be used.
    """
    of_data, of_model = _parameters(PairDataModule), _parameters(StyleTransfer)
    unknown = options.keys() - of_data - of_model
    if unknown:
        msg = f"unknown option {sorted(unknown)[0]!r}; known are {', '.join(sorted(of_data | of_model))}"
        raise InputError(msg)
    options = _with_optimizer(options)
    module = StyleTransfer(**{name: value for name, value in options.items() if name in of_model})
    sources: Any = content, style  # PairDataModule's annotations are those of a command line
    data = PairDataModule(*sources, **{name: value for name, value in options.items() if name in of_data})
    _run(module, data, progress, accelerator)
    (batch,) = data.batches
    (alpha,) = batch.alphas(data.stages[-1])
    return images.to_pil(module.result.cpu(), alpha)


def reconstruct(
    image: images.Source,
    layers: Sequence[str] | None = None,
    source: Literal["content", "style"] = "content",
    *,
    size: int = 256,
    steps: int = 200,
    progress: bool = True,
    accelerator: str = "auto",
    **options: Any,
) -> dict[str, PIL.Image.Image]:
    """Rebuilds an image from noise, once for each layer, out of what the layer holds of it.

    Args:
        image: A file, a PIL image or a tensor (3, H, W) in [0, 1].
        layers: The layers, shallowest first; by default the style layers of the backbone.
        source: The representation, see `representations`: `content` or `style`.
        size: Long side in pixels.
        steps: Optimiser steps for each picture.
        progress: Whether to show a progress bar.
        accelerator: What to compute on, one of Lightning's accelerators.
        options: Further ones of `modules.Reconstruction`: `backbone`, `weights`, `tv_weight`, `init`, `seed`, ...

    Returns:
        The pictures by the layer's name, in the order of the layers.

    Raises:
        InputError: If anything given cannot be used.
    """
    if layers is None:
        layers = spec_of(options.get("backbone", "vgg16")).style_layers
    options = _with_optimizer(options)
    rebuilt = {}
    for name, seen in representations(layers, source).items():
        given: Any = image  # PairDataModule's annotations are those of a command line
        module = Reconstruction(seen, source, **options)
        _run(
            module,
            PairDataModule(given, given, size=size, steps=steps, stages=RECONSTRUCTION_STAGES[source]),
            progress,
            accelerator,
        )
        rebuilt[name] = images.to_pil(module.result.cpu())
    return rebuilt


def representations(layers: Sequence[str], source: str) -> dict[str, list[str]]:
    """Returns the layers that each picture of a reconstruction across depth sees, by the deepest one's name.

    From the content it is one layer; from the style a layer and all before it, as in Gatys et al. (2016), figure 1.
    """
    return {layer: list(layers[: place + 1]) if source == "style" else [layer] for place, layer in enumerate(layers)}


def _run(module: ImageOptimization, data: PairDataModule, progress: bool, accelerator: str) -> None:
    with quiet():
        trainer = L.Trainer(
            accelerator=accelerator,
            devices=1,
            max_epochs=1,
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=progress,
            callbacks=[ProgressBar()] if progress else [],
        )
        trainer.fit(module, datamodule=data)


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps back what Lightning says of its own workings; warnings of ours and errors go through."""
    loggers = [logging.getLogger(f"lightning.{part}") for part in ("pytorch", "fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Found \d+ module\(s\) in eval mode")  # the frozen backbone
        warnings.filterwarnings("ignore", message=r"Checkpoint directory .* exists and is not empty")  # a resumed run's
        warnings.filterwarnings("ignore", message="Be aware that when using `ckpt_path`, callbacks")  # to validate
        # What Lightning 2.6 itself calls of jsonargparse is to go in jsonargparse 5, which this package does not admit.
        warnings.filterwarnings("ignore", message=r"\s*(By default only one Jsonarg|``instantiate_classes``)")
        warnings.filterwarnings("ignore", message=r"Total length of .* across ranks is zero")  # nothing left for a rank
        warnings.filterwarnings("ignore", message=r".*LeafSpec", category=FutureWarning)  # Lightning 2.6, torch 2.14
        # torch.compile looks at everything that a tensor has.
        warnings.filterwarnings("ignore", message=r"The \.grad attribute of a Tensor that is not a leaf")
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def _parameters(function: Callable[..., Any]) -> set[str]:
    return set(inspect.signature(function).parameters) - {"content", "style"}


def _with_optimizer(options: dict[str, Any]) -> dict[str, Any]:
    """Returns options with an optimiser that is named replaced by what makes it."""
    name = options.get("optimizer")
    if not isinstance(name, str):
        return options
    if name not in _OPTIMIZERS:
        msg = f"unknown optimizer {name!r}; known are {', '.join(_OPTIMIZERS)}, or a function that makes one"
        raise InputError(msg)
    return {**options, "optimizer": _OPTIMIZERS[name]}
