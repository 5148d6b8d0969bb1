"""Trained painters: what `nst train` writes, and what paints with it."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from nst_lightning.errors import InputError
from nst_lightning.painters.network import PainterNetwork
from nst_lightning.runs import regular, replacing

SUFFIX = ".safetensors"
KEY = "nst_lightning_painter_1"  # of the text in the file's header; its number is that of the layout
PREFIX = "network."  # of the network's weights in a checkpoint
BUNDLED = "bundled"  # the name of the painter in the package
_FILE = Path(__file__).parents[1] / "bundled/church_at_auvers_painter.safetensors"
_WIDEST = 1024


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained network with the names of its styles, and the settings that it was trained with."""

    network: PainterNetwork
    styles: Sequence[str]
    settings: Mapping[str, Any]

    @property
    def told(self) -> str:
        """What a file says of it, as a text."""
        return json.dumps({"width": self.network.width, "styles": [*self.styles], "settings": {**self.settings}})

    def mix(self, weights: Mapping[str, float] | None = None) -> Tensor:
        """Returns parts of 1 by the place of the style, (1, styles), of weights by name; by default the first alone."""
        given = {self.styles[0]: 1.0} if weights is None else weights
        if unknown := [name for name in given if name not in self.styles]:
            raise InputError(f"the painter has no style {unknown[0]!r}; it has {', '.join(self.styles)}")
        if not (all(0 <= each < math.inf for each in given.values()) and sum(given.values()) > 0):
            raise InputError(f"styles must have finite weights, 0 or above with a sum above 0, got {dict(given)}")
        mix = torch.tensor([[given.get(name, 0.0) for name in self.styles]])
        return mix / mix.sum()

    @torch.no_grad()
    def paint(self, photograph: Tensor, weights: Mapping[str, float] | None = None, strength: float = 1.0) -> Tensor:
        """Returns the painting of a photograph (1, 3, H, W), both sRGB in [0, 1].

        `weights` are those of `mix`; `strength` says how far to go from the photograph, 0, to the painting, 1.
        """
        if not 0 <= strength <= 1:
            raise InputError(f"strength must be a number from 0 to 1, got {strength}")
        mix = self.mix(weights).to(photograph)
        layout = torch.channels_last if photograph.device.type == "cpu" else torch.contiguous_format  # the faster
        painted = self.network.in_strips(photograph.contiguous(memory_format=layout), mix)
        return torch.lerp(photograph, painted.clamp(0, 1), strength)

    def write(self, path: Path, overwrite: bool = False) -> None:
        """Writes a file with the weights in float16."""
        tensors = {name: each.half().cpu().contiguous() for name, each in self.network.state_dict().items()}
        with replacing(path, overwrite) as file:
            file.write_bytes(save(tensors, {KEY: self.told}))


def located(painter: str | os.PathLike[str]) -> Path:
    """Returns the file of a painter, which is told by its path or is `BUNDLED`."""
    return _FILE if painter == BUNDLED else Path(painter)


def load(painter: str | os.PathLike[str]) -> Trained:
    """Reads a painter, `BUNDLED` or a file's, or what a checkpoint of `nst train` has of it.

    Raises:
        InputError: If it cannot be read, is none, or of another architecture.
    """
    path = located(painter)
    try:
        regular(path).open("rb").close()  # which says why it cannot be
        text, state = _of_checkpoint(path) if path.suffix == ".ckpt" else _of_file(path)
        told = json.loads(text)
        width, styles, settings = told["width"], told["styles"], told["settings"]
        assert isinstance(width, int) and 0 < width <= _WIDEST
        assert isinstance(settings, dict) and styles and all(isinstance(each, str) for each in styles)
    except (OSError, SafetensorError, UnpicklingError, *_DAMAGED) as error:
        reason = (isinstance(error, OSError) and error.strerror) or "foreign, damaged or truncated"
        message = f"{path}: is no painter ({reason}); expected {BUNDLED}, a file or checkpoint of nst train"
        raise InputError(message) from error
    with torch.device("meta"):
        network = PainterNetwork(len(styles), width)
    expected = {name: each.shape for name, each in network.state_dict().items()}
    if {name: each.shape for name, each in state.items()} != expected:
        sort = f"{width} channels and {len(styles)} styles"
        raise InputError(f"{path}: is a painter of another architecture than this version's of {sort}")
    network.load_state_dict({name: each.float() for name, each in state.items()}, assign=True)
    return Trained(network.requires_grad_(False).eval(), styles, settings)


_DAMAGED = (KeyError, TypeError, ValueError, RuntimeError, EOFError, RecursionError, AssertionError)


def _of_file(path: Path) -> tuple[str, dict[str, Tensor]]:
    with safe_open(path, "pt") as file:
        return (file.metadata() or {})[KEY], {name: file.get_tensor(name) for name in file.keys()}


def _of_checkpoint(path: Path) -> tuple[str, dict[str, Tensor]]:
    checkpoint = torch.load(path, "cpu", weights_only=True)
    of_network = {name: each for name, each in checkpoint["state_dict"].items() if name.startswith(PREFIX)}
    return checkpoint[KEY], {name.removeprefix(PREFIX): each for name, each in of_network.items()}
