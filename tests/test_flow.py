"""Optical flow between frames whose motion is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nst_lightning import flow, images
from tests.conftest import SAMPLES

cv2 = pytest.importorskip("cv2")


@pytest.fixture(scope="module")
def wide() -> Tensor:
    """A photograph of 96 x 128 px, (1, 3, H, W)."""
    return images.resize(images.read(SAMPLES / "content-images/chelsea.jpg").rgb, (96, 128)).clamp(0, 1)


def test_a_pan_is_found_and_undone(wide: Tensor) -> None:
    before, now = wide[..., 8:104], wide[..., 5:101]  # all moves by 3 px to the right
    back = flow.between(now, before)
    inner = (..., slice(8, -8), slice(12, -8))
    assert (back[inner] - torch.tensor([-3.0, 0.0]).view(1, 2, 1, 1)).abs().mean() < 0.1
    carried, trusted = flow.carried(1 - before, before, now)  # another picture of the same places
    assert (carried - (1 - now))[inner].abs().mean() < 0.01
    assert trusted[inner].mean() > 0.95
    assert trusted[..., :2].mean() < 0.2  # came from outside


def test_what_was_hidden_and_the_borders_of_what_moves_are_not_trusted(wide: Tensor) -> None:
    still, patch = wide[..., :96], wide.flip(3)[..., 30:70, 30:62]
    before, now = still.clone(), still.clone()
    before[..., 28:68, 20:52] = patch
    now[..., 28:68, 30:62] = patch  # 10 px to the right
    carried, trusted = flow.carried(before, before, now)
    assert trusted[..., 30:66, 20:28].mean() < 0.3  # was behind it
    assert trusted[..., 36:60, 36:56].mean() > 0.9  # the thing itself
    assert trusted[..., 76:, :].mean() > 0.97  # stands still
    assert (trusted * (carried - now)).abs().mean() < 0.02
    assert sorted({*trusted.flatten().tolist()}) == [0.0, 1.0]


def test_equal_frames_are_kept_as_they_are(wide: Tensor) -> None:
    picture = wide.flip(2)
    carried, trusted = flow.carried(picture, wide, wide.clone())
    assert torch.equal(carried, picture)
    assert (trusted == 1).all()


def test_the_consistency_is_the_papers_pixel_by_pixel() -> None:
    generator = torch.Generator().manual_seed(1)
    back, forth = (images.resize(4 * torch.randn(1, 2, 4, 4, generator=generator), (16, 20)) for _ in range(2))
    found = flow.consistent(back, forth)[0, 0]
    there = flow.moved(forth, back)
    for row in range(1, 15):
        for column in range(1, 19):
            w, v = there[0, :, row, column].double(), back[0, :, row, column].double()
            hidden = (w + v).square().sum() > 0.01 * (w.square().sum() + v.square().sum()) + 0.5
            down = (back[0, :, row + 1, column] - back[0, :, row - 1, column]) / 2
            across = (back[0, :, row, column + 1] - back[0, :, row, column - 1]) / 2
            parting = down.square().sum() + across.square().sum() > 0.01 * v.square().sum() + 0.002
            x, y = column + v[0], row + v[1]
            outside = x < -0.5 or x > 19.5 or y < -0.5 or y > 15.5
            assert found[row, column] == (0 if hidden or parting or outside else 1)


def test_values_are_taken_bilinearly_from_where_the_flow_points() -> None:
    values = torch.arange(12.0).view(1, 1, 3, 4)
    shift = torch.tensor([0.5, 1.0]).view(1, 2, 1, 1).expand(1, 2, 3, 4)
    found = flow.moved(values, shift)
    torch.testing.assert_close(found[0, 0, 0], torch.tensor([4.5, 5.5, 6.5, 7.0]))
    torch.testing.assert_close(found[0, 0, 2], torch.tensor([8.5, 9.5, 10.5, 11.0]))  # from the edge


def test_the_flow_depends_on_no_number_of_threads(wide: Tensor) -> None:
    before, now = wide[..., 8:], wide[..., :-8]
    known = cv2.getNumThreads()
    found = []
    for threads in (1, 4):
        cv2.setNumThreads(threads)
        found.append(flow.between(now, before))
        assert cv2.getNumThreads() == threads
    cv2.setNumThreads(known)
    assert torch.equal(*found)
