"""LPIPS: torchmetrics' against the lpips package's, and that the network leaves no trace and asks no one."""

from __future__ import annotations

import copy
import pickle
import re
import socket
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lpips  # type: ignore[import-untyped]
import pytest
import torch
from lightning import LightningModule
from torch import Tensor, nn
from torchmetrics import MetricCollection
from torchmetrics.functional.image.lpips import _NoTrainLpips
from torchmetrics.image import LearnedPerceptualImagePatchSimilarity
from torchvision.models import SqueezeNet1_1_Weights, VGG16_Weights
from torchvision.models._api import Weights, WeightsEnum

from nst_lightning.backbones import weights
from nst_lightning.backbones.weights import WeightsError
from nst_lightning.errors import InputError
from nst_lightning.metrics import perceptual
from nst_lightning.metrics.base import Frozen
from nst_lightning.metrics.perceptual import TRUNKS, Lpips, Net, lpips_network
from tests.metrics.functions import lpips_distance, lpips_map, working_size

FAST: tuple[Net, ...] = ("alex", "squeeze")


@pytest.fixture(scope="session")
def trunks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[Net, Path]]:
    """Random weights under which no layer's activations fade; of AlexNet without the classifier, which is 234 MB."""
    folder = tmp_path_factory.mktemp("trunks")
    generator = torch.Generator().manual_seed(3)
    files = {}
    for net in FAST:
        with torch.device("meta"):
            whole = TRUNKS[net].build().state_dict()
        state = {}
        for name, tensor in whole.items():
            if net == "squeeze" or name.startswith("features"):
                std = (2 / tensor[0].numel()) ** 0.5 if name.endswith("weight") else 0.1
                state[name] = std * torch.randn(tensor.shape, generator=generator)
        files[net] = folder / Path(TRUNKS[net].weights.url).name
        torch.save(state, files[net])
    yield files
    for path in files.values():
        path.unlink()


@pytest.fixture
def cached(hub: Path, trunks: dict[Net, Path]) -> None:
    (hub / "checkpoints").mkdir(parents=True)
    for path in trunks.values():
        (hub / "checkpoints" / path.name).symlink_to(path)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> socket.socket:
        raise OSError("Network is unreachable")

    monkeypatch.setattr(socket, "create_connection", refuse)


def pair(height: int = 48, width: int = 67, count: int = 2, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Noise, and its left half the same, in 8 bits."""
    generator = torch.Generator().manual_seed(seed)
    output = (torch.rand(count, 3, height, width, generator=generator) * 255).round() / 255
    content = (torch.rand(count, 3, height, width, generator=generator) * 255).round() / 255
    content[..., : width // 2] = output[..., : width // 2]
    return output, content


def given(height: int, width: int, count: int = 2) -> dict[str, Tensor]:
    return dict(zip(("output", "content"), pair(height, width, count), strict=True))


def package_of(net: Net, spatial: bool) -> Frozen:
    """The lpips package's own network, of the weights that are in the cache."""
    with warnings.catch_warnings():
        # The package asks torchvision for `pretrained=False`, which has been called `weights=None` since 0.13.
        warnings.filterwarnings("ignore", "The parameter 'pretrained' is deprecated", UserWarning)
        warnings.filterwarnings("ignore", "Arguments other than a weight enum", UserWarning)
        package = lpips.LPIPS(net=net, spatial=spatial, pnet_rand=True, verbose=False)
    state = torch.load(weights.cached(TRUNKS[net].weights), weights_only=True)
    names = {name: re.sub(r"^slice\d+\.", "features.", name) for name in package.net.state_dict()}
    package.net.load_state_dict({name: state[torchvisions] for name, torchvisions in names.items()})
    return Frozen(package)


# ---- the number and the map ----


@pytest.mark.usefixtures("cached", "offline")
@pytest.mark.parametrize("net", FAST)
def test_torchmetrics_number_and_map_are_the_lpips_packages(net: Net) -> None:
    distance, package = lpips_network(net), package_of(net, spatial=False)
    mapping, packages_map = lpips_network(net), package_of(net, spatial=True)
    for height, width, seed in ((48, 67, 0), (64, 64, 1), (131, 97, 2)):
        output, content = pair(height, width, seed=seed)
        found = lpips_distance(distance, output, content)
        expected = package(output, content, normalize=True)
        assert found.shape == (2,)
        assert expected.shape == (2, 1, 1, 1)
        assert bool((found > 1e-3).all())
        torch.testing.assert_close(found, expected.flatten(), rtol=1e-6, atol=1e-6)
        expected = packages_map(output, content, normalize=True)
        assert expected.shape == (2, 1, height, width)
        torch.testing.assert_close(lpips_map(mapping, output, content), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("cached", "offline")
def test_the_number_is_that_of_torchmetrics_own_class_which_reads_the_same_file() -> None:
    public = LearnedPerceptualImagePatchSimilarity("squeeze", normalize=True)
    output, content = pair()
    torch.testing.assert_close(
        Lpips("squeeze")(output=output, content=content), public(output, content), rtol=1e-6, atol=1e-6
    )


@pytest.mark.usefixtures("cached")
@pytest.mark.parametrize("net", FAST)
def test_the_maps_mean_is_the_number_but_for_the_enlarging(net: Net) -> None:
    distance, mapping = lpips_network(net), lpips_network(net)
    for height, width in ((48, 67), (64, 64), (97, 131)):
        output, content = pair(height, width)
        found = lpips_map(mapping, output, content)
        assert found.shape == (2, 1, height, width)
        assert bool((found >= 0).all())
        number = lpips_distance(distance, output, content)
        torch.testing.assert_close(found.mean(dim=(1, 2, 3)), number, rtol=1e-3, atol=0)


@pytest.mark.usefixtures("cached")
def test_number_and_map_can_be_had_without_being_counted() -> None:
    output, content = pair()
    metric = Lpips("squeeze")
    expected = lpips_map(lpips_network("squeeze"), output, content)
    for _ in range(2):
        assert torch.equal(lpips_map(metric.network, output, content), expected)
    assert torch.equal(metric.numbers(output=output, content=content), lpips_distance(metric.network, output, content))
    assert metric.count == 0
    assert metric.state_dict() == {}
    assert list(metric.parameters()) == []
    assert (
        pickle.loads(pickle.dumps(metric))(output=output, content=content)
        == metric.numbers(output=output, content=content).mean()
    )


@pytest.mark.usefixtures("cached")
def test_the_map_is_larger_where_the_images_differ() -> None:
    output, content = pair(96, 128)
    found = lpips_map(lpips_network("squeeze"), output, content)
    assert bool((found[..., 80:].mean(dim=(1, 2, 3)) > 2 * found[..., :48].mean(dim=(1, 2, 3))).all())


@pytest.mark.usefixtures("cached")
def test_alike_images_are_at_0_everywhere() -> None:
    output, _ = pair()
    metric = Lpips("squeeze")
    assert metric(output=output, content=output) == 0
    assert metric(output=output, content=output + 0.4 / 255) == 0  # the same as written
    assert lpips_map(lpips_network("squeeze"), output, output).abs().max() == 0


@pytest.mark.usefixtures("cached")
def test_a_batch_is_its_images_alone_and_twice_is_the_same() -> None:
    network = lpips_network("squeeze")
    output, content = pair(count=3)
    together = lpips_distance(network, output, content)
    alone = [lpips_distance(network, output[n : n + 1], content[n : n + 1]) for n in range(3)]
    torch.testing.assert_close(together, torch.cat(alone))
    assert torch.equal(together, lpips_distance(network, output, content))
    metric = Lpips("squeeze")
    metric.update(output=output[:2], content=content[:2])
    metric.update(output=output[2:], content=content[2:])
    torch.testing.assert_close(metric.compute(), together.mean())


@pytest.mark.usefixtures("cached")
def test_large_images_are_reduced_first() -> None:
    output, content = pair(80, 120)
    metric = Lpips("squeeze", short_side=40)
    expected = lpips_distance(lpips_network("squeeze"), *working_size(output, content, short_side=40))
    torch.testing.assert_close(metric(output=output, content=content), expected.mean())


@pytest.mark.usefixtures("cached")
def test_a_collection_finds_its_images_by_keyword() -> None:
    output, content = pair()
    found = MetricCollection([Lpips("squeeze")])(output=output, content=content, style=output)
    assert found["Lpips"] > 0


# ---- what cannot be compared ----


@pytest.mark.parametrize("net", TRUNKS)
def test_the_smallest_side_is_what_the_network_takes(net: Net) -> None:
    with torch.device("meta"):
        network = _NoTrainLpips(net=net, pnet_rand=True, pretrained=False).to("meta")
        side = TRUNKS[net].min_side
        for size in ((side, 70), (70, side)):
            network(torch.empty(1, 3, *size), torch.empty(1, 3, *size))
        for size in ((side - 1, 70), (70, side - 1)):
            with pytest.raises(RuntimeError, match="Output size is too small"):
                network(torch.empty(1, 3, *size), torch.empty(1, 3, *size))


@pytest.mark.usefixtures("cached")
@pytest.mark.parametrize("net", FAST)
def test_images_that_are_too_small_have_no_number_and_are_counted(net: Net) -> None:
    side = TRUNKS[net].min_side
    metric = Lpips(net)
    metric.update(**given(side, 70))
    metric.update(**given(side - 1, 70, count=3))
    assert [int(metric.count), int(metric.undefined)] == [2, 3]
    torch.testing.assert_close(metric.compute(), lpips_distance(lpips_network(net), *pair(side, 70)).mean())
    found = lpips_map(lpips_network(net), *pair(side - 1, 70))
    assert found.shape == (2, 1, side - 1, 70)
    assert bool(found.isnan().all())


@pytest.mark.usefixtures("cached")
def test_images_of_different_sizes_or_numbers_are_refused() -> None:
    output, content = pair()
    metric = Lpips("squeeze")
    with pytest.raises(InputError, match="must be equal"):
        metric.update(output=output, content=content[..., 1:])
    with pytest.raises(InputError, match="must be as many"):
        metric.update(output=output, content=content[:1])


def test_an_unknown_net_is_refused() -> None:
    with pytest.raises(InputError, match=r"^unknown net 'resnet' of LPIPS; known are alex, squeeze, vgg$"):
        Lpips("resnet")  # type: ignore[arg-type]


# ---- no trace ----


class Holder(LightningModule):
    def __init__(self, metric: nn.Module) -> None:
        super().__init__()
        self.image = nn.Parameter(torch.zeros(1))
        self.metric = metric


@pytest.mark.usefixtures("cached")
def test_what_holds_it_has_no_more_parameters_and_saves_nothing_more() -> None:
    metric, mapping = Lpips("squeeze"), lpips_network("squeeze")
    for module in (metric, mapping):
        holder = Holder(module)
        assert list(module.parameters()) == []
        assert module.state_dict() == {}
        assert [name for name, _ in holder.named_parameters()] == ["image"]
        assert list(holder.state_dict()) == ["image"]
        holder.load_state_dict({"image": torch.ones(1)})
        holder.train()
        assert not any(inner.training for inner in module.modules() if inner is not metric)


@pytest.mark.usefixtures("cached")
def test_it_stays_in_eval_mode_and_without_a_graph() -> None:
    output, content = pair()
    metric, mapping = Lpips("squeeze"), lpips_network("squeeze")
    before, map_before = metric(output=output, content=content), lpips_map(mapping, output, content)
    metric.train()
    mapping.train()
    output.requires_grad_()
    assert metric(output=output, content=content) == before
    assert not metric.total.requires_grad
    assert not lpips_distance(metric.network, output, content).requires_grad
    after = lpips_map(mapping, output, content)  # dropout would show
    assert torch.equal(after, map_before)
    assert not after.requires_grad


@pytest.mark.usefixtures("cached")
def test_it_follows_to_a_device_but_stays_in_its_precision() -> None:
    output, content = pair()
    metric = Lpips("squeeze")
    before = metric(output=output, content=content)
    Holder(metric).half()
    assert metric(output=output, content=content) == before
    with torch.autocast("cpu", torch.bfloat16):
        assert metric(output=output, content=content) == before
    Holder(metric).to("meta")
    assert {buffer.device.type for buffer in metric.buffers()} == {"meta"}
    assert {buffer.dtype for buffer in metric.buffers()} == {torch.float32}


@pytest.mark.usefixtures("cached")
@pytest.mark.parametrize(
    "copied",
    [lambda it: pickle.loads(pickle.dumps(it)), copy.deepcopy, lambda it: it.clone()],
    ids=["pickled", "deepcopied", "cloned"],
)
def test_a_copy_is_on_its_own(copied: Callable[[Lpips], Lpips]) -> None:
    output, content = pair()
    metric = Lpips("squeeze")
    metric.update(output=output, content=content)
    other = copied(metric)
    assert other.compute() == metric.compute()
    other.update(output=output, content=output)
    assert other.compute() == metric.compute() / 2
    assert other.state_dict() == {}


@pytest.mark.usefixtures("cached")
def test_building_it_draws_no_random_number_and_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    before = torch.get_rng_state()
    Lpips("squeeze")
    lpips_network("squeeze")
    assert torch.equal(torch.get_rng_state(), before)
    assert capsys.readouterr() == ("", "")


# ---- weights ----


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(
    ("net", "name"),
    [
        ("alex", "alexnet-owt-7be5be79.pth"),
        ("squeeze", "squeezenet1_1-b8a52dc0.pth"),
        ("vgg", "vgg16-397923af.pth"),
    ],
)
@pytest.mark.parametrize("make", [Lpips, lpips_network])
def test_without_network_the_error_is_one_line_with_the_way_out(
    hub: Path, net: Net, name: str, make: Callable[[Net], object]
) -> None:
    begun = time.perf_counter()
    with pytest.raises(WeightsError) as caught:
        make(net)
    assert time.perf_counter() - begun < 2  # nothing is built first
    cached = hub / "checkpoints" / name
    url = f"https://download.pytorch.org/models/{name}"
    assert str(caught.value) == (
        f"cannot download {name} from {url} (<urlopen error Network is unreachable>): copy the file to {cached}"
    )


def test_a_server_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(weights, "DOWNLOAD_TIMEOUT", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as server:  # which the system has accept, and nobody answer

        class Silent(WeightsEnum):
            V1 = Weights(
                url=f"http://127.0.0.1:{server.getsockname()[1]}/squeezenet1_1-b8a52dc0.pth",
                transforms=nn.Identity,
                meta={},
            )

        monkeypatch.setattr(perceptual, "TRUNKS", {**TRUNKS, "squeeze": TRUNKS["squeeze"]._replace(weights=Silent.V1)})
        begun = time.perf_counter()
        with pytest.raises(WeightsError, match=r"^cannot download squeezenet1_1-b8a52dc0\.pth from .*timed out"):
            Lpips("squeeze")
        assert 0.9 < time.perf_counter() - begun < 5


def test_a_file_that_is_not_the_networks_is_one_line(hub: Path) -> None:
    file = hub / "checkpoints" / Path(SqueezeNet1_1_Weights.IMAGENET1K_V1.url).name
    file.parent.mkdir(parents=True)
    torch.save({"features.0.weight": torch.zeros(1)}, file)
    with pytest.raises(WeightsError, match="tensors are missing, the first is features") as caught:
        Lpips("squeeze")
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(file))
    file.write_bytes(b"<html>")
    with pytest.raises(WeightsError, match="not a plain state dict"):
        Lpips("squeeze")


def test_the_weights_are_those_that_torchmetrics_takes() -> None:
    assert {net: str(trunk.weights) for net, trunk in TRUNKS.items()} == {
        "alex": "AlexNet_Weights.IMAGENET1K_V1",
        "squeeze": "SqueezeNet1_1_Weights.IMAGENET1K_V1",
        "vgg": str(VGG16_Weights.DEFAULT),
    }
