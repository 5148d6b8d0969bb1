"""Which module may import which: the layers of the package, and what has to answer before torch is imported."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import nst_lightning

PACKAGE = Path(nst_lightning.__file__).parent
# Down the table is up the layers; `modules`, `planning` and `callbacks` stand for every module of those folders.
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "options": {"errors"},
    "outputs": set(),
    "images": {"errors"},
    "weights": {"errors"},
    "surgery": {"errors"},
    "backbones": {"surgery", "weights", "errors"},
    "anatomy": {"backbones", "errors"},
    "figures": {"errors"},
    "findings": {"findings", "errors"},
    "losses": {"errors"},
    "tiling": {"backbones", "anatomy", "losses", "errors"},
    "initializers": {"images", "errors"},
    "schedule": {"errors"},
    "preconditioner": set(),
    "optim": {"preconditioner", "errors"},
    "cgroups": set(),
    "memory": {"cgroups", "errors"},
    "footprint": {"memory", "tiling", "backbones", "losses"},
    "metrics": {"images", "weights", "backbones", "metrics", "errors"},
    "pairs": {"images", "errors"},
    "scoring": {"images", "weights", "initializers", "metrics", "outputs", "pairs", "scoring", "errors"},
    "report": {"findings", "images", "initializers", "outputs", "pairs", "scoring", "report", "errors"},
    "batches": {"images", "pairs", "schedule"},
    "data": {"memory", "pairs", "batches", "initializers", "schedule", "errors"},
    "strategies": {"cgroups", "errors"},
    "inspection": {"images", "backbones", "losses", "pairs", "outputs", "errors"},
    "modules": {
        *(
            "images",
            "initializers",
            "optim",
            "backbones",
            "batches",
            "cgroups",
            "data",
            "footprint",
            "losses",
            "memory",
        ),
        *("pairs", "schedule", "strategies", "surgery", "tiling", "modules", "errors"),
    },
    "planning": {
        *("batches", "data", "memory", "modules", "planning", "schedule", "strategies", "tiling", "errors"),
    },
    "callbacks": {
        *("images", "pairs", "batches", "data", "inspection", "modules", "schedule", "scoring", "errors"),
        "callbacks",
    },
    "api": {"images", "optim", "backbones", "callbacks", "data", "modules", "errors"},
    "cli": {
        *("api", "backbones", "batches", "callbacks", "data", "figures", "images", "modules", "options", "outputs"),
        *("cli", "pairs", "planning", "schedule", "scoring", "strategies", "errors"),
    },
    "sweep": {
        *("api", "cli", "figures", "findings", "images", "initializers", "outputs", "pairs", "planning", "sweep"),
        "errors",
    },
    "__main__": {"anatomy", "cli", "inspection", "options", "report", "scoring", "sweep"},
    "__init__": {"api", "modules"},
}
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


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_what_is_below_it(path: Path) -> None:
    internal = {name.split(".")[1] for name in imported(path) if name.split(".")[0] == "nst_lightning"}
    assert internal <= ALLOWED[row(path)]


def test_the_table_has_no_upward_import_and_no_stale_row() -> None:
    rows = list(ALLOWED)
    for index, name in enumerate(rows):
        folders = {"callbacks", "cli", "findings", "metrics", "modules", "planning", "report", "scoring", "sweep"}
        assert ALLOWED[name] <= {*rows[:index], *({name} & folders)}
    assert {row(path) for path in MODULES} == set(rows)


ABOVE_DATA = list(ALLOWED)[: list(ALLOWED).index("data")]


@pytest.mark.parametrize(
    "path", [path for path in MODULES if row(path) in ABOVE_DATA], ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_nothing_above_data_imports_lightning(path: Path) -> None:
    roots = {imported_name.split(".")[0] for imported_name in imported(path)}
    assert not roots & {"lightning", "pytorch_lightning", "lightning_fabric"}


@pytest.mark.parametrize(
    "statement",
    [
        "import nst_lightning",
        "import nst_lightning.__main__",
        "from nst_lightning.__main__ import main; assert main(['--help']) == 0",
        "from nst_lightning.__main__ import main; assert main(['--version']) == 0",
        "from nst_lightning.__main__ import main; assert main(['fti']) == 2",
    ],
)
def test_answers_without_torch_and_lightning(statement: str) -> None:
    heavy = "{'torch', 'torchvision', 'lightning', 'jsonargparse', 'PIL', 'numpy'}"
    code = f"import sys; {statement}; assert not {heavy} & set(sys.modules), {heavy} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_public_names_are_imported_on_first_use() -> None:
    from nst_lightning.api import stylize
    from nst_lightning.modules import StyleTransfer

    assert sorted(nst_lightning.__all__) == ["Reconstruction", "StyleTransfer", "reconstruct", "stylize"]
    assert nst_lightning.stylize is stylize
    assert nst_lightning.StyleTransfer is StyleTransfer
    with pytest.raises(AttributeError, match=r"^module 'nst_lightning' has no attribute 'paint'$"):
        nst_lightning.paint  # noqa: B018
