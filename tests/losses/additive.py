"""What the tests of additive losses share."""

from __future__ import annotations

import torch
from torch import Tensor

from nst_lightning.losses import Additive, Features


def distance(loss: Additive, output: Tensor, style: Tensor, draw: int = 3) -> Tensor:
    """The loss of whole features (N, C, H, W) against a style's, (N,)."""
    target = loss.target(loss.kept([Features.whole(style)], 1))
    return loss.compare(loss.statistic([Features.whole(output)], draw), target, draw)


def assert_only_values_count(loss: Additive, output: Tensor, style: Tensor, rtol: float) -> None:
    """That the places of the output's features do not count, and that the gradient is the slope."""
    positions = output.shape[2] * output.shape[3]
    order = torch.randperm(positions, generator=torch.Generator().manual_seed(3))
    turned = output.flatten(2)[..., order].view_as(output)
    torch.testing.assert_close(distance(loss, turned, style), distance(loss, output, style), rtol=rtol, atol=0)
    assert torch.autograd.gradcheck(lambda x: distance(loss, x, style), output[:, :, :2, :3].clone().requires_grad_())
