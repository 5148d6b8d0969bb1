"""The preconditioner against numpy's transforms, and what it measures against a Hessian that is known."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from nst_lightning.preconditioner import PROBE, measure, precondition, probe

AXES = np.array([[1, 1, 1], [1, 0, -1], [-1, 2, -1]]) / np.sqrt([[3], [2], [6]])
"""Ohta's: grey, red against blue, green against both."""


def frequencies(height: int, width: int) -> NDArray[np.float64]:
    down, across = np.meshgrid(np.fft.fftfreq(height), np.fft.fftfreq(width), indexing="ij")
    return np.asarray(np.hypot(down, across), dtype=np.float64)


def bands(height: int, width: int) -> NDArray[np.int64]:
    """Half octaves below 1/64, 1/45, ..., 1/2 of a cycle a pixel, and above."""
    return np.digitize(frequencies(height, width), 2.0 ** (np.arange(11) / 2 - 6), right=True)


def by_frequency_and_colour(images: NDArray[np.float64], factors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Multiplies images (N, C, H, W) by factors (C, B)."""
    turned = np.einsum("kc,nchw->nkhw", AXES, images) if images.shape[1] == 3 else images
    multiplied = np.fft.ifft2(np.fft.fft2(turned) * factors[:, bands(*images.shape[2:])]).real
    result: NDArray[np.float64] = np.einsum("kc,nkhw->nchw", AXES, multiplied) if images.shape[1] == 3 else multiplied
    return result


def change_of(curvature: NDArray[np.float64], noise: Tensor) -> Tensor:
    """What noise changes in the gradient of a quadratic form whose curvature (C, B) is known."""
    return torch.from_numpy(by_frequency_and_colour(noise.numpy(), curvature))


noise_of = partial(probe, device=torch.device("cpu"), dtype=torch.float64)


@pytest.mark.parametrize("size", [(3, 40, 33), (3, 33, 48), (1, 32, 32)])
def test_measures_a_known_curvature_exactly(size: tuple[int, int, int]) -> None:
    curvature = np.geomspace(1, 300, size[0] * 12).reshape(size[0], 12)
    noise = noise_of(torch.Size((2, *size)))
    found = measure(torch.cat([change_of(curvature, noise), change_of(7 * curvature, noise)]), noise)
    half = bands(*size[1:])[:, : size[2] // 2 + 1]
    expected = 1 / np.sqrt(curvature)
    expected /= expected[:, half].mean()
    present = np.unique(half)
    for image in found.numpy():  # a factor of the whole loss does not matter
        np.testing.assert_allclose(image[:, present], expected[:, present], rtol=1e-10)


def test_a_band_whose_curvature_is_not_positive_counts_as_the_next_finer_one() -> None:
    curvature = np.tile(np.arange(1.0, 13.0), (3, 1))
    curvature[0, 4], curvature[1, 5:7] = -1, -5
    noise = noise_of(torch.Size((1, 3, 64, 64)))
    found = measure(change_of(curvature, noise), noise)[0].numpy()
    np.testing.assert_allclose(found[0, 4], found[0, 5], rtol=1e-10)
    np.testing.assert_allclose(found[1, 5:7], found[1, 7], rtol=1e-10)
    np.testing.assert_allclose(found[2, 8] / found[2, 2], np.sqrt(3 / 9), rtol=1e-10)


@pytest.mark.parametrize("hopeless", [-1.0, 0.0, float("nan"), float("inf")])
def test_where_nothing_can_be_measured_nothing_is_preconditioned(hopeless: float) -> None:
    noise = noise_of(torch.Size((1, 3, 32, 32)))
    found = measure(hopeless * noise, noise)
    torch.testing.assert_close(found, torch.ones_like(found))


def test_no_curvature_counts_as_less_than_a_thousandth_of_the_largest() -> None:
    curvature = np.ones((3, 12))
    curvature[1] = 1e-9
    noise = noise_of(torch.Size((1, 3, 32, 32)))
    found = measure(change_of(curvature, noise), noise)[0].numpy()
    np.testing.assert_allclose(found[1] / found[0], np.sqrt(1000), rtol=1e-6)


@pytest.mark.parametrize("channels", [3, 1])
@pytest.mark.parametrize("size", [(12, 9), (7, 10)])
def test_images_are_multiplied_in_frequency_and_colour(channels: int, size: tuple[int, int]) -> None:
    values = torch.rand(2, channels, *size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    measured = torch.rand(2, channels, 12, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    found = precondition(values.flatten(1), values.shape, 0.0, measured).view_as(values)
    for index in range(2):
        expected = by_frequency_and_colour(values[index : index + 1].numpy(), measured[index].numpy())
        np.testing.assert_allclose(found[index : index + 1], expected, rtol=0, atol=1e-12)


def test_smoothness_and_what_was_measured_multiply() -> None:
    values = torch.rand(1, 3, 12, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    measured = torch.rand(1, 3, 12, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    apply = partial(precondition, shape=values.shape)
    both = apply(values.flatten(1), exponent=0.7, measured=measured)
    one_by_one = apply(apply(values.flatten(1), exponent=0.7, measured=None), exponent=0.0, measured=measured)
    torch.testing.assert_close(both, one_by_one, rtol=0, atol=1e-12)


def test_noise_is_a_grey_level_of_either_sign_and_always_the_same() -> None:
    noise = noise_of(torch.Size((4, 3, 20, 30)))
    assert noise.shape == (1, 3, 20, 30)
    torch.testing.assert_close(noise.abs(), torch.full_like(noise, 1 / 255))
    assert noise.mean().abs() < 0.1 * PROBE
    assert torch.equal(noise, noise_of(torch.Size((4, 3, 20, 30))))
