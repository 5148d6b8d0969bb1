"""Checkpoints: bytes of a real one mutated, and others written whole with values that it should not have."""

from __future__ import annotations

import copy
import io
import math
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from hypothesis import strategies as st

from nst_lightning.__main__ import main
from nst_lightning.batches import Batch, Gallery
from nst_lightning.pairs import Pair
from nst_lightning.progress import Progress, loaded
from nst_lightning.runs import Run
from nst_lightning.schedule import Stage
from tests.fuzzers.mutations import mutated
from tests.fuzzers.texts import odd

_STAGES = (Stage(16, 2), Stage(32, 2))
SAMPLES = Path(__file__).parents[2] / "data"


def feed(path: Path) -> None:
    """Reads a checkpoint as a run that goes on does, alone and in its folder."""
    for saved in Progress.of(path).saved:
        pairs = [Pair("a", ("b",), name) for name in saved.names]
        Batch(pairs, (24, 32), _STAGES, 1.0, False, Gallery()).continues(saved)
    done = Progress.of(path)
    assert Progress.from_json(done.as_json()) == done
    loaded(path, torch.device("cpu"))


@cache
def real() -> bytes:
    """Returns the checkpoint of a run of 32 px that was told to stop at its third step of four."""
    with TemporaryDirectory() as folder:
        images = ["--content", str(SAMPLES / "content-images/temple.jpg")]
        images += ["--style", str(SAMPLES / "style-images/church_at_auvers.jpg"), "--size", "32", "--steps", "4"]
        layers = ["--style_loss", "gram", "--content_layers", "relu2_1", "--style_layers", "relu1_1"]
        end = ["--trainer.max_steps", "3", "--output", f"{folder}/run", "--scores", "off"]
        assert main(["fit", *images, *layers, *end]) == 3
        (file,) = Run(Path(folder, "run")).saved()
        return file.read_bytes()


_PLAIN: tuple[object, ...] = (
    None,
    0,
    -1,
    1,
    3,
    2.5,
    math.nan,
    True,
    "3",
    "",
    [],
    [1],
    {},
    {"a": 1},
    2**70,
    ["a"],
    [[32, 4, {}]],
)

_VALUE = st.sampled_from(_PLAIN) | odd(5)


def _places(value: object, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Returns the keys that lead to each place within a value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [*([path] if path else []), *(place for key, each in inner for place in _places(each, (*path, key)))]


@cache
def _content() -> dict[str, Any]:
    found = torch.load(io.BytesIO(real()), weights_only=True)
    return {name: found[name] for name in ("batch", "state_dict", "global_step")}


@st.composite
def _whole(draw: st.DrawFn) -> bytes:
    """A whole file, some of whose values are others."""
    found = copy.deepcopy(_content())
    for _ in range(draw(st.integers(1, 3))):
        places = [place for place in _places(found) if place[0] == "batch"]
        if not places:
            break
        *path, last = draw(st.sampled_from(places))
        within: Any = found
        for key in path:
            within = within[key]
        within[last] = copy.deepcopy(draw(_VALUE))
    stream = io.BytesIO()
    torch.save(found, stream)
    return stream.getvalue()


def inputs() -> st.SearchStrategy[tuple[str, bytes]]:
    """Returns what a checkpoint may hold."""
    return st.tuples(st.just(".ckpt"), mutated((real(),)) | _whole() | st.binary(max_size=100))
