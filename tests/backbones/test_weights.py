"""Weights from the package, torchvision's server and files: what is taken, what is refused, and in what words."""

from __future__ import annotations

import gc
import hashlib
import io
import os
import re
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models import VGG16_Weights, VGG19_Weights, vgg19
from torchvision.models._api import Weights, WeightsEnum

from nst_lightning.backbones import weights
from nst_lightning.backbones.weights import WeightsError, check, load

BUNDLED = resources.files("nst_lightning") / "bundled"
STATE = {"features.0.weight": torch.linspace(-1, 1, 108).view(4, 3, 3, 3), "features.0.bias": torch.arange(4.0) / 8}


def serialised(value: object, legacy: bool = False) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


def refusal(origin: str | Path, torchvision_weights: WeightsEnum | None = None) -> str:
    """The text of the error, which has to be one line."""
    with pytest.raises(WeightsError) as caught:
        load(str(origin), torchvision_weights, weights.VGG16)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def assert_is_state(state: dict[str, Tensor]) -> None:
    assert state.keys() == STATE.keys()
    assert all(torch.equal(state[name], STATE[name]) for name in STATE)


# ---- bundled ----


def test_oxford_is_the_bundled_files_thirteen_convolutions() -> None:
    state = load("oxford", None, weights.VGG16)
    places = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
    assert state.keys() == {f"features.{place}.{kind}" for place in places for kind in ("weight", "bias")}
    with safe_open(str(BUNDLED / "vgg16_oxford_fp16.safetensors"), framework="np") as file:
        for name, tensor in state.items():
            assert tensor.dtype == torch.float16
            assert (tensor.numpy() == file.get_tensor(name)).all()


def test_of_the_vgg19_a_codebook_and_indices_into_it_are_bundled() -> None:
    state = load("oxford", None, weights.VGG19)
    assert {name: tensor.shape for name, tensor in state.items()} == {
        name: tensor.shape for name, tensor in vgg19().state_dict().items() if name.startswith("features")
    }
    with safe_open(str(BUNDLED / weights.VGG19.name), framework="np") as file:
        index, codebook = (file.get_tensor(f"features.5.weight.{kind}") for kind in ("index", "codebook"))
        assert (state["features.5.weight"].numpy() == codebook[index]).all()
        assert (state["features.5.bias"].numpy() == file.get_tensor("features.5.bias")).all()


@pytest.mark.parametrize("file", [weights.VGG16, weights.VGG19])
def test_the_hash_of_a_bundled_file_is_the_one_in_its_provenance(file: weights.Bundled) -> None:
    section = (BUNDLED / "PROVENANCE.md").read_text().partition(f"# {file.name}\n")[2].partition("\n# ")[0]
    assert f"| sha256 | {file.sha256} |" in section


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The path of a copy of the bundled file that stands in for it."""
    copy = tmp_path / "bundled" / "vgg16_oxford_fp16.safetensors"
    copy.parent.mkdir()
    shutil.copyfile(str(BUNDLED / copy.name), copy)
    monkeypatch.setattr(resources, "files", lambda package: tmp_path)
    return copy


def test_a_bundled_file_with_one_bit_flipped_is_refused(installed: Path) -> None:
    load("oxford", None, weights.VGG16)  # the copy itself is good
    with installed.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)[0]
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last ^ 1]))
    digest = hashlib.sha256(installed.read_bytes()).hexdigest()
    text = refusal("oxford")
    assert text.startswith(f"{installed}: the bundled weights are damaged (sha256 {digest}, expected beba566a")
    assert text.endswith("install nst-lightning again")


def test_a_bundled_file_that_is_gone_is_named(installed: Path) -> None:
    installed.unlink()
    text = refusal("oxford")
    assert text.startswith(f"{installed}: the bundled weights cannot be read (No such file")
    assert text.endswith("install nst-lightning again")


# ---- torchvision ----

TORCHVISION_FILES = [
    (VGG16_Weights.IMAGENET1K_V1, "vgg16-397923af.pth"),
    (VGG19_Weights.IMAGENET1K_V1, "vgg19-dcbb9e9d.pth"),
]


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> socket.socket:
        raise OSError("Network is unreachable")

    monkeypatch.setattr(socket, "create_connection", refuse)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(("torchvision_weights", "name"), TORCHVISION_FILES)
def test_torchvisions_cached_file_is_read_without_network(
    hub: Path, torchvision_weights: WeightsEnum, name: str
) -> None:
    cached = hub / "checkpoints" / name
    cached.parent.mkdir(parents=True)
    cached.write_bytes(serialised(STATE))
    assert_is_state(load("torchvision", torchvision_weights))


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(("torchvision_weights", "name"), TORCHVISION_FILES)
def test_without_network_the_error_names_file_url_and_way_out(
    hub: Path, torchvision_weights: WeightsEnum, name: str
) -> None:
    text = refusal("torchvision", torchvision_weights)
    assert text.startswith(f"cannot download {name} from https://download.pytorch.org/models/{name} (")
    assert "Network is unreachable" in text
    assert text.endswith(f"copy the file to {hub / 'checkpoints' / name}, or name a local file with --weights")
    assert files_below(hub) == []


Serve = Callable[[bytes, bytes], WeightsEnum]


def http(body: bytes, length: int | None = None, head: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {head}\r\nContent-Length: {len(body) if length is None else length}\r\n\r\n".encode() + body


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Gives one raw answer on loopback, and then silence, for weights whose name holds the hash of a file."""
    monkeypatch.setenv("no_proxy", "*")
    done = threading.Event()
    threads = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(20)  # so that a test that never asks fails instead of hanging

        def answer(response: bytes) -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(response)
                if response.endswith(SILENCE):
                    done.wait(3)  # longer than a client waits here

        def start(response: bytes, file: bytes) -> WeightsEnum:
            threads.append(threading.Thread(target=answer, args=(response,), daemon=True))
            threads[-1].start()
            name = f"small-{hashlib.sha256(file).hexdigest()[:8]}.pth"
            address = f"http://127.0.0.1:{server.getsockname()[1]}/{name}"

            class Served(WeightsEnum):
                V1 = Weights(url=address, transforms=nn.Identity, meta={})

            return Served.V1

        yield start
        done.set()
        for thread in threads:
            thread.join()


SILENCE = b"and not a word more"
GOOD = serialised(STATE)
BAD_ANSWERS = {
    "truncated": (http(GOOD[:-40], len(GOOD)), "invalid hash value"),
    "another file": (http(GOOD[::-1]), "invalid hash value"),
    "not found": (http(b"no such file", head="404 Not Found"), "404"),
    "cut off": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n" + GOOD[:99], "IncompleteRead"),
    "not http": (b"<html>please log in</html>\r\n", "please log in"),
    "nothing": (b"", "closed connection without response"),
    "stalled": (http(GOOD[:50] + SILENCE, len(GOOD)), "timed out"),
}


def test_a_download_is_cached_and_not_asked_for_again(hub: Path, serve: Serve) -> None:
    served = serve(http(GOOD), GOOD)
    assert_is_state(load("torchvision", served))
    assert [path.read_bytes() for path in files_below(hub)] == [GOOD]
    assert_is_state(load("torchvision", served))  # the server answers but once


# urllib leaves the socket of an answer that it refuses to the garbage collector.
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
@pytest.mark.parametrize("answer", BAD_ANSWERS)
def test_a_failed_download_is_one_line_and_leaves_no_file(
    hub: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    monkeypatch.setattr(weights, "DOWNLOAD_TIMEOUT", 0.5)
    response, reason = BAD_ANSWERS[answer]
    served = serve(response, GOOD)
    text = refusal("torchvision", served)
    gc.collect()
    assert text.startswith(f"cannot download {Path(served.url).name} from {served.url} (")
    assert reason in text
    assert text.endswith("or name a local file with --weights")
    assert files_below(hub) == []
    assert socket.getdefaulttimeout() is None


# ---- files ----


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt"])
def test_a_file_is_read_as_it_is_stored(tmp_path: Path, suffix: str, dtype: torch.dtype) -> None:
    path = tmp_path / f"state{suffix}"
    stored = {**{name: tensor.to(dtype) for name, tensor in STATE.items()}, "seen": torch.tensor(7)}
    if suffix == ".safetensors":
        save_file(stored, path)
    else:
        torch.save(stored, path)
    state = load(str(path), None)
    assert state.keys() == stored.keys()
    assert state.pop("seen").dtype == torch.int64  # a batch norm's counter stays one
    assert all(torch.equal(state[name], stored[name]) for name in state)
    assert {tensor.dtype for tensor in state.values()} == {dtype}


@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
def test_a_file_cut_anywhere_is_refused(tmp_path: Path, form: str) -> None:
    path = tmp_path / ("state.safetensors" if form == "safetensors" else "state.pth")
    if form == "safetensors":
        save_file(STATE, path)
        whole = path.read_bytes()
    else:
        whole = serialised(STATE, legacy=form == "legacy")
    for length in [*range(0, len(whole), 3), len(whole) - 1]:
        path.write_bytes(whole[:length])
        assert refusal(path).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"hello world\n", "damaged or not a weights file"),
        (b"u...", "damaged or not a weights file"),  # 'u' has the unpickler pop from an empty stack
        (b"X\x01", "damaged or not a weights file"),  # a text whose length is cut off
        (b"\x89PNG\r\n\x1a\n", "not a plain state dict"),
        (b"<!DOCTYPE html>", "not a plain state dict"),
    ],
)
def test_a_file_of_another_kind_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "state.pth"
    path.write_bytes(content)
    assert refusal(path).startswith(f"{path}: {reason}")


@pytest.mark.parametrize(
    "value",
    [
        [torch.zeros(1)],
        torch.zeros(1),
        {"state_dict": STATE},
        {**STATE, "epoch": 3},
        dict(enumerate(STATE.values())),
        nn.Conv2d(3, 4, 3),
    ],
    ids=["list", "tensor", "nested", "number", "numbered", "module"],
)
def test_what_is_not_a_state_dict_is_refused(tmp_path: Path, value: object) -> None:
    path = tmp_path / "state.pth"
    torch.save(value, path)
    assert refusal(path).startswith(f"{path}: not a plain state dict of tensors")


@pytest.mark.parametrize("name", ["nowhere.pth", "nowhere.safetensors", "oxfrod", ".", "a" * 300])
def test_a_name_that_stands_for_no_file_is_refused_with_what_is_allowed(tmp_path: Path, name: str) -> None:
    text = refusal(tmp_path / name)
    assert text.startswith(f"{tmp_path / name}: no such weights file")
    assert text.endswith("allowed are oxford, torchvision or a .safetensors or .pth file")


# ---- code in a pickle ----


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("origin", ["file", "cache", "download"])
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_code_in_a_pickle_does_not_run(tmp_path: Path, hub: Path, serve: Serve, legacy: bool, origin: str) -> None:
    marker = tmp_path / "ran"
    content = serialised({**STATE, "bomb": Bomb(marker)}, legacy)
    if origin == "download":
        text = refusal("torchvision", serve(http(content), content))
    else:
        path = tmp_path / "state.pth" if origin == "file" else hub / "checkpoints" / "vgg16-397923af.pth"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        text = refusal(path if origin == "file" else "torchvision", VGG16_Weights.IMAGENET1K_V1)
    assert "not a plain state dict of tensors, so it is not loaded (a pickle can run code)" in text
    assert not marker.exists()
    torch.load(io.BytesIO(content), weights_only=False)
    assert marker.exists()  # it would have


# ---- the check against an architecture ----

WHOLE = {
    **{name: tensor.to("meta") for name, tensor in STATE.items()},
    "classifier.weight": torch.empty(10, 4, device="meta"),
    "classifier.bias": torch.empty(10, device="meta"),
}


@pytest.mark.parametrize("classifier", [{}, {"classifier.bias": torch.zeros(10)}], ids=["without", "with"])
def test_a_state_dict_may_leave_out_what_is_not_needed(classifier: dict[str, Tensor]) -> None:
    check({**STATE, **classifier}, WHOLE, set(STATE), "origin")


def test_a_state_dict_of_another_precision_fits() -> None:
    check({name: tensor.half() for name, tensor in STATE.items()}, WHOLE, set(STATE), "origin")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"features.0.weight": None, "features.0.bias": None},
            "2 tensors are missing, the first is features.0.bias: another architecture?",
        ),
        (
            {"layer1.weight": torch.zeros(1), "fc.weight": torch.zeros(1)},
            "2 tensors are unknown, the first is fc.weight: another architecture?",
        ),
        (
            {"features.0.weight": torch.zeros(4, 3, 5, 5)},
            "features.0.weight has shape (4, 3, 5, 5), expected (4, 3, 3, 3)",
        ),
        ({"classifier.bias": torch.zeros(9)}, "classifier.bias has shape (9,), expected (10,)"),
        (
            {"features.0.bias": torch.zeros(4, dtype=torch.int8)},
            "features.0.bias is of torch.int8, expected torch.float32 or another precision of it",
        ),
    ],
    ids=["missing", "unknown", "shape", "shape not needed", "quantised"],
)
def test_a_state_dict_of_another_architecture_is_refused(change: dict[str, Tensor | None], message: str) -> None:
    state = {name: tensor for name, tensor in {**STATE, **change}.items() if tensor is not None}
    with pytest.raises(WeightsError, match=f"^{re.escape(f'a file: {message}')}$"):
        check(state, WHOLE, set(STATE), "a file")


# ---- Caffe's layout ----


def as_caffe(state: dict[str, Tensor], renamed: bool) -> dict[str, Tensor]:
    """The bundled weights as they were published: channels in BGR order, under Caffe's names or torchvision's."""
    state = {**state, "features.0.weight": state["features.0.weight"].flip(1)}
    if not renamed:
        return state
    convolutions = [
        f"conv{block}_{depth}" for block, count in enumerate((2, 2, 3, 3, 3), 1) for depth in range(1, count + 1)
    ]
    names = dict(zip((0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28), convolutions, strict=True))
    return {f"{names[int(key.split('.')[1])]}.{key.split('.')[2]}": tensor for key, tensor in state.items()}


@pytest.mark.parametrize("renamed", [True, False])
def test_caffes_layout_is_turned_to_torchvisions(renamed: bool, tmp_path: Path) -> None:
    bundled = load("oxford", None, weights.VGG16)
    torch.save(as_caffe(bundled, renamed), tmp_path / "vgg.pth")
    state = load(f"caffe:{tmp_path / 'vgg.pth'}", None)
    assert state.keys() == bundled.keys()
    assert all(torch.equal(tensor, bundled[name]) for name, tensor in state.items())


def test_a_classifier_of_caffes_is_renamed_too(tmp_path: Path) -> None:
    state = as_caffe(load("oxford", None, weights.VGG16), renamed=True)
    torch.save({**state, "fc6.weight": torch.zeros(4, 2), "fc8.bias": torch.zeros(3)}, tmp_path / "vgg.pth")
    found = load(f"caffe:{tmp_path / 'vgg.pth'}", None)
    assert {"classifier.0.weight", "classifier.6.bias"} <= found.keys()


def test_caffes_names_without_a_word_on_the_order_of_channels_are_refused(tmp_path: Path) -> None:
    torch.save(as_caffe(load("oxford", None, weights.VGG16), renamed=True), tmp_path / "vgg.pth")
    with pytest.raises(
        WeightsError, match=r"vgg\.pth: has Caffe's names of layers; say --weights caffe:.*vgg\.pth, so"
    ):
        load(str(tmp_path / "vgg.pth"), None)


def test_what_is_no_vgg_of_caffes_is_refused(tmp_path: Path) -> None:
    torch.save({"layer.weight": torch.zeros(2, 2)}, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match=r"other\.pth: not a VGG of Caffe's: neither conv1_1 nor features\.0"):
        load(f"caffe:{tmp_path / 'other.pth'}", None)
