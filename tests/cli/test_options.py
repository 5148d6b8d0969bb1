"""The short names: what they stand for, that it exists, and that the help tells the truth about it."""

from __future__ import annotations

import inspect
import json
import re
from typing import Any

import pytest
import torch
from lightning.pytorch.cli import LightningArgumentParser
from torch import nn

from nst_lightning.backbones import SPECS
from nst_lightning.cli.base import NSTCLI
from nst_lightning.cli.options import OPTIMIZERS, OPTIONS, Option, expand, table
from nst_lightning.data import PairDataModule
from nst_lightning.errors import InputError
from nst_lightning.initializers import INITIALIZERS
from nst_lightning.modules import StyleTransfer

# What None comes to, in the help's words.
IN_WORDS = {
    "output": "data/output-images/<pair>",
    "save_every": "never",
    "score_every": "a twelfth of them",
    "model.optimizer": "lbfgs",
    "model.content_weight": "1e5 with a VGG",
    "model.style_weight": "100 with oxford weights, else 3e4",
    "model.weights": SPECS["vgg16"].default_weights,
}
WITHOUT_DEFAULT = {"content", "style", "pairs"}
TRAINERS = {"devices", "strategy", "precision"}  # whose defaults are Lightning's, or set beside the trainer
IN_EXAMPLES = {"content_layers", "style_layers"}


def named(name: str) -> Option:
    return next(option for option in OPTIONS if option.name == name)


@pytest.fixture(scope="module")
def defaults() -> dict[str, Any]:
    """The default of every key that a short name can stand for."""
    found = {
        f"{group}.{name}": parameter.default
        for group, owner in (("data", PairDataModule), ("model", StyleTransfer))
        for name, parameter in inspect.signature(owner).parameters.items()
    }
    parser = LightningArgumentParser()
    cli = object.__new__(NSTCLI)
    cli.scored = True
    NSTCLI.add_arguments_to_parser(cli, parser)
    of_run = ("output", "save_every", "scores", "score_every", "video", "overwrite")
    return found | {name: parser.get_default(name) for name in of_run}


@pytest.mark.parametrize("option", [each for each in OPTIONS if each.name not in TRAINERS], ids=lambda each: each.name)
def test_an_option_stands_for_a_key_and_its_help_for_the_keys_default(option: Option, defaults: dict[str, Any]) -> None:
    assert option.target in defaults
    default = defaults[option.target]
    bracket = re.search(r"\[([^]]*)\]$", option.help)
    if bracket is None:
        assert option.name in WITHOUT_DEFAULT | IN_EXAMPLES
        assert default is None
    elif default is None:
        assert bracket[1] == IN_WORDS[option.target]
    elif isinstance(default, str):
        assert bracket[1] == default
    else:
        assert json.loads(bracket[1]) == default


def test_the_style_weights_in_the_help_are_the_default_ones() -> None:
    bundled, other = (SPECS["vgg16"].origins[weights].style_weight for weights in ("oxford", "torchvision"))
    bracket = named("style_weight").help.partition("[")[2]
    assert [float(number) for number in re.findall(r"\b\d[\de]*", bracket)] == [bundled, other]


def test_the_optimizer_in_the_help_is_the_default_one() -> None:
    module = StyleTransfer(content_layers="relu1_1", style_layers="relu1_1")
    kind = type(module.make_optimizer([nn.Parameter(torch.zeros(1, 3, 1, 1))]))
    assert f"{kind.__module__}.{kind.__qualname__}" == OPTIMIZERS[IN_WORDS["model.optimizer"]]


def test_short_names_are_different_and_end_like_their_keys() -> None:
    assert len({option.name for option in OPTIONS}) == len({option.target for option in OPTIONS}) == len(OPTIONS)
    assert all(option.target.split(".")[-1] == option.name for option in OPTIONS)


@pytest.mark.parametrize(("option", "names"), [("backbone", SPECS), ("init", INITIALIZERS), ("optimizer", OPTIMIZERS)])
def test_the_help_lists_the_names_there_are(option: str, names: dict[str, Any]) -> None:
    assert all(re.search(rf"\b{name}\b", named(option).help) for name in names)


@pytest.mark.parametrize("option", ["content_layers", "style_layers"])
def test_the_layers_in_the_help_exist(option: str) -> None:
    layers = re.findall(r"\w+\d_\d", named(option).help)
    assert layers
    assert set(layers) <= set(SPECS["vgg16"].layers)


@pytest.mark.parametrize(
    "option", [option for option in OPTIONS if option.name != "optimizer"], ids=lambda option: option.name
)
@pytest.mark.parametrize("value", ["7", "a=b", "--content"])
def test_a_short_name_becomes_its_key_with_either_spelling_of_the_value(option: Option, value: str) -> None:
    assert expand([f"--{option.name}={value}"]) == [f"--{option.target}={value}"]
    before, after = ["--print_config"], ["7", "--data.size", "8"]
    assert expand([*before, f"--{option.name}", *after]) == [*before, f"--{option.target}", *after]


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--config", "a.yaml", "--trainer.devices=2"],
        ["content", "photo.jpg", "size=3"],
        ["--model.style_weight", "3", "--data.content=x"],
        ["--styles", "x", "--style_scale=2"],
        ["--model.optimizer", "torch.optim.SGD", "--model.optimizer.lr=1"],
        ["--model.optimizer=lbfgs.Other"],
        ["--weights.x", "lbfgs", "adam"],
    ],
)
def test_other_arguments_stay_as_they_are(arguments: list[str]) -> None:
    assert expand(arguments) == arguments


@pytest.mark.parametrize("key", ["--optimizer", "--model.optimizer"])
@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("lbfgs", "nst_lightning.optim.LBFGS"),
        ("LBFGS", "nst_lightning.optim.LBFGS"),
        ("adam", "nst_lightning.optim.Adam"),
        ("Adam", "nst_lightning.optim.Adam"),
        ("torch.optim.Adam", "torch.optim.Adam"),
        ("RMSprop", "RMSprop"),
    ],
)
def test_an_optimizers_short_name_becomes_its_class(key: str, name: str, path: str) -> None:
    assert expand([key, name, "lbfgs"]) == ["--model.optimizer", path, "lbfgs"]
    assert expand([f"{key}={name}"]) == [f"--model.optimizer={path}"]


@pytest.mark.parametrize("arguments", [["--optimizer", "sgd"], ["--optimizer=sgd"], ["--model.optimizer", "sgd"]])
def test_an_unknown_optimizer_is_refused_with_those_that_are_known(arguments: list[str]) -> None:
    with pytest.raises(InputError, match=r"^unknown optimizer 'sgd'; known are lbfgs, adam or a class of torch\.optim"):
        expand(arguments)


def test_the_table_has_a_line_for_every_option_with_its_help_in_one_column() -> None:
    lines = table().splitlines()
    assert len(lines) == len(OPTIONS)
    for line, option in zip(lines, OPTIONS, strict=True):
        assert re.fullmatch(rf"  --{option.name} {re.escape(option.value)} {{2,}}{re.escape(option.help)}", line)
    assert len({line.index(option.help) for line, option in zip(lines, OPTIONS, strict=True)}) == 1
