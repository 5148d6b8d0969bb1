"""Runs on a device that is not the CPU, without having one: shapes, types and devices are real, values are not.

`FakeTensorMode` refuses operators whose tensors are on different devices. Where the host asks the device for a value,
or copies from it, which a GPU would have to be waited for, it is told one half, and who asked is noted. The device is
PrivateUse1, for a fake CUDA tensor has no backward pass where there is no driver. See `test_other_device.py`.
"""
# ruff: noqa: ANN401 - operators take and give what they do
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.accelerators import Accelerator
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils import backend_registration
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map

import nst_lightning
from nst_lightning import images, memory, optim
from nst_lightning.api import quiet
from nst_lightning.batches import Step
from nst_lightning.callbacks import Checkpoints, ImageWriter, Scores, TensorBoardWriter, VideoWriter
from nst_lightning.data import PairDataModule, Worker
from nst_lightning.losses import CONTENT_LOSSES, STYLE_LOSSES
from nst_lightning.metrics.scorer import Scorer
from nst_lightning.modules import ImageOptimization, StyleTransfer
from nst_lightning.progress import Progress
from nst_lightning.runs import Run
from nst_lightning.schedule import Stage

ROOT = Path(nst_lightning.__file__).parent
ATEN = torch.ops.aten


class _Backend(backend_registration._DummyBackendModule):
    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]

    def current_stream(self, device: object = None) -> None: ...


backend_registration._setup_privateuseone_for_python_backend("pretended", _Backend())
DEVICE = torch.device("pretended:0")
# Autocast of a device without kernels: everything falls through but convolutions, which are computed in bfloat16.
_ANY = torch.library.Library("_", "IMPL", "AutocastPrivateUse1")
_ANY.fallback(torch.library.fallthrough_kernel)
_CONVOLUTIONS = torch.library.Library("aten", "IMPL", "AutocastPrivateUse1")


def _conv2d(*args: Any) -> Tensor:
    with torch.autocast(DEVICE.type, enabled=False):
        low = [each.bfloat16() if isinstance(each, Tensor) and each.dtype == torch.float32 else each for each in args]
        found: Tensor = ATEN.conv2d(*low)
        return found


_CONVOLUTIONS.impl("conv2d", _conv2d)


class Pretended(FakeTensorMode):
    """What is computed on the device, and who `asked` for a value; what is not on it is computed as ever."""

    def __init__(self) -> None:
        super().__init__(allow_non_fake_inputs=True)
        self.asked: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = [each for each in tree_leaves((args, kwargs)) if isinstance(each, (FakeTensor, torch.device))]
        if not any(isinstance(each, FakeTensor) or each == DEVICE for each in given):
            return func(*args, **kwargs)
        if func is ATEN._local_scalar_dense.default:
            self.note()
            return answer(args[0]).item()
        if func is ATEN._to_copy.default and torch.device(kwargs.get("device") or DEVICE).type == "cpu":
            self.note()
            return answer(args[0], kwargs.get("dtype"))
        if func is ATEN.index.Tensor and any(each is not None and each.dtype == torch.bool for each in args[1]):
            self.note()
            (mask,) = args[1]  # of all of it
            return args[0].new_empty((mask.numel() // 2, *args[0].shape[mask.dim() :]))
        # Of what is computed on the CPU only scalars go beside what is on the device; all else has to be moved first.
        args, kwargs = tree_map(self._lifted, (args, kwargs))
        return super().__torch_dispatch__(func, types, args, kwargs)

    def _lifted(self, each: object) -> object:
        return self.from_tensor(each) if isinstance(each, Tensor) and not isinstance(each, FakeTensor) else each

    def note(self) -> None:
        """Notes who of the package asks."""
        frame: Any = sys._getframe(2)
        while frame is not None and not (own(frame) and frame.f_code.co_name.isidentifier()):  # <listcomp> is none
            frame = frame.f_back
        told = "another" if frame is None else f"{Path(frame.f_code.co_filename).stem}.{frame.f_code.co_name}"
        self.asked.append(told)


def own(frame: Any) -> bool:
    return str(frame.f_code.co_filename).startswith(str(ROOT))


def answer(values: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Returns values of a shape on the CPU."""
    dtype = values.dtype if dtype is None else dtype
    return torch.full(values.shape, 0.5 if dtype.is_floating_point else 1, dtype=dtype)


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pretended]:
    """The device, for all that a test computes."""
    make, save, load = torch.tensor, torch.save, torch.load

    def tensor(data: Any, *, dtype: torch.dtype | None = None, device: Any = None, **_: Any) -> Tensor:
        made = make(data, dtype=dtype)  # torch's own would make a real tensor of the device
        if device is None:
            return made
        moved = made.to(device)
        moved.known = made  # type: ignore[attr-defined]
        return moved

    def on_cpu(each: object) -> object:
        return answer(each) if isinstance(each, FakeTensor) else each

    def saved(given: object, file: Any) -> None:
        given = tree_map(on_cpu, given)
        with _disable_current_modes():
            save(given, file)

    def loaded(file: Any, map_location: Any = None, **options: Any) -> Any:
        with _disable_current_modes():
            found = load(file, map_location="cpu" if map_location == DEVICE else map_location, **options)
        if map_location != DEVICE:
            return found
        return tree_map(lambda each: each.to(DEVICE) if isinstance(each, Tensor) else each, found)

    monkeypatch.setattr(torch, "tensor", tensor)
    monkeypatch.setattr(torch, "save", saved)
    monkeypatch.setattr(torch, "load", loaded)
    monkeypatch.setattr(memory, "available", lambda device: 2**34)
    with Pretended() as mode:
        yield mode


class Pretending(Accelerator):
    def setup_device(self, device: torch.device) -> None: ...

    def teardown(self) -> None: ...

    @staticmethod
    def parse_devices(devices: Any) -> Any:
        return devices

    @staticmethod
    def get_parallel_devices(devices: Any) -> list[torch.device]:
        return [DEVICE]

    @staticmethod
    def auto_device_count() -> int:
        return 1

    @staticmethod
    def is_available() -> bool:
        return True

    @staticmethod
    def name() -> str:
        return DEVICE.type


class OneDevice(SingleDeviceStrategy):
    def model_to_device(self) -> None:
        """Moves what a module has; its own `to` exchanges the tensors, which the mode knows."""
        module = self.lightning_module
        assert isinstance(module, ImageOptimization)
        module.image = nn.Parameter(module.image.detach().to(DEVICE))
        for each in module.modules():
            each._buffers.update({name: kept.to(DEVICE) for name, kept in each._buffers.items() if kept is not None})

    def reduce(self, tensor: Any, *args: Any, **kwargs: Any) -> Any:
        """Returns the number of a data loader's batches, which nothing but its own process knows."""
        return tensor.known

    def teardown(self) -> None: ...


# A stage, or what is resumed, begins with a look at the losses, the pixels and masks, and a pair ends with another.
ONCE = {"optimization._take", "optimization._look_at_image", "base._at_hand"}


class Steady(Callback):
    """Fails where a step asks for a value, or what it keeps is not on the device."""

    def __init__(self, mode: Pretended) -> None:
        self.mode = mode
        self.steps = 0

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Step, *_: object) -> None:
        self.mode.asked.clear()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: Step, *_: object
    ) -> None:
        assert isinstance(pl_module, ImageOptimization)
        (optimizer,) = trainer.optimizers
        tensors = [each for each in tree_leaves(optimizer.state[pl_module.image]) if isinstance(each, Tensor)]
        assert all(each.device == DEVICE for each in tensors if each.dim() > 0)
        assert all(each.device == DEVICE for each in (pl_module.image, *pl_module.losses.values()))
        assert set(self.mode.asked) <= (ONCE if batch.starts_stage or batch.is_last or self.steps == 0 else set())
        self.steps += 1


def picture(seed: int, height: int = 48, width: int = 64) -> Tensor:
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed))


def job(**options: Any) -> PairDataModule:
    pictures: dict[str, Any] = {"content": picture(1), "style": picture(3, 56, 40)}
    return PairDataModule(**{**pictures, "stages": [Stage(32, 1), Stage(48, 2)], **options})


def fit(
    mode: Pretended,
    module: StyleTransfer,
    pairs: PairDataModule,
    folder: Path,
    *callbacks: Callback,
    precision: str = "32-true",
    max_steps: int = -1,
    ckpt_path: Path | None = None,
) -> int:
    """Returns how many steps were taken."""
    steady = Steady(mode)
    with quiet():
        trainer = L.Trainer(
            accelerator=Pretending(), strategy=OneDevice(DEVICE), max_epochs=1, max_steps=max_steps,
            plugins=[MixedPrecision("bf16-mixed", DEVICE.type)] if precision == "bf16-mixed" else [],
            logger=False, enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder,
            enable_checkpointing=any(isinstance(each, Checkpoints) for each in callbacks),
            callbacks=[steady, *callbacks],
        )  # fmt: skip
        trainer.fit(module, datamodule=pairs, ckpt_path=ckpt_path)
    return steady.steps


SHALLOW: dict[str, Any] = {"content_layers": "relu2_1", "style_layers": "relu1_1,relu2_1", "style_loss": "gram"}


def test_every_loss(pretended: Pretended, tmp_path: Path) -> None:
    losses: dict[str, Any] = {"style_loss": ",".join(STYLE_LOSSES), "content_loss": ",".join(CONTENT_LOSSES)}
    module = StyleTransfer(**losses, style_layers="relu1_1,relu3_1")
    assert fit(pretended, module, job(stages=[Stage(48, 1)]), tmp_path) == 1


def test_a_batch_in_half_precision(pretended: Pretended, tmp_path: Path) -> None:
    pairs = job(content=[picture(1), picture(2)], batch_size=2, stages=[Stage(48, 3)])
    module = StyleTransfer(**{**SHALLOW, "style_loss": "gram,matched"})
    assert fit(pretended, module, pairs, tmp_path, precision="bf16-mixed") == 3


@pytest.mark.parametrize(
    ("optimizer", "tv"),
    [
        (partial(optim.LBFGS, history_size=1, safeguard=False), "l1"),
        (partial(optim.LBFGS, precondition=lambda values: 2 * values), "l2"),
        (partial(optim.Adam, average=0.9, clamp=True), "nine_point"),
        (partial(optim.Pyramid, levels=3), "l1_mean"),
        (partial(optim.Pyramid, levels=3, method="rmsprop"), "l1_mean"),
        (torch.optim.SGD, "l1_mean"),
    ],
)
def test_every_optimizer_and_total_variation(pretended: Pretended, tmp_path: Path, optimizer: Any, tv: str) -> None:
    module = StyleTransfer(**SHALLOW, optimizer=optimizer, tv_loss=tv, tv_weight=1.0)
    assert fit(pretended, module, job(), tmp_path) == 3


def test_tiles_and_what_a_step_takes(pretended: Pretended, tmp_path: Path) -> None:
    module = StyleTransfer(**SHALLOW, tile=32)
    assert fit(pretended, module, job(stages=[Stage(48, 2)]), tmp_path, precision="bf16-mixed") == 2
    assert module.bytes_of_step(Worker.of(module.trainer), 512 * 512) > 10**7


def test_several_styles_and_regions(pretended: Pretended, tmp_path: Path) -> None:
    styles, mask = [picture(3, 56, 40), picture(4)], torch.zeros(3, 48, 64)
    pairs = job(style=styles, style_weights=[0.7, 0.3], colors="luminance")
    assert fit(pretended, StyleTransfer(**SHALLOW), pairs, tmp_path) == 3
    mask[:, :, :32] = 1
    pairs = job(style=styles, content_mask=[mask, 1 - mask], keep_outside=True, stages=[Stage(48, 2)])
    module = StyleTransfer(**{**SHALLOW, "style_loss": "matched,nearest"}, mask_edge="inside")
    assert fit(pretended, module, pairs, tmp_path) == 2


def test_callbacks_and_both_roads_of_resuming(pretended: Pretended, tmp_path: Path) -> None:
    run, scores = Run(tmp_path), Scores(["palette"], every=2)
    of_run: tuple[Callback, ...] = (
        *(scores, TensorBoardWriter(2, 2, ("relu1_1",), scores), ImageWriter(every=1, overwrite=True)),
        *(VideoWriter("webp"), Checkpoints(run, 1e-9)),
    )
    stages = [Stage(48, 4)]
    assert fit(pretended, StyleTransfer(**SHALLOW), job(stages=stages), tmp_path, *of_run, max_steps=3) == 3
    saved, _ = run.saved()  # the last, and the one before it
    assert fit(pretended, StyleTransfer(**SHALLOW), job(stages=stages), tmp_path, ckpt_path=saved) == 1
    pairs = job(stages=stages)
    pairs.progress = Progress.of(saved)
    assert fit(pretended, StyleTransfer(**SHALLOW), pairs, tmp_path) == 1


def test_a_large_picture_is_made_very_small_beside_the_device(pretended: Pretended) -> None:
    assert images.resize(picture(1, 1024, 64)[None].to(DEVICE), (16, 16)).device == DEVICE
    assert pretended.asked == ["images.resize"]


def test_a_mismatch_and_a_question_are_found(pretended: Pretended) -> None:
    values = torch.rand(2, device=DEVICE)
    with pytest.raises(Exception, match="device"):
        values + torch.rand(2)
    assert values.sum().item() == 0.5
    assert values.cpu().tolist() == [0.5, 0.5]
    assert pretended.asked == ["another"] * 2


def test_a_score_asks_for_all_of_its_numbers_together(pretended: Pretended) -> None:
    scorer = Scorer()
    photograph, painting = picture(1, 180, 180)[None].to(DEVICE), picture(3, 180, 200)[None].to(DEVICE)
    reference = scorer.reference(photograph, [painting])
    pretended.asked.clear()
    assert len(scorer.scores(photograph * 0.9, reference)) == 15
    # Whether it is finite, blotches on the CPU, outlines and leak by their edges, and the numbers.
    assert Counter(pretended.asked) == {
        "lab.as_written": 1,
        "defects.describe": 1,
        "outline.edge_auc": 8,
        "scorer.scores": 1,
    }
