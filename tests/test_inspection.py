"""The pictures against NumPy, Pillow and the published colours."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont
from scipy.interpolate import CubicSpline
from torch import Tensor

from nst_lightning import images
from nst_lightning.backbones import SPECS, Backbone
from nst_lightning.errors import InputError
from nst_lightning.inspection import MAX_PICTURE, feature_tiles, gram_heat_map, inspect, viridis

Array: TypeAlias = np.ndarray[Any, Any]

# Entries of the published table of 256: https://github.com/BIDS/colormap/blob/master/colormaps.py
VIRIDIS = {
    0: (0.267004, 0.004874, 0.329415),
    4: (0.272594, 0.025563, 0.353093),
    9: (0.277941, 0.056324, 0.381191),
    17: (0.282656, 0.100196, 0.422160),
    25: (0.282623, 0.140926, 0.457517),
    34: (0.277134, 0.185228, 0.489898),
    51: (0.253935, 0.265254, 0.529983),
    68: (0.221989, 0.339161, 0.548752),
    76: (0.206756, 0.371758, 0.553117),
    85: (0.190631, 0.407061, 0.556089),
    102: (0.163625, 0.471133, 0.558148),
    119: (0.139147, 0.533812, 0.555298),
    128: (0.127568, 0.566949, 0.550556),
    136: (0.120565, 0.596422, 0.543611),
    153: (0.134692, 0.658636, 0.517649),
    170: (0.208030, 0.718701, 0.472873),
    179: (0.266941, 0.748751, 0.440573),
    187: (0.327796, 0.773980, 0.406640),
    204: (0.477504, 0.821444, 0.318195),
    221: (0.647257, 0.858400, 0.209861),
    230: (0.741388, 0.873449, 0.149561),
    238: (0.824940, 0.884720, 0.106217),
    244: (0.886271, 0.892374, 0.095374),
    250: (0.945636, 0.899815, 0.112838),
    255: (0.993248, 0.906157, 0.143936),
}


def colours(values: Array) -> Array:
    """Viridis by a spline through the published entries, which is within a tenth of a level: (..., 3)."""
    entries = np.array(list(VIRIDIS)) / 255
    spline: Array = CubicSpline(entries, list(VIRIDIS.values()))(values)
    return spline


def enlarged(values: Array, factor: int) -> Array:
    return values.repeat(factor, axis=0).repeat(factor, axis=1)


def grey(values: Array) -> Array:
    return np.repeat(values[..., None], 3, axis=-1)


def own_range(values: Array) -> Array:
    values = values - values.min()
    unit: Array = values / values.max()
    return unit


def text(line: str) -> Array:
    """A line as Pillow's own font draws it, without white around it."""
    canvas = Image.new("RGB", (800, 40), "white")
    ImageDraw.Draw(canvas).text((10, 10), line, "black", ImageFont.load_default(size=12))
    ink = Image.eval(canvas, lambda byte: 255 - byte).getbbox()
    letters: Array = np.asarray(canvas.crop(ink)) / 255
    return letters


def places(picture: Tensor, patch: Array, tolerance: float = 1.0) -> list[tuple[int, int]]:
    """The (row, column) at which a picture shows a patch (h, w, 3), to `tolerance` of 255 levels."""
    whole = picture[0].permute(1, 2, 0).numpy()
    height, width = patch.shape[:2]
    limit = (tolerance + 0.5) / 255  # half a level for the rounding to bytes
    rows, columns = np.indices((whole.shape[0] - height + 1, whole.shape[1] - width + 1)).reshape(2, -1)
    for row, column in np.random.default_rng(0).integers(0, (height, width), (200, 2)):
        fits = np.abs(whole[rows + row, columns + column] - patch[row, column]).max(axis=-1) <= limit
        rows, columns = rows[fits], columns[fits]
    return [
        (row, column)
        for row, column in zip(rows.tolist(), columns.tolist(), strict=True)
        if np.abs(whole[row : row + height, column : column + width] - patch).max() <= limit
    ]


def maps(*offsets: float, side: int = 8) -> Tensor:
    """Random maps, one for each offset, which orders their means: (1, C, side, side)."""
    noise = torch.rand(1, len(offsets), side, side, generator=torch.Generator().manual_seed(0))
    return noise + torch.tensor(offsets).view(1, -1, 1, 1)


def test_viridis_is_the_published_one() -> None:
    found = viridis(torch.tensor(list(VIRIDIS)) / 255).T.numpy()
    assert np.abs(found - list(VIRIDIS.values())).max() < 0.2 / 255
    assert viridis(torch.tensor([[-1.0, 2.0]])).shape == (3, 1, 2)


def test_tiles_show_the_most_active_maps_first_each_on_its_own_range() -> None:
    feature = maps(3, -9, 5, 0, 7, 4)
    picture = feature_tiles(feature, most=4)
    found = []
    for channel in (4, 2, 5, 0):  # 2 columns of about 1024 / 2 px: 64 px a pixel
        tile = grey(enlarged(own_range(feature[0, channel].numpy()), 64))
        (place,) = places(picture, tile)
        found.append(place)
    (first, right, below, last) = found
    assert first[0] == right[0] < below[0] == last[0]
    assert first[1] == below[1] < right[1] == last[1]
    assert right[1] - first[1] == 512 + 2  # a thin gap
    for channel in (1, 3):
        assert places(picture, grey(enlarged(own_range(feature[0, channel].numpy()), 64))) == []


def test_all_tiles_stand_in_the_order_of_their_channels_below_their_numbers() -> None:
    feature = maps(*range(5, 0, -1))[:, [3, 0, 4, 1, 2]]
    picture = feature_tiles(feature, most=None, title="relu7_7")
    factor = 1024 // 3 // 8  # 5 maps: 3 columns, 2 rows
    tiles = [places(picture, grey(enlarged(own_range(values.numpy()), factor))) for values in feature[0]]
    assert [len(found) for found in tiles] == [1] * 5
    assert tiles == sorted(tiles), "not in reading order"
    for channel, ((row, column),) in enumerate(tiles):
        strip = picture[:, :, row - 16 : row, column : column + 20]
        assert len(places(strip, text(str(channel)))) == 1
    assert len(places(picture, text("relu7_7: all 5 channels, in their order"))) == 1


@pytest.mark.parametrize("most", [3, 8])
def test_the_heading_says_what_is_shown(most: int) -> None:
    shown = "the 3 most active of 5 channels" if most == 3 else "all 5 channels"
    picture = feature_tiles(maps(1, 2, 3, 4, 5), most)
    assert len(places(picture, text(f"features: {shown}, highest mean first"))) == 1


def test_a_constant_map_is_black() -> None:
    picture = feature_tiles(torch.full((1, 1, 4, 4), 7.0))
    assert len(places(picture, np.zeros((1024, 1024, 3)))) == 1


@pytest.mark.parametrize(
    ("channels", "side", "tile"),
    [(1, 5, 1020), (16, 64, 256), (512, 2, 64), (512, 30, 60), (2048, 3, 24), (64, 400, 233)],
)
def test_tiles_are_enlarged_as_far_as_the_picture_has_room(channels: int, side: int, tile: int) -> None:
    picture = feature_tiles(torch.zeros(1, channels, side, side), most=None)
    assert max(picture.shape[-2:]) <= MAX_PICTURE
    row = max("".join("01"[black] for black in line) for line in (picture[0].amax(dim=0) == 0).int().tolist())
    assert len(max(row.split("0"))) == tile


def test_maps_without_room_are_scaled_down_as_pillow_does_it() -> None:
    generator = torch.Generator().manual_seed(0)
    feature = torch.rand(1, 30, 40, 10, generator=generator).repeat_interleave(10, 2).repeat_interleave(60, 3)
    picture = feature_tiles(feature, most=30)  # 6 columns, 5 rows of 400 x 600 px
    assert max(picture.shape[-2:]) <= MAX_PICTURE
    values = own_range(feature[0, int(feature.mean(dim=(2, 3)).argmax())].numpy())
    width = (MAX_PICTURE - 2) // 6 - 2
    small = Image.fromarray(values).resize((width, int(400 * width / 600)), Image.Resampling.BICUBIC)
    assert len(places(picture, grey(np.asarray(small).clip(0, 1)), tolerance=2)) == 1


def gram_of(feature: Tensor) -> Array:
    flat = feature[0].flatten(1).double().numpy()
    gram: Array = flat @ flat.T / (flat.shape[0] * flat.shape[1])
    return gram


def spread(orders: float, channels: int = 4, signed: bool = False) -> Tensor:
    """Features whose Gram matrix spans many orders of magnitude."""
    noise = torch.rand(1, channels, 6, 7, generator=torch.Generator().manual_seed(0)) + 0.1
    if signed:
        noise[:, ::2] *= -1
    return noise * torch.logspace(0, -orders, channels).view(1, -1, 1, 1)


@pytest.mark.parametrize(
    ("feature", "power", "scale"),
    [
        (spread(0), 1, "linear"),
        (spread(0, signed=True), 1, "linear"),
        (spread(1.2), 0.5, "square-root"),
        (spread(1.2, signed=True), 0.5, "signed square-root"),
        (spread(3), 0.25, "fourth-root"),
    ],
)
def test_heat_map_and_colour_bar_show_the_gram_matrix(feature: Tensor, power: float, scale: str) -> None:
    gram = gram_of(feature)
    picture = gram_heat_map(feature, "relu7_7")
    rooted = np.sign(gram) * np.abs(gram) ** power
    ((top, left),) = places(picture, enlarged(colours(own_range(rooted)), 128))
    for level, value in ((top, gram.max()), (top + 511, gram.min())):
        ((row, column),) = places(picture, text(f"{value:.4g}"))
        assert abs(row + 4 - level) <= 2, "the number stands beside its end of the bar"
        assert column > left + 512
    bar = enlarged(colours(np.linspace(1, 0, 512))[:, None], 1).repeat(20, axis=1)
    ((bar_top, bar_left),) = places(picture, bar)
    assert bar_top == top
    assert bar_left > left + 512
    ends = (picture[0, :, [top, top + 511], bar_left] * 255).round().int()
    assert ends.T.tolist() == [[253, 231, 37], [68, 1, 84]]
    middle = (rooted.max() + rooted.min()) / 2
    assert len(places(picture, text(f"{np.sign(middle) * abs(middle) ** (1 / power):.4g}"))) == 1
    assert len(places(picture, text("relu7_7: Gram matrix F F^T / (C H W)"))) == 1
    assert len(places(picture, text(f"rows and columns: channels; colour: {scale} scale"))) == 1
    assert len(places(picture, text("activation^2"))) == 1


@pytest.mark.parametrize(("channels", "every", "words"), [(256, 1, ""), (300, 2, "second"), (2048, 8, "8th")])
def test_of_many_channels_some_are_shown(channels: int, every: int, words: str) -> None:
    feature = spread(0, channels)
    gram = gram_of(feature)[::every, ::every]
    picture = gram_heat_map(feature)
    assert len(places(picture, enlarged(colours(own_range(gram)), 512 // len(gram)))) == 1
    subset = f", every {words} of {channels} channels" if every > 1 else ""
    assert len(places(picture, text(f"features: Gram matrix F F^T / (C H W){subset}"))) == 1
    assert len(places(picture, text(str((len(gram) - 1) * every)))) == 2


def test_a_layer_that_is_silent_has_a_picture_too() -> None:
    picture = gram_heat_map(torch.zeros(1, 3, 4, 4))
    assert len(places(picture, np.broadcast_to(VIRIDIS[0], (510, 510, 3)))) == 1


def test_half_precision_features_that_are_part_of_a_graph_will_do() -> None:
    feature = (300 * maps(1, 2)).half().requires_grad_()
    assert torch.equal(feature_tiles(feature), feature_tiles(feature.detach().float()))
    assert torch.equal(gram_heat_map(feature), gram_heat_map(feature.detach().float()))


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
    for picture in (feature_tiles, gram_heat_map):
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
    assert torch.equal(found["pool2_features"], feature_tiles(feature, 3, "pool2"))
    assert torch.equal(found["pool2_gram"], gram_heat_map(feature, "pool2"))


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
