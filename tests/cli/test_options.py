"""The short names: what they stand for, that it exists, and that the help tells the truth about it."""

from __future__ import annotations

import inspect
import json
import re
from typing import Any

import pytest

from nst_lightning.backbones import SPECS
from nst_lightning.cli.configuration import parser_of
from nst_lightning.cli.options import OF_RUN, Option, known, table
from nst_lightning.data import PairDataModule
from nst_lightning.initializers import INITIALIZERS
from nst_lightning.modules import StyleTransfer

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
    assert {*DEFAULTS, "preset", "from"} == {one.key for one in known().values() if not one.key.startswith("trainer.")}


@pytest.mark.parametrize(
    "option", [option for name, option in known().items() if name not in ("preset", "from")], ids=lambda one: one.name
)
def test_an_option_stands_for_a_key_of_the_parser_and_its_help_tells_its_default(option: Option) -> None:
    key, default = option.key, parser_of(StyleTransfer).get_default(option.key)
    bracket = re.search(r" \[([^]]*)\]$", option.text)
    if default is None:
        assert bracket is None or not key.count(".") or bracket[1]
        assert bracket is None or bracket[1] == IN_WORDS.get(key, bracket[1])
    elif isinstance(default, str):
        assert bracket is None or bracket[1] == default
    else:
        assert bracket is not None
        assert json.loads(bracket[1]) == default
    assert key.startswith("trainer.") or default == DEFAULTS[key]


@pytest.mark.parametrize(("key", "names"), [("backbone", SPECS), ("init", INITIALIZERS)])
def test_the_help_lists_the_names_there_are(key: str, names: dict[str, Any]) -> None:
    assert all(re.search(rf"\b{name}\b", known()[key].text) for name in names)


def test_the_table_has_a_line_for_every_option_with_its_help_in_one_column(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    lines = table(every=True).splitlines()
    assert [line.split()[0] for line in lines if line.startswith("  --")] == [f"--{name}" for name in known()]
    assert all(re.match(r"  --\w+ +| {24}", line)[0].__len__() == 24 and len(line) <= 116 for line in lines)  # type: ignore[index]


def test_the_short_help_fits_on_two_screens_of_any_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = table(every=False).splitlines()
    assert {line.split()[0][2:] for line in lines if line.startswith("  --")} < known().keys()
    assert len(lines) <= 60
    assert max(map(len, lines)) < 80
