"""The short names of the options that people type: for the command line, its help, and `stylize`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nst_lightning.errors import InputError


@dataclass(frozen=True)
class Option:
    """A short name.

    Attributes:
        name: What is typed, without dashes.
        target: The configuration key it stands for.
        value: What goes behind it, as the help shows it.
        help: What it does to the picture.
    """

    name: str
    target: str
    value: str
    help: str


OPTIONS: tuple[Option, ...] = (
    Option("content", "data.content", "FILE", "the photograph; a name is also looked up in data/content-images"),
    Option("style", "data.style", "FILE", "the painting; a name is also looked up in data/style-images"),
    Option("pairs", "data.pairs", "CSV", "a table of pairs instead: content, style, and what a pair has of its own"),
    Option("pairing", "data.pairing", "NAME", "several of both: zip, one with one, or product, all with all [zip]"),
    Option("output", "output", "PATH", "a picture's file name, or a folder [data/output-images/<pair>]"),
    Option("size", "data.size", "PIXELS", "long side of the output [512]"),
    Option("steps", "data.steps", "N", "optimiser steps, all stages together: more is closer to the style [300]"),
    Option("stages", "data.stages", "N", "coarse-to-fine sizes: more gives larger strokes [2]"),
    Option("content_weight", "model.content_weight", "X", "more keeps the outlines of the photograph [1e5 with a VGG]"),
    Option(
        "style_weight",
        "model.style_weight",
        "X",
        "more takes colours and brushwork of the painting [100 with oxford weights, else 3e4]",
    ),
    Option("tv_weight", "model.tv_weight", "X", "more smooths [1]"),
    Option("init", "model.init", "NAME", "start from content, style, gaussian or uniform [content]"),
    Option("backbone", "model.backbone", "NAME", "vgg16, vgg16_experimental, vgg19, resnet50 or inception_v3 [vgg16]"),
    Option("weights", "model.weights", "NAME", "oxford (bundled), torchvision (download) or a file [oxford]"),
    Option(
        "content_layers",
        "model.content_layers",
        "LAYERS",
        "e.g. relu4_2, or a place in the study's table from 0: deeper keeps less",
    ),
    Option(
        "style_layers",
        "model.style_layers",
        "LAYERS",
        "e.g. relu1_1,relu2_1, or up to which of the table: deeper takes larger forms",
    ),
    Option("optimizer", "model.optimizer", "NAME", "lbfgs, adam or a class of torch.optim [lbfgs]"),
    Option("seed", "model.seed", "N", "seed of a noise start [0]"),
    Option("batch_size", "data.batch_size", "N", "pairs of equal size to optimise together, or auto [1]"),
    Option("tile", "model.tile", "PIXELS", "compute in tiles, for images too large otherwise; also auto [off]"),
    Option("tolerance", "model.tolerance", "X", "end a stage if the loss falls by less in 20 steps; 0 never does [0]"),
    Option("compile", "model.compile", "true|false", "let torch.compile make the step: for GPUs and long runs [false]"),
    Option("devices", "trainer.devices", "N", "how many GPUs or processes, with --strategy [1]"),
    Option(
        "strategy", "trainer.strategy", "NAME", "pair_parallel (pairs dealt out) or tile_parallel (tiles dealt out)"
    ),
    Option("precision", "trainer.precision", "NAME", "32-true, bf16-mixed or 16-mixed [32-true]"),
    Option("save_every", "save_every", "N", "also write the picture every N steps [never]"),
    Option("scores", "scores", "NAMES", "auto, off, or some of outline,palette,texture,leak,lpips,features [auto]"),
    Option("score_every", "score_every", "N", "steps between two scorings on the way [a twelfth of them]"),
    Option("video", "video", "true|mp4|webp", "also write a film of the optimisation [false]"),
    Option("overwrite", "overwrite", "true|false", "replace an earlier output instead of numbering [false]"),
)

OPTIMIZERS = {"lbfgs": "nst_lightning.optim.LBFGS", "adam": "nst_lightning.optim.Adam"}
"""The optimisers that have a name of their own."""


def expand(arguments: Sequence[str]) -> list[str]:
    """Returns command-line arguments with the short names replaced by what they stand for.

    Raises:
        InputError: If an optimiser has neither a name of its own nor that of a class.
    """
    targets = {f"--{option.name}": f"--{option.target}" for option in OPTIONS}
    expanded: list[str] = []
    for argument in arguments:
        name, equals, value = argument.partition("=")
        key = targets.get(name, name)
        if expanded[-1:] == ["--model.optimizer"]:
            expanded.append(optimizer_path(argument))
        elif equals and key == "--model.optimizer":
            expanded.append(f"{key}={optimizer_path(value)}")
        else:
            expanded.append(key + equals + value)
    return expanded


def optimizer_path(name: str) -> str:
    """Returns the class path of an optimiser with a name of its own, and any other class name as it is.

    Raises:
        InputError: If it is neither.
    """
    path = OPTIMIZERS.get(name.lower(), name)
    if "." not in path and not path[:1].isupper() and not path.startswith("{"):
        msg = f"unknown optimizer {name!r}; known are {', '.join(OPTIMIZERS)} or a class of torch.optim, e.g. RMSprop"
        raise InputError(msg)
    return path


def table() -> str:
    """Returns the options as lines of help."""
    heads = [f"  --{option.name} {option.value}" for option in OPTIONS]
    width = max(map(len, heads)) + 2
    return "\n".join(f"{head:<{width}}{option.help}" for head, option in zip(heads, OPTIONS, strict=True))
