"""Structural similarity against a slow reference, and its limits."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from nst_lightning.errors import InputError
from nst_lightning.metrics.similarity import SHORTEST
from tests.metrics.functions import seen, similarity, similarity_score
from tests.metrics.test_outline import picture, picture_in_lab

Array = npt.NDArray[np.float64]
SIZE = (SHORTEST, 192)
EXPONENTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def smoothed(image: Array) -> Array:
    """By the window of 11 px of the paper."""
    return np.asarray(ndimage.gaussian_filter(image, 1.5, truncate=5 / 1.5, mode="mirror"))


def reference_score(first: Array, second: Array) -> float:
    """Wang, Simoncelli and Bovik (2003) of two images of lightness, with the borders of torchmetrics."""
    score = 1.0
    for scale, exponent in enumerate(EXPONENTS):
        means = smoothed(first), smoothed(second)
        variances = smoothed(first**2) - means[0] ** 2, smoothed(second**2) - means[1] ** 2
        covariance = smoothed(first * second) - means[0] * means[1]
        kept = (2 * covariance + 3.0**2) / (sum(variances) + 3.0**2)
        if scale == len(EXPONENTS) - 1:
            kept = kept * (2 * means[0] * means[1] + 1) / (means[0] ** 2 + means[1] ** 2 + 1)
        else:
            kept = kept[5:-5, 5:-5]
        score *= max(float(kept.mean()), 0) ** exponent
        height, width = (side // 2 * 2 for side in first.shape)
        first, second = (
            each[:height, :width].reshape(height // 2, 2, width // 2, 2).mean(axis=(1, 3)) for each in (first, second)
        )
    return score


@pytest.mark.parametrize("size", [SIZE, (201, 263)])
def test_the_score_is_that_of_a_slow_reference(size: tuple[int, int]) -> None:
    content = picture_in_lab(1, size)
    output = (content + picture_in_lab(2, size)) / 2
    expected = reference_score(output[0, 0].double().numpy(), content[0, 0].double().numpy())
    assert similarity_score(output, content).item() == pytest.approx(expected, abs=1e-5)
    assert 0.2 < expected < 0.9


def test_only_lightness_counts() -> None:
    content = picture_in_lab(1, SIZE)
    grey = content * torch.tensor([1.0, 0.0, 0.0])[:, None, None]
    assert similarity_score(grey, content).item() == 1


@pytest.mark.parametrize("content", [picture(1, SIZE), torch.full((1, 3, *SIZE), 0.5)], ids=["picture", "grey"])
def test_equal_images_are_wholly_similar(content: Tensor) -> None:
    assert 0.999 < similarity(content, content).item() <= 1


def test_an_inverted_structure_is_none() -> None:
    content = picture_in_lab(1, SIZE)
    assert similarity_score(100 - content, content).item() == 0


def test_noise_has_a_score() -> None:
    generator = torch.Generator().manual_seed(0)
    output, content = torch.rand(2, 8, 3, *SIZE, generator=generator)
    found = similarity(output, content)
    assert found.isfinite().all()
    assert found.max() < 0.3


@pytest.mark.parametrize("size", [(SHORTEST - 1, 200), (200, SHORTEST - 1), (1, 1)])
def test_images_that_are_too_small_have_no_score(size: tuple[int, int]) -> None:
    content = torch.rand(2, 3, *size)
    assert similarity(content, content).isnan().tolist() == [True, True]


def test_the_smallest_images_have_a_score() -> None:
    content = torch.rand(1, 3, SHORTEST, SHORTEST)
    assert similarity(content, content).item() == pytest.approx(1)


def test_images_of_a_batch_are_scored_one_by_one() -> None:
    content = picture(1, SIZE, number=2)
    output = (content + picture(2, SIZE, number=2)) / 2
    alone = [similarity(output[i : i + 1], content[i : i + 1]) for i in range(2)]
    assert alone[0] != alone[1]
    torch.testing.assert_close(similarity(output, content), torch.cat(alone), rtol=1e-6, atol=1e-6)


def test_images_must_be_alike() -> None:
    message = r"^the output has 200x190 px, what it is compared with 190x200 px: must be equal$"
    with pytest.raises(InputError, match=message):
        similarity(torch.rand(1, 3, 190, 200), torch.rand(1, 3, 200, 190))


def test_large_images_are_compared_reduced() -> None:
    content, output = picture(1, (352, 384)), picture(2, (352, 384))
    expected = similarity_score(*seen(output, content, short_side=SHORTEST)).item()
    assert similarity(output, content, short_side=SHORTEST).item() == expected
    assert similarity(output, content, short_side=None).item() != expected


def test_nothing_holds_a_graph_and_autocast_changes_nothing() -> None:
    content, output = picture_in_lab(1, SIZE), picture_in_lab(2, SIZE).requires_grad_()
    expected = similarity_score(output, content)
    assert not expected.requires_grad
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(similarity_score(output, content), expected)
