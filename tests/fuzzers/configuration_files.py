"""Configurations: mutated text, and values of all kinds under keys of all kinds, read up to the run that they make."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
import yaml
from hypothesis import strategies as st
from PIL import Image

from nst_lightning.api import quiet
from nst_lightning.backbones import weights
from nst_lightning.cli import arguments, configuration
from nst_lightning.cli.options import known
from nst_lightning.modules import StyleTransfer
from tests.fuzzers.mutations import mutated
from tests.fuzzers.texts import NUMBERS, odd

PLANTED = "tests.fuzzers.planted"
"""A module that --safe must not import: the parser would keep back what its import raised."""
_WHOLE = (
    b"content: photo.png\nstyle: photo.png\nsize: 32\n",
    b"data:\n  content: [photo.png, photo.png]\n  style: photo.png\n  stages: [{size: 32, steps: 4}]\n"
    b"model:\n  style_loss: {gram: 1}\n  optimizer: {class_path: torch.optim.Adam, init_args: {lr: 0.1}}\n"
    b"trainer: {max_steps: 3, precision: 32-true}\nscores: off\n",
    b"preset: study\ncontent: photo.png\nstyle: photo.png\noptimizer: adam\nvideo: webp\ntile: 64\n",
    b"safe: true\ncontent: photo.png\nstyle: photo.png\ntrainer: {callbacks: [{class_path: "
    + PLANTED.encode()
    + b".X}]}\n",
)
_TRAINER = (
    *("callbacks", "logger", "plugins", "profiler", "max_time", "max_epochs", "max_steps", "limit_train_batches"),
    *("num_nodes", "log_every_n_steps", "gradient_clip_val", "enable_progress_bar", "fast_dev_run", "barebones"),
    *("val_check_interval", "accumulate_grad_batches", "default_root_dir", "inference_mode", "nothing"),
)
_CLASSES = (
    *("torch.optim.SGD", "RMSprop", "torch.optim.SparseAdam", "nst_lightning.optim.LBFGS", "os.getcwd", "no.Class"),
    *("builtins.int", "lightning.pytorch.callbacks.Timer", "nst_lightning.runs.Run", "lbfgs", "ModelCheckpoint"),
)
_WORDS = (
    *("auto", "off", "photo.png", "gram", "relu1_1", "relu4_2,relu1_1", "study", "vgg19", "resnet50", "max", "cpu"),
    *("content", "gaussian", "zip", "product", "pair_parallel", "tile_parallel", "ddp", "mp4", "oxford", "avg"),
)
_KEYS = ("size", "steps", "weights", "class_path", "init_args", "gram", "relu1_1", "lr", "content", "x")
_PLAIN = (None, True, False, 0, 1, 2, -1, 32, 64, 2**40, 2**70, 0.5, -1.5, 1e300, float("nan"), float("inf"))


def feed(path: Path) -> None:
    """Reads a configuration, and makes the run that it describes, which is not begun."""
    if not Path("photo.png").exists():
        Image.new("RGB", (48, 40), "teal").save("photo.png")
    safely = ["--safe"] if PLANTED.encode() in path.read_bytes() else []
    with quiet():
        given = arguments.read(["--config", str(path), *safely])
        given.check_images()
        try:
            configuration.Job(configuration.Configuration(given, StyleTransfer))
        finally:
            assert safely == [] or PLANTED not in sys.modules, "--safe has imported what it should not"


def prepare(patch: Callable[[object, str, object], None]) -> None:
    """Has the parser made once, the bundled weights be read once, and nothing be downloaded, by `setattr`."""

    def no_network(url: str, **_: object) -> None:
        raise OSError("no network")

    real, bundled = weights.load, cache(weights.load)
    patch(configuration, "parser_of", cache(configuration.parser_of))
    patch(weights, "load", lambda name, *others: (bundled if name == weights.OXFORD else real)(name, *others))
    patch(torch.hub, "load_state_dict_from_url", no_network)


def _values() -> st.SearchStrategy[object]:
    texts = st.sampled_from((*_WORDS, *_CLASSES, f"{PLANTED}.X")) | NUMBERS | odd(8)
    classes = st.fixed_dictionaries({"class_path": texts}, optional={"init_args": st.just({"lr": 0.1}) | texts})
    stages = st.fixed_dictionaries({"size": st.just(32) | NUMBERS, "steps": st.just(4) | NUMBERS})
    plain = st.sampled_from(_PLAIN) | texts | classes | stages
    return st.recursive(
        plain,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_KEYS), inner, max_size=2),
        max_leaves=4,
    )


_KEYS_OF_ALL = [*known(), *(f"trainer.{each}" for each in _TRAINER), "data", "model", "trainer", "sise"]
_SETTINGS = st.lists(st.tuples(st.sampled_from(_KEYS_OF_ALL), _values()), min_size=1, max_size=2)


@st.composite
def _made(draw: st.DrawFn) -> bytes:
    """A configuration that would do, but for a few values."""
    found: dict[str, object] = {"content": "photo.png", "style": "photo.png", "size": 32, "steps": 4}
    for name, value in draw(_SETTINGS):
        group, _, own = name.rpartition(".")
        if group == "":
            found[own] = value
        elif isinstance(within := found.setdefault(group, {}), dict):
            within[own] = value
    if draw(st.booleans()):
        return json.dumps(found).encode()
    return yaml.safe_dump(found, allow_unicode=draw(st.booleans())).encode(errors="surrogatepass")


def inputs() -> st.SearchStrategy[tuple[str, bytes]]:
    """Returns what a configuration may hold."""
    text = st.text("ab:,-[]{}&*!|>%@#'\" \n\t", max_size=40).map(str.encode)
    return st.tuples(st.just(".yaml"), _made() | mutated(_WHOLE) | text | st.binary(max_size=40))
