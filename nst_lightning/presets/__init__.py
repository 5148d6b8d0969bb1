"""Presets: whole conventions of other projects by name, each a configuration file of `nst fit`."""

from pathlib import Path
from typing import Any

import yaml

from nst_lightning.errors import InputError


def names() -> list[str]:
    """Returns the names of the presets."""
    return sorted(file.stem for file in Path(__file__).parent.glob("*.yaml"))


def path(name: str) -> Path:
    """Returns the file of a preset; an `InputError` lists the names there are."""
    if name not in names():
        raise InputError(f"unknown preset {name!r}; known are {', '.join(names())}")
    return Path(__file__).parent / f"{name}.yaml"


def options(name: str) -> dict[str, Any]:
    """Returns the options of a preset by their short names, an optimiser as `class_path` and `init_args`."""
    groups = yaml.safe_load(path(name).read_text(encoding="utf-8"))
    return {option: value for group in groups.values() for option, value in group.items()}
