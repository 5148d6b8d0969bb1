"""What is typed after `nst fit` and its like, and what configurations hold, as a configuration's parser reads it.

An option's name may be short, with dashes or underscores, and a flag's value be left out; several values stand one
behind the other or between commas; images need no option. Nothing here needs torch: a slip is answered at once.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from collections import deque
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from itertools import takewhile
from pathlib import Path
from typing import Any

import yaml

from nst_lightning import files, presets
from nst_lightning.cli.options import LISTS_OF_PAINTERS, Option, known
from nst_lightning.errors import InputError
from nst_lightning.runs import SHEET, Run, regular

GROUPS = ("data", "model", "trainer", "painter")
_LETTERS = {"-c": "--config", "-o": "--output", "-h": "--help"}
_OF_PEERS = {
    **dict.fromkeys(("content_image", "content_img", "content_img_name", "input"), "content"),
    **dict.fromkeys(("style_image", "style_img", "style_img_name", "styles"), "style"),
    **dict.fromkeys(("iterations", "num_iterations", "iters", "max_iter", "epochs", "num_steps"), "steps"),
    **dict.fromkeys(("image_size", "imsize", "max_size", "img_size", "height", "width", "resolution"), "size"),
    **dict.fromkeys(("output_image", "out", "save_path", "output_dir"), "output"),
    **dict.fromkeys(("lr", "learning_rate"), "model.optimizer.lr"),
    **dict.fromkeys(("model", "network", "arch"), "backbone"),
    **dict.fromkeys(("model_file", "pretrained", "checkpoint"), "weights"),
    **dict.fromkeys(("gpu", "device", "cuda"), "accelerator"),
    **dict.fromkeys(("num_gpus", "gpus", "multidevice_strategy"), "devices"),
    **dict.fromkeys(("init_image", "init_method", "initialization"), "init"),
    **dict.fromkeys(("save_iter", "save_freq"), "save_every"),
    **dict.fromkeys(("style_blend_weights", "style_interpolation_weights"), "pairs"),
    **dict.fromkeys(("initial_scale", "num_octaves", "scales", "octaves"), "stages"),
    **dict.fromkeys(("normalize_weights", "normalize_gradients"), "normalized"),
    **{"tile_size": "tile", "tv": "tv_weight", "print_iter": "trainer.log_every_n_steps"},
    **dict.fromkeys(("quiet", "silent", "no_progress"), "trainer.enable_progress_bar"),
}
"""What other programs of the field call an option of this one."""


@dataclass(frozen=True)
class Given:
    """What was given: configurations, each going before those in front of it, and options, which go before them all.

    Options are pairs of a key and its values, of which there may be none.
    """

    configurations: tuple[Mapping[str, Any], ...]
    options: tuple[tuple[str, tuple[str, ...]], ...]

    def as_arguments(self) -> list[str]:
        """Returns it in the words of the parser: several images become a list, other lists names between commas."""
        words = [f"--config={json.dumps(each, ensure_ascii=False)}" for each in self.configurations]
        seen = set()
        for key, values in self.options:
            if key not in _LISTS:
                values = (_list(key, ",".join(values)),) if values else ()
            for value in values:
                if value[:1] in ("#", "&", "!"):  # YAML takes such names for none
                    value = json.dumps(value) if key == "data.regions" else f"./{value}"
                words.append(f"--{key}{'+' if key in seen else ''}={value}")
                seen |= {key} & set(_LISTS)
            words += [] if values else [f"--{key}"]
        return words

    def values(self, key: str) -> Any:  # noqa: ANN401 - whatever a file holds
        """Returns what a key of a group was set to, a list of texts where by options; None where it was not."""
        given = [value for name, values in self.options if name == key for value in values]
        group, _, name = key.partition(".")
        return given or next(
            (each[group][name] for each in reversed(self.configurations) if name in each.get(group, {})), None
        )

    def check_images(self) -> None:
        """Raises an `InputError` if there are no images of the names that were given, or none was given."""
        pairs = self.values("data.pairs")
        if pairs is None:
            for key, folder in zip(_IMAGES, (files.CONTENT_FOLDER, files.STYLE_FOLDER), strict=True):
                images = self.values(key)
                for each in images if isinstance(images, list) and images else [images]:
                    listed = yaml.safe_load(each) if isinstance(each, str) and each.startswith(("[", "null")) else each
                    for found in files.find(key.partition(".")[2], listed, folder):
                        _check_file(Path(str(found)))

    def check_safe(self) -> None:
        """Raises an `InputError` if it names what --safe refuses: the parser imports a class as it reads its name."""
        typed = [(key, value) for key, values in self.options for value in values]
        listed = [(key, value) for each in self.configurations for key, value in _by_key(each)]
        said = [str(value).lower() for key, value in (*listed, *typed) if key == "safe"]
        if not said or said[-1] in ("false", "no"):
            return
        classless = _classless()
        for key, value in (*listed, *typed):
            for name in () if key.removesuffix("+") in classless else _unsafe(value, key.startswith("model.optimizer")):
                allowed = "only classes of nst_lightning and optimizers of torch.optim may be named"
                raise InputError(f"{key} is {name}, which --safe refuses: {allowed}")


_IMAGES = ("data.content", "data.style")
_LISTS = (*_IMAGES, "data.content_mask", "data.style_mask", "data.regions", *LISTS_OF_PAINTERS)
_NUMBER_LISTS = ("data.style_weights", "data.style_scale", "data.content_weights")
_INTEGER, _NONE = r"[-+]?\d[\d_]*", "null|none|"  # where those are allowed, the parser says
_NUMBERS = {
    int: f"{_INTEGER}|{_NONE}",
    float: rf"[-+]?(\d[\d_]*\.?\d*|\.\d+)(e[-+]?\d+)?|[-+]?\.?inf|\.?nan|{_NONE}",
}
_SAFE = r"[a-z0-9_:,+-]*|nst_lightning(\.\w+)*\.[A-Z]\w*|torch\.optim\.[A-Z]\w*"
"""A word, which is no class path, or the path of a class that --safe admits."""


def read(arguments: Sequence[str], command: str = "fit") -> Given:
    """Returns what was typed behind a command that `known` has the options of.

    The photograph and the paintings may come first or last, without an option.

    Raises:
        InputError: If an option is unknown, lacks its value, or is no number where it must be; if there is no such
            run, preset or configuration, or it names what --safe refuses.
    """
    left = deque(arguments)
    brought: list[Mapping[str, Any]] = []
    of_files: list[Mapping[str, Any]] = []
    options: list[tuple[str, tuple[str, ...]]] = []
    images: list[str] = []
    of_pictures: list[Mapping[str, Any]] = []
    start: list[tuple[str, tuple[str, ...]]] = []
    while left:
        word = left.popleft()
        if not _is_option(word):
            if command != "fit":
                raise InputError(f"{word!r} is behind no option: nst {command} --help lists the options")
            images.append(word)
            continue
        name, equals, value = word.partition("=")
        key, option = _named(name, command)
        values = (value,) if equals else _values(name, option, left)
        if key in ("config", "from"):
            file = _cell(values[0]) if key == "from" else values[0]
            of_files += _settings(file, command)
            of_pictures += of_files[-1:] if _is_picture(file) else []
            start = [("model.init", (file,))] if key == "from" else start
        elif key == "preset":
            brought += _of_preset(values[0], command)
        else:
            if key == "data.resume":
                brought += _settings(_configuration_of(values[0]), command)
            if key == "model.optimizer":
                values = (_class_path(values[0]),)
            if option is not None:
                _check_number(option, values, name if name[2:] in known(command) else f"--{option.name}")
            options.append((key, values))
    if {"data.strength", "model.style_weight"} <= {key for key, _ in options}:
        raise InputError("--strength finds the style_weight: leave out one of them")
    options = [*start, *options]
    for each in of_pictures:  # whose only row is the picture's own settings
        (row,) = each["data"]["pairs"]
        for name in {key.rpartition(".")[2] for key, _ in options} - {"content", "style"}:
            row.pop(name, None)
    given = Given((*brought, *of_files), (*options, *_as_options(images, {key for key, _ in options})))
    given.check_safe()
    return given


def _list(key: str, value: str) -> str:
    """Returns a value as the parser reads it: several numbers are a list, and so is the weight of a single style."""
    numbers = key in _NUMBER_LISTS and "," in value and not value.startswith("[")
    return f"[{value}]" if numbers else value


def _as_options(images: Sequence[str], named: Container[str]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Returns images without an option as those of the options that were not named: the first is the photograph."""
    content, style = _IMAGES
    if style in named or content in named:
        parts = [(content if style in named else style, tuple(images))]
    else:
        parts = [(content, tuple(images[:1])), (style, tuple(images[1:]))]
    return tuple((key, values) for key, values in parts if values)


def _by_key(settings: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        yield from ((f"{name}.{own}", each) for own, each in value.items()) if name in GROUPS else ((name, value),)


def _classless() -> set[str]:
    """Returns the keys whose values are of no class: those of the trainer, which this program does not know, may be."""
    found = (
        option for option in known().values() if not {"OptimizerCallable", "Stage"} & {*re.findall(r"\w+", option.kind)}
    )
    return {option.key for option in found if not option.key.startswith("trainer.")}


def _unsafe(value: object, is_optimizer: bool) -> Iterator[str]:
    """Yields the texts in a value that may make the parser import what is not admitted."""
    if isinstance(value, str) and not os.path.exists(value):  # a file's settings would be read
        with suppress(yaml.YAMLError):
            value = yaml.safe_load(value)
    if isinstance(value, (Mapping, list)):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from _unsafe(each, is_optimizer)
    elif isinstance(value, str):
        short = is_optimizer and re.fullmatch(r"[A-Z]\w*", value)
        if os.path.exists(value) or not (short or re.fullmatch(_SAFE, value)):
            yield value


def _check_file(path: Path) -> None:
    try:
        regular(path).open("rb").close()
    except OSError as error:
        raise InputError(f"{path}: cannot be opened ({error.strerror or error})") from error


def _is_option(word: str) -> bool:
    return re.match(r"--?[A-Za-z]", word) is not None


def _named(name: str, command: str) -> tuple[str, Option | None]:
    """Returns the key of an option, and the option where it has a short name."""
    plain, options = _LETTERS.get(name, name).removeprefix("--"), known(command)
    if plain in options:
        return options[plain].key, options[plain]
    by_key = next((option for option in options.values() if option.key == plain.removesuffix("+")), None)
    if by_key is not None or plain.partition(".")[0] in GROUPS or plain in ("config", "print_config", "help"):
        return plain, by_key
    raise InputError(f"unknown option {name}{_hint(plain, command, '--')} nst {command} --help lists the options")


def _hint(name: str, command: str, dashes: str = "") -> str:
    """Returns a colon, and what was meant by a name where anything is like it."""
    options = [*known(command), "config"]
    meant = _OF_PEERS.get(name)
    close = difflib.get_close_matches(name, options) if meant is None or command != "fit" else [meant]
    close.sort(key=lambda one: one[0] != name[0])  # a slip is seldom in the first letter
    return f": did you mean {dashes}{close[0]}?" if close else ":"


def _values(name: str, option: Option | None, left: deque[str]) -> tuple[str, ...]:
    """Takes the values of an option from the words behind it."""
    if name in ("--print_config", "--help", "-h"):
        return ()
    if option is not None and option.words is not None:
        return (left.popleft(),) if left and left[0].lower() in option.words else ("true",)
    values = [*takewhile(lambda word: not _is_option(word), left)]
    values = values if option is not None and option.is_list else values[:1]
    for _ in values:
        left.popleft()
    if not values:
        wanted = {
            "--resume": "the folder of a run, e.g. data/output-images/photo_painting",
            "--config": "a file in YAML",
            "--from": "the folder of a sweep and a cell of its figure, e.g. data/output-images/start:B3",
            "--preset": f"one of {', '.join(presets.names())}",
        }
        raise InputError(f"{name} needs {wanted.get(name, 'a value')}")
    return tuple(values)


def _check_number(option: Option, values: Iterable[str], name: str) -> None:
    if option.number is None:
        return
    numbers = [each.strip(" []") for value in values for each in value.split(",")] if option.is_list else values
    for value in numbers:
        if not re.fullmatch(_NUMBERS[option.number], value.lower()):
            wanted = "a whole number" if option.number is int else "a number"
            raise InputError(f"{name} must be {wanted}, got {value!r}")


def _configuration_of(folder: str) -> str:
    path = Run(Path(folder)).config
    if not os.path.isfile(path):
        raise InputError(f"{folder}: is not the folder of a run, for it has no {path.name}")
    return str(path)


def _cell(text: str) -> str:
    """Returns the picture of a cell of a sweep's figure, given as its folder, a colon and its name."""
    folder, _, name = text.rpartition(":")
    path = Path(folder) / SHEET
    try:
        cells = dict(json.loads(regular(path).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        wanted = "expected the folder of a finished sweep and a cell of its grid.png, e.g. data/output-images/start:B3"
        raise InputError(f"--from {text}: {path} is no list of a sweep's cells; {wanted}") from error
    if name not in cells:
        raise InputError(f"--from {text}: {folder} has no cell {name!r}; it has {', '.join(cells)}")
    return str(Path(folder) / str(cells[name]))


def _is_picture(path: str) -> bool:
    from nst_lightning.image_files import FORMATS  # not above, as in `_settings`

    return Path(path).suffix.lower() in FORMATS


def _of_preset(name: str, command: str) -> list[Mapping[str, Any]]:
    """Returns what a preset holds that the command has options for."""
    (found,) = _settings(str(presets.path(name)), "fit")
    if command == "fit":
        return [found]
    of_model = {option.name for option in known(command).values() if option.key.startswith("model.")}
    return [{"model": {own: each for own, each in found["model"].items() if own in of_model}}]


def _settings(path: str, command: str) -> list[Mapping[str, Any]]:
    """Returns what a configuration holds, behind the preset that it names, with short names put into their groups.

    A picture holds what it was made with.
    """
    from nst_lightning.recipe import read as recipe_of  # not above: Pillow is no part of a quick answer

    found = recipe_of(path).configuration if _is_picture(path) else _from_yaml(path)
    if not isinstance(found, dict):
        raise InputError(f"{path}: is not a configuration: expected settings by name, in YAML")
    settings: dict[str, Any] = {}
    for name, value in found.items():
        if name in GROUPS:
            if not isinstance(value, dict):
                raise InputError(f"{path}: {name} must be settings by name, got {value}")
            of_group = settings.setdefault(name, {})
            of_group |= {own: _checked(path, f"{name}.{own}", each, command) for own, each in value.items()}
        elif name in known(command):
            group, _, own = known(command)[name].key.rpartition(".")
            into = settings if group == "" else settings.setdefault(group, {})
            into[own] = _checked(path, known(command)[name].key, value, command)
        else:
            raise InputError(
                f"{path}: unknown setting {name!r}{_hint(str(name), command)} nst {command} --help lists them"
            )
    preset = settings.pop("preset", None)
    return [*([] if preset is None else _of_preset(preset, command)), settings]


def _from_yaml(path: str) -> object:
    try:
        with regular(Path(path)).open(encoding="utf-8") as file:
            # As JSON, which the parser is handed, may have it; a date is text that looks like one.
            return json.loads(json.dumps(yaml.safe_load(file), default=date.isoformat))
    except UnicodeDecodeError as error:
        reason = f"{error.reason} at byte {error.start}"
        raise InputError(f"{path}: is not a configuration: not text in UTF-8 ({reason})") from error
    except (TypeError, ValueError, RecursionError) as error:  # bytes, sets, the 40th of May, what holds itself
        raise InputError(f"{path}: is not a configuration: a value is no text, number or list") from error


def _checked(path: str, key: str, value: object, command: str) -> object:
    """Returns the value of a key in a configuration, an optimiser's short name as its class path."""
    option = known(command).get(key.rpartition(".")[2])
    if option is not None and option.key == key and isinstance(value, str):
        _check_number(option, [value], f"{path}: {option.name}")
        return _class_path(value) if key == "model.optimizer" else value
    return value


def _class_path(name: str) -> str:
    """Returns the class path of an optimiser with a name of its own, and any other class name as it is."""
    if name.lower() in (own := {"lbfgs": "LBFGS", "adam": "Adam", "pyramid": "Pyramid"}):
        return f"nst_lightning.optim.{own[name.lower()]}"
    if "." not in name and not name[:1].isupper() and not name.startswith("{"):
        raise InputError(
            f"unknown optimizer {name!r}; known are {', '.join(own)} or a class of torch.optim, e.g. RMSprop"
        )
    return name
