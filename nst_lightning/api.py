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

RECONSTRUCTION = {
    "content": {"size": 256, "steps": 200, "stages": 2},
    "style": {"size": 256, "steps": 200, "stages": 1},
}
"""What a reconstruction takes by default, by representation. A coarse stage lets relu1_2 come back at 34.5 instead of
21.6 dB; from the style, whose features have no places, its few pixels would pin the painting's layout."""

_OWN_WORKINGS = (
    r"Found \d+ module\(s\) in eval mode",  # the frozen backbone
    r"Be aware that when using `ckpt_path`, callbacks",  # to validate
    # What Lightning 2.6 itself calls of jsonargparse is to go in jsonargparse 5, which this package does not admit.
    r"\s*(By default only one Jsonarg|``instantiate_classes``)",
    r"Total length of .* across ranks is zero",  # nothing left for a rank
    r".*LeafSpec",  # Lightning 2.6, torch 2.14
    r"The \.grad attribute of a Tensor that is not a leaf",  # torch.compile looks at everything that a tensor has
)


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
    module, data = _made(StyleTransfer, {"content": content, "style": style, **options})
    _fit(module, data, progress, accelerator)
    (batch,) = data.batches
    (alpha,) = batch.alphas(data.stages[-1])
    return images.to_pil(module.result.cpu(), alpha)


def reconstruct(
    image: images.Source,
    layers: Sequence[str] | None = None,
    source: Literal["content", "style"] = "content",
    *,
    progress: bool = True,
    accelerator: str = "auto",
    **options: Any,
) -> dict[str, PIL.Image.Image]:
    """Rebuilds an image from noise, once for each layer, out of what the layer holds of it.

    Args:
        image: A file, a PIL image or a tensor (3, H, W) in [0, 1].
        layers: The layers, shallowest first; by default the style layers of the backbone.
        source: The representation, see `rebuilt`: `content` or `style`.
        progress: Whether to show a progress bar.
        accelerator: What to compute on, one of Lightning's accelerators.
        options: Those of `data.PairDataModule` (`size`, 256 by default, `steps`, 200 for each picture, ...) and
            `modules.Reconstruction` (`backbone`, `weights`, `tv_weight`, `init`, `seed`, ...).

    Returns:
        The pictures by the layer's name, in the order of the layers.

    Raises:
        InputError: If an option is unknown, or anything given cannot be used.
    """
    if layers is None:
        layers = spec_of(options.get("backbone", "vgg16")).style_layers
    common = {"content": image, "style": image, "source": source, **RECONSTRUCTION[source], **options}

    def run(layer: str, seen: list[str]) -> ImageOptimization:
        return _fit(*_made(Reconstruction, {**common, "layers": seen}), progress, accelerator)

    return dict(rebuilt(layers, source, run))


def rebuilt(
    layers: Sequence[str], source: str, run: Callable[[str, list[str]], ImageOptimization]
) -> Iterator[tuple[str, PIL.Image.Image]]:
    """Yields each layer's name and the picture that a run makes for it.

    From the content a picture sees one layer; from the style a layer and all before it, as in Gatys et al. (2016),
    figure 1.

    Args:
        layers: The layers, shallowest first.
        source: The representation: `content` or `style`.
        run: Called with a layer's name and the layers that its picture sees; returns what optimised the picture.
    """
    for place, layer in enumerate(layers):
        seen = [*layers[: place + 1]] if source == "style" else [layer]
        yield layer, images.to_pil(run(layer, seen).result.cpu())


def _made(kind: type[ImageOptimization], options: dict[str, Any]) -> tuple[ImageOptimization, PairDataModule]:
    """Returns module and data, each made of those of the options that it takes; an optimiser may be named."""
    of_data, of_model = (inspect.signature(each).parameters for each in (PairDataModule, kind))
    unknown = sorted(options.keys() - of_data.keys() - of_model.keys())
    if unknown:
        msg = f"unknown option {unknown[0]!r}; known are {', '.join(sorted({*of_data, *of_model}))}"
        raise InputError(msg)
    name = options.get("optimizer")
    if isinstance(name, str):
        if name not in optim.NAMED:
            msg = f"unknown optimizer {name!r}; known are {', '.join(optim.NAMED)}, or a function that makes one"
            raise InputError(msg)
        options = {**options, "optimizer": optim.NAMED[name]}
    module = kind(**{name: options[name] for name in of_model if name in options})
    return module, PairDataModule(**{name: options[name] for name in of_data if name in options})


def _fit(module: ImageOptimization, data: PairDataModule, progress: bool, accelerator: str) -> ImageOptimization:
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
    return module


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps back what Lightning says of its own workings; warnings of ours and errors go through."""
    loggers = [logging.getLogger(f"lightning.{part}") for part in ("pytorch", "fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    with warnings.catch_warnings():
        for message in _OWN_WORKINGS:
            warnings.filterwarnings("ignore", message)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
