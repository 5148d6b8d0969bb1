"""Several styles in one picture: their weights and scales, merged as statistics, whatever the loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from nst_lightning import stylize
from nst_lightning.data import PairDataModule
from nst_lightning.errors import InputError
from nst_lightning.images import read
from nst_lightning.losses import STYLE_LOSSES, Additive, Features, Statistic

SAMPLED = {"nearest", "matched", "strotss", "sliced", "histogram"}


def kept(name: str, seed: int, width: int = 24) -> Statistic:
    """What a loss keeps of an image of noise in float64, a joint one of the image and a layer."""
    generator = torch.Generator().manual_seed(seed)
    loss = STYLE_LOSSES[name]()
    assert isinstance(loss, Additive)
    shapes = [(1, 3, 16, width), (1, 6, 16, width)] if loss.joint else [(1, 6, 16, width)]
    drawn = [torch.rand(*shape, generator=generator, dtype=torch.float64) for shape in shapes]
    return loss.kept([Features.whole(each) for each in drawn], 0)


def target(name: str, statistic: Statistic) -> tuple[Tensor, ...]:
    loss = STYLE_LOSSES[name]()
    assert isinstance(loss, Additive)
    return loss.target(statistic)


@pytest.mark.parametrize("name", STYLE_LOSSES)
def test_halves_of_one_style_are_that_style(name: str) -> None:
    # The sampled ones too: each half brings its own part of the samples, which are the same ones of both.
    merged = target(name, Statistic.merged([kept(name, 0), kept(name, 0)], [0.5, 0.5]))
    for ours, alone in zip(merged, target(name, kept(name, 0)), strict=True):
        torch.testing.assert_close(ours, alone, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", sorted(STYLE_LOSSES.keys() - SAMPLED))
def test_sums_of_two_styles_are_those_of_their_union(name: str) -> None:
    """Equal weights of equally large images are one image of both, for losses that are not linear in it either."""
    loss = STYLE_LOSSES[name]()
    assert isinstance(loss, Additive)
    halves = [torch.rand(1, 6, 16, 24, generator=torch.Generator().manual_seed(n), dtype=torch.float64) for n in (1, 2)]
    parts = [loss.kept([Features.whole(half)], 0) for half in halves]
    union = loss.target(loss.kept([Features.whole(torch.cat(halves, dim=3))], 0))
    for ours, expected in zip(loss.target(Statistic.merged(parts, [0.3, 0.3])), union, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", sorted(SAMPLED))
def test_samples_are_of_each_style_by_its_weight(name: str) -> None:
    first, second = kept(name, 0), kept(name, 1, width=40)
    (key,) = first.samples
    found = Statistic.merged([first, second], [3, 1]).samples[key]
    count = found.shape[2]
    of_first = (found == first.samples[key]).all(dim=1).sum().item()
    of_second = (found == second.samples[key]).all(dim=1).sum().item()
    assert (of_first, of_second) == (round(count * 0.75), count - round(count * 0.75))


def paint(content: Path, *styles: Path, **options: object) -> Tensor:
    common = {"size": 64, "steps": 4, "stages": 1, "progress": False, "accelerator": "cpu"}
    given: dict[str, Any] = {"style_weights": [1.0] * len(styles), **common, **options}
    picture: Any = stylize(content, list(styles), **given)  # one, of all styles
    return read(picture).rgb


def test_a_style_of_weight_0_is_not_there(content_png: Path, style_png: Path) -> None:
    alone = paint(content_png, style_png)
    assert torch.equal(paint(content_png, style_png, content_png, style_weights=[1, 0]), alone)
    assert torch.equal(
        paint(content_png, content_png, style_png, style_weights=[0, 1], init="style", style_loss="gram"),
        paint(content_png, style_png, init="style", style_loss="gram"),
    )
    assert not torch.equal(paint(content_png, style_png, content_png, style_weights=[1, 1]), alone)


def test_scales_are_those_of_their_styles(content_png: Path, style_png: Path) -> None:
    data = PairDataModule(
        [str(content_png)], [str(style_png), str(content_png)], style_weights=[0.7, 0.3], style_scale=[1.0, 0.5]
    )
    (pair,) = data.pairs
    assert (pair.style_weights, pair.style_scales) == ((0.7, 0.3), (1, 0.5))
    assert (pair.row["style_weights"], pair.row["style_scale"]) == ("0.7|0.3", "1.0|0.5")
    data.setup("fit")
    ((first, second),) = data.batches[0].styles(data.stages[-1])
    assert (first.side, second.side) == (512, 256)
    again = PairDataModule(pairs=[pair.row])
    assert [(each.style_weights, each.style_scales) for each in again.pairs] == [((0.7, 0.3), (1, 0.5))]


def test_every_content_is_painted_in_all_styles(content_png: Path, style_png: Path) -> None:
    data = PairDataModule([str(content_png), str(style_png)], [str(style_png), str(content_png)], style_weights=[1, 1])
    assert [len(pair.styles) for pair in data.pairs] == [2, 2]
    apart = PairDataModule(
        [str(content_png)], [str(style_png), str(content_png)], style_scale=[1.0, 0.5]
    )  # a picture in each
    assert [pair.style_scales for pair in apart.pairs] == [(1,), (0.5,)]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"style_weights": [0, 0]}, r"style_weights must be .* one of them above 0, got \[0, 0\] for 2"),
        ({"style_weights": [1]}, r"style_weights must be .* for each style, .* got \[1\] for 2"),
        ({"style_weights": [-1, 2]}, r"style_weights must be a finite number, 0 or above"),
        ({"style_weights": [1, float("nan")]}, r"style_weights must be a finite number, 0 or above"),
        ({"style_scale": [1, 2, 3]}, r"style_scale must be .* for each style, got \[1, 2, 3\] for 2"),
        ({"style_scale": [1, 0]}, r"style_scale must be a finite number above 0, got \[1, 0\]"),
        ({"style_weights": [1, 1], "style_scale": [1, 2, 3]}, r"style_scale must be .* got \[1, 2, 3\] for 2"),
        ({"style_weights": [1, 1], "pairing": "product"}, "leave out one"),
    ],
)
def test_what_cannot_be_used_is_one_line(
    content_png: Path, style_png: Path, options: dict[str, Any], text: str
) -> None:
    with pytest.raises(InputError, match=text):
        PairDataModule(str(content_png), [str(style_png), str(content_png)], **options)
