"""Dataclasses in files: read from JSON and YAML, with the file and the key named of what cannot be used."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields, is_dataclass
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import yaml

from nst_lightning.errors import InputError

_WORDS = {"bool": "true or false", "dict": "an object", "float": "a number", "int": "a whole number"}
_WORDS |= {"list": "a list", "str": "a text"}


def load(path: Path, expected: str) -> Any:  # noqa: ANN401 - whatever is in the file
    """Reads a JSON or YAML file, by its suffix.

    Raises:
        InputError: If the file cannot be read; says what was expected.
    """
    kind = "JSON" if path.suffix == ".json" else "YAML"
    try:
        text = path.read_text(encoding="utf-8")
        return json.loads(text) if kind == "JSON" else yaml.safe_load(text)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({type(error).__name__}); expected {expected}") from error
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise InputError(f"{path}: is no {kind} ({' '.join(str(error).split())})") from error


def as_json(value: Any) -> str:  # noqa: ANN401 - a dataclass of any kind
    """Returns a dataclass as JSON; a number that is not finite is null."""
    plain = json.loads(json.dumps(asdict(value)), parse_constant=lambda name: None)
    return json.dumps(plain, indent=1, ensure_ascii=False) + "\n"


def structured(kind: Any, value: Any, file: object, key: str = "", strict: bool = False) -> Any:  # noqa: ANN401
    """Returns what a file holds at a key as a dataclass or a type that one can have.

    Null is NaN for a number, and the default of a field that has one; unknown keys are refused only where it is strict.

    Raises:
        InputError: If something is missing, unknown or of another type; names the file and the key.
    """
    origin, of = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        _check(dict, value, file, key)
        given = _given(kind, value, file, key, strict)
        return kind(**given)  # type: ignore[operator] # mypy takes it for an instance
    if origin is Mapping:
        _check(dict, value, file, key)
        return {
            name: structured(of[1], each, file, f"{key}.{name}".lstrip("."), strict) for name, each in value.items()
        }
    if origin is tuple:
        _check(list, value, file, key)
        return tuple(structured(of[0], each, file, f"{key}[{place}]", strict) for place, each in enumerate(value))
    if kind is float and value is None:
        return math.nan
    if kind is not Any:
        _check(kind, value, file, key)
    return float(value) if kind is float else value


def _given(kind: Any, value: Mapping[str, Any], file: object, key: str, strict: bool) -> dict[str, Any]:  # noqa: ANN401
    """Returns a dataclass' fields that have no default or are not null."""
    hints = get_type_hints(kind)
    unknown = [name for name in value if name not in hints]
    if strict and unknown:
        raise InputError(f"{file}: unknown key {unknown[0]!r}; known are {', '.join(hints)}")
    optional = {each.name for each in fields(kind) if {each.default, each.default_factory} != {MISSING}}
    return {
        name: structured(hints[name], value.get(name), file, f"{key}.{name}".lstrip("."), strict)
        for name in hints
        if name not in optional or value.get(name) is not None
    }


def _check(kind: Any, value: object, file: object, key: str) -> None:  # noqa: ANN401 - a type or an alias of types
    literals = get_args(kind) if get_origin(kind) is Literal else ()
    kinds = (kind,) if isinstance(kind, type) else [each for each in get_args(kind) if each is not NoneType]
    fits = type(value) in kinds or (type(value) is int and float in kinds)  # not isinstance: True is an int
    if value in literals if literals else fits:
        return
    expected = f"one of {', '.join(literals)}" if literals else " or ".join(_WORDS[each.__name__] for each in kinds)
    where = f"{file}: {key}".rstrip()
    if value is None:
        raise InputError(f"{where} is missing; expected {expected}")
    raise InputError(f"{where} must be {expected}, got {json.dumps(value, ensure_ascii=False, default=str)[:60]}")
