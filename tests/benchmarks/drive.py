"""What `contenders` starts in processes of their own: python -m tests.benchmarks.drive NAME JSON."""

from __future__ import annotations

import inspect
import json
import runpy
import sys
from collections.abc import Mapping
from functools import partial
from typing import Any

import lightning as L
import torch
from PIL import Image
from torch import nn
from torchvision import models

from nst_lightning import StyleTransfer, images, initializers, optim
from nst_lightning.backbones import OXFORD, Backbone, spec_of
from nst_lightning.batches import Step
from nst_lightning.data import PairDataModule
from nst_lightning.modules import ImageOptimization
from nst_lightning.modules.problem import Problem
from nst_lightning.schedule import Stage
from tests.benchmarks import wasserstein
from tests.benchmarks.contenders import bundled
from tests.benchmarks.preconditioner import Smoothness
from tests.benchmarks.trainer import fit

OXFORD_MEAN = 255 * torch.tensor(OXFORD.mean)


def torchvision_like(unit: float = 1.0, name: str = "vgg16") -> models.VGG:
    """Returns torchvision's VGG with the bundled weights, its features divided by a unit."""
    network: models.VGG = getattr(models, name)()
    state = bundled(name)
    # It is fed torchvision's scale, (x - mean) / std of x in [0, 1]; Oxford's weights want 255 x - mean colour.
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    first, shift = state["features.0.weight"], 255 * mean - OXFORD_MEAN
    state["features.0.bias"] = state["features.0.bias"] + (first * shift.view(1, 3, 1, 1)).sum(dim=(1, 2, 3))
    state["features.0.weight"] = first * (255 * std).view(1, 3, 1, 1) / unit
    state.update({name: bias / unit for name, bias in state.items() if name.endswith("bias")})
    network.load_state_dict(state, strict=False)
    return network


def crowsonkb(content: str, style: str, least: int, size: int, iterations: int, device: str, picture: str) -> None:
    """Runs crowsonkb's package, on VGG16 laid out like the VGG19 that it asks for."""
    import style_transfer  # type: ignore[import-not-found]

    def laid_out(weights: object) -> nn.Module:
        layers = [*torchvision_like().features.children()]
        for place in (16, 25):  # where VGG19 has a fourth convolution
            layers[place:place] = [nn.Identity(), nn.Identity()]
        found = nn.Module()
        found.features = nn.Sequential(*layers)
        return found

    def say(at: Any) -> None:  # noqa: ANN401 - the package's own class
        name = "full size" if max(at.w, at.h) == size else "before"
        print(f"{name}: loss {at.loss}", flush=True)

    models.vgg19 = laid_out
    transfer = style_transfer.StyleTransfer(devices=[device])
    with Image.open(content) as first, Image.open(style) as second:
        pair = first.convert("RGB"), [second.convert("RGB")]
        times = {"iterations": iterations, "initial_iterations": 2 * iterations}
        transfer.stylize(*pair, min_scale=least, end_scale=size, callback=say, **times).save(picture)


def kolkin(name: str, content: str, style: str, device: str, picture: str) -> None:
    """Runs the script of NNST or STROTSS, a folder on the path."""
    network = torchvision_like(spec_of("vgg16").origin("oxford").unit)

    def vgg16(pretrained: bool) -> models.VGG:
        return network

    models.vgg16 = vgg16
    on_cpu = device == "cpu"
    if name == "nnst":
        given = ["--content_path", content, "--style_path", style, "--output_path", picture, *["--cpu"] * on_cpu]
    else:
        given = [content, style, "1.0", "5", picture, *["-cpu"] * on_cpu]
    if on_cpu:
        torch.cuda.synchronize = _nothing
    sys.argv = [name, *given]
    runpy.run_module("styleTransfer" if name == "nnst" else "strotss.styleTransfer", run_name="__main__")


def _nothing(device: object = None) -> None:
    """Waits for no GPU."""


class Printer(L.Callback):
    """Says the loss after every step."""

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: Step, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, ImageOptimization)
        name = "full size" if batch.stage_index + 1 == len(batch.stages) else "before"
        print(f"{name}: loss {pl_module.losses['total'].item()}", flush=True)


def ours(arguments: dict[str, Any], precision: str, device: str, output: str | None) -> None:
    """Runs this project's module through Trainer.

    Args:
        arguments: Those of PairDataModule and StyleTransfer together, but that `stages` may be sizes and steps; of
            `init`, also `mean colour` or a picture's file; those of the L-BFGS; `smoothness`, the exponent of its
            preconditioner; and `objective`, `crowsonkb` for that of the package.
        precision: The trainer's.
        device: cpu or cuda.
        output: The picture's file.
    """

    def mean_colour(content: torch.Tensor, style: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        # neural-style-pt's start: noise of 0.001 around the mean colour, where pixels go from 0 to 255.
        return (OXFORD_MEAN.view(1, 3, 1, 1) + 1e-3 * torch.randn(content.shape, generator=generator)) / 255

    def from_file(content: torch.Tensor, style: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return images.resize(images.read(arguments["init"]).rgb, (content.shape[-2], content.shape[-1]))

    init = arguments.get("init", "content")
    known: dict[str, Any] = {init: from_file, **initializers.INITIALIZERS, "mean colour": mean_colour}
    initializers.INITIALIZERS = known
    if isinstance(arguments.get("stages"), list):
        arguments["stages"] = [Stage(*stage) for stage in arguments["stages"]]
    of_data, of_lbfgs = (inspect.signature(made).parameters for made in (PairDataModule, optim.LBFGS))
    data = PairDataModule(**{name: value for name, value in arguments.items() if name in of_data})
    rest = {name: value for name, value in arguments.items() if name not in of_data}
    chosen = {name: rest.pop(name) for name in of_lbfgs if name in rest}
    smoothness = rest.pop("smoothness", 0.0)
    precondition = Smoothness(smoothness) if smoothness > 0 else None
    rest["optimizer"] = partial(optim.LBFGS, precondition=precondition, **chosen)
    module = _of_crowsonkb(**rest) if rest.pop("objective", None) == "crowsonkb" else StyleTransfer(**rest)
    fit(module, data, Printer(), device=torch.device(device), precision=precision)
    if output is not None:
        images.write(output, module.result[0].cpu(), overwrite=True)


def _of_crowsonkb(**options: Any) -> ImageOptimization:
    objective = wasserstein.objective()
    backbone = Backbone("vgg16", objective.layers)
    first = backbone.network.get_submodule("features.0")
    assert isinstance(first, nn.Conv2d)
    first.padding_mode = "replicate"
    problem = Problem(backbone, objective, wasserstein.WEIGHTS, options.pop("optimizer"), **options)
    return ImageOptimization(problem)


DRIVERS: Mapping[str, Any] = {"crowsonkb": crowsonkb, "kolkin": kolkin, "ours": ours}

if __name__ == "__main__":
    DRIVERS[sys.argv[1]](*json.loads(sys.argv[2]))
