"""The short names: what they stand for, that it exists, and that the help tells the truth about it."""

from __future__ import annotations

import inspect
import json
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from nst_lightning import presets
from nst_lightning.backbones import SPECS
from nst_lightning.cli.configuration import parser_of
from nst_lightning.cli.options import OF_RUN, expand, known, table
from nst_lightning.data import PairDataModule
from nst_lightning.errors import InputError
from nst_lightning.initializers import INITIALIZERS
from nst_lightning.modules import StyleTransfer
from nst_lightning.optim import NAMED

KEYS = {key.rpartition(".")[2]: key for key in known()}
DEFAULTS: dict[str, Any] = {
    **{
        f"{group}.{name}": parameter.default
        for group, owner in (("data", PairDataModule), ("model", StyleTransfer))
        for name, parameter in inspect.signature(owner).parameters.items()
    },
    **{name: default for name, (_, default, _) in OF_RUN.items()},
}
IN_WORDS = {"output": "data/output-images/<pair>", "save_every": "never", "score_every": "a twelfth of them"}


def test_every_argument_of_data_and_model_and_every_option_of_the_run_has_a_short_name() -> None:
    assert {*DEFAULTS, "preset"} == {key for key in known() if not key.startswith("trainer.")}
    assert len(KEYS) == len(known())


@pytest.mark.parametrize("key", [key for key in known() if key != "preset"])
def test_an_option_stands_for_a_key_of_the_parser_and_its_help_tells_its_default(key: str) -> None:
    parser = parser_of(StyleTransfer)
    default = parser.get_default(key)
    bracket = re.search(r" \[([^]]*)\]$", known()[key])
    if default is None:
        assert bracket is None or not key.count(".") or bracket[1]
        assert bracket is None or bracket[1] == IN_WORDS.get(key, bracket[1])
    elif isinstance(default, str):
        assert bracket is None or bracket[1] == default
    else:
        assert bracket is not None
        assert json.loads(bracket[1]) == default
    assert key.startswith("trainer.") or default == DEFAULTS[key]


@pytest.mark.parametrize(("key", "names"), [("model.backbone", SPECS), ("model.init", INITIALIZERS)])
def test_the_help_lists_the_names_there_are(key: str, names: dict[str, Any]) -> None:
    assert all(re.search(rf"\b{name}\b", known()[key]) for name in names)


@pytest.mark.parametrize("name", [name for name in KEYS if name not in ("optimizer", "resume", "preset")])
@pytest.mark.parametrize("value", ["7", "a=b", "--content"])
def test_a_short_name_becomes_its_key_with_either_spelling_of_the_value(name: str, value: str) -> None:
    assert expand([f"--{name}={value}"]) == [f"--{KEYS[name]}={value}"]
    before, after = ["--print_config"], ["7", "--data.size", "8"]
    assert expand([*before, f"--{name}", *after]) == [*before, f"--{KEYS[name]}", *after]


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--config", "a.yaml", "--trainer.max_steps=2"],
        ["content", "photo.jpg", "size=3"],
        ["--model.style_weight", "3", "--data.content=x"],
        ["--styles", "x", "--style_scales=2"],
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


@pytest.mark.parametrize("name", NAMED)
def test_the_class_path_of_a_named_optimizer_is_that_of_its_class(name: str) -> None:
    (path,) = expand([f"--optimizer={name}"])
    module, _, kind = path.partition("=")[2].rpartition(".")
    assert getattr(import_module(module), kind) is NAMED[name]


@pytest.mark.parametrize("arguments", [["--optimizer", "sgd"], ["--optimizer=sgd"], ["--model.optimizer", "sgd"]])
def test_an_unknown_optimizer_is_refused_with_those_that_are_known(arguments: list[str]) -> None:
    with pytest.raises(
        InputError, match=r"^unknown optimizer 'sgd'; known are lbfgs, adam, pyramid or a class of torch\.optim"
    ):
        expand(arguments)


@pytest.mark.parametrize("before", [["--size", "64"], []])
@pytest.mark.parametrize("spelling", [["--preset=study"], ["--preset", "study"]])
def test_a_preset_becomes_its_file_before_all_else(spelling: list[str], before: list[str]) -> None:
    config, path, *rest = expand([*before, *spelling, "--tv_weight", "3"])
    assert config == "--config"
    assert Path(path) == presets.path("study")
    assert rest == [*expand(before), "--model.tv_weight", "3"]


@pytest.mark.parametrize("spelling", [["--config", "f.yaml"], ["--config=f.yaml"], ["-c", "f.yaml"]])
def test_an_option_goes_before_a_configuration_wherever_it_stands(spelling: list[str]) -> None:
    others = ["--size", "64", "--preset", "study"]
    first, path, *rest = expand([*others, *spelling, "--seed=3"])
    assert (first, Path(path)) == ("--config", presets.path("study"))
    assert rest == ["--config", "f.yaml", "--data.size", "64", "--model.seed=3"]


def test_an_option_before_a_configuration_is_not_lost(tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    file.write_text("data: {size: 128, steps: 9}")
    for given in (["--size", "64", "--config", str(file)], [f"--config={file}", "--size=64"]):
        values = parser_of(StyleTransfer).parse_args(expand(given))
        assert (values.data.size, values.data.steps) == (64, 9)


@pytest.mark.parametrize(
    ("given", "content"),
    [
        (["--content", "a", "--content", "b"], ["a", "b"]),
        (["--content=a", "--style", "s", "--data.content", "[b,c]", "--content=d e"], ["a", "b", "c", "d e"]),
        (["--content", "a"], "a"),
    ],
)
def test_images_that_are_named_one_by_one_are_all_taken(given: list[str], content: list[str] | str) -> None:
    assert parser_of(StyleTransfer).parse_args(expand(given)).data.content == content


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--preset=1970"], r"^unknown preset '1970'; known are .*study"),
        (["--preset"], r"^--preset needs a name: .*study"),
    ],
)
def test_a_preset_that_is_not_there_is_refused_with_those_that_are(arguments: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        expand(arguments)


def test_the_table_has_a_line_for_every_option_with_its_help_in_one_column() -> None:
    lines = table().splitlines()
    assert [line.split()[0] for line in lines if line.startswith("  --")] == [f"--{name}" for name in KEYS]
    assert all(re.match(r"  --\w+ +| {24}", line)[0].__len__() == 24 and len(line) <= 116 for line in lines)  # type: ignore[index]
