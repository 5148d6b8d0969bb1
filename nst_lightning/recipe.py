"""What a picture was made with, kept in its file: enough to make it again. It needs no torch."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from nst_lightning.image_files import ImageError, read_metadata

TEXT = "nst_lightning_run"
"""The name of the text in a picture's file."""


@dataclass(frozen=True)
class Recipe:
    """What `nst reproduce` makes a picture from.

    Attributes:
        configuration: Settings in the groups of a configuration, with the picture's pair as the only row of
            `data.pairs`.
        sums: The sums of its images, by what they are called.
    """

    configuration: Mapping[str, Any]
    sums: Mapping[str, str]

    def text(self) -> str:
        """Returns it as a text, equal ones as the same."""
        return json.dumps(asdict(self), sort_keys=True)


def read(picture: str | os.PathLike[str]) -> Recipe:
    """Returns the recipe in a picture's file.

    Raises:
        ImageError: If the file cannot be read, or has none.
    """
    try:
        recipe = Recipe(**json.loads(read_metadata(picture)[TEXT]))
        (row,) = recipe.configuration["data"]["pairs"]
        assert isinstance(row, dict)
        assert isinstance(recipe.sums, dict)
    except (KeyError, TypeError, ValueError, RecursionError, AssertionError) as error:
        if isinstance(error, ImageError):
            raise
        wanted = "expected a finished picture of nst fit, as it was written"
        raise ImageError(f"{picture}: does not say how it was made; {wanted}") from error
    return recipe


def digest(file: str | os.PathLike[str]) -> str:
    """Returns the sum of a file's bytes, as recipes have it."""
    return f"sha256 {sha256(Path(file).read_bytes()).hexdigest()[:12]}"


def portable(path: str | os.PathLike[str]) -> str:
    """Returns a path as it is told to others: from the working or the home folder on where it lies in one of them."""
    whole = Path(os.path.abspath(path))
    for folder, told in ((Path.cwd(), Path()), (Path.home(), Path("~"))):
        if whole.is_relative_to(folder):
            return str(told / whole.relative_to(folder))
    return str(whole)
