"""Which module may import which: the layers of the package, and what has to answer before torch is imported."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import nst_lightning
from nst_lightning.cli.registry import COMMANDS

PACKAGE = Path(nst_lightning.__file__).parent
# From the ground up: a file may import what stands on the floors below it, and its own folder.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("interruption", "terminal"),
    ("errors",),
    ("runs",),
    ("image_files",),
    ("presets", "recipe"),
    ("backbones", "colors", "figures", "images", "losses", "memory", "optim", "paper", "precision", "schedule"),
    ("naming", "painters"),
    (
        *("cards", "clips", "files", "flow", "initializers", "inspection"),
        *("metrics", "parallel", "progress", "regions", "tiling"),
    ),
    ("film", "pairs"),
    ("batches",),
    ("crops", "data"),
    ("modules",),
    ("callbacks", "planning"),
    ("api",),
    ("cli", "__init__"),
    ("study", "ui", "__main__"),
)
MODULES = sorted(PACKAGE.rglob("*.py"))


def row(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported(path: Path) -> Iterator[str]:
    """The full names of all that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def floor(name: str) -> int:
    (number,) = [number for number, rooms in enumerate(FLOORS) if name in rooms]
    return number


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_imports_only_what_is_below_it(path: Path) -> None:
    internal = {name.split(".")[1] for name in imported(path) if name.split(".")[0] == "nst_lightning"}
    above = {name for name in internal - {row(path), "__version__"} if floor(name) >= floor(row(path))}
    assert not above


def test_every_room_has_a_floor() -> None:
    assert {row(path) for path in MODULES} == {room for rooms in FLOORS for room in rooms}


@pytest.mark.parametrize(
    "path",
    [path for path in MODULES if floor(row(path)) < floor("data") and row(path) != "parallel"],
    ids=lambda path: str(path.relative_to(PACKAGE)),
)
def test_nothing_below_data_imports_lightning(path: Path) -> None:
    roots = {imported_name.split(".")[0] for imported_name in imported(path)}
    assert not roots & {"lightning", "pytorch_lightning", "lightning_fabric"}


@pytest.mark.parametrize(
    "statement",
    [
        "import nst_lightning",
        "import nst_lightning.__main__",
        "from nst_lightning.__main__ import main; assert main(['--help']) == 0",
        "from nst_lightning.__main__ import main; assert main(['--version']) == 0",
        *(
            f"from nst_lightning.__main__ import main; assert main({typed}) == 2"
            for typed in (
                ["fti"],
                ["fit"],
                ["fit", "--stile"],
                ["fit", "nobody.png", "painting.png"],
                ["fit", "--size", "x"],
            )
        ),
        *(
            f"from nst_lightning.__main__ import main; assert main(['{command}', '--help']) == 0"
            for command in COMMANDS
        ),
    ],
)
def test_answers_without_torch_and_lightning(statement: str) -> None:
    heavy = "{'torch', 'torchvision', 'lightning', 'jsonargparse', 'PIL', 'numpy', 'pandas'}"
    code = f"import sys; {statement}; assert not {heavy} & set(sys.modules), {heavy} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


EXTRAS = {"matplotlib", "scipy", "av", "cv2", "gradio"}


def test_painting_and_scoring_need_no_extra(tmp_path: Path, content_png: Path, style_png: Path) -> None:
    images = ["--content", str(content_png), "--style", str(style_png)]
    fast = ["--size=32", "--steps=1", "--stages=1", "--content_layers=relu1_1", "--style_layers=relu1_1", "-o=a.png"]
    code = f"""
import sys
from nst_lightning.__main__ import main
assert main(["fit", *{images}, *{fast}]) == 0
assert main(["score", "a.png", *{images}]) == 0
print(*sorted(name for name in sys.modules if name.startswith("nst_lightning.")))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True)
    loaded = done.stdout.splitlines()[-1].split()
    assert "nst_lightning.metrics.scorer" in loaded
    needing = {".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in MODULES if uses_extra(path)}
    assert "nst_lightning.inspection" in needing
    assert needing.isdisjoint(loaded)


def uses_extra(path: Path) -> bool:
    """Whether a file imports what comes with an extra only, as it is imported."""
    statements = (node for node in ast.parse(path.read_text()).body if isinstance(node, (ast.Import, ast.ImportFrom)))
    names = {ast.unparse(node).split()[1].split(".")[0] for node in statements}
    return not EXTRAS.isdisjoint(names)


def test_public_names_are_imported_on_first_use() -> None:
    from nst_lightning.api import stylize
    from nst_lightning.modules import StyleTransfer

    assert sorted(nst_lightning.__all__) == [
        "PairDataModule",
        "Reconstruction",
        "StyleTransfer",
        "paint",
        "reconstruct",
        "stylize",
    ]
    assert {*nst_lightning.__all__, "__version__"} <= {*dir(nst_lightning)}
    assert nst_lightning.stylize is stylize
    assert nst_lightning.StyleTransfer is StyleTransfer
    with pytest.raises(AttributeError, match=r"^module 'nst_lightning' has no attribute 'draw'$"):
        nst_lightning.draw  # noqa: B018
