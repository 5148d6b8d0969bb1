"""What can be set on the page: options of `nst fit` in a painter's words, and what a picture says of them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from nst_lightning import presets
from nst_lightning.cli.options import known
from nst_lightning.errors import InputError
from nst_lightning.recipe import Recipe

_OTHERS = (
    *("pooling", "border", "pixel_range", "normalized", "content_layers", "style_layers", "content_loss", "tv_loss"),
    *("style_rotations", "convention", "upscale"),
)
"""What a picture may bring along that no control shows: none of these is a path or a class."""
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
        if isinstance(value, str) and (value in self.choices or (self.is_open and _PLAIN.fullmatch(value))):
            return value
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
_COLORS = {
    "style": "the painting's",
    "matched": "the painting's, made like the photograph's",
    "content": "the photograph's, put back at the end",
    "luminance": "the photograph's: only light and dark are painted",
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
        Control("colors", "Colours", "whose colours the picture is in", choices=_COLORS),
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


def restored(recipe: Recipe) -> tuple[dict[str, str | float], list[str], list[str]]:
    """Returns what a picture's recipe says of every control, its other settings as they are typed, and what is lost."""
    data, model = (recipe.configuration.get(group, {}) for group in ("data", "model"))
    groups = [each for each in (data, model, data["pairs"][0]) if isinstance(each, dict)]  # anyone may have written it
    settings = {name: value for each in groups for name, value in each.items()}
    lost = [name for name in ("optimizer", "weights", "style_weights") if settings.get(name) is not None]
    found = defaults()
    for name, control in CONTROLS.items():
        try:
            given = found[name] if settings.get(name) is None else settings[name]
            found[name] = control.text(given) if control.choices else control.number(given)
        except InputError:  # a list of stages, a start from a file: the control stays as usual
            lost.append(name)
    others = ((name, settings[name]) for name in _OTHERS if settings.get(name) is not None)
    words = {name: value if isinstance(value, str) else json.dumps(value) for name, value in others}
    differ = {name: text for name, text in words.items() if not known()[name].text.endswith(f"[{text}]")}
    lost += [name for name, text in differ.items() if not _PLAIN.fullmatch(text)]
    return found, [f"--{name}={text}" for name, text in differ.items() if name not in lost], lost
