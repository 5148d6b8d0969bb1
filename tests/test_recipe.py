"""What is kept in a picture's file of how it was made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from nst_lightning import images, recipe
from nst_lightning.image_files import ImageError
from nst_lightning.recipe import Recipe

KNOWN = Recipe({"data": {"pairs": [{"content": "a.jpg", "style": "b.jpg"}]}, "model": {"seed": 3}}, {"content": "0"})


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
def test_a_picture_gives_back_what_was_written(tmp_path: Path, suffix: str) -> None:
    texts = {recipe.TEXT: KNOWN.text()}
    assert recipe.read(images.write(tmp_path / f"a{suffix}", torch.rand(3, 16, 16), metadata=texts)) == KNOWN


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "3", "null", "{}", '{"configuration": 3, "sums": {}}', "[" * 50_000, "é\0"),
        json.dumps({"configuration": {"data": {"pairs": []}}, "sums": {}}),
        json.dumps({"configuration": {"data": {"pairs": "p.csv"}}, "sums": {}}),
        json.dumps({"configuration": {"data": {"pairs": [3]}}, "sums": {}}),
        json.dumps({"configuration": KNOWN.configuration, "sums": 3}),
        json.dumps({"configuration": KNOWN.configuration, "sums": {}, "more": 1}),
    ],
)
def test_what_is_no_recipe_is_refused(tmp_path: Path, text: str) -> None:
    file = images.write(tmp_path / "a.png", torch.rand(3, 16, 16), metadata={recipe.TEXT: text})
    with pytest.raises(ImageError, match=r"a\.png: does not say how it was made; expected a finished picture"):
        recipe.read(file)


def test_a_path_is_told_from_the_working_or_the_home_folder_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work, home = tmp_path / "work", tmp_path / "home"
    for folder in (work, home):
        folder.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setenv("HOME", str(home))
    told = [recipe.portable(path) for path in ("a/b.jpg", work / "c.jpg", home / "d.jpg", "/e.jpg", "../f.jpg")]
    assert told == ["a/b.jpg", "c.jpg", "~/d.jpg", "/e.jpg", str(tmp_path / "f.jpg")]
