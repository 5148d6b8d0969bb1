"""Outlines against a slow reference in float64, and cases with exact answers."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from nst_lightning.errors import InputError
from nst_lightning.metrics.outline import (
    FAINTEST,
    STRONGEST,
    TOLERANCE,
    Gradients,
    clarity,
    edge_auc,
    gradients,
    outlines,
)
from tests.metrics.functions import outline, outline_score, seen

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
STEPS = ((1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1))  # by the gradient's angle / 45 degrees


def picture(seed: int, size: tuple[int, int] = (48, 64), number: int = 1) -> Tensor:
    """Blotches of several sizes, (N, 3, H, W) in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    octaves = [torch.rand(number, 3, size[0] // each, size[1] // each, generator=generator) for each in (1, 4, 8, 16)]
    return torch.stack([F.interpolate(each, size, mode="bilinear") for each in octaves]).mean(dim=0)


def picture_in_lab(seed: int, size: tuple[int, int] = (48, 64), number: int = 1) -> Tensor:
    return seen(picture(seed, size, number))[0]


def step(column: int, height: float = 50.0) -> Tensor:
    """A picture of 64 px in CIELAB, dark to the left of a column."""
    lab = torch.zeros(1, 3, 64, 64)
    lab[:, 0, :, column:] = height
    return lab


# ---- what the functions should return ----


def reference_derivatives(lab: Array, sigma: float) -> tuple[Array, Array]:
    """Across and down, of the channel whose gradient is the longest."""
    across, down = (
        np.stack([ndimage.gaussian_filter(channel, sigma, order=order, mode="reflect", truncate=4) for channel in lab])
        for order in ((0, 1), (1, 0))
    )
    longest = np.hypot(across, down).argmax(axis=0)[None]
    return np.take_along_axis(across, longest, 0)[0], np.take_along_axis(down, longest, 0)[0]


def reference_edges(lab: Array) -> Mask:
    across, down = reference_derivatives(lab, 2)
    length = np.hypot(across, down)
    sectors = np.round(np.arctan2(down, across) / (np.pi / 4)).astype(int) % 8
    outside = np.pad(length, 1)
    thinned = np.zeros_like(length)
    for (row, column), sector in np.ndenumerate(sectors):
        x, y = STEPS[sector]
        ahead, behind = outside[row + 1 + y, column + 1 + x], outside[row + 1 - y, column + 1 - x]
        if length[row, column] > ahead and length[row, column] >= behind:
            thinned[row, column] = length[row, column]
    weakest = np.sort(thinned.ravel())[-round(STRONGEST * thinned.size)]
    edges: Mask = (thinned >= weakest) & (thinned >= FAINTEST / (2 * math.sqrt(2 * math.pi)))
    return edges


def reference_scores(output: Array, content: Array) -> tuple[float, float]:
    """The area and the clarity, of two images in CIELAB, (3, H, W)."""
    reach = max(1, round(TOLERANCE * math.hypot(*content.shape[1:])))
    edges = reference_edges(content)
    far = ndimage.distance_transform_cdt(~edges, metric="chessboard") > 2 * reach
    near = ndimage.maximum_filter(np.hypot(*reference_derivatives(output, 2)), 2 * reach + 1, mode="nearest")
    at_edges, elsewhere = near[edges][:, None], near[far][None]
    area = ((at_edges > elsewhere) + 0.5 * (at_edges == elsewhere)).mean()
    of_output, of_content = (
        ndimage.maximum_filter(np.hypot(*reference_derivatives(each, 1)), 2 * reach + 1, mode="nearest")[edges]
        for each in (output, content)
    )
    return float(area), float(np.minimum(1, of_output / of_content).mean())


@pytest.mark.parametrize("size", [(48, 64), (97, 61), (16, 300), (200, 210)])
def test_the_scores_are_those_of_a_slow_reference(size: tuple[int, int]) -> None:
    content = picture_in_lab(1, size)
    output = (content + picture_in_lab(2, size)) / 2
    reference, found = outlines(content), gradients(output)
    assert reference.edges[0].numpy().tolist() == reference_edges(content[0].double().numpy()).tolist()
    area, kept = reference_scores(output[0].double().numpy(), content[0].double().numpy())
    assert edge_auc(found, reference).item() == pytest.approx(area, abs=1e-5)
    assert clarity(found, reference).item() == pytest.approx(kept, abs=1e-5)
    assert outline_score(found, reference).item() == pytest.approx((2 * area - 1) * kept, abs=1e-5)
    assert 0.55 < area < 0.99  # neither chance nor all, where errors would not show
    assert 0.3 < kept < 0.99


def test_equal_gradients_count_half() -> None:
    reference = outlines(picture_in_lab(1))
    coarse = torch.randint(3, reference.edges.shape, generator=torch.Generator().manual_seed(0)).float()
    at_edges, elsewhere = coarse[reference.edges][:, None], coarse[reference.far][None]
    expected = ((at_edges > elsewhere).double() + (at_edges == elsewhere) / 2).mean()
    assert edge_auc(Gradients(coarse, coarse), reference).item() == pytest.approx(expected.item(), abs=1e-6)


# ---- cases with exact answers ----


def test_the_content_itself_keeps_all() -> None:
    content = picture_in_lab(1)
    reference = outlines(content)
    assert edge_auc(gradients(content), reference).item() > 0.99
    assert clarity(gradients(content), reference).item() == 1
    sharp = step(20)
    assert outline_score(gradients(sharp), outlines(sharp)).item() == 1


def test_an_edge_is_one_pixel_wide() -> None:
    edges = outlines(step(20)).edges[0]
    assert edges.sum(dim=1).tolist() == [1] * 64
    assert set(edges.nonzero()[:, 1].tolist()) in ({19}, {20})


def test_half_the_contrast_is_half_as_clear() -> None:
    content = picture_in_lab(1)
    found, reference = gradients(content / 2), outlines(content)
    assert clarity(found, reference).item() == 0.5
    assert edge_auc(found, reference).item() == edge_auc(gradients(content), reference).item()


def test_more_contrast_is_not_clearer_than_clear() -> None:
    content = picture_in_lab(1)
    assert clarity(gradients(2 * content), outlines(content)).item() == 1


def test_an_edge_that_moved_further_than_the_tolerance_is_lost() -> None:
    found, reference = gradients(step(50)), outlines(step(20))
    # Of 59 columns that are more than 2 px from the edge, the 18 that are 9 px or less from the other have gradients;
    # the other 41 have none, as the edge.
    assert edge_auc(found, reference).item() == pytest.approx(0.5 * 41 / 59, abs=1e-6)
    assert clarity(found, reference).item() == 0
    assert outline_score(found, reference).item() == 0


def test_an_edge_that_moved_within_the_tolerance_is_found() -> None:
    assert edge_auc(gradients(step(21)), outlines(step(20))).item() == 1


@pytest.mark.parametrize(("height", "expected"), [(0.9, 0), (1.1, 64)])
def test_a_step_that_cannot_be_seen_is_no_edge(height: float, expected: int) -> None:
    assert outlines(step(20, height)).edges.sum().item() == expected


@pytest.mark.parametrize("grey", [0.0, 0.3, 1.0])
def test_without_edges_there_is_no_score(grey: float) -> None:
    reference = outlines(seen(torch.full((1, 3, 40, 50), grey))[0])
    found = gradients(picture_in_lab(1, (40, 50)))
    assert reference.far.all()
    for score in (edge_auc, clarity, outline_score):
        assert score(found, reference).isnan().all()


@pytest.mark.parametrize(("size", "defined"), [((4, 4), False), ((1, 4), False), ((1, 12), True)])
def test_without_a_pixel_far_from_edges_there_is_no_score(size: tuple[int, int], defined: bool) -> None:
    content = torch.zeros(1, 3, *size)
    content[..., size[1] // 2 :] = 50
    assert outlines(content).edges.any()
    assert outlines(content).far.any().item() == defined
    assert outline_score(gradients(content), outlines(content)).isfinite().item() == defined


def test_images_of_a_batch_are_scored_one_by_one() -> None:
    content, output = picture_in_lab(1, number=3), picture_in_lab(2, number=3)
    content[2] = 50  # no edges
    found = outline_score(gradients(output), outlines(content))
    alone = [outline_score(gradients(output[i : i + 1]), outlines(content[i : i + 1])) for i in range(3)]
    torch.testing.assert_close(found, torch.cat(alone), rtol=1e-6, atol=1e-6, equal_nan=True)
    assert found.isnan().tolist() == [False, False, True]


def test_images_must_be_alike() -> None:
    with pytest.raises(
        InputError, match=r"^the output has 50x40 px, what it is compared with 40x50 px: must be equal$"
    ):
        outline(picture(1, (40, 50)), picture(1, (50, 40)))
    with pytest.raises(InputError, match=r"^2 outputs cannot be compared with 1 images: must be as many$"):
        outline(picture(1, number=2), picture(1))


def test_large_images_are_compared_reduced() -> None:
    content, output = picture(1, (96, 128)), picture(2, (96, 128))
    reduced = outline(output, content, short_side=48)
    seen_output, seen_content = seen(output, content, short_side=48)
    assert seen_output.shape[-2:] == (48, 64)
    assert reduced.item() == outline_score(gradients(seen_output), outlines(seen_content)).item()
    assert reduced.item() != outline(output, content, short_side=None).item()
    with pytest.raises(InputError, match=r"^the output has 128x96 px, .* 129x96 px: must be equal$"):
        outline(output, picture(1, (96, 129)), short_side=48)  # although both would be 64x48 px


def test_nothing_holds_a_graph() -> None:
    lab = picture_in_lab(1).requires_grad_()
    found, reference = gradients(lab), outlines(lab)
    kept = (found.near, found.fine, reference.edges, reference.far, reference.fine)
    assert not any(each.requires_grad for each in kept)


def test_autocast_changes_nothing() -> None:
    lab = picture_in_lab(1)
    with torch.autocast("cpu", torch.bfloat16):
        found = gradients(lab)
    assert torch.equal(found.near, gradients(lab).near)
    assert torch.equal(found.fine, gradients(lab).fine)
