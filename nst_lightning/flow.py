"""Optical flow: where things move from one frame of a film to the next, and where one of them hides the other."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from nst_lightning.colors import luminance


def carried(picture: Tensor, before: Tensor, now: Tensor) -> tuple[Tensor, Tensor]:
    """Returns a picture of the frame before, moved to where things are now, and how far each pixel can be trusted.

    All are (1, 3, H, W) in [0, 1]: the picture that was painted, the frame of the film that it was painted of, and the
    frame now. The weights (1, 1, H, W) are 0 where that shows what the frame before hid, where things part, and where
    they come from outside, else 1. Between equal frames nothing moves.
    """
    if torch.equal(before, now):
        return picture, torch.ones_like(picture[:, :1])
    back = between(now, before)
    return moved(picture, back), consistent(back, between(before, now))


def between(first: Tensor, second: Tensor) -> Tensor:
    """Returns how far each pixel of a frame is moved in another one, (1, 2, H, W): columns, then rows, in pixels.

    By dense inverse search: Kroeger et al. (2016), *Fast Optical Flow using Dense Inverse Search*.
    """
    import cv2  # not above: it comes with an extra, and still pictures do without

    one, other = (luminance(frame)[0, 0] for frame in (first, second))
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    search.setFinestScale(0)  # whole pixels, not halves: frames are small beside those that the preset is for
    threads = cv2.getNumThreads()
    try:
        cv2.setNumThreads(1)  # what a stripe of rows finds follows from where it begins
        blank = np.zeros((*one.shape, 2), np.float32)
        found = search.calc(_bytes(one), _bytes(other), blank)
    finally:
        cv2.setNumThreads(threads)
    return torch.from_numpy(np.asarray(found)).movedim(2, 0)[None]


def _bytes(grey: Tensor) -> np.ndarray[Any, Any]:
    return np.asarray(grey.mul(255).round().byte().numpy())


def moved(values: Tensor, flow: Tensor) -> Tensor:
    """Returns values (1, C, H, W) taken, bilinearly, from where a flow (1, 2, H, W) points; outside, from the edge."""
    points = _places(flow) + flow
    half = points.new_tensor([values.shape[3], values.shape[2]]).view(1, 2, 1, 1) / 2
    grid = ((points + 0.5) / half - 1).movedim(1, 3)
    return grid_sample(values, grid, "bilinear", "border", align_corners=False)


def consistent(back: Tensor, forth: Tensor) -> Tensor:
    """Returns where a flow into the frame before can be trusted, (1, 1, H, W) of 0 and 1: Ruder et al. (2016), 4.2.

    Not where the way there and forth again does not end where it began, which is hidden in one of the frames; nor at
    the borders of what moves, whose flow is blurred; nor where the way leads out of the image.
    """

    def squared(field: Tensor) -> Tensor:
        return field.square().sum(dim=1, keepdim=True)

    there = moved(forth, back)
    hidden = squared(there + back) > 0.01 * (squared(there) + squared(back)) + 0.5
    slopes = [(back.roll(-1, axis) - back.roll(1, axis)) / 2 for axis in (2, 3)]
    slopes[0][:, :, [0, -1]] = slopes[1][:, :, :, [0, -1]] = 0  # where roll takes the other side's
    parting = sum(map(squared, slopes)) > 0.01 * squared(back) + 0.002
    ends = _places(back) + back
    last = ends.new_tensor([back.shape[3] - 1, back.shape[2] - 1]).view(1, 2, 1, 1)
    outside = ((ends < -0.5) | (ends > last + 0.5)).any(dim=1, keepdim=True)
    return 1 - (hidden | parting | outside).to(back)


def _places(flow: Tensor) -> Tensor:
    """Returns column and row of each pixel, (1, 2, H, W)."""
    rows, columns = (torch.arange(length, dtype=flow.dtype) for length in flow.shape[2:])
    return torch.stack(torch.meshgrid(columns, rows, indexing="xy"))[None]
