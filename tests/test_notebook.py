"""The notebook beside the examples: its cells run, in their order, on smaller pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from nst_lightning.api import Rebuilt

NOTEBOOK = Path(__file__).parents[1] / "data/examples/first_pictures.ipynb"
LARGE, SMALL = "SIZE, STEPS = 192, 60", "SIZE, STEPS = 64, 2"


def value(code: str, names: dict[str, Any]) -> Any:  # noqa: ANN401 - whatever a cell ends with
    """Runs a cell and returns what it would show."""
    body, _, last = code.rpartition("\n")
    if "=" in last.partition("(")[0]:
        exec(code, names)
        return None
    exec(body, names)
    return eval(last, names)


@pytest.mark.filterwarnings("ignore:IProgress not found")  # tqdm's, where there is no notebook's widget
def test_the_cells_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(NOTEBOOK.parent)
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    codes = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert LARGE in codes[0]
    names: dict[str, Any] = {}
    shown = [value(code.replace(LARGE, SMALL), names) for code in codes]
    _, picture, weights, content, style, scores = shown
    assert isinstance(picture, PIL.Image.Image)
    assert max(picture.size) == 64
    assert isinstance(weights, PIL.Image.Image)
    assert isinstance(content, Rebuilt)
    assert isinstance(style, Rebuilt)
    assert [*scores] == ["outline", "palette", "texture", "leak", "overall"]


def test_its_pictures_are_in_it() -> None:
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", ())]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 4
    assert not any("error" in output["output_type"] for output in outputs)
