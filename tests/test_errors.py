"""How an error becomes a line and an exit code, and which do not."""

from __future__ import annotations

from argparse import ArgumentError
from pickle import UnpicklingError

import pytest
import torch
import yaml
from lightning.fabric.utilities.exceptions import MisconfigurationException

from nst_lightning.errors import InputError, refused


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (InputError("size must be\n  at least 1"), "size must be at least 1"),
        (ArgumentError(None, 'Parser key "model.init":\n  Expected a typing.Literal[1, 2]'), "--init: Expected one of"),
        (ArgumentError(None, "Parser key \"trainer.precision\": a <class 'str'>"), "--trainer.precision: a str"),
        (ArgumentError(None, 'Parser key "model.optimizer.lr": bad'), "--model.optimizer.lr: bad"),
        (MisconfigurationException("no such accelerator"), "no such accelerator"),
        (yaml.YAMLError("no YAML"), "no YAML"),
        (PermissionError(13, "Permission denied", "a/b.png"), "a/b.png: Permission denied"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (OSError("no network"), "no network"),
        (MemoryError(), "there is not enough memory"),
        (torch.OutOfMemoryError("CUDA out of memory"), "there is not enough memory"),
        (UnpicklingError("invalid load key"), "the checkpoint is damaged"),
        (EOFError("Ran out of input"), "the checkpoint is damaged"),
        (RuntimeError("PytorchStreamReader failed"), "the checkpoint is damaged"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_what_a_user_can_mend_is_one_line_and_exit_code_2(
    error: Exception, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refused(error) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"nst: error: {line}")
    assert told.count("\n") == 1


def test_ctrl_c_has_the_exit_code_of_shells(capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(KeyboardInterrupt()) == 130
    assert capsys.readouterr().err == "nst: error: interrupted\n"


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), ValueError("no"), KeyError("a"), AssertionError()])
def test_an_error_of_the_program_keeps_its_traceback(error: Exception) -> None:
    with pytest.raises(type(error)):
        refused(error)
