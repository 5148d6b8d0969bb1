"""Style transfer and reconstruction from Python, in one call each."""

from __future__ import annotations

import copy
import inspect
import io
import logging
import os
import re
import threading
import warnings
from argparse import ArgumentError
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib import import_module
from typing import Any, Literal, get_type_hints, overload

import lightning as L
import numpy as np
import PIL.Image
import torch
from jsonargparse import ArgumentParser
from lightning.pytorch.callbacks import Callback

from nst_lightning import figures, files, images, memory, optim, painters, presets
from nst_lightning.backbones import spec_of
from nst_lightning.batches import Step
from nst_lightning.callbacks import ProgressBar
from nst_lightning.data import PairDataModule
from nst_lightning.errors import InputError
from nst_lightning.files import Images
from nst_lightning.modules import ImageOptimization, Reconstruction, StyleTransfer
from nst_lightning.painters.photographs import device_of, painted_by
from nst_lightning.pairs import Pair
from nst_lightning.schedule import Stage

RECONSTRUCTION = {
    "content": {"size": 256, "steps": 200, "stages": 2},
    "style": {"size": 256, "steps": 200, "stages": 1},
}
"""What a reconstruction takes by default, by representation. A coarse stage lets relu1_2 come back at 34.5 instead of
21.6 dB; from the style, whose features have no places, its few pixels would pin the painting's layout."""

_OWN_WORKINGS = (
    r"Found \d+ module\(s\) in eval mode",  # the frozen backbone
    r"Be aware that when using `ckpt_path`, callbacks",  # resumed with other callbacks
    r"\s*(By default only one Jsonarg|``instantiate_classes``)",  # what Lightning 2.6 calls and jsonargparse 5 drops
    r"Total length of .* across ranks is zero",  # nothing left for a rank
    r"You're resuming from a checkpoint that ended before",  # crops go on with the step
    r"Checkpoint directory .* exists and is not empty",  # it is gone on from
    r"The '\w+' does not have many workers",  # chosen
    r"This DataLoader will create \d+ worker",  # chosen: they decode ahead of what computes
    r".*LeafSpec",  # Lightning 2.6, torch 2.14
    r"The \.grad attribute of a Tensor that is not a leaf",  # torch.compile looks at everything that a tensor has
)


_ALONE = threading.RLock()


@contextmanager
def _apart() -> Iterator[None]:
    """Keeps torch's ambient state out of what is done within and leaves it as it was; one thread at a time.

    The lock is there because torch.fx, default dtypes, warnings' filters and numbers of threads are the process's.
    """
    # Not asked without one: torch 2.6, built for GPUs, fails where there is none.
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    kinds = ("cpu",) if accelerator is None else ("cpu", accelerator.type)
    with _ALONE, ExitStack() as stack:
        stack.callback(torch.set_default_dtype, torch.get_default_dtype())
        stack.callback(torch.set_float32_matmul_precision, torch.get_float32_matmul_precision())
        stack.callback(torch.set_num_threads, torch.get_num_threads())
        stack.callback(memory.give_back)  # what a run that failed keeps
        torch.set_default_dtype(torch.float32)
        torch.set_float32_matmul_precision("highest")
        for each in (torch.inference_mode(False), torch.enable_grad(), torch.device("cpu")):
            stack.enter_context(each)
        for kind in kinds:
            stack.enter_context(torch.autocast(kind, enabled=False))
        try:
            yield
        except SystemExit as ended:  # what Lightning makes of Ctrl-C
            raise ended.__context__ or ended from None


@overload
def stylize(
    content: images.Source, style: images.Source, *, progress: bool = ..., accelerator: str = ..., **options: Any
) -> PIL.Image.Image: ...
@overload
def stylize(
    content: Images, style: Images, *, progress: bool = ..., accelerator: str = ..., **options: Any
) -> list[PIL.Image.Image]: ...
@_apart()
def stylize(
    content: Images, style: Images, *, progress: bool = True, accelerator: str = "auto", **options: Any
) -> PIL.Image.Image | list[PIL.Image.Image]:
    """Returns a content image painted in the manner of a style image, to the pixel as `nst fit` does.

    Of a list of either, a list of pictures, in the order of the pairs, see `pairs.pair_up`; with `style_weights` or
    `content_mask`, all styles are in one picture, see `pairs.chosen`. What surrounds the call
    (`torch.inference_mode`, autocast, another default dtype or device) changes neither the picture nor is it changed;
    of several threads one paints at a time, the others wait.

    Args:
        content: The photograph: a file, a PIL image, a tensor (3, H, W) or an array (H, W, 3), see `images.read`.
        style: The painting, likewise.
        progress: Whether to show a progress bar.
        accelerator: What to compute on, one of Lightning's accelerators: `auto`, `cpu`, `gpu`, ...
        options: Those of `data.PairDataModule` (`size`, ...) and `modules.StyleTransfer` (`style_weight`, ...), and
            `preset`, which those beside it go before.

    Raises:
        InputError: If an option is unknown, or anything given cannot be used.
    """
    given = {"content": content, "style": style, **options}
    _, pictures = _fitted(StyleTransfer, given, progress, accelerator)
    together = options.get("style_weights") is not None or options.get("content_mask") is not None
    several = isinstance(style, (list, tuple)) and not together
    return pictures if isinstance(content, (list, tuple)) or several else pictures[0]


def _signature() -> inspect.Signature:
    """Returns that of `stylize` with its options by name, for completion and help."""
    own = [each for each in inspect.signature(stylize).parameters.values() if each.name != "options"]
    of_both = {**inspect.signature(PairDataModule).parameters, **inspect.signature(StyleTransfer).parameters}
    preset = inspect.Parameter("preset", inspect.Parameter.KEYWORD_ONLY, default=None, annotation="str | None")
    others = [each.replace(kind=preset.kind) for name, each in of_both.items() if name not in ("content", "style")]
    return inspect.Signature([*own, preset, *others])


stylize.__signature__ = _signature()  # type: ignore[attr-defined] # as inspect looks for it


@_apart()
def reconstruct(
    image: images.Source,
    layers: Sequence[str] | None = None,
    source: Literal["content", "style"] = "content",
    *,
    progress: bool = True,
    accelerator: str = "auto",
    **options: Any,
) -> Rebuilt:
    """Returns an image rebuilt from noise out of what layers hold of it, by the layer's name.

    The layers, shallowest first, are by default the style layers of the backbone; see `rebuilt` for the representation
    `source`. Options are those of `data.PairDataModule` and `modules.Reconstruction`, some with `RECONSTRUCTION`'s
    defaults; the image, `progress` and `accelerator` are as in `stylize`.

    Raises:
        InputError: If an option is unknown, or anything given cannot be used.
    """
    if layers is None:
        layers = spec_of(options.get("backbone", "vgg16")).style_layers
    common = {"content": image, "style": image, "source": source, **RECONSTRUCTION[source], **options}

    def run(_: str, seen: list[str]) -> ImageOptimization:
        return _fitted(Reconstruction, {**common, "layers": seen}, progress, accelerator)[0]

    return Rebuilt(rebuilt(layers, source, run))


@_apart()
def paint(
    content: Images,
    painter: str | os.PathLike[str] = painters.BUNDLED,
    *,
    size: int | None = None,
    styles: Mapping[str, float] | None = None,
    strength: float = 1.0,
    accelerator: str = "auto",
) -> PIL.Image.Image | list[PIL.Image.Image]:
    """Returns a photograph painted in one pass by a painter of `nst train`, or of a list a list.

    Args:
        content: The photograph: a file, a PIL image, a tensor (3, H, W) or an array (H, W, 3), see `images.read`.
        painter: The painter's file, a checkpoint, or `bundled`.
        size: Long side in pixels where that is smaller than the photograph's.
        styles: The weights of the painter's styles by their names; by default the first alone.
        strength: How far to go from the photograph, 0, to the painting, 1, pixel by pixel.
        accelerator: What to compute on, as in `stylize`.

    Raises:
        InputError: If anything given cannot be used.
    """
    trained, device = painters.load(painter), device_of(accelerator)
    found = files.find("content", content, files.CONTENT_FOLDER)
    pictures = [images.to_pil(*painted_by(trained, each, size, styles, strength, device)) for each in found]
    return pictures if isinstance(content, (list, tuple)) else pictures[0]


class Rebuilt(dict[str, PIL.Image.Image]):
    """Pictures by layer, which a notebook shows in a row."""

    def _repr_png_(self) -> bytes:
        stream = io.BytesIO()
        figures.grid([[*self.values()]], [""], [*self], "", "").save(stream, "PNG")
        return stream.getvalue()


def rebuilt(
    layers: Sequence[str], source: str, run: Callable[[str, list[str]], ImageOptimization]
) -> Iterator[tuple[str, PIL.Image.Image]]:
    """Yields each layer's name and the picture that a run makes for it.

    From the content a picture sees one layer; from the style a layer and all before it, as in Gatys et al. (2016),
    figure 1. The run is called with a layer's name and the layers that its picture sees.
    """
    for place, layer in enumerate(layers, start=1):
        seen = [*layers[:place]] if source == "style" else [layer]
        yield layer, images.to_pil(run(layer, seen).result.cpu())


def _fitted(
    kind: type[ImageOptimization], options: dict[str, Any], progress: bool, accelerator: str
) -> tuple[ImageOptimization, list[PIL.Image.Image]]:
    """Returns the module after a run, and the pictures in the order of the pairs."""
    if {"strength", "style_weight"} <= options.keys():
        raise InputError("strength finds the style_weight: leave out one of them")
    preset = options.get("preset")
    brought = {} if preset is None else presets.options(preset)
    if "stages" in brought:
        brought["stages"] = [Stage(**stage) for stage in brought["stages"]]
    options = {**brought, **{name: value for name, value in options.items() if name != "preset"}}
    of_model, of_data = (inspect.signature(each).parameters for each in (kind, PairDataModule))
    if unknown := sorted(options.keys() - of_model.keys() - of_data.keys()):
        raise InputError(f"unknown option {unknown[0]!r}; known are {', '.join(sorted({*of_model, *of_data}))}")
    options = _typed(kind, options)
    name = options.get("optimizer")
    if isinstance(name, str):
        made = optim.NAMED.get(name.lower(), getattr(torch.optim, name.rpartition(".")[2], None))
        if made is None:
            known = f"{', '.join(optim.NAMED)}, the classes of torch.optim, or a function that makes one"
            raise InputError(f"unknown optimizer {name!r}; known are {known}")
        options = {**options, "optimizer": made}
    elif isinstance(name, Mapping):  # a preset's
        module_name, _, class_name = name["class_path"].rpartition(".")
        made = partial(getattr(import_module(module_name), class_name), **name.get("init_args", {}))
        options = {**options, "optimizer": made}
    module = kind(**{name: options[name] for name in of_model if name in options})
    data = PairDataModule(**{name: options[name] for name in of_data if name in options})
    return module, [picture for _, picture in painted(module, data, progress, accelerator)]


def painted(
    module: ImageOptimization, data: PairDataModule, progress: bool, accelerator: str
) -> list[tuple[Pair, PIL.Image.Image]]:
    """Runs a module, and returns the pairs with the weights that they had and their pictures, in order."""
    of_trainer: dict[str, Any] = {"accelerator": accelerator, "devices": 1, "max_epochs": 1, "logger": False}
    finished = _Finished()
    of_trainer |= {"enable_progress_bar": progress, "callbacks": [finished, *([ProgressBar()] if progress else [])]}
    with quiet():
        trainer = trainer_of(**of_trainer, enable_checkpointing=False, enable_model_summary=False)
        trainer.fit(module, datamodule=data)
    return [finished.found[pair.name] for pair in data.pairs]


class _Finished(Callback):
    """Keeps pairs with their finished pictures, by their names."""

    def __init__(self) -> None:
        self.found: dict[str, tuple[Pair, PIL.Image.Image]] = {}

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: Step, batch_idx: int
    ) -> None:
        """Keeps those of a batch."""
        assert isinstance(pl_module, ImageOptimization)
        if batch.is_last:
            made = zip(batch.batch.pairs, pl_module.result.cpu(), batch.batch.alphas(batch.stage), strict=True)
            self.found |= {pair.name: (pair, images.to_pil(rgb, alpha)) for pair, rgb, alpha in made}


def _typed(kind: type[ImageOptimization], options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns options of the types that are declared, converted where nothing is lost: numpy's numbers, paths, texts.

    An InputError says what an option must be that is of another.
    """
    types = {**get_type_hints(PairDataModule.__init__), **get_type_hints(kind.__init__)}
    typed = dict(options)
    in_memory = {"content", "style", "content_mask", "style_mask", "optimizer"}  # what files cannot hold
    for name in options.keys() - in_memory:
        given = copy.deepcopy(options[name])
        plain = given.item() if isinstance(given, np.generic) else given
        parser = ArgumentParser(exit_on_error=False)
        parser.add_argument(f"--{name}", type=types[name])
        try:
            found = parser.parse_object({name: os.fspath(plain) if isinstance(plain, os.PathLike) else plain})
            parser.validate(found, False)  # None too
        except (ArgumentError, TypeError) as error:
            allowed = types[name].__name__ if isinstance(types[name], type) else str(types[name]).replace("typing.", "")
            allowed = re.sub(r"^Optional\[(.*)\]$", r"\1 | None", allowed)  # as Python 3.10 has it
            raise InputError(f"{name} must be {allowed}, got {given!r}") from error
        typed[name] = found[name]
    return typed


def trainer_of(**settings: Any) -> L.Trainer:
    """Returns a trainer; an InputError if there is none of these settings."""
    try:
        return L.Trainer(**settings)
    except (TypeError, ValueError, ImportError, RuntimeError) as error:
        raise InputError(f"these settings make no trainer: {error}") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps back what Lightning says of its own workings; what callbacks are asked to say and errors go through."""
    asked = ("lightning.pytorch.callbacks", "lightning.pytorch.profilers")
    levels = {logging.getLogger(name): logging.INFO for name in asked}
    levels |= {logging.getLogger(name): logging.WARNING for name in ("lightning.pytorch", "lightning.fabric")}
    before = {logger: logger.level for logger in levels}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "|".join(_OWN_WORKINGS))
        try:
            for logger, level in levels.items():
                logger.setLevel(level)
            yield
        finally:
            for logger, level in before.items():
                logger.setLevel(level)
