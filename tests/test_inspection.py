"""What the figures show against NumPy and the published colours."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from torch import Tensor

from nst_lightning import images
from nst_lightning.backbones import SPECS, Backbone
from nst_lightning.errors import InputError
from nst_lightning.inspection import drawn, gram_figure, inspect, tiles_figure

Array: TypeAlias = np.ndarray[Any, Any]


def shown(image: AxesImage) -> Array:
    """The cells of an image as the share of its colour map, in [0, 1]."""
    cells: Array = np.ma.getdata(image.norm(np.asarray(image.get_array())))
    return cells


def own_range(values: Array) -> Array:
    values = values - values.min()
    unit: Array = values / values.max()
    return unit


def tiles(figure: Figure) -> list[tuple[str, AxesImage]]:
    """The tiles in reading order, each under the text that stands on it."""
    (axes,) = figure.axes
    labels = {text.get_position(): text.get_text() for text in axes.texts}
    ordered = sorted(axes.images, key=lambda image: (image.get_extent()[3], image.get_extent()[0]))
    return [(labels[image.get_extent()[0], image.get_extent()[3]], image) for image in ordered]


def texts(figure: Figure) -> list[str]:
    """The lines of the heading."""
    return [line for text in figure.texts for line in text.get_text().splitlines()]


def maps(*offsets: float, side: int = 8) -> Tensor:
    """Random maps, one for each offset, which orders their means: (1, C, side, side)."""
    noise = torch.rand(1, len(offsets), side, side, generator=torch.Generator().manual_seed(0))
    return noise + torch.tensor(offsets).view(1, -1, 1, 1)


@pytest.mark.parametrize("most", [4, None])
def test_tiles_show_the_most_active_maps_first_or_all_in_their_order(most: int | None) -> None:
    feature = maps(3, -9, 5, 0, 7, 4)
    found = tiles(tiles_figure(feature, most, "relu7_7"))
    assert [label for label, _ in found] == [str(channel) for channel in ((4, 2, 5, 0) if most == 4 else range(6))]
    for label, image in found:
        assert image.get_cmap().name == "gray"
        assert np.abs(shown(image) - own_range(feature[0, int(label)].numpy())).max() < 1e-6


def test_tiles_keep_their_shape_and_do_not_overlap() -> None:
    figure = tiles_figure(torch.rand(1, 5, 8, 12), None, "relu7_7")
    extents = np.array([image.get_extent() for _, image in tiles(figure)])  # left, right, bottom, top
    assert np.allclose(extents[:, 1] - extents[:, 0], 12)
    assert np.allclose(extents[:, 2] - extents[:, 3], 8)
    assert (extents[[1, 2, 4], 0] > extents[[0, 1, 3], 1]).all(), "three columns"
    assert (extents[3:, 3] > extents[:2, 2]).all()
    window = figure.axes[0].get_window_extent()
    pixel = window.width / figure.axes[0].get_xlim()[1]
    assert window.height / figure.axes[0].get_ylim()[0] == pytest.approx(pixel)


@pytest.mark.parametrize(
    ("most", "words"),
    [
        (3, "the 3 most active of 5 channels, highest mean first"),
        (8, "all 5 channels, highest mean first"),
        (None, "all 5 channels, in their order"),
    ],
)
def test_the_heading_says_what_is_shown(most: int | None, words: str) -> None:
    figure = tiles_figure(maps(1, 2, 3, 4, 5), most, "relu7_7")
    assert texts(figure) == [f"relu7_7: {words}", "each from its own minimum (black) to its maximum (white)"]


def test_a_constant_map_is_black() -> None:
    ((_, image),) = tiles(tiles_figure(torch.full((1, 1, 4, 4), 7.0), 1, "relu7_7"))
    assert not shown(image).any()


@pytest.mark.parametrize(("channels", "height", "width"), [(1, 5, 5), (3, 9, 40), (2, 40, 9), (200, 30, 30)])
def test_a_picture_has_room_for_its_tiles_and_a_limit(channels: int, height: int, width: int) -> None:
    picture = drawn(tiles_figure(torch.rand(1, channels, height, width), None))
    assert 500 <= max(picture.shape[-2:]) <= 2048
    assert picture.dtype == torch.float32
    assert (picture.min().item(), picture.max().item()) == (0, 1)


def gram_of(feature: Tensor) -> Array:
    flat = feature[0].flatten(1).double().numpy()
    gram: Array = flat @ flat.T / (flat.shape[0] * flat.shape[1])
    return gram


def signed(channels: int) -> Tensor:
    """Features whose Gram matrix has entries of both signs."""
    noise = torch.rand(1, channels, 6, 7, generator=torch.Generator().manual_seed(0)) + 0.1
    noise[:, ::2] *= -1
    return noise


@pytest.mark.parametrize("feature", [signed(4), signed(4).abs()])
def test_heat_map_and_colour_bar_show_the_gram_matrix(feature: Tensor) -> None:
    gram = gram_of(feature)
    figure = gram_figure(feature, "relu7_7")
    axes, bar = figure.axes
    (image,) = axes.images
    assert image.get_cmap().name == "viridis"
    assert np.allclose(np.asarray(image.get_array()), gram, rtol=1e-5)
    roots = np.sign(gram) * np.sqrt(np.abs(gram))
    assert np.allclose(shown(image), own_range(roots), atol=1e-5)
    ends = np.linspace(roots.min(), roots.max(), 5)
    figure.draw_without_rendering()
    ticks = [tick.get_text() for tick in bar.get_yticklabels()]
    assert [float(tick) for tick in ticks] == pytest.approx(ends * np.abs(ends), rel=1e-3)
    assert bar.get_ylabel() == "activation^2"
    assert axes.get_title().splitlines() == [
        "relu7_7: Gram matrix F F^T / (C H W)",
        "rows and columns: channels; colour: signed root scale",
    ]


def test_a_matrix_of_more_channels_than_the_picture_has_pixels_is_shown_whole() -> None:
    feature = signed(1000)
    (image,) = gram_figure(feature, "relu7_7").axes[0].images
    assert np.allclose(np.asarray(image.get_array()), gram_of(feature), rtol=1e-4, atol=1e-8)
    assert tuple(image.get_extent()) == (-0.5, 999.5, 999.5, -0.5), "the axes count channels"
    assert max(drawn(gram_figure(feature)).shape) == 700


def test_a_layer_that_is_silent_has_a_picture_too() -> None:
    figure = gram_figure(torch.zeros(1, 3, 4, 4), "relu7_7")
    figure.draw_without_rendering()
    assert {tick.get_text() for tick in figure.axes[1].get_yticklabels()} == {"0"}
    assert drawn(gram_figure(torch.zeros(1, 3, 4, 4))).shape[:2] == (1, 3)


def test_half_precision_features_that_are_part_of_a_graph_will_do() -> None:
    feature = (300 * maps(1, 2)).half().requires_grad_()
    assert torch.equal(drawn(tiles_figure(feature)), drawn(tiles_figure(feature.detach().float())))
    assert torch.equal(drawn(gram_figure(feature)), drawn(gram_figure(feature.detach().float())))


@pytest.mark.parametrize(
    ("feature", "message"),
    [
        (torch.zeros(3, 4, 4), r"^features of shape \(3, 4, 4\); expected those of one image, \(1, C, H, W\)$"),
        (torch.zeros(2, 3, 4, 4), r"of shape \(2, 3, 4, 4\); expected those of one image"),
        (torch.zeros(1, 3, 0, 4), r"of shape \(1, 3, 0, 4\); expected"),
        (torch.full((1, 3, 4, 4), torch.nan), r"^features of shape \(1, 3, 4, 4\) are not finite"),
    ],
)
def test_refuses_what_is_no_feature_map(feature: Tensor, message: str) -> None:
    for picture in (tiles_figure, gram_figure):
        with pytest.raises(InputError, match=message):
            picture(feature)


def test_inspect_shows_the_layers_of_the_losses_or_those_asked_for() -> None:
    image = torch.rand(3, 48, 64, generator=torch.Generator().manual_seed(0))
    names = ["relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu4_2", "relu5_1"]
    assert set(names) == {*SPECS["vgg16"].style_layers, *SPECS["vgg16"].content_layers}
    found = inspect(image)
    assert list(found) == [f"{name}_{kind}" for name in names for kind in ("features", "gram")]
    for picture in found.values():
        assert picture.shape[:2] == (1, 3)
        assert 0 <= picture.min() < picture.max() <= 1
    found = inspect(image, "pool2, conv1_1,pool2", size=32, most=3)
    assert list(found) == ["pool2_features", "pool2_gram", "conv1_1_features", "conv1_1_gram"]
    small = images.resize(image[None], (24, 32)).clamp(0, 1)
    feature = Backbone("vgg16", ["pool2"])(small)["pool2"]
    assert torch.equal(found["pool2_features"], drawn(tiles_figure(feature, 3, "pool2")))
    assert torch.equal(found["pool2_gram"], drawn(gram_figure(feature, "pool2")))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "^size must be at least 1, got 0$"),
        ({"most": 0}, "^most must be at least 1, or all of them, got 0$"),
        ({"layers": ["relu1_1", "relu9_1"]}, "^unknown layer 'relu9_1' of vgg16; known are conv1_1, relu1_1"),
        ({"layers": []}, "^no layer of vgg16 was asked for"),
        ({"backbone": "vgg11"}, "^unknown backbone 'vgg11'; known are vgg16"),
        ({"weights": "nope.pth"}, "nope.pth: no such weights file"),
    ],
)
def test_inspect_refuses_what_it_cannot_show(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        inspect(torch.rand(3, 20, 20), **options)
