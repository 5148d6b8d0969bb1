"""The short names of a run's options and their help.

Those of the data and the model are read from their source, not imported: the help answers before torch could be.
"""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml

from nst_lightning import presets
from nst_lightning.errors import InputError
from nst_lightning.runs import Run, regular

_PACKAGE = Path(__file__).parents[1]


def score_names() -> list[str]:
    """Returns the names of scores that can be asked for, as the scores' files declare them."""
    sources = [path.read_text(encoding="utf-8") for path in (_PACKAGE / "metrics").glob("*.py")]
    return sorted({name for source in sources for name in re.findall(r'^    asked = "(\w+)"$', source, re.MULTILINE)})


OF_RUN: Mapping[str, tuple[Any, Any, str]] = {
    "output": (str | None, None, "A picture's file, or a folder [data/output-images/<pair>]"),
    "overwrite": (bool, False, "Whether an earlier output is replaced; else the new one gets a number [false]"),
    "save_every": (int | None, None, "Steps between pictures that are written on the way [never]"),
    "video": (bool | Literal["mp4", "webp"], False, "A film of the optimisation: true, mp4 or webp [false]"),
    "scores": (list[str] | str, "auto", f"auto, off, or some of {','.join(score_names())} [auto]"),
    "score_every": (int | None, None, "Steps between two scorings on the way [a twelfth of them]"),
    "show_score": (str | None, "overall", "The score that the progress bar shows [overall]"),
    "representations": (list[str] | str | None, None, "Layers to show in TensorBoard beside each picture"),
    "checkpoint_minutes": (float, 2.0, "Minutes between two checkpoints [2.0]"),
    "ckpt_path": (str | None, None, "A checkpoint to go on from"),
}
"""What belongs to a run as a whole: type, default, and what it does."""

_OF_TRAINER = {
    "trainer.accelerator": "What to compute on: cpu, gpu, mps, ... [auto]",
    "trainer.devices": "How many GPUs or processes, with --strategy [1]",
    "trainer.strategy": "pair_parallel (pairs dealt out) or tile_parallel (tiles dealt out)",
    "trainer.precision": "That of the network: 32-true, 64-true, bf16-mixed or 16-mixed [32-true]",
}
_IMAGES = ("--data.content", "--data.style")


@cache
def known() -> Mapping[str, str]:
    """Returns what each option with a short name does, by its configuration key; the name is the key's last part."""
    data = _arguments("data", "data.py", "PairDataModule")
    model = _arguments("model", "modules/style_transfer.py", "StyleTransfer")
    preset = f"A whole convention: {', '.join(presets.names())}; options beside it go before it"
    return {**data, **model, "preset": preset, **{name: text for name, (_, _, text) in OF_RUN.items()}, **_OF_TRAINER}


def table() -> str:
    """Returns the options with a short name as lines of help."""
    lines = [f"  --{key.rpartition('.')[2]:<19} {text}" for key, text in known().items()]
    return "\n".join(textwrap.fill(line, 116, subsequent_indent=" " * 24) for line in lines)


def expand(arguments: Sequence[str]) -> list[str]:
    """Returns command-line arguments with short names replaced: options' by keys, an optimiser's by its class path.

    Configurations come first, for an option goes before them wherever it stands: those that a run to go on with and a
    preset bring along, then files. Images that are named one by one become a list. An `InputError` if there is no such
    optimiser, run or preset.
    """
    keys = {f"--{key.rpartition('.')[2]}": f"--{key}" for key in known()} | {"-c": "--config"}
    brought: list[str] = []
    files: list[str] = []
    expanded = [""]
    for argument in arguments:
        name, equals, value = argument.partition("=")
        key, value = (keys.get(name, name), value) if equals else (expanded[-1], argument)
        if key in ("--config", "--preset"):
            into, path = (files, _settings(value)) if key == "--config" else (brought, str(presets.path(value)))
            into += ["--config", path]
            if not equals:
                expanded.pop()
            continue
        if key == "--model.optimizer":
            value = _class_path(value)
        elif key == keys["--resume"]:
            brought += ["--config", _configuration_of(value)]
        option = key if equals else keys.get(value, value)
        if option in _IMAGES and any(each.partition("=")[0] == option for each in expanded):
            option += "+"
        expanded.append(f"{option}={value}" if equals else option)
    if expanded[-1] == keys["--resume"]:
        raise InputError("--resume needs the folder of a run, e.g. data/output-images/photo_painting")
    if expanded[-1] == "--preset":
        raise InputError(f"--preset needs a name: {', '.join(presets.names())}")
    return [*brought, *files, *expanded[1:]]


def _configuration_of(folder: str) -> str:
    path = Run(Path(folder)).config
    if not path.is_file():
        raise InputError(f"{folder}: is not the folder of a run, for it has no {path.name}")
    return str(path)


def _settings(path: str) -> str:
    """Returns the path of a configuration; refuses by name what is none, which the parser calls by no name."""
    try:
        if Path(path).exists():
            with regular(Path(path)).open(encoding="utf-8") as file:
                found = yaml.safe_load(file)
            if not isinstance(found, dict):
                raise InputError(f"{path}: is not a configuration: expected settings by name, in YAML")
            for group in ("data", "model", "trainer"):
                if not isinstance(found.get(group, {}), dict):
                    raise InputError(f"{path}: {group} must be settings by name, got {found[group]}")
    except UnicodeDecodeError as error:
        reason = f"{error.reason} at byte {error.start}"
        raise InputError(f"{path}: is not a configuration: not text in UTF-8 ({reason})") from error
    return path


def _class_path(name: str) -> str:
    """Returns the class path of an optimiser with a name of its own, and any other class name as it is."""
    from nst_lightning.optim import NAMED  # not above, for it imports torch

    if name.lower() in NAMED:
        return f"nst_lightning.optim.{NAMED[name.lower()].__name__}"
    if "." not in name and not name[:1].isupper() and not name.startswith("{"):
        known = ", ".join(NAMED)
        raise InputError(f"unknown optimizer {name!r}; known are {known} or a class of torch.optim, e.g. RMSprop")
    return name


def _arguments(group: str, file: str, owner: str) -> dict[str, str]:
    """Returns the help of the arguments of a class in a file of this package, in order, by their configuration key."""
    body = ast.parse((_PACKAGE / file).read_text(encoding="utf-8")).body
    (found,) = [node for node in body if isinstance(node, ast.ClassDef) and node.name == owner]
    (made,) = [node for node in found.body if isinstance(node, ast.FunctionDef) and node.name == "__init__"]
    section = re.split(r"\n(?=\S)", (ast.get_docstring(found) or "").partition("\nArgs:\n")[2])[0]
    texts = dict(re.findall(r"^    (\w+): (.*(?:\n {5,}.*)*)", section, re.MULTILINE))
    defaults = {each.arg: ast.literal_eval(it) for each, it in zip(made.args.args[1:], made.args.defaults, strict=True)}
    return {f"{group}.{name}": _in_short(texts[name], default) for name, default in defaults.items()}


def _in_short(text: str, default: object) -> str:
    """Returns the first sentence of an argument's docstring, with its default."""
    first, *others = re.split(r"\.\s+(?=[A-Z0-9`])", " ".join(text.replace("`", "").split()).rstrip("."))
    if default is not None:
        return f"{first} [{str(default).lower() if isinstance(default, bool) else default}]"
    return first + "".join(f" [{other[11:]}]" for other in others if other.startswith("By default "))
