"""What cannot be used, as an exception, and the one way that an error becomes a line and an exit code."""

from __future__ import annotations

import errno
import os
import re
import traceback
from pickle import UnpicklingError

from nst_lightning.terminal import say

DEBUG = "NST_DEBUG"
DAMAGED = "the checkpoint is damaged or not one of this program's; it is not loaded"

# By their names: to import jsonargparse's, Lightning's and yaml's classes for comparing takes seconds.
_OF_USERS = {"InputError", "ArgumentError", "MisconfigurationException", "YAMLError"}
_OF_USERS |= {"ModuleNotFoundError"}  # of packages that only some can do with
_OF_KINDS = r"(?:- Expected a path but .* invalid - )?Does not validate against any of the Union subtypes"
_WORDS = (
    (r"\s+", " "),
    (r"""Parser key ["'](?:(?:data|model)\.(?=\w+["']))?([^"']+)["']:""", r"--\1:"),
    (rf"{_OF_KINDS}.*?(Problem with given class_path '[^']+': .*?) (?:- |Given value).*", r"\1"),
    (rf"{_OF_KINDS}.*Expected a dot import path string: (\S+) .*", r"\1 is no class or function that can be imported"),
    (rf"{_OF_KINDS} Subtypes: .*? Errors: - (.*) Given value type: .*? Given value: (.*)", r"\1, got \2"),
    (r"a typing\.Literal(\[[^]]*\])", r"one of \1"),
    (r"<class '([^']+)'>", r"\1"),
    (r"(\S{80})\S{200,}(\S{20})", r"\1...\2"),
)
"""What a parser's messages say, and what a user is told instead."""


_EXTRAS = {"matplotlib": "study", "scipy": "study", "av": "video", "cv2": "video", "gradio": "ui"}
_EXTRAS |= {"png": "print", "tifffile": "print", "onnx": "onnx", "onnxruntime": "onnx"}
"""What comes with an extra of the package only, by module."""


class InputError(ValueError):
    """Something a user gave cannot be used; the text is one line that says what came and what is allowed."""


def refused(error: BaseException) -> int:
    """Says on stderr in one line why a command ended, and returns its exit code, see `explained`."""
    text, code = explained(error)
    say(f"nst: error: {text}")
    return code


def explained(error: BaseException) -> tuple[str, int]:
    """Returns an error in one line, and an exit code.

    It is 2 for what was given, and 1 where memory or disk ran out, or neither what was given nor the machine explains
    the error. With the variable `DEBUG` in the environment the traceback is printed.
    """
    if os.environ.get(DEBUG):
        traceback.print_exception(error)
    text = _known(error)
    of_disk = any(isinstance(each, OSError) and each.errno in _OF_DISKS for each in (error, error.__cause__))
    code = 1 if text is None or of_disk or is_out_of_memory(error) else 2
    if text is None:
        text = f"{type(error).__name__}: {error} (with {DEBUG}=1 in the environment, where)"
    for pattern, words in _WORDS:
        text = re.sub(pattern, words, text)
    return text, code


def in_one_line(error: BaseException) -> str:
    """Returns the text of a library's error without its line breaks."""
    return " ".join(str(error).split())


_OF_DISKS = {errno.ENOSPC, errno.EFBIG, errno.EROFS, errno.EIO}
_SAYS_OUT_OF_MEMORY = (
    *("DefaultCPUAllocator: can't allocate memory", "DefaultCPUAllocator: not enough memory"),  # the latter on Windows
    *("MPS backend out of memory", "Invalid buffer size"),  # the latter of one tensor above what Metal takes
    *("CUDA error: out of memory", "std::bad_alloc"),  # past the caching allocator
    *("ALLOC_FAILED", "ALLOCATION_FAILED"),  # those of cuBLAS, cuDNN, cuFFT and cuSOLVER
    "failed to map segment",  # of a library that is imported
    "PyObject pointer is null",  # where Rust was given none by Python
)


def is_out_of_memory(error: BaseException) -> bool:
    """Returns whether an error, or what led to it, says that a device or the host has too little memory."""
    seen: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in seen:
        if {"OutOfMemoryError", "MemoryError"} & {kind.__name__ for kind in type(cause).__mro__}:
            return True
        of_library = isinstance(cause, (RuntimeError, ImportError)) or type(cause).__name__ == "PanicException"
        if of_library and any(words in str(cause) for words in _SAYS_OUT_OF_MEMORY):
            return True
        seen.append(cause)
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return False


def _known(error: BaseException) -> str | None:
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if isinstance(error, ModuleNotFoundError) and (of := str(error.name).partition(".")[0]) in _EXTRAS:
        return f"{of} is not installed, which this needs: pip install 'nst-lightning[{_EXTRAS[of]}]'"
    if kinds & _OF_USERS:
        return str(error)
    if isinstance(error, (UnicodeDecodeError, UnicodeEncodeError)):
        return f"what should be text in UTF-8 is not ({error.reason} at byte {error.start})"
    if isinstance(error, OSError):
        reason = error.strerror or str(error) or type(error).__name__
        return reason if error.filename is None else f"{error.filename}: {reason}"
    if is_out_of_memory(error):
        return "there is not enough memory: a smaller --size, or --tile auto, takes less"
    if isinstance(error, (UnpicklingError, EOFError)) or "PytorchStreamReader" in str(error):  # EOFError: it is empty
        return DAMAGED
    importing = [frame for frame, _ in traceback.walk_tb(error.__traceback__) if frame.f_code.co_name == "<module>"]
    package = importing[-1].f_globals["__name__"].partition(".")[0] if importing else ""
    if package not in ("", "__main__", "nst_lightning"):
        return f"{package} cannot be imported ({error}): is a variable of the environment wrong that it reads?"
    return str(error) if "environment variable" in str(error) else None
