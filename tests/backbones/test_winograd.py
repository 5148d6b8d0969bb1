import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d

from nst_lightning.backbones.surgery import freeze
from nst_lightning.backbones.winograd import Filtering, WinogradConvolution, transformed


def made(inputs: int, outputs: int, border: int = 1, bias: bool = True) -> WinogradConvolution:
    convolution = WinogradConvolution(nn.Conv2d(inputs, outputs, 3, padding=border, bias=bias))
    freeze(convolution)
    return convolution


@pytest.mark.parametrize("border", [0, 1])
@pytest.mark.parametrize(("height", "width"), [(8, 8), (3, 3), (9, 14), (6, 5), (70, 33), (4, 1100)])
@pytest.mark.parametrize("bias", [True, False])
def test_convolutions_and_their_gradients_are_torchs(border: int, height: int, width: int, bias: bool) -> None:
    image = torch.randn(2, 3, height, width, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(5, 3, 3, 3, dtype=torch.float64)
    shift = torch.randn(5, dtype=torch.float64) if bias else None
    expected = conv2d(image, weight, shift, padding=border)
    found = Filtering.apply(image, transformed(weight), shift, border)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    gradient = torch.randn_like(expected)
    (slope,) = torch.autograd.grad(found, image, gradient)
    (expected_slope,) = torch.autograd.grad(expected, image, gradient)
    torch.testing.assert_close(slope, expected_slope, rtol=0, atol=1e-12)


def test_the_gradient_is_that_of_finite_differences() -> None:
    image = torch.randn(1, 2, 5, 6, dtype=torch.float64, requires_grad=True)
    filters = transformed(torch.randn(3, 2, 3, 3, dtype=torch.float64))
    assert torch.autograd.gradcheck(lambda each: Filtering.apply(each, filters, None, 1), image)


def test_rounding_is_less_than_three_times_torchs() -> None:
    torch.manual_seed(0)
    image, weight = torch.rand(1, 256, 32, 32), torch.randn(256, 256, 3, 3)
    right = conv2d(image.double(), weight.double(), padding=1)

    def error(found: torch.Tensor) -> float:
        return float((found - right).norm() / right.norm())

    ours = error(Filtering.apply(image, transformed(weight), None, 1))
    assert ours < 3 * error(conv2d(image.contiguous(memory_format=torch.channels_last), weight, padding=1))
    assert ours < 1.5e-6


def test_an_images_bits_do_not_depend_on_its_companions() -> None:
    convolution, images = made(256, 128), torch.randn(3, 256, 20, 17)
    together = convolution(images)
    for place in range(3):
        assert torch.equal(convolution(images[place : place + 1]), together[place : place + 1])


def test_it_is_the_convolution_it_was_made_like_where_it_is_no_faster() -> None:
    convolution = made(256, 128)
    for image in (torch.randn(1, 256, 15, 17), torch.randn(1, 256, 20, 20, dtype=torch.float64)):
        alike = copy.deepcopy(convolution).to(image.dtype)
        assert torch.equal(alike(image), conv2d(image, alike.like.weight, alike.like.bias, padding=1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert convolution(torch.randn(1, 256, 20, 20)).dtype == torch.bfloat16


def test_weights_that_are_changed_are_transformed_anew() -> None:
    convolution, image = made(256, 128), torch.randn(1, 256, 16, 16)
    convolution(image)
    convolution.to(torch.bfloat16).to(torch.float32)  # which rounds them
    like = convolution.like
    torch.testing.assert_close(convolution(image), conv2d(image, like.weight, like.bias, padding=1))


@pytest.mark.parametrize(
    "options",
    [{"stride": 2}, {"dilation": 2}, {"groups": 2}, {"padding": 2}, {"padding_mode": "replicate"}, {"kernel_size": 1}],
)
def test_only_plain_convolutions_are_replaced(options: dict[str, object]) -> None:
    usual = {"kernel_size": 3, "padding": 1}
    assert WinogradConvolution.suits(nn.Conv2d(256, 256, **usual))  # type: ignore[arg-type]
    assert not WinogradConvolution.suits(nn.Conv2d(256, 256, **usual | options))  # type: ignore[arg-type]
    assert not WinogradConvolution.suits(nn.Conv2d(64, 64, **usual))  # type: ignore[arg-type]
