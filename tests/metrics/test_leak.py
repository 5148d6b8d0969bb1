"""What shows through of the style image: against a slow reference, and cases with exact answers."""

from __future__ import annotations

import pytest
import torch

from nst_lightning import images
from nst_lightning.errors import InputError
from nst_lightning.initializers import style as started_from
from nst_lightning.metrics.outline import gradients, outlines
from tests.metrics.functions import leak, leak_score, seen
from tests.metrics.test_outline import picture, picture_in_lab, reference_scores


def test_the_score_is_that_of_a_slow_reference() -> None:
    style = picture_in_lab(1)
    output = (style + picture_in_lab(2)) / 2
    area, _ = reference_scores(output[0].double().numpy(), style[0].double().numpy())
    expected = 2 * area - 1
    assert leak_score(gradients(output), outlines(style)).item() == pytest.approx(expected, abs=1e-5)
    assert 0.1 < expected < 0.9


def test_less_than_chance_is_no_leak() -> None:
    style = picture_in_lab(1)
    reference = outlines(style)
    inverse = gradients(style)
    away = type(inverse)(near=-inverse.near, fine=inverse.fine)  # strongest where the style has no edges
    assert leak_score(away, reference).item() == 0


def test_a_faint_ghost_is_a_leak() -> None:
    style = picture_in_lab(1)
    assert leak_score(gradients(style / 10), outlines(style)).item() > 0.98


def test_the_style_is_stretched_as_where_the_optimisation_starts_from_it() -> None:
    style, content = picture(1, (64, 48)), picture(2, (48, 80))
    start = started_from(content, style, torch.Generator())
    assert leak(start, style).item() > 0.98
    output = (start + content) / 2
    expected = leak_score(gradients(seen(output)[0]), outlines(seen(start)[0]))
    assert leak(output, style).item() == pytest.approx(expected.item(), abs=0.005)  # files have 8 bits
    assert leak(output, images.resize(style, (48, 80)).clamp(0, 1)).item() == pytest.approx(expected.item(), abs=0.005)


def test_large_images_are_compared_reduced() -> None:
    style = picture(1, (64, 48))
    stretched = images.resize(style, (96, 128)).clamp(0, 1)
    output = (stretched + picture(2, (96, 128))) / 2
    assert leak(output, style, short_side=48).item() != leak(output, style, short_side=None).item()
    seen_output, seen_style = seen(output, stretched, short_side=48)
    expected = leak_score(gradients(seen_output), outlines(seen_style)).item()
    assert leak(output, style, short_side=48).item() == pytest.approx(expected, abs=0.005)


def test_a_style_without_edges_cannot_leak() -> None:
    assert leak(picture(1), torch.full((1, 3, 20, 30), 0.5)).isnan().all()


def test_images_of_a_batch_are_scored_one_by_one() -> None:
    style, content = picture(1, number=2), picture(2, number=2)
    output = (style + content) / 2
    alone = [leak(output[i : i + 1], style[i : i + 1]) for i in range(2)]
    torch.testing.assert_close(leak(output, style), torch.cat(alone), rtol=1e-6, atol=1e-6)


def test_there_are_as_many_styles_as_outputs() -> None:
    with pytest.raises(InputError, match=r"^2 outputs cannot be compared with 1 images: must be as many$"):
        leak(picture(1, number=2), picture(1))
    with pytest.raises(InputError, match=r"^images to be scored must be float"):
        leak(picture(1), picture(1)[0])
