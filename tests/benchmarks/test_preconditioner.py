"""The preconditioner of the benchmarks against numpy's transforms, and what it does for a photograph."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from nst_lightning import images
from nst_lightning.modules import StyleTransfer
from nst_lightning.optim import LBFGS
from nst_lightning.tiling import Whole
from tests.benchmarks.evaluation import loss_of, targets_of
from tests.benchmarks.preconditioner import Smoothness
from tests.conftest import SAMPLES
from tests.optim.test_lbfgs import minimise


def preconditioned(gradient: NDArray[np.float64], exponent: float) -> NDArray[np.float64]:
    """Images (N, C, H, W) with their frequencies weighted, by numpy's full Fourier transform."""
    height, width = gradient.shape[-2:]
    down, across = np.meshgrid(np.fft.fftfreq(height), np.fft.fftfreq(width), indexing="ij")
    factors = (down**2 + across**2 + 0.02**2) ** (-exponent / 2)
    half = factors[:, : width // 2 + 1]
    return np.fft.ifft2(np.fft.fft2(gradient) * (factors / half.mean())).real


@pytest.mark.parametrize("exponent", [0.5, 1.0])
@pytest.mark.parametrize("size", [(12, 9), (7, 10)])
def test_the_first_direction_is_the_preconditioned_gradient(exponent: float, size: tuple[int, int]) -> None:
    start = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    image = nn.Parameter(start.clone())
    optimizer = LBFGS([image], precondition=Smoothness(exponent))
    minimise(optimizer, image, lambda x: (x - 0.3).pow(4).sum(dim=(1, 2, 3)), 2)
    expected = -preconditioned(4 * (start.numpy() - 0.3) ** 3, exponent)
    length = np.minimum(1, 1 / np.abs(expected).sum(axis=(1, 2, 3), keepdims=True))
    np.testing.assert_allclose((image.detach() - start).numpy(), length * expected, rtol=1e-10, atol=1e-14)


def test_a_photograph_is_painted_in_fewer_steps_than_without() -> None:
    content, style = (
        images.resize(images.read(SAMPLES / name).rgb, (42, 64)).clamp(0, 1)
        for name in ("content-images/temple.jpg", "style-images/church_at_auvers.jpg")
    )
    module = StyleTransfer(convention="absolute", tv_loss="l1")
    evaluator = Whole(module.backbone, module.objective)
    loss = loss_of(module.objective, evaluator, targets_of(module.objective, evaluator, content, style))
    ends = []
    for precondition in (None, Smoothness(1.0)):
        image = nn.Parameter(content.clone())
        minimise(LBFGS([image], precondition=precondition), image, loss, 40)
        ends.append(float(loss(image.detach())))
    assert ends[1] < 0.95 * ends[0]
