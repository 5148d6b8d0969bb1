"""The frozen networks against torchvision's own forward, and what makes them frozen."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import vgg16, vgg19

from nst_lightning.backbones import SPECS, Backbone
from nst_lightning.backbones.surgery import Border, L2Pooling, Pooling
from nst_lightning.backbones.weights import WeightsError
from nst_lightning.errors import InputError

State = dict[str, Tensor]
OXFORD_FILE = Path(str(resources.files("nst_lightning") / "bundled" / "vgg16_oxford_fp16.safetensors"))
BUILDERS: dict[str, Callable[[], Any]] = {"vgg16": vgg16, "vgg16_experimental": vgg16, "vgg19": vgg19}


def torchvisions_features(name: str) -> nn.Sequential:
    """The convolutional part of torchvision's network, in-place ReLUs and all, without weights."""
    with torch.device("meta"):
        features: nn.Sequential = BUILDERS[name]().features
    return features.requires_grad_(False)


def names_in_the_field(features: nn.Sequential) -> list[str]:
    """What the literature calls each module: the convolution's block and its place in it, counted from 1."""
    names, block, depth = [], 1, 0
    for module in features:
        if isinstance(module, nn.MaxPool2d):
            names.append(f"pool{block}")
            block, depth = block + 1, 0
        else:
            depth += isinstance(module, nn.Conv2d)
            names.append(f"{'conv' if isinstance(module, nn.Conv2d) else 'relu'}{block}_{depth}")
    return names


def activations(features: nn.Sequential, pixels: Tensor) -> State:
    """Every module's output by name, cloned before the ReLU behind it could overwrite it."""
    outputs = {}
    for name, module in zip(names_in_the_field(features), features, strict=True):
        pixels = module(pixels)
        outputs[name] = pixels.clone()
    return outputs


@pytest.fixture(scope="session")
def vgg19_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Random weights under which no layer's activations fade, without the classifier; float16 for the disk's sake."""
    generator = torch.Generator().manual_seed(19)
    state = {}
    for name, tensor in torchvisions_features("vgg19").state_dict().items():
        std = (2 / tensor[0].numel()) ** 0.5 if name.endswith("weight") else 0.1
        state[f"features.{name}"] = (std * torch.randn(tensor.shape, generator=generator)).half()
    path = tmp_path_factory.mktemp("vgg19") / "vgg19.pth"
    torch.save(state, path)
    yield path
    path.unlink()


@pytest.fixture
def cached(hub: Path, vgg19_file: Path) -> None:
    """Has torchvision's files in the cache: of VGG16 only what relu1_1 needs."""
    (hub / "checkpoints").mkdir(parents=True)
    (hub / "checkpoints" / "vgg19-dcbb9e9d.pth").symlink_to(vgg19_file)
    state = {"features.0.weight": torch.ones(64, 3, 3, 3), "features.0.bias": torch.zeros(64)}
    torch.save(state, hub / "checkpoints" / "vgg16-397923af.pth")


@pytest.fixture
def image() -> Tensor:
    return torch.rand(2, 3, 37, 50, generator=torch.Generator().manual_seed(0))


# ---- activations ----


@pytest.mark.usefixtures("cached")
@pytest.mark.parametrize("name", ["vgg16", "vgg16_experimental", "vgg19"])
def test_every_layer_equals_torchvisions_own_forward(name: str, vgg19_file: Path, image: Tensor) -> None:
    features = torchvisions_features(name)
    state: State = torch.load(vgg19_file, weights_only=True) if name == "vgg19" else load_file(OXFORD_FILE)
    features.load_state_dict({key.removeprefix("features."): t.float() for key, t in state.items()}, assign=True)
    backbone = Backbone(name, SPECS[name].layers, "torchvision" if name == "vgg19" else None)
    features.to(memory_format=torch.channels_last)  # whose kernels round otherwise
    scaled = ((image - backbone.mean) / backbone.std).contiguous(memory_format=torch.channels_last)
    expected = activations(features, scaled)
    if name == "vgg16_experimental":
        expected = {layer: output for layer, output in expected.items() if layer.startswith("relu")}
    found = backbone(image)
    assert list(found) == list(expected) == list(SPECS[name].layers)
    for layer, output in expected.items():
        assert output.std() > 1e-3
        assert torch.equal(found[layer], output), layer


@pytest.mark.parametrize("name", ["resnet50", "inception_v3"])
def test_every_layer_of_a_network_without_plain_blocks_equals_torchvisions_own_forward(name: str, hub: Path) -> None:
    torch.manual_seed(0)
    network = SPECS[name].build().eval()
    cached_file = hub / "checkpoints" / Path(SPECS[name].torchvision_weights.url).name
    cached_file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(network.state_dict(), cached_file)
    expected: State = {}
    for layer, node in SPECS[name].layers.items():
        network.get_submodule(node).register_forward_hook(
            lambda module, inputs, output, layer=layer: expected.update({layer: output.clone()})
        )
    image = torch.rand(1, 3, 99, 107, generator=torch.Generator().manual_seed(1), requires_grad=True)
    backbone = Backbone(name, SPECS[name].layers)
    network.to(memory_format=torch.channels_last)  # whose kernels round otherwise
    scaled = ((image - backbone.mean) / backbone.std).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        network(scaled.expand(2, -1, -1, -1))  # whose kernels, on a CPU, are not those of a small image alone
    expected = {layer: output[:1] for layer, output in expected.items()}
    found = backbone(image)
    assert list(found) == list(SPECS[name].layers)
    for layer, output in found.items():
        largest = expected[layer].abs().max().item()
        assert largest > 0
        torch.testing.assert_close(output, expected[layer], rtol=0, atol=1e-6 * largest)
    (gradient,) = torch.autograd.grad(sum(output.square().mean() for output in found.values()), image)
    assert (gradient != 0).all()


@pytest.mark.parametrize(
    ("name", "layer", "side"), [("inception_v3", "Mixed_7c", 75), ("inception_v3", "maxpool1", 11)]
)
def test_the_smallest_image_is_found_where_nothing_is_padded(name: str, layer: str, side: int, tmp_path: Path) -> None:
    torch.save(SPECS[name].build().state_dict(), tmp_path / "w.pth")
    backbone = Backbone(name, [layer], str(tmp_path / "w.pth"))
    assert backbone.min_side == side
    assert backbone(torch.rand(1, 3, side, side))[layer].shape[2:] == (1, 1)


@pytest.mark.parametrize("name", SPECS)
def test_the_studys_table_holds_the_default_layers(name: str) -> None:
    spec = SPECS[name]
    assert set(spec.ordinals) <= set(spec.layers)
    assert spec.content_at(4) == spec.content_layers
    assert spec.style_up_to(len(spec.ordinals)) == spec.style_layers


def test_places_in_the_studys_table_stand_for_layers() -> None:
    spec = SPECS["vgg19"]
    assert spec.ordinals == ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu4_2", "relu5_1")
    assert [spec.content_at(place)[0] for place in range(6)] == list(spec.ordinals)
    assert spec.style_up_to(1) == ("relu1_1",)
    assert spec.style_up_to(5) == ("relu1_1", "relu2_1", "relu3_1", "relu4_1")
    for place in (-1, 6):
        with pytest.raises(
            InputError, match=rf"content_layers must be a place from 0 to 5 of the table relu1_1, .*got {place}"
        ):
            spec.content_at(place)
    for count in (0, 7):
        with pytest.raises(
            InputError, match=rf"style_layers must be a number from 1 to 6 of the table relu1_1, .*got {count}"
        ):
            spec.style_up_to(count)


@pytest.mark.parametrize(
    ("name", "content", "style"),
    [
        ("vgg16", ["relu4_2"], ["relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"]),
        (
            "vgg16_experimental",
            ["relu3_2"],
            ["relu1_1", "relu2_1", "relu2_2", "relu3_1", "relu3_2", "relu4_1", "relu4_3", "relu5_1"],
        ),
        ("vgg19", ["relu4_2"], ["relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"]),
    ],
)
def test_default_layers_are_the_predecessors(name: str, content: list[str], style: list[str]) -> None:
    assert list(SPECS[name].content_layers) == content
    assert list(SPECS[name].style_layers) == style


def test_a_convolution_keeps_its_negative_values_under_the_relu_behind_it(image: Tensor) -> None:
    features = Backbone("vgg16", ["conv1_1", "relu1_1"])(image)
    assert (features["conv1_1"] < -1).any()
    assert torch.equal(features["relu1_1"], features["conv1_1"].clamp(min=0))


def test_a_relu_works_in_place_only_where_nothing_else_reads_its_input() -> None:
    network = Backbone("vgg16", ["conv1_1", "relu2_1"]).network
    modules = dict(network.named_modules())
    assert [modules[f"features.{place}"].inplace for place in (1, 3, 6)] == [False, True, True]


@pytest.mark.parametrize("layers", [("relu1_1", "relu3_1"), ("relu1_2", "pool1"), ("pool1", "conv2_2", "pool2")])
def test_a_relu_behind_the_pooling_changes_no_bit_of_features_and_gradient(
    layers: tuple[str, ...], image: Tensor
) -> None:
    found = Backbone("vgg16", layers)
    positions = [index for index, module in enumerate(modules_in_order(found)) if isinstance(module, nn.MaxPool2d)]
    order = modules_in_order(found)
    moved = [isinstance(order[index - 1], nn.Conv2d) for index in positions]
    assert moved == ["relu1_2" not in layers] + [True] * (len(positions) - 1)
    features = torchvisions_features("vgg16").to_empty(device="cpu").to(memory_format=torch.channels_last)
    state = {key.removeprefix("features."): value.float() for key, value in load_file(OXFORD_FILE).items()}
    features.load_state_dict(state)
    names = names_in_the_field(features)
    for module in features:
        if isinstance(module, nn.ReLU):
            module.inplace = False
    results = []
    for network in (found.network, None):
        pixels = (255 * image).contiguous(memory_format=torch.channels_last).requires_grad_()
        if network is None:
            outputs, x = {}, pixels
            for name, module in zip(names, features, strict=True):
                outputs[name] = x = module(x)
        else:
            outputs = network(pixels)
        of_all = sum((outputs[layer] * outputs[layer].detach().cos()).sum() for layer in layers)
        assert isinstance(of_all, Tensor)
        (gradient,) = torch.autograd.grad(of_all, pixels)
        results.append([*(outputs[layer] for layer in layers), gradient])
    for ours, theirs in zip(*results, strict=True):
        assert torch.equal(ours, theirs)


def modules_in_order(backbone: Backbone) -> list[nn.Module]:
    """The modules of a backbone's network as they are called."""
    return [
        backbone.network.get_submodule(str(node.target))
        for node in backbone.network.graph.nodes
        if node.op == "call_module"
    ]


def halved(features: Tensor, pooling: str) -> Tensor:
    """What stands for 2 x 2 pixels; of all but l2 an odd last row or column falls away."""
    count, channels, height, width = features.shape
    if pooling == "l2":
        hann = torch.hann_window(5, periodic=False)[1:4] / 2
        patches = F.unfold(features, 3, padding=1, stride=2).view(count, channels, 9, -1)
        roots = 1.56 * torch.einsum("ncpl,p->ncl", patches.square(), torch.outer(hann, hann).flatten()).sqrt()
        return roots.view(count, channels, (height + 1) // 2, (width + 1) // 2)
    even = features[..., : height // 2 * 2, : width // 2 * 2]
    patches = even.reshape(count, channels, height // 2, 2, width // 2, 2)
    return {"avg_plain": patches.mean((3, 5)), "avg": patches.sum((3, 5)) / 2, "max": patches.amax((3, 5))}[pooling]


@pytest.mark.parametrize("pooling", ["avg", "avg_plain", "max", "l2"])
def test_pooling_is_by_its_formula_in_every_block(pooling: Pooling, image: Tensor) -> None:
    backbone = Backbone("vgg16", SPECS["vgg16"].layers, pooling=pooling)
    features = backbone(image)
    buffers = dict(backbone.named_buffers())
    for before, pool in (("relu1_2", 1), ("relu2_2", 2), ("relu3_3", 3), ("relu4_3", 4), ("relu5_3", 5)):
        expected = halved(features[before], pooling)
        torch.testing.assert_close(features[f"pool{pool}"], expected, rtol=1e-5, atol=1e-3)  # of 1e4
    weight, bias = buffers["network.features.5.weight"], buffers["network.features.5.bias"]
    assert torch.equal(features["conv2_1"], F.conv2d(features["pool1"], weight, bias, padding=1))


def test_l2_pooling_of_nothing_has_a_finite_slope() -> None:
    nothing = torch.zeros(1, 1, 4, 4, requires_grad=True)
    L2Pooling(2)(nothing).sum().backward()
    assert nothing.grad is not None
    assert nothing.grad.isfinite().all()


def test_a_replicated_border_sees_the_outermost_pixels_once_more(image: Tensor) -> None:
    borders: tuple[Border, Border] = ("zeros", "replicate")
    plain, replicated = (Backbone("vgg16", ["conv1_1"], border=border) for border in borders)
    wider = F.pad(image, (1, 1, 1, 1), mode="replicate")
    expected = plain(wider)["conv1_1"][..., 1:-1, 1:-1]
    torch.testing.assert_close(replicated(image)["conv1_1"], expected, rtol=1e-5, atol=1e-3)


def test_pooling_is_max_unless_asked_for(image: Tensor) -> None:
    default, maximum = Backbone("vgg16", ["pool1"]), Backbone("vgg16", ["pool1"], pooling="max")
    assert torch.equal(default(image)["pool1"], maximum(image)["pool1"])


# ---- some of the layers ----


def convolutions_called(
    backbone: Backbone, image: Tensor, layers: tuple[str, ...] | None
) -> tuple[int, dict[str, Tensor]]:
    """How many convolutions are called, and the features."""
    calls: list[nn.Module] = []
    hooks = [
        module.register_forward_hook(lambda module, inputs, output: calls.append(module))
        for module in backbone.network.modules()
        if isinstance(module, nn.Conv2d)
    ]
    features = backbone(image, layers)
    for hook in hooks:
        hook.remove()
    return len(calls), features


@pytest.mark.parametrize("side", [32, 160])
@pytest.mark.parametrize(
    ("layers", "convolutions"),
    [
        (("relu1_1",), 1),
        (("conv2_1", "relu1_1"), 3),
        (("pool2",), 4),
        (("relu4_2", "relu2_1"), 9),
        ((), 0),
        (None, 11),
    ],
)
def test_of_some_layers_only_what_they_need_is_computed_and_to_the_same_bit(
    layers: tuple[str, ...] | None, convolutions: int, side: int
) -> None:
    backbone = Backbone("vgg16", ["conv2_1", "relu1_1", "relu2_1", "pool2", "relu4_2", "relu5_1"])
    image = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(3))
    full = backbone(image)
    count, found = convolutions_called(backbone, image, layers)
    assert count == convolutions
    assert list(found) == list(full if layers is None else layers)
    assert all(torch.equal(feature, full[layer]) for layer, feature in found.items())


def test_some_layers_follow_the_network_to_another_precision_and_into_copies(image: Tensor) -> None:
    backbone = Backbone("vgg16", ["relu1_1", "relu2_1"])
    backbone(image, ("relu1_1",))
    names = set(dict(backbone.named_modules())), set(dict(backbone.named_buffers()))
    assert not any(name.startswith("_parts") for each in names for name in each)
    for twin in (copy.deepcopy(backbone), pickle.loads(pickle.dumps(backbone)), backbone):
        twin.to(torch.float64)
        found = twin(image.double(), ("relu1_1",))["relu1_1"]
        assert torch.equal(found, twin(image.double())["relu1_1"])
        assert found.dtype == torch.float64


@pytest.mark.parametrize(("name", "layer"), [("resnet50", "layer1.2"), ("inception_v3", "Mixed_5b")])
def test_some_layers_of_a_network_with_branches_are_the_same_to_the_bit(name: str, layer: str, tmp_path: Path) -> None:
    torch.save(SPECS[name].build().state_dict(), tmp_path / "w.pth")
    backbone = Backbone(
        name, [*SPECS[name].style_layers[:1], layer, *SPECS[name].content_layers], str(tmp_path / "w.pth")
    )
    image = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(3))
    full, (_, found) = backbone(image), convolutions_called(backbone, image, (layer,))
    assert torch.equal(found[layer], full[layer])
    every, some = (convolutions_called(backbone, image, layers)[0] for layers in (None, (layer,)))
    assert some < every


# ---- the input's scale ----


IMAGENET = (123.675, 116.28, 103.53)
CAFFE = (123.68, 116.779, 103.939)


@pytest.mark.usefixtures("cached")
@pytest.mark.parametrize(
    ("name", "weights", "pixel_range", "factor", "mean", "std"),
    [
        ("vgg16", None, None, 255, CAFFE, (1, 1, 1)),
        ("vgg19", "oxford", 255.0, 255, CAFFE, (1, 1, 1)),
        pytest.param("vgg19", "oxford", 256.0, 256, CAFFE, (1, 1, 1), id="jcjohnson"),
        ("vgg16", "torchvision", None, 255, IMAGENET, (58.395, 57.12, 57.375)),
        pytest.param("vgg19", "torchvision", 255.0, 255, IMAGENET, (1, 1, 1), id="gordicaleksa"),
        # Of a file it is not known whose weights it holds: torchvision's are the ones that lie about.
        pytest.param("vgg16", str(OXFORD_FILE), None, 255, IMAGENET, (58.395, 57.12, 57.375), id="file"),
    ],
)
def test_the_network_sees_the_scale_of_its_weights_or_the_one_asked_for(
    name: str,
    weights: str | None,
    pixel_range: float | None,
    factor: float,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    image: Tensor,
) -> None:
    backbone = Backbone(name, ["relu1_1"], weights, pixel_range=pixel_range)
    seen: list[Tensor] = []
    backbone.network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    backbone(image)
    less, by = (torch.tensor(each, dtype=torch.float64).view(1, 3, 1, 1) for each in (mean, std))
    expected = (factor * image.double() - less) / by
    torch.testing.assert_close(seen[0].double(), expected, rtol=0, atol=3e-5)  # two units in the last place


def test_the_unit_is_how_much_larger_the_network_is_fed() -> None:
    assert [SPECS["vgg16"].origin(name).unit for name in ("torchvision", "oxford")] == pytest.approx([1.0, 57.63])


# ---- frozen ----


@pytest.fixture(scope="module")
def shallow() -> Backbone:
    return Backbone("vgg16", ["relu1_1", "relu2_1"])


def test_has_no_parameters_and_no_state(shallow: Backbone) -> None:
    assert list(shallow.parameters()) == []
    assert shallow.state_dict() == {}
    assert not any(buffer.requires_grad for buffer in shallow.buffers())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_computes_in_float32_whatever_its_weights_are_stored_in(dtype: torch.dtype, tmp_path: Path) -> None:
    stored = {name: tensor.to(dtype) for name, tensor in load_file(OXFORD_FILE).items()}
    torch.save(stored, tmp_path / "w.pth")
    backbone = Backbone("vgg16", ["relu1_1"], str(tmp_path / "w.pth"))
    weight = dict(backbone.named_buffers())["network.features.0.weight"]
    assert torch.equal(weight, stored["features.0.weight"].float())
    assert backbone(torch.rand(1, 3, 8, 8))["relu1_1"].dtype == torch.float32


def test_is_in_eval_mode_for_good() -> None:
    backbone = Backbone("vgg16", ["relu1_1"])
    assert not any(module.training for module in backbone.modules())
    parent = nn.Sequential(backbone)
    for mode in (True, False):
        assert parent.train(mode).training is mode
        assert not any(module.training for module in backbone.modules())


def test_the_gradient_reaches_every_pixel(image: Tensor, shallow: Backbone) -> None:
    image.requires_grad_()
    torch.autograd.backward([output.sum() for output in shallow(image).values()])
    assert image.grad is not None
    assert image.grad.isfinite().all()
    assert (image.grad != 0).flatten(2).all(2).all()


@pytest.mark.parametrize(
    ("deepest", "convolutions", "values"), [("relu1_1", 1, 1_792), ("relu2_1", 3, 112_576), ("relu5_1", 11, 9_995_072)]
)
def test_is_trimmed_after_the_deepest_layer(deepest: str, convolutions: int, values: int) -> None:
    backbone = Backbone("vgg16", ["relu1_1", deepest])
    buffers = {name: buffer for name, buffer in backbone.named_buffers() if name not in {"mean", "std"}}
    assert len(buffers) == 2 * convolutions
    assert sum(buffer.numel() for buffer in buffers.values()) == values
    assert {buffer.dtype for buffer in buffers.values()} == {torch.float32}
    storages = {buffer.untyped_storage().data_ptr(): buffer.untyped_storage().nbytes() for buffer in buffers.values()}
    assert sum(storages.values()) == 4 * values  # no view keeps what was trimmed alive
    assert all(name.startswith("network.features.") for name in buffers)


def test_works_in_double_precision(image: Tensor) -> None:
    single = Backbone("vgg16", ["relu1_1", "relu2_1"])
    expected = single(image)
    for layer, output in single.to(torch.float64)(image.double()).items():
        assert output.dtype == torch.float64
        torch.testing.assert_close(output.float(), expected[layer], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))], ids=["deepcopy", "pickle"]
)
def test_a_copy_gives_the_same_and_is_as_frozen(
    duplicate: Callable[[Backbone], Backbone], image: Tensor, shallow: Backbone
) -> None:
    twin = duplicate(shallow).train()
    expected, found = shallow(image), twin(image)
    assert list(found) == list(expected)
    assert all(torch.equal(found[layer], expected[layer]) for layer in expected)
    assert list(twin.parameters()) == []
    assert twin.state_dict() == {}
    assert not any(module.training for module in twin.modules())
    theirs = {buffer.data_ptr() for buffer in shallow.buffers()}
    assert theirs.isdisjoint(buffer.data_ptr() for buffer in twin.buffers())


@pytest.mark.parametrize(
    ("weights", "origin"),
    [(None, "oxford"), ("oxford", "oxford"), pytest.param(str(OXFORD_FILE), str(OXFORD_FILE), id="file")],
)
def test_origin_says_where_the_weights_are_from(weights: str | None, origin: str) -> None:
    assert Backbone("vgg16", ["relu1_1"], weights).origin == origin


# ---- what is refused ----


@pytest.mark.parametrize("name", ["vgg16", "vgg16_experimental", "vgg19"])
@pytest.mark.parametrize("layer", ["relu9_9", "features.0", ""])
def test_an_unknown_layer_is_refused_with_all_that_are_known(name: str, layer: str) -> None:
    known = names_in_the_field(torchvisions_features(name))
    if name == "vgg16_experimental":
        known = [each for each in known if each.startswith("relu")]
    with pytest.raises(InputError) as caught:
        Backbone(name, ["relu1_1", layer])
    assert str(caught.value) == f"unknown layer {layer!r} of {name}; known are {', '.join(known)}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("vgg13", ["relu1_1"]), "unknown backbone 'vgg13'; known are vgg16, vgg16_experimental, vgg19"),
        (("vgg16_experimental", ["conv1_1"]), "unknown layer 'conv1_1' of vgg16_experimental; known are relu1_1"),
        (("vgg16", []), "no layer of vgg16 was asked for; known are conv1_1, relu1_1, conv1_2"),
        (("vgg16", ["relu1_1"], None, "max", "mirror"), "unknown border 'mirror'; known are zeros, replicate"),
        (("vgg16", ["relu1_1"], None, "max", "zeros", 0.0), "pixel_range must be a finite number above 0, got 0.0"),
        (("vgg16", ["relu1_1"], None, "mean"), "unknown pooling 'mean'; known are max, avg, avg_plain, l2"),
    ],
)
def test_what_is_unknown_is_refused_with_what_is_known(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(InputError) as caught:
        Backbone(*arguments)
    assert str(caught.value).startswith(message)


def test_weights_that_a_backbone_has_not_are_refused() -> None:
    allowed = "allowed are torchvision or a file's path"
    with pytest.raises(WeightsError, match=rf"^no oxford weights for resnet50; {allowed}$"):
        Backbone("resnet50", ["relu"], "oxford")


def test_weights_of_another_network_are_refused(vgg19_file: Path) -> None:
    # Past the third convolution of block 3 the two number their modules differently.
    with pytest.raises(WeightsError, match=r"vgg19\.pth: 12 tensors are unknown, the first is features\.16\.bias: a"):
        Backbone("vgg16", ["relu1_1"], str(vgg19_file))
    with pytest.raises(WeightsError, match=r"safetensors: 6 tensors are missing, the first is features\.16\.bias: a"):
        Backbone("vgg19", ["relu5_1"], str(OXFORD_FILE))


@pytest.mark.parametrize(("layer", "side"), [("relu1_2", 1), ("pool1", 2), ("relu5_1", 16), ("pool5", 32)])
def test_an_image_that_would_be_halved_to_nothing_is_refused(layer: str, side: int) -> None:
    backbone = Backbone("vgg16", ["relu1_1", layer])
    assert backbone.min_side == side
    assert min(backbone(torch.zeros(1, 3, side, side + 3))[layer].shape) == 1
    if side > 1:
        with pytest.raises(InputError, match=f"^an image of 40x{side - 1} px is too small for .*: {side} px a side"):
            backbone(torch.zeros(1, 3, side - 1, 40))


def test_weights_without_the_counts_that_only_training_reads_are_taken(tmp_path: Path) -> None:
    state = SPECS["resnet50"].build().state_dict()
    torch.save(state, tmp_path / "whole.pth")
    torch.save({key: value for key, value in state.items() if "num_batches" not in key}, tmp_path / "keras.pth")
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    one, other = (Backbone("resnet50", ["relu"], str(tmp_path / f"{name}.pth"))(image) for name in ("whole", "keras"))
    assert torch.equal(one["relu"], other["relu"])
