"""Files of weights: mutated ones, and whole ones of other names, shapes, types and objects."""

from __future__ import annotations

import io
import pickle
from functools import cache
from pathlib import Path

import torch
from hypothesis import strategies as st
from safetensors.torch import save
from torch import Tensor, nn

from nst_lightning.backbones import weights
from tests.fuzzers.mutations import mutated
from tests.fuzzers.texts import odd

_PICKLED = (list, b"x", {"a": print}, [torch.zeros(2)], {1: torch.zeros(2)}, {"a": 3}, None, slice, complex(1, 2))
_TYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.bool, torch.complex64)
_SHAPES = ((4, 3, 3, 3), (4,), (3, 4, 3, 3), (0,), (), (1, 1))
_NAMES = ("features.0.weight", "features.0.bias", "conv1_1.weight", "conv1_1.bias", "conv9_9.weight", "fc6.bias", "x")


def feed(path: Path) -> None:
    """Loads weights by the file's own names and by Caffe's, and compares them with what a network has."""
    whole = _network()
    for name in (str(path), f"{weights.CAFFE}{path}"):
        try:
            state = weights.load(name)
        except weights.WeightsError:
            if name.startswith(weights.CAFFE):
                raise
            continue
        weights.check(state, whole, {*whole}, name)
        nn.Conv2d(3, 4, 3).load_state_dict({each.rpartition(".")[2]: state[each] for each in state})


@cache
def _network() -> dict[str, Tensor]:
    layer = nn.Conv2d(3, 4, 3)
    return {f"features.0.{name}": value.detach() for name, value in layer.named_parameters()}


def _saved(content: object, old: bool) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream, _use_new_zipfile_serialization=not old)
    return stream.getvalue()


@cache
def _whole() -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    named = [_network(), {f"conv1_1.{name.rpartition('.')[2]}": each for name, each in _network().items()}]
    pickled = [_saved(each, old) for each in named for old in (False, True)]
    return (*pickled, pickle.dumps({"a": 1})), tuple(save(each) for each in named)


_TENSORS = st.lists(
    st.tuples(st.sampled_from(_NAMES) | odd(6), st.sampled_from(_SHAPES), st.sampled_from(_TYPES)), max_size=3
)


@st.composite
def _other(draw: st.DrawFn) -> tuple[str, bytes]:
    state = {name: torch.zeros(shape, dtype=kind) for name, shape, kind in draw(_TENSORS)}
    suffix = draw(st.sampled_from([".pth", ".safetensors", ".pt", ""]))
    if suffix == ".safetensors":
        return suffix, save({name.encode(errors="replace").decode(): each for name, each in state.items()})
    content: object = draw(st.sampled_from([state, *_PICKLED]))
    return suffix, _saved(content, draw(st.booleans()))


def inputs() -> st.SearchStrategy[tuple[str, bytes]]:
    """Returns what a file of weights may hold."""
    pickled, safe = _whole()
    anything = st.binary(max_size=100)
    of_torch = st.tuples(st.sampled_from([".pth", ".pt", ""]), mutated(pickled) | anything)
    return of_torch | st.tuples(st.just(".safetensors"), mutated(safe) | anything) | _other()
