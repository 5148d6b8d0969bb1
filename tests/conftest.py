"""What several test files share: a torch.hub folder of each test's own, and small pictures."""

from __future__ import annotations

import gc
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image

from nst_lightning.backbones.winograd import WinogradConvolution
from tests.tape import Tape

if TYPE_CHECKING:
    from playwright.sync_api import Browser

if "PYTEST_XDIST_WORKER" in os.environ:  # of the processes that share the machine, and for those that they start
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    os.environ.pop("COLUMNS", None)  # they are told of a terminal of 80 that is not there
SAMPLES = Path(__file__).parents[1] / "data"


def pytest_collection() -> None:
    """Has no garbage looked for while all tests and what they need are imported."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Has it looked for in what the tests make alone."""
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def hub(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this test's weights are cached: an empty folder that is not made yet, for subprocesses too."""
    home = tmp_path_factory.mktemp("torch_home")
    monkeypatch.setenv("TORCH_HOME", str(home))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    return home / "hub"


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with content.jpg and content.png of 96 x 64 px and style.png of 64 x 80 px; not to be changed."""
    folder = tmp_path_factory.mktemp("pictures")
    for sample, size, names in (
        ("content-images/chelsea.jpg", (96, 64), ("content.jpg", "content.png")),
        ("style-images/night_cafe.jpg", (64, 80), ("style.png",)),
    ):
        with Image.open(SAMPLES / sample) as image:
            small = image.convert("RGB").resize(size)
        for name in names:
            small.save(folder / name)
    return folder


@pytest.fixture(scope="session")
def content_jpeg(pictures: Path) -> Path:
    return pictures / "content.jpg"


@pytest.fixture(scope="session")
def content_png(pictures: Path) -> Path:
    return pictures / "content.png"


@pytest.fixture(scope="session")
def style_png(pictures: Path) -> Path:
    return pictures / "style.png"


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with photo.png and painting.png of 96 x 80 px in it."""
    monkeypatch.chdir(tmp_path)
    for name, seed in (("photo", 1), ("painting", 2)):
        pixels = np.random.default_rng(seed).integers(0, 256, (80, 96, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(f"{name}.png")
    return tmp_path


@pytest.fixture
def torchs_convolutions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has whole images convolved as tiles are: minimal filtering rounds otherwise, and rounding can tip a maximum."""
    monkeypatch.setattr(WinogradConvolution, "suits", staticmethod(lambda like: False))


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Has torch compute on so many threads, of which the rounding of long sums depends."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """On one thread: several share a batch out otherwise than an image, and their sums round otherwise."""
    with threads(1):
        yield


BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser of this machine, without a window."""
    from playwright import sync_api  # not above: few tests need it

    path = next((found for name in BROWSERS if (found := shutil.which(name)) is not None), None)
    if path is None:
        pytest.skip(f"no browser on this machine: none of {', '.join(BROWSERS)}")
    with sync_api.sync_playwright() as playwright:
        # As root, as in a container, Chromium does not start with its sandbox.
        root = hasattr(os, "geteuid") and os.geteuid() == 0
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"] if root else [])
        yield browser
        browser.close()


@pytest.fixture
def tapes(monkeypatch: pytest.MonkeyPatch) -> list[Tape]:
    """The CUDA graphs that a test makes, on tape."""
    made: list[Tape] = []

    def graph() -> Tape:
        made.append(Tape())
        return made[-1]

    monkeypatch.setattr(torch.cuda, "CUDAGraph", graph)
    monkeypatch.setattr(torch.cuda, "graph", lambda tape, capture_error_mode: tape)
    return made
