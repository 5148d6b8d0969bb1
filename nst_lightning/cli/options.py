"""The short names of a run's options and their help.

Those of the data and the model are read from their source, not imported: the help answers before torch could be.
"""

from __future__ import annotations

import ast
import re
import shutil
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from nst_lightning import presets

_PACKAGE = Path(__file__).parents[1]


def score_names() -> list[str]:
    """Returns the names of scores that can be asked for, as the scores' files declare them."""
    sources = [path.read_text(encoding="utf-8") for path in (_PACKAGE / "metrics").glob("*.py")]
    return sorted({name for source in sources for name in re.findall(r'^    asked = "(\w+)"$', source, re.MULTILINE)})


OF_RUN: Mapping[str, tuple[Any, Any, str]] = {
    "output": (str | None, None, "A picture's file, or a folder [data/output-images/<pair>]"),
    "overwrite": (bool, False, "Whether an earlier output is replaced; else the new one gets a number [false]"),
    "bits": (Literal[8, 16], 8, "Bits a channel of the finished picture: 8, or 16 as PNG or TIFF [8]"),
    "save_every": (int | None, None, "Steps between pictures that are written on the way [never]"),
    "video": (bool | Literal["mp4", "webp"], False, "A film of the optimisation: true, mp4 or webp [false]"),
    "scores": (list[str] | str, "auto", f"auto, off, or some of {','.join(score_names())} [auto]"),
    "score_every": (int | None, None, "Steps between two scorings on the way [a twelfth of them]"),
    "show_score": (str | None, "overall", "The score that the progress bar shows [overall]"),
    "representations": (list[str] | str | None, None, "Layers to show in TensorBoard beside each picture"),
    "checkpoint_minutes": (float, 2.0, "Minutes between two checkpoints [2.0]"),
    "ckpt_path": (str | None, None, "A checkpoint to go on from"),
    "safe": (bool, False, "Whether only classes of this package and torch's optimizers may be named [false]"),
}
"""What belongs to a run as a whole: type, default, and what it does."""

_OF_TRAINER = {
    "trainer.accelerator": "What to compute on: cpu, gpu, mps, ... [auto]",
    "trainer.devices": "How many GPUs or processes, with --strategy [1]",
    "trainer.strategy": "pair_parallel (pairs dealt out) or tile_parallel (tiles dealt out)",
    "trainer.precision": "That of the network: 32-true, 64-true, bf16-mixed or 16-mixed [32-true]",
}
NOT_OF_PAINTERS = frozenset({"init", "optimizer", "seed", "tile", "compile", "graph", "mask_edge", "temporal_weight"})
"""What `nst train` has not of the model's."""
LISTS_OF_PAINTERS = ("data.photographs", "data.held_out", "painter.styles")
"""Its lists of files."""
_COMMON = (
    *("content", "style", "pairs", "output", "size", "steps", "stages", "content_weight", "style_weight", "strength"),
    *("style_loss", "style_layers", "style_weights", "style_scale", "colors", "content_mask", "init", "seed"),
    *("optimizer", "backbone", "preset", "tile", "batch_size", "overwrite", "resume", "video", "scores"),
    *("accelerator", "devices", "strategy", "precision"),
)
"""The options of the short help, in its order: what people vary first."""


@dataclass(frozen=True)
class Option:
    """An option with a short name.

    Attributes:
        key: Its key in a configuration.
        kind: Its type, as it is written in the source.
        text: What it does, in a sentence, with its default.
    """

    key: str
    kind: str
    text: str

    @property
    def name(self) -> str:
        """The short name."""
        return self.key.rpartition(".")[2]

    @property
    def words(self) -> frozenset[str] | None:
        """What a value may be that can be left out, for true; None where a value is needed."""
        if "bool" not in self.kind:
            return None
        return frozenset({"true", "false", "yes", "no", *re.findall(r"['\"](\w+)['\"]", self.kind)})

    @property
    def is_list(self) -> bool:
        """Whether several values may stand one behind the other."""
        return any(kind in self.kind for kind in ("list[str]", "list[float]")) or self.kind in ("Layers", "Losses")

    @property
    def number(self) -> type[int] | type[float] | None:
        """What a value is, where it is nothing but a number, or several."""
        return {"int": int, "float": float}.get(self.kind.removesuffix(" | None").removesuffix(" | list[float]"))


@cache
def known(command: str = "fit") -> Mapping[str, Option]:
    """Returns the options of `fit`, or of `train`, by their short names."""
    preset = f"A whole convention: {', '.join(presets.names())}; options beside it go before it"
    of_run = {
        name: Option(name, kind.__name__ if isinstance(kind, type) else str(kind), text)
        for name, (kind, _, text) in OF_RUN.items()
    }
    of_trainer = [
        Option(key, "int | str" if key.endswith("devices") else "str", text) for key, text in _OF_TRAINER.items()
    ]
    if command == "train":
        of_model = _arguments("model", "modules/style_transfer.py", "StyleTransfer")
        found = [
            *_arguments("data", "crops.py", "CropDataModule"),
            *(each for each in of_model if each.name not in NOT_OF_PAINTERS),
            *(each for each in _arguments("painter", "modules/painter.py", "Painter") if each.name != "problem"),
            Option("preset", "str", preset),
            *(of_run[name] for name in ("output", "overwrite", "ckpt_path", "checkpoint_minutes")),
            *of_trainer,
        ]
        return {
            **{option.name: option for option in found},
            "steps": Option("trainer.max_steps", "int", "Steps of Adam"),
        }
    found = [
        *_arguments("data", "data.py", "PairDataModule"),
        *_arguments("model", "modules/style_transfer.py", "StyleTransfer"),
        Option("preset", "str", preset),
        Option(
            "from", "str", "A cell of a sweep's figure, FOLDER:B3, to go on with: its settings, and its picture as init"
        ),
        *of_run.values(),
        *of_trainer,
    ]
    return {option.name: option for option in found}


def table(every: bool) -> str:
    """Returns options as lines of help, in the width of the terminal: the common ones, or every one."""
    width = min(116, shutil.get_terminal_size().columns - 1)
    options = known() if every else {name: known()[name] for name in _COMMON}
    lines = [f"  --{name:<19} {option.text}" for name, option in options.items()]
    if not every:  # two screens
        lines = [
            line if len(line) <= 2 * width - 24 else f"{line[: 2 * width - 30].rpartition(' ')[0]} ..."
            for line in lines
        ]
    return "\n".join(textwrap.fill(line, width, subsequent_indent=" " * 24, break_on_hyphens=False) for line in lines)


def _arguments(group: str, file: str, owner: str) -> list[Option]:
    """Returns the arguments of a class in a file of this package, in order."""
    body = ast.parse((_PACKAGE / file).read_text(encoding="utf-8")).body
    (found,) = [node for node in body if isinstance(node, ast.ClassDef) and node.name == owner]
    (made,) = [node for node in found.body if isinstance(node, ast.FunctionDef) and node.name == "__init__"]
    section = re.split(r"\n(?=\S)", (ast.get_docstring(found) or "").partition("\nArgs:\n")[2])[0]
    texts = dict(re.findall(r"^    (\w+): (.*(?:\n {5,}.*)*)", section, re.MULTILINE))
    needed = len(made.args.args) - 1 - len(made.args.defaults)
    values = [*[None] * needed, *map(ast.literal_eval, made.args.defaults)]
    defaults = {each.arg: it for each, it in zip(made.args.args[1:], values, strict=True)}
    kinds = {each.arg: ast.unparse(each.annotation) for each in made.args.args if each.annotation is not None}
    return [Option(f"{group}.{name}", kinds[name], _in_short(texts[name], it)) for name, it in defaults.items()]


def _in_short(text: str, default: object) -> str:
    """Returns the first sentence of an argument's docstring, with its default."""
    first, *others = re.split(r"\.\s+(?=[A-Z0-9`])", " ".join(text.replace("`", "").split()).rstrip("."))
    if default is not None:
        return f"{first} [{str(default).lower() if isinstance(default, bool) else default}]"
    return first + "".join(f" [{other[11:]}]" for other in others if other.startswith("By default "))
