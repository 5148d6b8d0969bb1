"""What can be set on the page: options of `nst fit` in a painter's words, and what a picture says of them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from nst_lightning import presets
from nst_lightning.cli.options import known
from nst_lightning.errors import InputError

_OTHERS = (
    *("pooling", "border", "pixel_range", "normalized", "content_layers", "style_layers", "content_loss", "tv_loss"),
    *("style_rotations", "convention", "upscale"),
)
"""What a picture may bring along that no control shows: none of these is a path or a class."""
_OPTIMIZER = "LBFGS("
_PLAIN = re.compile(r"[\w.,:{}\[\] \"+-]*", re.ASCII)


@dataclass(frozen=True)
class Control:
    """An option of `nst fit` by its name, in a painter's words; a number between `low` and `high`, or a choice.

    A whole number never leaves its range, a weight may where a picture has such: those of presets are large.
    """

    name: str
    label: str
    info: str
    low: float = 0
    high: float = 0
    step: float = 0.1
    choices: Mapping[str, str] = field(default_factory=dict)  # words by value
    is_open: bool = False  # whether another choice may be typed
    is_common: bool = False  # whether it is among the first that a painter wants

    @property
    def default(self) -> str | float:
        """The value that `nst fit` takes of itself."""
        found = re.search(r"\[([^\s\]]+?)(, [^\]]*)?\]$", known()[self.name].text)
        text = "" if found is None else found[1]
        return text if self.choices else self.number(text)

    def number(self, value: object) -> float:
        """Returns a value as a number, whole where it has to be; an InputError where it cannot be used."""
        try:
            number = float(str(value))
        except ValueError:
            number = math.nan
        if not (self.low <= number <= (self.high if self.step == 1 else 1e12)):
            raise InputError(f"{self.label}: must be {self.low:g} to {self.high:g}, got {value!r:.40}")
        return int(number) if self.step == 1 else number

    def text(self, value: object) -> str:
        """Returns a value as it is typed behind the option; an InputError where it cannot be used."""
        if not self.choices:
            return f"{self.number(value):.12g}"
        if value in self.choices or (self.is_open and isinstance(value, str) and re.fullmatch(_PLAIN, value)):
            return str(value)
        raise InputError(f"{self.label}: must be one of {', '.join(self.choices)}, got {value!r:.40}")


_MANNERS = {
    "gram,matched,nearest": "Brushwork and forms",
    "gram,nearest": "Brushwork, stroke by stroke",
    "gram": "Palette and texture, as Gatys did",
    "gram,matched": "Broad forms",
    "wasserstein": "Palette and texture, even",
}
_STARTS = {
    "content": "the photograph",
    "style": "the painting",
    "gaussian": "coarse noise",
    "uniform": "even noise",
    "mean": "the painting's mean colour",
    "grey": "a grey canvas",
}
_NETWORKS = {
    "vgg16": "VGG16",
    "vgg19": "VGG19",
    "vgg16_experimental": "VGG16, more layers",
    "resnet50": "ResNet-50 (downloaded once)",
    "inception_v3": "Inception v3 (downloaded once)",
}
_PRESETS = {"": "none", **{name: name for name in presets.names()}}
CONTROLS = {
    control.name: control
    for control in (
        Control("style_weight", "Strength of the painting", "more of its colours and brushwork", 0, 20, is_common=True),
        Control("content_weight", "Keep the photograph's outlines", "more keeps them clearer", 0, 10, is_common=True),
        Control("style_scale", "Size of the strokes", "0.5 halves them", 0.25, 2, 0.05, is_common=True),
        Control("size", "Size", "long side in pixels, at most the photograph's", 32, 2048, 1, is_common=True),
        Control("steps", "How long", "steps; more comes closer to the painting", 2, 1000, 1, is_common=True),
        Control("style_loss", "Manner", "what of the painting is taken", choices=_MANNERS, is_open=True),
        Control("init", "Start from", "what is on the canvas at first", choices=_STARTS),
        Control("tv_weight", "Smoothness", "more blurs what is grainy", 0, 5),
        Control("stages", "From coarse to fine", "sizes on the way: more gives larger forms", 1, 6, 1),
        Control("backbone", "Network", "what looks at the pictures", choices=_NETWORKS),
        Control("seed", "Seed", "another number is another chance, where chance plays a part", 0, 2**32 - 1, 1),
        Control("preset", "Preset", "another project's settings; controls left alone follow it", choices=_PRESETS),
    )
}
"""The controls by the names of their options, in the order of the page."""


def defaults() -> dict[str, str | float]:
    """Returns what the controls show at first, which is what `nst fit` does without an option."""
    return {name: "" if name == "preset" else control.default for name, control in CONTROLS.items()}


def arguments(values: Mapping[str, object], others: Iterable[str] = ()) -> list[str]:
    """Returns the options of `nst fit` that differ from its defaults, behind them what a picture brought along.

    Raises:
        InputError: If a value cannot be used.
    """
    usual = defaults()
    typed = {name: CONTROLS[name].text(value) for name, value in values.items()}
    words = [f"--{name}={text}" for name, text in typed.items() if text != CONTROLS[name].text(usual[name])]
    for other in others:
        name, _, value = other.removeprefix("--").partition("=")
        if name not in _OTHERS or not _PLAIN.fullmatch(value):
            raise InputError(f"{other!r:.60}: is not a setting that a picture may bring along")
        words.append(other)
    return words


def restored(texts: Mapping[str, str]) -> tuple[dict[str, str | float], list[str], list[str]]:
    """Returns what a picture's texts say of every control, its other settings as they are typed, and what is lost.

    Raises:
        InputError: If they are not of a picture of this program.
    """
    settings = _object(texts.get("nst_lightning", ""))
    if not settings:
        raise InputError("this picture has no settings in it: it is none of nst fit, or was saved by another program")
    stages = [(int(side), int(steps)) for side, steps in re.findall(r"(\d+) px x (\d+)", str(settings.get("stages")))]
    if stages:
        settings |= {"size": stages[-1][0], "steps": sum(steps for _, steps in stages), "stages": len(stages)}
    settings.pop("content_layers", None)  # written for reading, and by default the network's own
    settings.pop("style_layers", None)
    run = _object(texts.get("nst_lightning_run", ""))
    for group in ("data", "model"):
        settings |= {name: value for name, value in _object(run.get(group, {})).items() if value is not None}
    optimizer = str(settings.get("optimizer", _OPTIMIZER))
    lost = [] if optimizer.startswith(_OPTIMIZER) else [f"optimizer {optimizer:.80}"]
    found = defaults()
    for name in found:
        try:
            given = settings.get(name, found[name])
            found[name] = CONTROLS[name].text(given) if CONTROLS[name].choices else CONTROLS[name].number(given)
        except InputError:  # a start from a file, a size beyond the range: it stays usual
            lost.append(f"{name} {settings[name]!s:.80}")
    return found, [f"--{name}={value}" for name in _OTHERS for value in _differing(name, settings.get(name))], lost


def _differing(name: str, value: object) -> list[str]:
    """Returns a setting as it is typed, unless it is usual or cannot be."""
    text = value if isinstance(value, str) else json.dumps(value)
    usual = text == "null" or known()[name].text.endswith(f"[{text}]")
    return [] if usual or not _PLAIN.fullmatch(text) else [text]


def _object(found: object) -> dict[str, Any]:
    """Returns settings by name, written as JSON or not; none where it is anything else."""
    if isinstance(found, str):
        try:
            found = json.loads(found)
        except (ValueError, RecursionError):
            return {}
    return {str(name): value for name, value in found.items()} if isinstance(found, dict) else {}
