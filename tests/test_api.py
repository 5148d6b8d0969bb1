"""`stylize` from Python: the same result as the command line, from files, PIL images and tensors."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from PIL import Image

import nst_lightning
from nst_lightning.__main__ import main
from nst_lightning.data import PairDataModule
from nst_lightning.errors import InputError
from nst_lightning.modules import ImageOptimization, StyleTransfer

OPTIONS: dict[str, Any] = {"size": 32, "steps": 6, "content_layers": "relu2_1", "style_layers": "relu1_1,relu2_1"}
OPTIONS |= {"style_loss": "gram"}


@pytest.fixture
def pictures(tmp_path: Path) -> tuple[Path, Path]:
    paths = (tmp_path / "photo.png", tmp_path / "painting.png")
    for seed, path in enumerate(paths):
        Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 48, 3), dtype=np.uint8)).save(path)
    return paths


def pixels(content: Any, style: Any, **options: Any) -> np.ndarray[Any, Any]:  # noqa: ANN401 - any source
    return np.asarray(nst_lightning.stylize(content, style, progress=False, **{**OPTIONS, **options}))


@pytest.mark.parametrize("extra", [{}, {"init": "gaussian", "seed": 5, "optimizer": "adam", "style_weight": 3e2}])
def test_gives_what_the_command_line_gives(extra: dict[str, Any], pictures: tuple[Path, Path], tmp_path: Path) -> None:
    content, style = pictures
    options = [text for name, value in {**OPTIONS, **extra}.items() for text in (f"--{name}", str(value))]
    output = tmp_path / "out.png"
    assert main(["fit", "--content", str(content), "--style", str(style), "--output", str(output), *options]) == 0
    with Image.open(output) as written:
        assert np.array_equal(pixels(content, style, **extra), np.asarray(written))


def test_takes_files_pil_images_and_tensors_alike(pictures: tuple[Path, Path]) -> None:
    content, style = pictures
    expected = pixels(content, str(style))
    with Image.open(content) as photo, Image.open(style) as painting:
        assert np.array_equal(pixels(photo, painting), expected)
        tensors = [torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1) / 255 for image in (photo, painting)]
    assert np.array_equal(pixels(*tensors), expected)


def test_of_lists_and_arrays_makes_a_list_in_their_order(pictures: tuple[Path, Path]) -> None:
    content, style = pictures
    arrays = [np.asarray(Image.open(each)) for each in pictures]
    made = nst_lightning.stylize([*arrays[::-1], content], style, progress=False, **OPTIONS)
    expected = [pixels(style, style), pixels(content, style), pixels(content, style)]
    assert all(np.array_equal(np.asarray(one), other) for one, other in zip(made, expected, strict=True))
    assert len(nst_lightning.stylize([content], style, progress=False, **OPTIONS)) == 1


def test_completion_shows_the_options_that_it_takes() -> None:
    shown = {*inspect.signature(nst_lightning.stylize).parameters}
    taken = {name for each in (PairDataModule, StyleTransfer) for name in inspect.signature(each).parameters}
    assert shown == {*taken, "preset", "progress", "accelerator"}


def test_optimizers_of_torch_go_by_their_names(pictures: tuple[Path, Path]) -> None:
    assert np.array_equal(pixels(*pictures, optimizer="RMSprop"), pixels(*pictures, optimizer=torch.optim.RMSprop))


def test_returns_an_rgb_image_of_the_size_asked_for(pictures: tuple[Path, Path]) -> None:
    picture = nst_lightning.stylize(*pictures, progress=False, **OPTIONS)
    assert isinstance(picture, Image.Image)
    assert (picture.mode, picture.size) == ("RGB", (32, 27))


def test_names_the_options_it_knows(pictures: tuple[Path, Path]) -> None:
    with pytest.raises(InputError, match=r"unknown option 'styleweight'; known are .*style_weight"):
        pixels(*pictures, styleweight=3)
    with pytest.raises(InputError, match=r"unknown optimizer 'sgdd'; known are lbfgs, adam"):
        pixels(*pictures, optimizer="sgdd")


@pytest.mark.parametrize(
    "options",
    [
        {"seed": np.int64(3), "init": "gaussian", "style_weight": np.float32(2)},
        {"seed": "3", "init": "gaussian", "style_weight": "2", "size": "32"},
    ],
)
def test_numbers_of_numpy_and_texts_are_taken(options: dict[str, Any], pictures: tuple[Path, Path]) -> None:
    expected = pixels(*pictures, seed=3, init="gaussian", style_weight=2)
    assert np.array_equal(pixels(*pictures, **options), expected)


def test_paths_are_taken_and_nothing_given_is_changed(pictures: tuple[Path, Path]) -> None:
    layers = {"relu1_1": 2}
    assert np.array_equal(
        pixels(*pictures, init=pictures[1], style_layers=layers),
        pixels(*pictures, init=str(pictures[1]), style_layers={"relu1_1": 2.0}),
    )
    assert isinstance(layers["relu1_1"], int)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"steps": 4.5}, r"^steps must be int \| None, got 4\.5$"),
        ({"style_scale": None}, r"^style_scale must be float \| list\[float\], got None$"),
        ({"size": "large"}, r"^size must be int \| None, got 'large'$"),
        ({"pooling": "mean"}, r"^pooling must be Literal\['max', .*\], got 'mean'$"),
        ({"seed": [1]}, r"^seed must be int, got \[1\]$"),
        ({"stages": [3]}, r"^stages must be int \| list\[.*Stage\], got \[3\]$"),
        ({"weights": Path("no.pth")}, r"^no\.pth: no such weights file"),
        ({"accelerator": "abacus"}, r"^these settings make no trainer: .*'abacus'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_an_option_of_another_type_is_refused_by_its_name(
    option: dict[str, Any], message: str, pictures: tuple[Path, Path]
) -> None:
    with pytest.raises(InputError, match=message):
        pixels(*pictures, **option)


def test_the_package_names_its_public_things_and_no_others() -> None:
    assert nst_lightning.StyleTransfer.__module__ == "nst_lightning.modules.style_transfer"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = nst_lightning.nothing


@contextmanager
def made(change: Callable[[Any], None], value: object, before: object) -> Iterator[None]:
    """Within it, a setting of torch's is changed."""
    change(value)
    try:
        yield
    finally:
        change(before)


def ambient() -> tuple[object, ...]:
    """What torch keeps for whoever calls it next."""
    modes = torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")
    return *modes, torch.get_default_dtype(), torch.get_default_device(), torch.get_float32_matmul_precision()


@pytest.fixture
def expected(pictures: tuple[Path, Path]) -> np.ndarray[Any, Any]:
    return pixels(*pictures)


SURROUNDINGS: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "inference_mode": torch.inference_mode,
    "no_grad": torch.no_grad,
    "autocast": partial(torch.autocast, "cpu", torch.bfloat16),
    "device": partial(torch.device, "meta"),
    "float64": partial(made, torch.set_default_dtype, torch.float64, torch.float32),
    "bfloat16": partial(made, torch.set_default_dtype, torch.bfloat16, torch.float32),
    # torch 2.6 has no default device any more after None.
    "default_device": partial(made, torch.set_default_device, "meta", None if torch.__version__ >= "2.7" else "cpu"),
    "matmul_precision": partial(made, torch.set_float32_matmul_precision, "medium", "highest"),
}


@pytest.mark.parametrize("surroundings", SURROUNDINGS)
def test_what_surrounds_a_call_changes_no_pixel_and_is_as_it_was(
    surroundings: str, pictures: tuple[Path, Path], expected: np.ndarray[Any, Any]
) -> None:
    with SURROUNDINGS[surroundings]():
        before = ambient()
        assert np.array_equal(pixels(*pictures), expected)
        assert ambient() == before


def test_a_module_says_that_nothing_is_optimised_under_inference_mode(pictures: tuple[Path, Path]) -> None:
    module = nst_lightning.StyleTransfer(content_layers="relu1_1", style_layers="relu1_1")
    trainer = L.Trainer(max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False)
    data = PairDataModule(str(pictures[0]), str(pictures[1]), size=32, steps=2)
    with (
        torch.inference_mode(),
        pytest.raises(InputError, match=r"nothing can be optimised under torch\.inference_mode"),
    ):
        trainer.fit(module, datamodule=data)


@pytest.mark.parametrize("error", [KeyboardInterrupt, InputError])
def test_a_call_that_fails_leaves_the_process_as_it_was_and_ctrl_c_is_pythons(
    error: type[BaseException], pictures: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken_off(*_: object) -> None:
        raise error("now")

    monkeypatch.setattr(ImageOptimization, "training_step", broken_off)
    monkeypatch.setattr("nst_lightning.modules.optimization.cores", lambda: 1)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with torch.no_grad(), pytest.raises(error, match="now"):
            pixels(*pictures)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


def test_threads_paint_one_after_the_other(pictures: tuple[Path, Path], expected: np.ndarray[Any, Any]) -> None:
    with ThreadPoolExecutor(3) as threads:
        for picture in threads.map(lambda _: pixels(*pictures), range(3)):
            assert np.array_equal(picture, expected)
