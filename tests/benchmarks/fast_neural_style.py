"""A training step of fast_neural_style beside the painter's: its own program, and the same through this one's Trainer.

    git clone https://github.com/pytorch/examples
    python -m tests.benchmarks.fast_neural_style examples/fast_neural_style [--side 64] [--dtype float64]

Its `train` is run as it is for one step of Adam on four crops, with the weights of this package's VGG16 in place of
torchvision's. Then its network, from the same weights, is trained for a step by `Painter` under the preset; and so is a
network of `painters.network`'s units with these weights. That one stands for `PainterNetwork`, which is another by
design: its last filters are of 5x5, not 9x9, its convolutions before a norm have no bias, and it adds the photograph.
Gradients are told beside the largest of their parameter. What a norm takes away again, biases and the last shift of a
block, has a gradient of nothing but rounding and is left out. In float64 what is left is the rounding of the mean and
the deviation of images to float32.
"""

from __future__ import annotations

import argparse
import copy
import re
import sys
import tempfile
from contextlib import redirect_stdout
from importlib import import_module
from io import StringIO
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision import models

from nst_lightning import presets
from nst_lightning.api import quiet, trainer_of
from nst_lightning.backbones import SPECS, weights
from nst_lightning.backbones.specs import OXFORD
from nst_lightning.modules import Painter, StyleTransfer
from nst_lightning.painters import PainterNetwork
from nst_lightning.painters.network import Norm, Unit
from tests.benchmarks.machine import machine
from tests.conftest import SAMPLES

CROPS, RATE, STYLE = 4, 1e-3, "cafe_terrace_at_night.jpg"
Step = dict[str, Tensor]  # gradients and weights by parameter, and the loss


class Adapted(nn.Module):
    """A network that paints in [0, 255], as a painter's, which paints in [0, 1]."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.photograph = inner, Norm(1, 3)  # whose dtype is a painter's

    def forward(self, photographs: Tensor, mix: Tensor) -> Tensor:
        given = (mix,) if isinstance(self.inner, PainterNetwork) else ()
        painted: Tensor = self.inner(255 * photographs, *given) / 255
        return painted


class Noting(Callback):
    """Keeps the loss and the gradients of a step."""

    def __init__(self) -> None:
        self.found: Step = {}

    def on_before_optimizer_step(self, trainer: L.Trainer, module: L.LightningModule, *_: object) -> None:
        assert isinstance(module, Painter)
        self.found = gradients(module.network)

    def on_train_batch_end(self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, *_: object) -> None:  # noqa: ANN401
        self.found["loss"] = outputs["loss"].detach()


def gradients(network: nn.Module) -> Step:
    return {name: each.grad.clone() for name, each in network.named_parameters() if each.grad is not None}


def of_units(net: nn.Module) -> PainterNetwork:
    """Returns a network of this package's units with the weights of a TransformerNet, by its names for them."""
    made = PainterNetwork(1, 32)
    made.tail[-1] = Unit((32, 3), 9, 0)
    state = {name: each.detach() for name, each in net.named_parameters()}
    made.to(state["conv1.conv2d.weight"].dtype)
    with torch.no_grad():
        made.photograph.scale.zero_()
        made.photograph.shift.zero_()
        for name, each in made.named_parameters():
            if name in names():
                each.copy_(state[names()[name]].view_as(each))
    return made


def names() -> dict[str, str]:
    """What TransformerNet calls the parameters of this package's units."""
    units = {f"head.{place}": (f"conv{place + 1}", f"in{place + 1}") for place in range(3)}
    units |= {f"tail.{place}": (f"deconv{place + 1}", f"in{place + 4}") for place in range(3)}
    for block in range(5):
        for place, part in enumerate(("first", "second"), start=1):
            units[f"body.{block}.{part}"] = f"res{block + 1}.conv{place}", f"res{block + 1}.in{place}"
    found: dict[str, str] = {}
    for own, (convolution, norm) in units.items():
        found |= {f"{own}.convolution.{each}": f"{convolution}.conv2d.{each}" for each in ("weight", "bias")}
        found |= {f"{own}.norm.scale": f"{norm}.weight", f"{own}.norm.shift": f"{norm}.bias"}
    return found


def pictures(folder: Path, side: int) -> tuple[Path, Tensor]:
    """Writes a painting and the crops as its program reads them, and returns the painting's file and the crops."""
    crops = []
    (folder / "crops/all").mkdir(parents=True)
    for number in range(CROPS):
        with Image.open(SAMPLES / "content-images" / ("temple.jpg" if number % 2 else "chelsea.jpg")) as image:
            left, whole = number * side // 2, image.convert("RGB").resize((4 * side, 3 * side))
        cut = whole.crop((left, side, left + side, 2 * side))
        cut.save(folder / f"crops/all/{number}.png")
        crops.append(torch.from_numpy(np.asarray(cut).copy()).movedim(2, 0))
    with Image.open(SAMPLES / "style-images" / STYLE) as image:
        image.convert("RGB").resize((side, side)).save(folder / "painting.png")
    return folder / "painting.png", torch.stack(crops)


def vgg16() -> nn.Module:
    """Returns torchvision's network with the bundled weights, the first filters scaled to what it is fed."""
    network: nn.Module = models.vgg16()
    state = weights.load("oxford", bundled=SPECS["vgg16"].bundled)
    state["features.0.weight"] = state["features.0.weight"].float() * OXFORD.unit
    network.load_state_dict(state, strict=False)
    return network.eval()


def theirs(program: ModuleType, folder: Path, painting: Path, side: int) -> tuple[list[nn.Module], Step]:
    """Runs its training, and returns its network before and after, and what its step found."""
    made: list[nn.Module] = []
    noted: Step = {}
    plain = program.TransformerNet

    def network() -> nn.Module:
        made.append(plain())
        made.insert(0, copy.deepcopy(made[0]))
        return made[1]

    class Adam(torch.optim.Adam):
        def step(self, closure: Any = None) -> Any:  # noqa: ANN401
            noted.update(gradients(made[1]))
            return super().step(closure)

    given = {"accel": False, "seed": 1, "image_size": side, "dataset": str(folder / "crops"), "batch_size": CROPS}
    given |= {"lr": RATE, "style_image": str(painting), "style_size": None, "epochs": 1, "log_interval": 1}
    given |= {"content_weight": 1e5, "style_weight": 1e10, "checkpoint_model_dir": None, "save_model_dir": str(folder)}
    told = StringIO()
    with mock.patch.multiple(program, TransformerNet=network, Adam=Adam), redirect_stdout(told):
        program.train(argparse.Namespace(**given))
    (total,) = re.findall(r"total: ([\d.]+)", told.getvalue())
    return made, {**noted, "loss": torch.tensor(float(total), dtype=torch.float64)}


def ours(network: Adapted, painting: Path, crops: Tensor, side: int, file: Path, dtype: torch.dtype) -> Step:
    """Trains a network for a step under the preset, and returns what that found."""
    options = presets.options("fast_neural_style")
    of_losses = ("convention", "content_layers", "style_loss", "content_weight", "style_weight", "tv_weight")
    problem = StyleTransfer(**{name: options[name] for name in of_losses}, weights=str(file)).problem
    painter, noting = Painter(problem, str(painting), style_size=side, width=1, lr=RATE), Noting()
    painter.network = network  # type: ignore[assignment]
    of_trainer: dict[str, Any] = {"precision": "64-true" if dtype == torch.float64 else "32-true", "max_steps": 1}
    of_trainer |= {"accelerator": "cpu", "devices": 1, "callbacks": [noting], "logger": False}
    shown = dict.fromkeys(("enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    batches = [(crops.to(dtype) / 255, torch.arange(CROPS))]
    with quiet():
        trainer_of(**of_trainer, **shown).fit(painter, DataLoader(batches, batch_size=None))  # type: ignore[arg-type]
    return noting.found


def tell(title: str, found: Step, network: nn.Module, expected: Step, their: nn.Module, same: dict[str, str]) -> None:
    """Prints how far the loss, the gradients and the weights after a step are apart."""
    loss = abs(float(found["loss"]) / float(expected["loss"]) - 1)
    after, theirs_after = dict(network.named_parameters()), dict(their.named_parameters())
    off, moved = [0.0], [0.0]
    for own, name in same.items():
        gradient, weights_after = (each[own].view_as(expected[name]) for each in (found, after))
        off.append(float((gradient - expected[name]).abs().max() / expected[name].abs().max()))
        moved.append(float((weights_after - theirs_after[name]).detach().abs().max()))
    print(f"{title}: loss {loss:.1e}, gradients {max(off):.1e} of the largest, weights {max(moved):.1e}")


def main() -> None:
    """Runs both, and prints the differences."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--dtype", choices=("float64", "float32"), default="float64")
    given = parser.parse_args()
    dtype = getattr(torch, given.dtype)
    sys.path.insert(0, str(given.checkout.resolve() / "neural_style"))
    program = import_module("neural_style")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        painting, crops = pictures(folder, given.side)
        file = folder / "vgg16.safetensors"
        vgg = vgg16()
        save_file({name: each for name, each in vgg.state_dict().items() if "features" in name}, file)
        torch.set_default_dtype(dtype)
        with mock.patch.object(models, "vgg16", lambda **_: vgg.to(dtype)):
            (before, after), expected = theirs(program, folder, painting, given.side)
        torch.set_default_dtype(torch.float32)
        print(f"{machine()}, {given.dtype}, {CROPS} crops of {given.side} px, loss {float(expected['loss']):.6f}")
        of_theirs = {f"inner.{name}": name for name in expected if name != "loss" and not vain(name)}
        of_ours = {f"inner.{own}": name for own, name in names().items() if name in expected and not vain(name)}
        for title, inner, same in (
            ("its network", before, of_theirs),
            ("of this one's units", of_units(before), of_ours),
        ):
            network = Adapted(inner).to(dtype)
            found = ours(network, painting, crops, given.side, file, dtype)
            tell(title, found, network, expected, after, same)


def vain(name: str) -> bool:
    """Whether a parameter of TransformerNet is a bias or a block's shift that the next norm takes away again."""
    return bool(re.fullmatch(r"(?!deconv3).*conv2d\.bias|res\d\.in2\.bias", name))


if __name__ == "__main__":
    main()
