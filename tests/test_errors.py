"""How an error becomes a line and an exit code."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from argparse import ArgumentError
from pathlib import Path
from pickle import UnpicklingError

import pytest
import torch
import yaml
from lightning.fabric.utilities.exceptions import MisconfigurationException

from nst_lightning.__main__ import main
from nst_lightning.errors import InputError, is_out_of_memory, refused


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
        (OSError("no network"), "no network"),
        (
            ModuleNotFoundError("no", name="scipy.stats"),
            "scipy is not installed, which this needs: pip install 'nst-li",
        ),
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


_SHARED = ImportError("libtorch_cpu.so: failed to map segment from shared object")


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory"), _SHARED])
def test_too_little_memory_is_one_line_and_exit_code_1(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(error) == 1
    assert capsys.readouterr().err.startswith("nst: error: there is not enough memory: a smaller --size, or --tile")


@pytest.mark.parametrize("error", [RuntimeError("shapes\ndiffer"), ValueError("no"), KeyError("a"), AssertionError()])
def test_any_other_error_is_one_line_and_exit_code_1(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(error) == 1
    kind = type(error).__name__
    assert re.fullmatch(rf"nst: error: {kind}: [^\n]*\(with NST_DEBUG=1 .*\)\n", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("variable", "line"),
    [
        (
            "TQDM_MININTERVAL=x",
            "tqdm cannot be imported (could not convert string to float: 'x'): is a variable of the",
        ),
        ("MPLBACKEND=x", "matplotlib cannot be imported (Key backend: 'x' is not a valid value for backend; supported"),
        ("JSONARGPARSE_DEBUG=1", "Invalid boolean value for environment variable JSONARGPARSE_DEBUG: 1"),
    ],
)
def test_a_variable_that_a_library_cannot_read_is_one_line_and_exit_code_2(
    variable: str, line: str, pictures: Path
) -> None:
    command = [sys.executable, "-m", "nst_lightning", "plan", "content.png", "style.png"]
    environment = {**os.environ, **dict([variable.split("=")])}
    done = subprocess.run(command, capture_output=True, text=True, cwd=pictures, env=environment)
    assert done.returncode == 2
    assert re.fullmatch(rf"nst: error: {re.escape(line)}[^\n]*\n", done.stderr), done.stderr


def test_a_variable_of_this_program_that_it_did_not_write_is_refused(
    pictures: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(pictures)
    monkeypatch.setenv("NST_LIGHTNING_AGREED", "x")
    assert main(["plan", "content.png", "style.png"]) == 2
    line = "nst: error: NST_LIGHTNING_AGREED in the environment is not what this program writes there: unset it\n"
    assert capfd.readouterr().err == line


def test_the_traceback_is_shown_where_it_is_asked_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NST_DEBUG", "1")
    try:
        raise InputError("size must be at least 1")
    except InputError as error:
        assert refused(error) == 2
    told = capsys.readouterr().err
    assert told.startswith("Traceback ")
    assert "in test_the_traceback_is_shown" in told
    assert told.endswith("nst: error: size must be at least 1\n")


def test_a_disk_that_is_full_is_one_line_and_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(OSError(28, "No space left on device", "a.ckpt")) == 1
    assert capsys.readouterr().err == "nst: error: a.ckpt: No space left on device\n"


def test_a_disk_that_is_full_beneath_another_error_is_exit_code_1() -> None:
    error = InputError("run: cannot create files there")
    error.__cause__ = OSError(28, "No space left on device")
    assert refused(error) == 1


def test_a_name_of_thousands_of_characters_is_shortened(capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(OSError(36, "File name too long", "a" * 5000)) == 2
    assert re.fullmatch(r"nst: error: a{80}\.\.\.a+: File name too long\n", capsys.readouterr().err)


def test_a_real_allocation_that_is_too_large_is_out_of_memory() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    assert is_out_of_memory(caught.value)
    with pytest.raises(MemoryError) as of_python:
        bytearray(2**62)
    assert is_out_of_memory(of_python.value)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:116] data. DefaultCPUAllocator: not enough memory: you tried"),
        RuntimeError("MPS backend out of memory (MPS allocated: 8.90 GB, other allocations: 1.30 GB)"),
        RuntimeError("Invalid buffer size: 19.45 GB"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("std::bad_alloc"),
        type("PanicException", (BaseException,), {})("PyObject pointer is null"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("cuFFT error: CUFFT_ALLOC_FAILED"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED"),
    ],
)
def test_the_messages_of_every_allocator_are_known(error: BaseException) -> None:
    assert is_out_of_memory(error)


def test_what_led_to_an_error_is_looked_at() -> None:
    try:
        try:
            raise MemoryError
        except MemoryError as error:
            raise ValueError("explicitly") from error
    except ValueError as error:
        assert is_out_of_memory(error)
    try:
        try:
            raise MemoryError
        finally:
            raise ValueError("on the way")
    except ValueError as error:
        assert is_out_of_memory(error)


def test_other_errors_are_not_out_of_memory() -> None:
    assert not is_out_of_memory(RuntimeError("shapes cannot be multiplied"))
    assert not is_out_of_memory(ValueError("DefaultCPUAllocator: can't allocate memory"))
    first, second = ValueError("a"), ValueError("b")
    first.__context__, second.__context__ = second, first
    assert not is_out_of_memory(first)
    try:
        try:
            raise MemoryError
        except MemoryError:
            raise ValueError("handled") from None
    except ValueError as error:
        assert not is_out_of_memory(error)
