"""The painter's network: whole, in strips, and in several styles."""

from __future__ import annotations

import pytest
import torch

from nst_lightning.painters import PainterNetwork


@pytest.fixture(scope="module")
def network() -> PainterNetwork:
    torch.manual_seed(0)
    network = PainterNetwork(2, 4).eval()
    for name, each in network.named_parameters():
        if name.endswith(("scale", "shift")):
            torch.nn.init.normal_(each)
    return network


@pytest.mark.parametrize("size", [(16, 17), (97, 130), (257, 66)])
@pytest.mark.parametrize("values", [4 * 70, 4 * 130 * 23])
def test_strips_are_the_whole(network: PainterNetwork, size: tuple[int, int], values: int) -> None:
    photographs = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(1))
    mix = torch.tensor([[0.3, 0.7], [1.0, 0.0]])
    with torch.no_grad():
        whole = network(photographs, mix)
    assert whole.shape == photographs.shape
    torch.testing.assert_close(network.in_strips(photographs, mix, values), whole, rtol=0, atol=1e-5)


def test_a_photograph_is_painted_as_it_is_alone(network: PainterNetwork) -> None:
    photographs, mix = torch.rand(2, 3, 40, 52), torch.eye(2)
    with torch.no_grad():
        both, second = network(photographs, mix), network(photographs[1:], mix[1:])
    torch.testing.assert_close(both[1:], second, rtol=0, atol=1e-5)
    assert not torch.allclose(network(photographs[1:], mix[:1]), second, atol=0.1)


def test_a_flat_photograph_is_painted(network: PainterNetwork) -> None:
    assert bool(network.in_strips(torch.full((1, 3, 20, 20), 0.5), torch.eye(2)[:1]).isfinite().all())
