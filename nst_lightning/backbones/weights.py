"""Where a backbone's weights come from: bundled, torchvision's, or a file. The one place that may download."""

from __future__ import annotations

import hashlib
import os
import pickle
import re
import socket
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from http.client import HTTPException
from importlib import resources
from pathlib import Path
from typing import NamedTuple
from urllib.error import URLError

import torch
from safetensors.torch import load as load_safetensors
from torch import Tensor
from torchvision.models._api import WeightsEnum

from nst_lightning.errors import InputError, in_one_line

OXFORD = "oxford"
TORCHVISION = "torchvision"
CAFFE = "caffe:"  # before the path of a VGG as Caffe trained it: its first convolution takes blue, green, red
DOWNLOAD_TIMEOUT = 30.0  # s without a byte after which a download is given up; torch.hub would wait for ever

_CAFFE_FIRST = "conv1_1.weight"
_CAFFE_CLASSIFIER = {"fc6": "classifier.0", "fc7": "classifier.3", "fc8": "classifier.6"}


class WeightsError(InputError):
    """Weights that cannot be had or do not fit; the text says which, from where, and what to do."""


class Bundled(NamedTuple):
    """A file of weights in the package, see bundled/PROVENANCE.md."""

    name: str
    sha256: str


VGG16 = Bundled("vgg16_oxford_fp16.safetensors", "beba566af15307ad93ca2d9e2ee7d09460fe3beaabf2e38979c0ea9d34884957")
VGG19 = Bundled("vgg19_oxford_codebook.safetensors", "9255ab2d5cf2691e848b1252e4270467b65d1fab654a773f00f456c86a5151bb")
VGG16_ACTIVATIONS = Bundled(
    "vgg16_activations_fp16.safetensors", "ec7fb2c6c774ae8f18c7dc015e751afefd3f3b437f08d396119ceb1eb1af9a62"
)
VGG19_ACTIVATIONS = Bundled(
    "vgg19_activations_fp16.safetensors", "c888cfcc21a3bac12d2bdc85b1d041581fa7ef19a812aea9fac469191d2bcab8"
)


def load(
    weights: str, torchvision_weights: WeightsEnum | None = None, bundled: Bundled | None = None
) -> dict[str, Tensor]:
    """Returns a state dict with the names of torchvision's models; a WeightsError if it cannot be had.

    Args:
        weights: `oxford` (bundled: the convolutions of the original VGG16 or VGG19, see bundled/PROVENANCE.md),
            `torchvision` (downloaded once by torch.hub), the path of a .safetensors, .pth or .pt file, or `caffe:`
            before the path of a VGG as Caffe trained it, under Caffe's names (conv1_1) or torchvision's.
        torchvision_weights: What `torchvision` stands for; None where it is not asked for.
        bundled: What `oxford` stands for, likewise.
    """
    if weights == OXFORD:
        assert bundled is not None
        return _bundled(bundled)
    if weights == TORCHVISION:
        assert torchvision_weights is not None
        return _file(fetch(torchvision_weights, ", or name a local file with --weights"))
    if weights.startswith(CAFFE):
        return _caffe(Path(weights.removeprefix(CAFFE)))
    state = _file(Path(weights))
    if _CAFFE_FIRST in state:
        named = f"{weights}: has Caffe's names of layers"
        raise WeightsError(f"{named}; say --weights {CAFFE}{weights}, so that its channels are BGR")
    return state


def check(state: Mapping[str, Tensor], whole: Mapping[str, Tensor], needed: set[str], origin: str) -> None:
    """Raises a WeightsError if a needed tensor is missing, or one is not as the architecture's `whole` state has it."""
    for fault, names in (("missing", needed - state.keys()), ("unknown", state.keys() - whole.keys())):
        if names:
            counted = f"{len(names)} tensors are {fault}, the first is {min(names)}"
            raise WeightsError(f"{origin}: {counted}: another architecture?")
    for name, tensor in state.items():
        expected = whole[name]
        if tensor.shape != expected.shape:
            raise WeightsError(f"{origin}: {name} has shape {tuple(tensor.shape)}, expected {tuple(expected.shape)}")
        if tensor.is_floating_point() != expected.is_floating_point():  # quantised, say
            allowed = f"expected {expected.dtype} or another precision of it"
            raise WeightsError(f"{origin}: {name} is of {tensor.dtype}, {allowed}")


def cached(weights: WeightsEnum) -> Path:
    """Returns where torch.hub keeps the file of an entry of torchvision's weights API, there or not."""
    return Path(torch.hub.get_dir(), "checkpoints", os.path.basename(weights.url))


def fetch(weights: WeightsEnum, otherwise: str = "") -> Path:
    """Returns `cached`, downloading it once; a WeightsError says where to copy the file to, and what else to do."""
    path, timeout = cached(weights), socket.getdefaulttimeout()
    if path.exists():
        return path
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)
    try:
        with redirect_stdout(sys.stderr):  # torch.hub says that it downloads where this program prints its results
            # torch.hub writes to a temporary name and checks the hash before it renames.
            torch.hub.load_state_dict_from_url(weights.url, check_hash=True, weights_only=True)
    except pickle.UnpicklingError:
        pass  # it came whole, but is no state dict: reading it from the cache says so
    except (URLError, HTTPException, OSError, RuntimeError) as error:
        reason = in_one_line(error)  # a server that speaks no HTTP is quoted with its line's end
        msg = f"cannot download {path.name} from {weights.url} ({reason}): copy the file to {path}{otherwise}"
        raise WeightsError(msg) from error
    finally:
        socket.setdefaulttimeout(timeout)
    return path


def _bundled(bundled: Bundled) -> dict[str, Tensor]:
    file = resources.files("nst_lightning") / "bundled" / bundled.name
    try:
        content = file.read_bytes()
    except OSError as error:
        fault = f"cannot be read ({error.strerror})"
        raise WeightsError(f"{file}: the bundled weights {fault}: install nst-lightning again") from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != bundled.sha256:
        fault = f"are damaged (sha256 {digest}, expected {bundled.sha256})"
        raise WeightsError(f"{file}: the bundled weights {fault}: install nst-lightning again")
    return _decoded(load_safetensors(content))


def _decoded(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns tensors, of which those stored as indices into a codebook are looked up in it."""
    found = {}
    for name, tensor in state.items():
        stem, _, kind = name.rpartition(".")
        if kind == "index":
            found[stem] = state[f"{stem}.codebook"][tensor.long()]
        elif kind != "codebook":
            found[name] = tensor
    return found


def _caffe(path: Path) -> dict[str, Tensor]:
    """Returns a VGG of Caffe's under torchvision's names, its first convolution turned to red, green, blue."""
    state = _file(path)
    if _CAFFE_FIRST in state:
        names = _CAFFE_CLASSIFIER | _convolutions({name.rpartition(".")[0] for name in state})
        parted = ((*name.rpartition("."), tensor) for name, tensor in state.items())
        state = {f"{names.get(layer, layer)}.{kind}": tensor for layer, _, kind, tensor in parted}
    first = state.get("features.0.weight")
    if first is None or first.dim() != 4 or first.shape[1] != 3:
        fault = "neither conv1_1 nor features.0 is a convolution of three channels"
        raise WeightsError(f"{path}: not a VGG of Caffe's: {fault}")
    return {**state, "features.0.weight": first.flip(1)}


def _convolutions(layers: set[str]) -> dict[str, str]:
    """Returns torchvision's names of convolutions called conv1_1, conv1_2, conv2_1 and so on."""
    matches = (re.fullmatch(r"conv(\d+)_(\d+)", layer) for layer in layers)
    places = sorted(tuple(map(int, match.groups())) for match in matches if match)
    # Behind every convolution stands a ReLU, and behind every block a pooling.
    return {f"conv{block}_{depth}": f"features.{2 * index + block - 1}" for index, (block, depth) in enumerate(places)}


def _file(path: Path) -> dict[str, Tensor]:
    if not os.path.isfile(path):
        allowed = f"{OXFORD}, {TORCHVISION} or a .safetensors or .pth file"
        raise WeightsError(f"{path}: no such weights file; allowed are {allowed}")
    try:
        if path.suffix.lower() == ".safetensors":
            return load_safetensors(path.read_bytes())
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the restricted unpickler raises nearly anything over a damaged file
        fault = f"damaged or not a weights file ({(str(error) or repr(error)).splitlines()[0]})"
        if isinstance(error, pickle.UnpicklingError):
            fault = "not a plain state dict of tensors, so it is not loaded (a pickle can run code)"
        raise WeightsError(f"{path}: {fault}") from error
    named = isinstance(state, dict) and all(isinstance(name, str) for name in state)
    if not named or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"{path}: not a plain state dict of tensors")
    return dict(state)
