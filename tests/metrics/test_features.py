"""The distance of features against a slow one in float64, and that the network leaves no trace."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning import LightningModule
from torch import Tensor, nn

from nst_lightning.backbones import SPECS, Backbone
from nst_lightning.backbones.weights import WeightsError
from nst_lightning.errors import InputError
from nst_lightning.metrics.base import Frozen
from nst_lightning.metrics.features import (
    DIRECTIONS,
    QUANTILES,
    FeatureDistance,
    Projector,
)
from tests.metrics.functions import feature_distance, working_size

SHALLOW = ("relu", "layer1.2")
OXFORD: dict[str, Any] = {"backbone": "vgg16", "layers": ("relu1_1", "relu2_1")}


@pytest.fixture(scope="session")
def resnet50(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Random weights, in float16 for the disk's sake."""
    generator = torch.Generator().manual_seed(50)
    with torch.device("meta"):
        whole = SPECS["resnet50"].build().state_dict()
    state = {}
    for name, tensor in whole.items():
        drawn = torch.randn(tensor.shape, generator=generator)
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(1)
        elif tensor.ndim > 1:
            state[name] = (drawn * (2 / tensor[0].numel()) ** 0.5).half()
        else:  # scales, shifts and statistics of batch normalisation
            around = 0 if name.endswith(("bias", "mean")) else 1
            state[name] = (around + 0.1 * drawn).half()
    path = tmp_path_factory.mktemp("resnet50") / "resnet50.pth"
    torch.save(state, path)
    yield path
    path.unlink()


def noise(height: int, width: int, count: int = 2, seed: int = 0, power: float = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(count, 3, height, width, generator=generator) ** power * 255).round() / 255


def slow(network: Frozen, backbone: Backbone, output: Tensor, style: Tensor) -> float:
    """The distance of two single images, in numpy and float64."""
    levels = (np.arange(QUANTILES) + 0.5) / QUANTILES
    distances = []
    theirs = backbone(style)
    for place, (layer, feature) in enumerate(backbone(output).items()):
        directions = network.network.get_buffer(f"directions{place}").double().numpy()
        assert directions.shape == (feature.shape[1], DIRECTIONS)
        np.testing.assert_allclose(np.linalg.norm(directions, axis=0), 1, rtol=1e-6)
        differences, magnitudes = [], []
        for direction in directions.T:
            ours, other = (
                np.tensordot(each[0].double().numpy(), direction, axes=(0, 0)).ravel()
                for each in (feature, theirs[layer])
            )
            differences.append(
                np.abs(np.quantile(ours, levels, method="hazen") - np.quantile(other, levels, method="hazen")).mean()
            )
            magnitudes.append(np.abs(other).mean())
        distances.append(np.mean(differences) / np.mean(magnitudes))
    return float(np.mean(distances))


# ---- the number ----


def test_it_is_the_slow_one(resnet50: Path) -> None:
    layers = SPECS["resnet50"].style_layers
    backbone = Backbone("resnet50", layers, str(resnet50))
    network = Frozen(Projector("resnet50", weights=str(resnet50)))
    output, style = noise(65, 97), noise(80, 64, seed=1, power=2)
    found = feature_distance(network(output), network(style))
    expected = [slow(network, backbone, output[n : n + 1], style[n : n + 1]) for n in range(2)]
    assert found.shape == (2,)
    assert min(expected) > 0.01
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5)
    metric = FeatureDistance(weights=str(resnet50))
    assert torch.equal(metric.numbers(output=output, style=style), found)
    assert metric.count == 0
    np.testing.assert_allclose(metric(output=output, style=style).item(), np.mean(expected), rtol=1e-5)


def test_alike_images_are_at_0_and_others_above() -> None:
    metric = FeatureDistance(**OXFORD)
    output = noise(40, 50)
    assert metric(output=output, style=output) == 0
    assert metric(output=output, style=output.flip(3)[..., 1:]) > 0
    assert (
        metric(output=output, style=noise(40, 50, power=3)) > metric(output=output, style=noise(40, 50, power=1.5)) > 0
    )


def test_a_batch_is_its_images_alone_and_one_style_stands_for_all() -> None:
    network = Frozen(Projector(**OXFORD))
    output, style = noise(40, 50), noise(33, 60, seed=1, power=2)
    both = feature_distance(network(output), network(style))
    alone = [feature_distance(network(output[n : n + 1]), network(style[n : n + 1])) for n in range(2)]
    torch.testing.assert_close(both, torch.cat(alone), rtol=1e-5, atol=0)
    for_all = feature_distance(network(output), network(style[:1]))
    torch.testing.assert_close(for_all[0], both[0], rtol=1e-5, atol=0)
    metric = FeatureDistance(**OXFORD)
    for n in range(2):
        metric.update(output=output[n : n + 1], style=style[n : n + 1])
    torch.testing.assert_close(metric.compute(), both.mean(), rtol=1e-5, atol=0)


def test_directions_are_the_same_every_time_and_draw_no_random_number() -> None:
    before = torch.get_rng_state()
    one, other = Frozen(Projector(**OXFORD)), Frozen(Projector(**OXFORD))
    assert torch.equal(torch.get_rng_state(), before)
    for place in range(2):
        name = f"directions{place}"
        assert torch.equal(one.network.get_buffer(name), other.network.get_buffer(name))


def test_large_images_are_reduced_first_and_the_style_by_the_same_factor() -> None:
    output, style = noise(80, 120), noise(100, 90, seed=1)
    metric = FeatureDistance(**OXFORD, short_side=40)
    small_output, small_style = working_size(output, style, short_side=40)
    assert small_style.shape[-2:] == (50, 45)
    expected = feature_distance(metric.network(small_output), metric.network(small_style))
    torch.testing.assert_close(metric(output=output, style=style), expected.mean())


# ---- what cannot be compared ----


def test_images_that_are_too_small_have_no_number_and_are_counted() -> None:
    metric = FeatureDistance("vgg16", ("pool3",))
    assert Projector("vgg16", ("pool3",)).min_side == 8
    metric.update(output=noise(8, 20), style=noise(20, 8))
    metric.update(output=noise(7, 20), style=noise(20, 20))
    metric.update(output=noise(20, 20, count=1), style=noise(20, 7, count=1))
    assert [int(metric.count), int(metric.undefined)] == [2, 3]
    assert metric.numbers(output=noise(7, 20), style=noise(20, 20)).isnan().all()


def test_a_style_that_leaves_a_layer_at_0_has_no_number(tmp_path: Path) -> None:
    state = {"features.0.weight": torch.ones(64, 3, 3, 3), "features.0.bias": torch.zeros(64)}
    torch.save(state, tmp_path / "first.pth")
    metric = FeatureDistance("vgg16", ("relu1_1",), str(tmp_path / "first.pth"))
    black = torch.zeros(1, 3, 9, 9)  # below the mean colour, so no unit responds
    metric.update(output=black, style=black)
    assert [int(metric.count), int(metric.undefined)] == [0, 1]


def test_styles_that_are_not_as_many_are_refused() -> None:
    with pytest.raises(InputError, match="must be as many"):
        FeatureDistance(**OXFORD).update(output=noise(20, 20), style=noise(20, 20, count=1))


def test_what_is_unknown_is_refused() -> None:
    with pytest.raises(InputError, match="unknown backbone 'alexnet'"):
        FeatureDistance("alexnet")
    with pytest.raises(InputError, match="unknown layer 'conv9' of resnet50"):
        FeatureDistance(layers=["conv9"])


# ---- no trace ----


class Holder(LightningModule):
    def __init__(self, metric: nn.Module) -> None:
        super().__init__()
        self.image = nn.Parameter(torch.zeros(1))
        self.metric = metric


def test_what_holds_it_has_no_more_parameters_and_saves_nothing_more() -> None:
    metric = FeatureDistance(**OXFORD)
    output, style = noise(30, 40), noise(40, 30, seed=1)
    before = metric(output=output, style=style)
    holder = Holder(metric)
    assert list(metric.parameters()) == []
    assert metric.state_dict() == {}
    assert [name for name, _ in holder.named_parameters()] == ["image"]
    assert list(holder.state_dict()) == ["image"]
    holder.half().train()
    assert not any(module.training for module in metric.network.modules())
    assert metric(output=output.requires_grad_(), style=style) == before
    with torch.autocast("cpu", torch.bfloat16):
        assert metric(output=output, style=style) == before
    assert not metric.total.requires_grad
    assert not metric.network(output)["relu1_1"].quantiles.requires_grad
    holder.to("meta")
    assert {buffer.device.type for buffer in metric.buffers()} == {"meta"}


@pytest.mark.parametrize(
    "copied",
    [lambda it: pickle.loads(pickle.dumps(it)), copy.deepcopy, lambda it: it.clone()],
    ids=["pickled", "deepcopied", "cloned"],
)
def test_a_copy_is_on_its_own(copied: Callable[[FeatureDistance], FeatureDistance]) -> None:
    metric = FeatureDistance(**OXFORD)
    output, style = noise(30, 40), noise(40, 30, seed=1)
    metric.update(output=output, style=style)
    other = copied(metric)
    assert other.compute() == metric.compute()
    other.update(output=output, style=output)
    assert other.compute() == metric.compute() / 2
    assert other.state_dict() == {}


# ---- weights ----


def test_weights_that_cannot_be_had_are_one_line(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise OSError("Network is unreachable")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    name = Path(SPECS["resnet50"].torchvision_weights.url).name
    with pytest.raises(WeightsError) as caught:
        FeatureDistance()
    assert str(caught.value) == (
        f"cannot download {name} from https://download.pytorch.org/models/{name} (Network is unreachable): "
        f"copy the file to {hub / 'checkpoints' / name}, or name a local file with --weights"
    )
    with pytest.raises(WeightsError, match=r"^nowhere\.pth: no such weights file"):
        FeatureDistance(weights="nowhere.pth")


def test_weights_are_read_from_a_file(resnet50: Path) -> None:
    metric = FeatureDistance(layers=SHALLOW, weights=str(resnet50))
    assert list(metric.network(noise(20, 20))) == list(SHALLOW)
