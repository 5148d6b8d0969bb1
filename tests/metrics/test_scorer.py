"""Scores by name: the numbers of the metrics, which are taken, and what cannot be."""

from __future__ import annotations

import math
import re
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from nst_lightning import images
from nst_lightning.backbones.weights import WeightsError
from nst_lightning.errors import InputError
from nst_lightning.metrics import (
    Blotches,
    Border,
    Clipped,
    FeatureDistance,
    Grid,
    Leak,
    Lpips,
    Outline,
    Overall,
    Palette,
    PaletteDistance,
    Texture,
    scorer,
)
from nst_lightning.metrics.perceptual import TRUNKS, lpips_network
from nst_lightning.metrics.scorer import AUTO, NAMES, Choice, Scorer, checked
from tests.conftest import SAMPLES
from tests.metrics import trunk
from tests.metrics.functions import (
    leak,
    lpips_map,
    outline,
    palette_distance,
    similarity,
    texture_distance,
    texture_levels,
    working_size,
)

DEFECTS = {"grid", "border", "clipped", "blotches"}
ALL_OF_AUTO = {
    *("outline", "ms_ssim", "palette", "palette_distance", "texture", "texture_distance"),
    *("texture_distance_1", "texture_distance_2", "texture_distance_3", "leak", "overall"),
    *DEFECTS,
}


def sample(name: str, height: int, width: int) -> Tensor:
    (path,) = SAMPLES.glob(f"*-images/{name}.jpg")
    return (images.resize(images.read(path).rgb, (height, width)).clamp(0, 1) * 255).round() / 255


def blend(content: Tensor, style: Tensor, part: float = 0.5) -> Tensor:
    return content.lerp(images.resize(style, (content.shape[-2], content.shape[-1])).clamp(0, 1), part)


@pytest.fixture(scope="module")
def content() -> Tensor:
    return sample("chelsea", 64, 90)


@pytest.fixture(scope="module")
def style() -> Tensor:
    return sample("night_cafe", 70, 84)


@pytest.fixture(scope="module")
def other() -> Tensor:
    return sample("cafe_terrace_at_night", 48, 61)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> socket.socket:
        raise OSError("Network is unreachable")

    monkeypatch.setattr(socket, "create_connection", refuse)


def scores(
    output: Tensor, content: Tensor, *styles: Tensor, choice: Choice = AUTO, short_side: int = 256
) -> dict[str, float]:
    taken = Scorer(choice, short_side)
    return taken.scores(output, taken.reference(content, styles))


# ---- the numbers ----


@pytest.mark.parametrize("scale", [1, 3])  # three times: larger than the working size, and MS-SSIM has a number
def test_every_number_is_that_of_its_metric(scale: int) -> None:
    content, style = sample("chelsea", 96 * scale, 130 * scale), sample("night_cafe", 100 * scale, 80 * scale)
    output = blend(content, style)
    found = scores(output, content, style)
    both = {"output": output, "style": style}
    expected = {
        "outline": Outline()(output=output, content=content),
        "ms_ssim": similarity(output, content),
        "palette": Palette()(content=content, **both),
        "palette_distance": PaletteDistance()(**both),
        "texture": Texture()(content=content, **both),
        "texture_distance": texture_distance(output, style),
        **{f"texture_distance_{place}": each for place, each in enumerate(texture_levels(output, style)[0], start=1)},
        "leak": Leak()(**both),
        "overall": Overall()(content=content, **both),
        "grid": Grid()(content=content, **both),
        "border": Border()(output=output, content=content),
        "clipped": Clipped()(content=content, **both),
        "blotches": Blotches()(content=content, **both),
    }
    assert found.keys() == expected.keys() == ALL_OF_AUTO
    assert found == pytest.approx({name: value.item() for name, value in expected.items()}, rel=1e-5, nan_ok=True)
    assert math.isnan(found["ms_ssim"]) == (scale == 1)
    assert found["outline"] > 0
    assert found["leak"] > 0


def test_an_output_that_is_not_of_8_bits_is_scored_as_it_would_be_written(content: Tensor, style: Tensor) -> None:
    generator = torch.Generator().manual_seed(0)
    below = 0.4 / 255 * (2 * torch.rand(content.shape, generator=generator) - 1)
    output = (blend(content, style) * 255).round() / 255
    assert scores(output + below, content, style) == pytest.approx(scores(output, content, style), abs=0, nan_ok=True)


@pytest.mark.parametrize("name", ["outline", "palette", "texture", "leak"])
def test_images_are_brought_to_the_working_size_together(name: str, content: Tensor, style: Tensor) -> None:
    output = blend(content, style)
    small = working_size(output, content, style, short_side=40)
    assert small[0].shape[-2:] == (40, 56)
    found = scores(output, content, style, choice=(name,), short_side=40)
    metrics = {"outline": Outline(40), "palette": Palette(40), "texture": Texture(40), "leak": Leak(40)}
    wants = {"outline": ("output", "content"), "leak": ("output", "style")}.get(name, ("output", "style", "content"))
    given = {"output": output, "content": content, "style": style}
    expected = metrics[name](**{each: given[each] for each in wants})
    assert found[name] == pytest.approx(expected.item(), rel=1e-5)
    assert found[name] != pytest.approx(scores(output, content, style, choice=(name,))[name], rel=1e-3)


def test_of_several_styles_the_distance_is_the_mean_and_the_leak_the_largest(
    content: Tensor, style: Tensor, other: Tensor
) -> None:
    output = blend(content, style)
    found = scores(output, content, style, other)
    for name, distance in (("palette", palette_distance), ("texture", texture_distance)):
        ours, baseline = (
            torch.stack([distance(each, of) for of in (style, other)]).mean() for each in (output, content)
        )
        assert found[f"{name}_distance"] == pytest.approx(ours.item(), rel=1e-5)
        assert found[name] == pytest.approx(1 - (ours / baseline).item(), rel=1e-4)
    leaks = [leak(output, of).item() for of in (style, other)]
    assert found["leak"] == pytest.approx(max(leaks), rel=1e-5)
    assert leaks[0] > leaks[1]
    assert found["leak"] == scores(output, content, other, style)["leak"]
    assert found["outline"] == pytest.approx(outline(output, content).item(), rel=1e-5)


def test_the_texture_is_compared_at_the_levels_that_every_style_has(content: Tensor, style: Tensor) -> None:
    output, small = blend(content, style), sample("cafe_terrace_at_night", 20, 30)
    found = scores(output, content, style, small, choice=("texture",))
    assert set(found) == {"texture", "texture_distance"} | {f"texture_distance_{level}" for level in (1, 2, 3)}
    assert math.isnan(found["texture_distance_3"])
    expected = (texture_levels(output, style) + texture_levels(output, small))[:, :2] / 2
    assert [found["texture_distance_1"], found["texture_distance_2"]] == pytest.approx(expected[0].tolist(), rel=1e-5)
    assert found["texture_distance"] == pytest.approx(expected.mean().item(), rel=1e-5)


@pytest.mark.parametrize("sides", [(7, 30), (1, 1)])
def test_a_style_or_an_output_that_is_too_small_for_a_texture_has_none(
    sides: tuple[int, int], content: Tensor, style: Tensor
) -> None:
    tiny = images.resize(style, sides).clamp(0, 1)
    for found in (
        scores(blend(content, style), content, style, tiny),
        scores(blend(tiny, style), images.resize(content, sides).clamp(0, 1), style),
    ):
        assert math.isnan(found["texture"])
        assert math.isnan(found["texture_distance"])
        assert math.isnan(found["overall"])
        assert math.isfinite(found["palette_distance"])


def test_what_is_undefined_is_nan(style: Tensor) -> None:
    flat = torch.full((1, 3, 64, 64), 0.5)
    found = scores(flat, flat, style)
    assert math.isnan(found["outline"])  # the content has none
    assert math.isnan(found["overall"])
    assert found["palette"] == pytest.approx(0, abs=1e-6)
    assert math.isnan(scores(flat, style[..., :64, :64], flat)["leak"])
    same = scores(flat, style[..., :64, :64], style[..., :64, :64])
    assert math.isnan(same["palette"])  # there was no way to cover
    assert math.isnan(same["texture"])
    assert same["palette_distance"] > 0


# ---- which are taken ----


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (("outline",), {"outline", "ms_ssim"}),
        (("palette",), {"palette", "palette_distance"}),
        (("leak", "outline"), {"leak", "outline", "ms_ssim"}),
        (["texture"], {"texture", "texture_distance"} | {f"texture_distance_{level}" for level in (1, 2, 3)}),
        (("outline", "palette", "texture"), ALL_OF_AUTO - {"leak", "overall"} - DEFECTS),
        (("leak", "texture", "palette", "outline"), ALL_OF_AUTO - DEFECTS),
        (("defects",), DEFECTS),
        ((), set()),
    ],
)
def test_the_choice_of_names_decides_the_numbers_and_four_of_them_the_overall(
    choice: Choice, expected: set[str], content: Tensor, style: Tensor
) -> None:
    assert set(scores(blend(content, style), content, style, choice=choice)) == expected


def test_auto_without_the_network_leaves_lpips_out_and_says_how_to_have_it(content: Tensor, style: Tensor) -> None:
    taken = Scorer()
    assert taken.missing == (
        "LPIPS is left out, for its network is not on this machine: "
        "--scores outline,palette,texture,leak,defects,lpips downloads it once (233 MB)"
    )
    reference = taken.reference(content, [style])
    assert taken.map(content, reference) is None
    assert "lpips" not in taken.scores(content, reference)


@pytest.mark.usefixtures("offline")
def test_auto_takes_lpips_where_its_network_is_there(hub: Path, content: Tensor, style: Tensor) -> None:
    trunk.put(hub)
    taken = Scorer()
    assert taken.missing is None
    output = blend(content, style)
    reference = taken.reference(content, [style])
    found = taken.scores(output, reference)
    assert set(found) == {*ALL_OF_AUTO, "lpips"}
    assert found["lpips"] == pytest.approx(Lpips("alex")(output=output, content=content).item(), rel=1e-5)
    assert taken.scores(content, reference)["lpips"] == 0
    where = taken.map(output, reference)
    assert where is not None
    torch.testing.assert_close(where, lpips_map(lpips_network("alex"), *working_size(output, content)))


@pytest.mark.usefixtures("offline")
def test_lpips_by_name_without_network_says_where_to_copy_its_file(hub: Path) -> None:
    name = Path(TRUNKS["alex"].weights.url).name
    end = re.escape(f": copy the file to {hub}/checkpoints/{name}")
    with pytest.raises(
        WeightsError, match=rf"^cannot download {name} from https://[^\n]*Network is unreachable.*{end}$"
    ):
        Scorer(("lpips",))


def test_an_unknown_name_is_refused_with_those_that_are_known() -> None:
    message = "^unknown score 'nonsense'; known are outline, palette, texture, leak, lpips, features, defects, or auto "
    for refuses in (checked, Scorer):
        with pytest.raises(InputError, match=message):
            refuses(["outline", "nonsense"])
    assert checked(list(NAMES)) == NAMES


def test_features_are_compared_where_asked(
    content: Tensor, style: Tensor, other: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Bundled(FeatureDistance):  # resnet50 would be downloaded
        def __init__(self, short_side: int | None = 256) -> None:
            super().__init__("vgg16", ("relu2_1",), short_side=short_side)

    monkeypatch.setattr(scorer, "known", lambda: (Bundled,))
    output = blend(content, style)
    found = scores(output, content, style, other, choice=("features",))
    expected = sum(Bundled()(output=output, style=each).item() for each in (style, other)) / 2
    assert found == {"feature_distance": pytest.approx(expected, rel=1e-5)}
