"""Style transfer from Python, in one call."""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import lightning as L
import PIL.Image

from nst_lightning import images, optim
from nst_lightning.callbacks import ProgressBar
from nst_lightning.data import PairDataModule
from nst_lightning.errors import InputError
from nst_lightning.modules import StyleTransfer

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
    if isinstance(options.get("optimizer"), str):
        options["optimizer"] = _optimizer(options["optimizer"])
    module = StyleTransfer(**{name: value for name, value in options.items() if name in of_model})
    sources: Any = content, style  # PairDataModule's annotations are those of a command line
    data = PairDataModule(*sources, **{name: value for name, value in options.items() if name in of_data})
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
    (batch,) = data.batches
    (alpha,) = batch.alphas(data.stages[-1])
    return images.to_pil(module.result.cpu(), alpha)


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps back what Lightning says of its own workings; warnings of ours and errors go through."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Found \d+ module\(s\) in eval mode")  # the frozen backbone
        warnings.filterwarnings("ignore", message=r"Checkpoint directory .* exists and is not empty")  # a resumed run's
        # What Lightning 2.6 itself calls of jsonargparse is to go in jsonargparse 5, which this package does not admit.
        warnings.filterwarnings("ignore", message=r"\s*(By default only one Jsonarg|``instantiate_classes``)")
        warnings.filterwarnings("ignore", message=r".*LeafSpec", category=FutureWarning)  # Lightning 2.6, torch 2.14
        try:
            yield
        finally:
            logger.setLevel(level)


def _parameters(function: Callable[..., Any]) -> set[str]:
    return set(inspect.signature(function).parameters) - {"content", "style"}


def _optimizer(name: str) -> Callable[..., Any]:
    if name not in _OPTIMIZERS:
        msg = f"unknown optimizer {name!r}; known are {', '.join(_OPTIMIZERS)}, or a function that makes one"
        raise InputError(msg)
    return _OPTIMIZERS[name]
