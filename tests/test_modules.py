"""The LightningModule: stages, resume from every step, batches, precision, and what it refuses."""

from __future__ import annotations

import os
import shutil
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, cast

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor
from torch._inductor import config as inductor_config

from nst_lightning import memory, optim
from nst_lightning.api import quiet
from nst_lightning.backbones import Backbone
from nst_lightning.batches import Step
from nst_lightning.data import PairDataModule, Worker, data_of
from nst_lightning.errors import InputError
from nst_lightning.images import resize
from nst_lightning.losses import IMAGE, Features, Source
from nst_lightning.modules import ImageOptimization, StyleTransfer, evaluation, optimization
from nst_lightning.modules.problem import Losses, Problem, Tile
from nst_lightning.optim import LBFGS, Adam
from nst_lightning.precision import true_float32
from nst_lightning.schedule import Stage
from nst_lightning.tiling import Targets, Weights, Whole
from tests.questions import NoQuestions
from tests.tape import Tape

STAGES = [Stage(20, 4), Stage(32, 5)]
SHALLOW: dict[str, Any] = {"content_layers": "relu2_1", "style_layers": "relu1_1,relu2_1", "style_loss": "gram"}

# A resumed run here does not save checkpoints again, which Lightning warns of.
WITHOUT_ITS_CHECKPOINT_CALLBACK = pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")


def picture(seed: int, height: int = 24, width: int = 32) -> Tensor:
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed))


def data(count: int = 1, **options: Any) -> PairDataModule:
    contents: Any = [picture(seed) for seed in range(count)]
    styles: Any = [picture(100 + seed, 28 + 4 * seed, 24) for seed in range(count)]
    return PairDataModule(contents, styles, **{"stages": STAGES, **options})


class Results(Callback):
    """Keeps the finished images, by the batch's place."""

    def __init__(self) -> None:
        self.images: dict[int, Tensor] = {}
        self.steps: list[tuple[tuple[int, int], int]] = []

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: Step, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, ImageOptimization)
        self.steps.append((batch.position, batch.index))
        if batch.is_last:
            self.images[batch.batch_index] = pl_module.result.clone()


def fit(
    module: StyleTransfer,
    pairs: PairDataModule,
    callbacks: tuple[Callback, ...] = (),
    ckpt_path: Path | None = None,
    options: dict[str, Any] | None = None,
) -> Results:
    results = Results()
    with quiet():
        trainer = L.Trainer(
            accelerator="cpu",
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
            callbacks=[results, *callbacks],
            **{"max_epochs": 1, **({} if options is None else options)},
        )
        trainer.fit(module, datamodule=pairs, ckpt_path=None if ckpt_path is None else str(ckpt_path))
    return results


@WITHOUT_ITS_CHECKPOINT_CALLBACK
@pytest.mark.parametrize("optimizer", [LBFGS, Adam])
def test_resumes_bitwise_after_every_step_across_stages_and_batches(
    optimizer: Callable[..., Any], tmp_path: Path
) -> None:
    make = partial(StyleTransfer, **SHALLOW, optimizer=optimizer, init="gaussian", seed=3)
    keep = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    whole = fit(make(), data(2), (keep,))
    assert [index for _, index in whole.steps] == [*range(9), *range(9)]
    checkpoints = sorted(tmp_path.glob("*.ckpt"), key=lambda path: int(path.stem.removeprefix("step=")))
    assert len(checkpoints) == 18
    for done, checkpoint in enumerate(checkpoints[:-1], start=1):
        resumed = fit(make(), data(2), ckpt_path=checkpoint)
        assert resumed.steps == whole.steps[done:]
        for place, image in resumed.images.items():
            assert torch.equal(image, whole.images[place]), (done, place)
        assert set(resumed.images) == ({0, 1} if done < 9 else {1})


class SavedAtItsEnd(Callback):
    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        trainer.save_checkpoint(self.path)


@WITHOUT_ITS_CHECKPOINT_CALLBACK
def test_goes_on_from_the_checkpoint_of_a_run_that_its_trainer_broke_off(tmp_path: Path) -> None:
    whole = fit(StyleTransfer(**SHALLOW), data()).images[0]
    path = tmp_path / "begun.ckpt"
    assert fit(StyleTransfer(**SHALLOW), data(), (SavedAtItsEnd(path),), options={"max_steps": 6}).images == {}
    assert torch.equal(fit(StyleTransfer(**SHALLOW), data(), ckpt_path=path).images[0], whole)


def test_a_step_asks_no_tensor_for_its_value() -> None:
    guarded = []

    class Guarded(StyleTransfer):
        def optimizer_step(self, epoch: int, batch_idx: int, *arguments: Any, **options: Any) -> None:
            if batch_idx == 0 or batch_idx == 11:  # the first is looked at, and the last
                super().optimizer_step(epoch, batch_idx, *arguments, **options)
                return
            guarded.append(batch_idx)
            with NoQuestions():  # type: ignore[no-untyped-call]
                super().optimizer_step(epoch, batch_idx, *arguments, **options)

    fit(Guarded(**SHALLOW), data(2, batch_size=2, stages=[Stage(20, 12)]))
    assert guarded == [*range(1, 11)]


@pytest.mark.skipif(shutil.which(os.environ.get("CXX", "g++")) is None, reason="torch.compile needs a C++ compiler")
def test_a_compiled_step_gives_the_same_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    results = []
    for compiled in (False, True):
        module = StyleTransfer(**{**SHALLOW, "style_layers": "relu1_1", "content_layers": "relu1_2"}, compile=compiled)
        fit(module, data(stages=[Stage(32, 6)]))
        results.append(module.result)
    torch.testing.assert_close(*results, rtol=0, atol=1e-3)


def test_a_compiler_that_fails_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))  # what an earlier run has compiled is not taken
    # Not CXX in the environment, which is read once a process.
    with (
        inductor_config.patch({"cpp.cxx": ("no-such-compiler",)}),
        pytest.raises(InputError, match=r"torch\.compile failed \(.+\): leave out compile"),
    ):
        fit(StyleTransfer(**SHALLOW, compile=True), data(stages=[Stage(28, 2)]))


@WITHOUT_ITS_CHECKPOINT_CALLBACK
def test_steps_as_one_graph_give_the_same_pictures_losses_and_checkpoints(
    tapes: list[Tape], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Problem, "check", lambda *_: None)  # which asks for a GPU
    found: list[tuple[Results, list[dict[str, Tensor]]]] = []
    keep = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=5, save_top_k=-1)
    for graph in (False, True):
        losses: list[dict[str, Tensor]] = []

        def note(module: ImageOptimization, losses: list[dict[str, Tensor]] = losses) -> None:
            losses.append({name: value.clone() for name, value in module.losses.items()})

        watch = Watch(note)
        module = StyleTransfer(**SHALLOW, graph=graph)
        found.append((fit(module, data(3, batch_size=2), (watch, keep)[: 1 + graph]), losses))
    resumed = fit(StyleTransfer(**SHALLOW, graph=True), data(3, batch_size=2), ckpt_path=tmp_path / "step=10.ckpt")
    (plain, losses), (recorded, of_graphs) = found
    assert [tape.replays for tape in tapes] == [3, 4, 3, 4, 2, 4]  # all but the first of each stage
    for place, image in plain.images.items():
        assert torch.equal(image, recorded.images[place])
    assert torch.equal(resumed.images[1], plain.images[1])
    assert len(losses) == len(of_graphs) == 18
    for one, other in zip(losses, of_graphs, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_a_graph_is_refused_where_there_can_be_none(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="graph needs optimizer lbfgs, whose steps are all alike, got Adam"):
        StyleTransfer(**SHALLOW, optimizer=Adam, graph=True)
    with pytest.raises(InputError, match="graph needs a CUDA GPU: leave it out on cpu"):
        fit(StyleTransfer(**SHALLOW, graph=True), data())

    def refused(*_: object, **__: object) -> None:
        raise RuntimeError("operation not permitted\nwhen stream is capturing")

    monkeypatch.setattr(Problem, "check", lambda *_: None)
    monkeypatch.setattr(optim, "StepGraph", refused)
    message = r"the step cannot be had as a CUDA graph \(operation not permitted when stream is .+\): leave out graph"
    with pytest.raises(InputError, match=message):
        fit(StyleTransfer(**SHALLOW, graph=True), data())


def test_a_checkpoint_holds_the_image_and_not_the_backbone(tmp_path: Path) -> None:
    keep = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=3)
    fit(StyleTransfer(**SHALLOW), data(), (keep,))
    (path,) = tmp_path.glob("*.ckpt")
    checkpoint = torch.load(path, weights_only=True)
    assert list(checkpoint["state_dict"]) == ["image"]
    assert checkpoint["batch"] == {
        "format": 4,
        "names": ["image_image"],
        "stages": [[20, 4, {}], [32, 5, {}]],
        "taken": 9,
        "weights": {},
    }


def test_the_image_is_the_only_parameter() -> None:
    module = StyleTransfer(**SHALLOW)
    assert [name for name, _ in module.named_parameters()] == ["image"]


class Watch(Callback):
    """Calls a function with the module after each step."""

    def __init__(self, see: Callable[[Any], None]) -> None:
        self.see = see

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        self.see(pl_module)


def test_lowers_the_loss_and_carries_the_image_from_stage_to_stage() -> None:
    seen: list[tuple[float, Tensor]] = []
    fit(
        StyleTransfer(**SHALLOW),
        data(),
        (Watch(lambda module: seen.append((module.losses["total"].item(), module.image.detach().clone()))),),
    )
    totals = [total for total, _ in seen]
    assert totals[3] < totals[0]
    assert totals[8] < totals[4]
    # The first step of a stage only evaluates: the image is still the one it was handed.
    assert torch.equal(seen[4][1], resize(seen[3][1], (24, 32)))


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("optimizer", [LBFGS, Adam])
@pytest.mark.parametrize("layers", [SHALLOW, {}], ids=["shallow", "default"])
def test_an_images_result_does_not_depend_on_its_batch(optimizer: Callable[..., Any], layers: dict[str, Any]) -> None:
    make = partial(StyleTransfer, **layers, optimizer=optimizer)
    stages = {"stages": [Stage(32, 3), Stage(40, 3)], "upscale": True}
    together = fit(make(), data(3, batch_size=3, **stages)).images[0]
    in_two = fit(make(), data(3, batch_size=2, **stages)).images
    alone = fit(make(), data(3, **stages)).images
    assert len(alone) == 3
    assert torch.equal(together, torch.cat([alone[place] for place in range(3)]))
    assert torch.equal(together, torch.cat([in_two[place] for place in range(2)]))


def test_losses_are_those_of_the_image_that_is_shown() -> None:
    """An image taken back by the safeguard keeps the losses of where it stands."""
    shown: list[Tensor] = []

    def compare(module: Any) -> None:  # noqa: ANN401
        kept = {name: value.clone() for name, value in module.losses.items()}
        module.training_step(data_of(module.trainer).last_step(), 0)
        for name, value in module.losses.items():
            torch.testing.assert_close(value, kept[name], rtol=1e-5, atol=1e-2)
        module.losses = kept
        shown.append(kept["total"])

    module = StyleTransfer(**SHALLOW, optimizer=partial(LBFGS, lr=4.0), style_weight=3e6)
    fit(module, data(2, batch_size=2, stages=[Stage(32, 15)]), (Watch(compare),))
    curve = torch.stack(shown)
    assert (curve[1:] <= curve[:-1]).all()
    assert (curve[1:] == curve[:-1]).any()  # a step was taken back, else the test has seen nothing


def test_bfloat16_keeps_image_statistics_and_losses_in_float32() -> None:
    module = StyleTransfer(**SHALLOW)
    seen: list[dict[str, Tensor]] = []
    fit(module, data(), (Watch(lambda module: seen.append(module.losses)),), options={"precision": "bf16-mixed"})
    totals = [losses["total"] for losses in seen]
    assert seen[0]["content"].item() == 0  # the targets were made in the same precision
    assert module.image.dtype == torch.float32
    assert {total.dtype for total in totals} == {torch.float32}
    assert totals[-1] < totals[4]


@pytest.mark.parametrize("tile", ["off", 8])
def test_several_style_images_are_merged_by_their_weights(tile: Tile) -> None:
    pairs = data()
    first, second = picture(100, 28, 24), picture(200, 20, 28)
    (pair,) = pairs.pairs
    module = StyleTransfer(**SHALLOW, tile=tile)

    def target(styles: tuple[Tensor, ...], weights: tuple[float, ...] = ()) -> Tensor:
        pairs.pairs = (replace(pair, styles=styles, style_weights=weights),)
        fit(module, pairs, options={"max_steps": 1})
        assert module.evaluation is not None
        (gram,) = module.evaluation.targets["style/relu2_1"]
        return gram

    of_first, of_second = target((first,)), target((second,))
    torch.testing.assert_close(target((first, second)), (of_first + of_second) / 2)
    torch.testing.assert_close(target((first, second), (3.0, 1.0)), (3 * of_first + of_second) / 4)
    torch.testing.assert_close(target((first, second), (1.0, 0.0)), of_first)


def test_the_wasserstein_loss_falls() -> None:
    totals: list[float] = []
    see = Watch(lambda module: totals.append(module.losses["style"].item()))
    module = StyleTransfer(**{**SHALLOW, "style_loss": "wasserstein"}, content_weight=0.0)
    fit(module, data(stages=[Stage(32, 30)]), (see,))
    assert totals[-1] < 0.2 * totals[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"content_layers": "relu9_9"}, r"unknown layer 'relu9_9' of vgg16; known are conv1_1, relu1_1, .*pool5"),
        ({"style_weight": float("nan")}, "style_weight must be a finite number, 0 or above, got nan"),
        ({"content_weight": -1.0}, "content_weight must be a finite number, 0 or above, got -1.0"),
        ({"tv_weight": float("inf")}, "tv_weight must be a finite number, 0 or above, got inf"),
        ({"style_loss": "hist"}, "unknown style_loss 'hist'; known are gram, scaled_gram, wasserstein"),
        ({"style_layers": []}, "style_layers must name at least one layer"),
        ({"style_layers": {"relu1_1": -1.0}}, "style_layers must name at least one layer, with weights above 0"),
        ({"seed": -1}, r"seed must be a whole number from 0 to 2\*\*63 - 1, got -1"),
        ({"init": "random"}, "unknown init 'random'; known are content, style, gaussian, uniform"),
        ({"backbone": "vgg11"}, "unknown backbone 'vgg11'; known are vgg16, vgg16_experimental, vgg19"),
    ],
)
def test_settings_that_cannot_work_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        StyleTransfer(**{**SHALLOW, **options})


@pytest.mark.parametrize("loss", ["gram", "wasserstein"])
def test_a_relative_term_is_divided_by_what_features_of_nothing_would_be_compared_as(loss: str) -> None:
    settings = {**SHALLOW, "style_loss": loss, "content_weight": 2.0, "style_weight": 3.0, "tv_weight": 0.0}
    relative, absolute = (StyleTransfer(**settings, convention=each).objective for each in ("relative", "absolute"))
    noise = 100 * torch.rand(1, 4, 6, 5, generator=torch.Generator().manual_seed(1))
    layers = dict.fromkeys(relative.layers, noise)
    source = {layer: Features.whole(values) for layer, values in layers.items()}
    nothing = {layer: Features.whole(torch.zeros_like(values)) for layer, values in layers.items()}
    image = {IMAGE: Features.whole(torch.zeros(1, 3, 6, 5))}
    targets = relative.targets([relative.kept("content", source, 0) | relative.kept("style", source, 0)], [1.0])
    values = relative.values(nothing | image, targets, 0)
    groups = {group: torch.ones(1) for group in relative.groups}
    parts = relative.contributions(values, relative.weights(targets, groups))
    assert [parts[group].item() for group in ("content", "style")] == pytest.approx([1.0, 1.0], rel=1e-3)
    plain = absolute.contributions(values, absolute.weights(targets, groups))
    assert plain["content"].item() == pytest.approx(layers["relu1_1"].square().mean().item(), rel=1e-5)


@pytest.mark.parametrize(
    ("style_loss", "expected"),
    [
        ("gram", {"style/relu1_1": 0.5, "style/relu1_2": 0.5}),
        ({"gram": 2.0}, {"style/relu1_1": 1.0, "style/relu1_2": 1.0}),
        ("strotss", {"style/strotss": 1.0}),
        (
            {"gram": 1.0, "nearest": {"relu2_1": 0.5, "relu1_1": 3.0}},
            {
                "style/gram/relu1_1": 0.5,
                "style/gram/relu1_2": 0.5,
                "style/nearest/relu2_1": 0.5,
                "style/nearest/relu1_1": 3.0,
            },
        ),
    ],
)
def test_losses_and_their_layers_have_weights(style_loss: Losses, expected: dict[str, float]) -> None:
    layers = None if style_loss == "strotss" else "relu1_1,relu1_2"
    module = StyleTransfer(content_layers="relu1_1", style_layers=layers, style_loss=style_loss)
    terms = [term for term in module.objective.terms if term.group == "style"]
    assert {term.name: term.share for term in terms} == pytest.approx(expected)


def test_layer_weights_are_shares_of_the_groups_weight() -> None:
    module = StyleTransfer(content_layers="relu1_1", style_layers={"relu1_1": 3.0, "relu1_2": 1.0}, style_loss="gram")
    shares = {term.layers: term.share for term in module.objective.terms if term.group == "style"}
    assert shares == {("relu1_1",): 0.75, ("relu1_2",): 0.25}


@pytest.mark.parametrize(("name", "value"), [("max_epochs", 2), ("accumulate_grad_batches", 2)])
def test_trainer_settings_that_break_the_schedule_are_refused(name: str, value: int) -> None:
    with pytest.raises(InputError, match=f"trainer.{name} must be 1, got {value}"):
        fit(StyleTransfer(**SHALLOW), data(), options={name: value})


def test_torchs_lbfgs_is_refused_for_a_batch_and_works_for_an_image() -> None:
    make = partial(StyleTransfer, **SHALLOW, optimizer=partial(torch.optim.LBFGS, max_iter=1))
    with pytest.raises(InputError, match=r"torch.optim.LBFGS couples the images of a batch"):
        fit(make(), data(2, batch_size=2))
    assert fit(make(), data()).images[0].isfinite().all()


@WITHOUT_ITS_CHECKPOINT_CALLBACK
def test_a_checkpoint_of_another_size_is_refused(tmp_path: Path) -> None:
    keep = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=3)
    fit(StyleTransfer(**SHALLOW), data(stages=[Stage(20, 4)]), (keep,))
    (path,) = tmp_path.glob("*.ckpt")
    with pytest.raises(
        InputError, match=r"is of image_image, 20 px x 4, this run would go on with image_image, 32 px x 4: resume with"
    ):
        fit(StyleTransfer(**SHALLOW), data(stages=[Stage(32, 4)]), ckpt_path=path)


@WITHOUT_ITS_CHECKPOINT_CALLBACK
def test_a_checkpoint_of_other_stages_is_refused(tmp_path: Path) -> None:
    keep = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=6)
    fit(StyleTransfer(**SHALLOW), data(), (keep,))
    (path,) = tmp_path.glob("*.ckpt")
    expected = r"20 px x 4, 32 px x 5, this run would go on with image_image, 20 px x 9, 32 px x 5: resume with"
    with pytest.raises(InputError, match=expected):
        fit(StyleTransfer(**SHALLOW), data(stages=[Stage(20, 9), Stage(32, 5)]), ckpt_path=path)


@WITHOUT_ITS_CHECKPOINT_CALLBACK
def test_a_checkpoint_of_an_earlier_version_is_refused(tmp_path: Path) -> None:
    keep = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=3, save_top_k=-1)
    fit(StyleTransfer(**SHALLOW), data(stages=[Stage(20, 4)]), (keep,))
    (path,) = tmp_path.glob("*.ckpt")
    checkpoint = torch.load(path, weights_only=True)
    del checkpoint["batch"]["format"]
    torch.save(checkpoint, path)
    with pytest.raises(InputError, match=r"the checkpoint is of an earlier version.+: begin the run anew"):
        fit(StyleTransfer(**SHALLOW), data(stages=[Stage(20, 4)]), ckpt_path=path)


@WITHOUT_ITS_CHECKPOINT_CALLBACK
def test_a_run_of_one_stage_can_be_given_more_steps_on_resume(tmp_path: Path) -> None:
    keep = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=3)
    fit(StyleTransfer(**SHALLOW), data(stages=[Stage(32, 4)]), (keep,))
    (path,) = tmp_path.glob("*.ckpt")
    longer = fit(StyleTransfer(**SHALLOW), data(stages=[Stage(32, 7)]), ckpt_path=path)
    whole = fit(StyleTransfer(**SHALLOW), data(stages=[Stage(32, 7)]))
    assert torch.equal(longer.images[0], whole.images[0])


def test_a_loss_that_is_not_finite_when_a_stage_begins_is_refused() -> None:
    with pytest.raises(InputError, match=r"the loss is not finite when a stage begins \(.*style.*\)"):
        fit(StyleTransfer(**SHALLOW, style_weight=1e38, convention="absolute"), data())


def test_an_image_that_the_network_cannot_halve_is_refused() -> None:
    with pytest.raises(
        InputError, match=r"its image is of 4x3 px at the stage of 4 px, too small for these layers: 8 px"
    ):
        fit(StyleTransfer(content_layers="relu4_1", style_layers="relu1_1"), data(stages=[Stage(4, 1)]))


def changed(pairs: PairDataModule, place: int, **own: Any) -> PairDataModule:
    """The same data with settings of its own for one pair."""
    each = list(pairs.pairs)
    each[place] = replace(each[place], **own)
    pairs.pairs = tuple(each)
    return pairs


def test_a_pairs_own_weights_count_in_a_batch_as_if_they_were_the_runs() -> None:
    make = partial(StyleTransfer, **SHALLOW, optimizer=Adam)
    own = changed(data(2, batch_size=2), 1, weights={"style": 700.0, "tv": 0.0})
    together = fit(make(), own).images[0]
    torch.testing.assert_close(together[:1], fit(make(), data()).images[0], rtol=0, atol=1e-5)
    alone = changed(data(2), 1, weights={})
    as_the_runs = fit(make(style_weight=700.0, tv_weight=0.0), alone).images[1]
    torch.testing.assert_close(together[1:], as_the_runs, rtol=0, atol=1e-5)
    assert not torch.allclose(together[1:], fit(make(), data(2)).images[1], atol=1e-2)


def test_a_pairs_own_start_and_seed_are_taken() -> None:
    own = changed(changed(data(2), 0, init="style"), 1, init="uniform", seed=5)
    mixed = fit(StyleTransfer(**SHALLOW), own).images
    assert torch.equal(mixed[0], fit(StyleTransfer(**SHALLOW, init="style"), data(2)).images[0])
    assert torch.equal(mixed[1], fit(StyleTransfer(**SHALLOW, init="uniform", seed=5), data(2)).images[1])


def test_a_pair_may_weigh_what_the_run_leaves_out() -> None:
    make = partial(StyleTransfer, **SHALLOW, optimizer=Adam)
    own = changed(data(2, batch_size=2), 1, weights={"tv": 2.0, "content": 0.0})
    together = fit(make(tv_weight=0.0), own).images[0]
    as_the_runs = fit(make(tv_weight=2.0, content_weight=0.0), data(2)).images[1]
    torch.testing.assert_close(together[1:], as_the_runs, rtol=0, atol=1e-5)
    torch.testing.assert_close(together[:1], fit(make(tv_weight=0.0), data()).images[0], rtol=0, atol=1e-5)


def test_a_pair_without_any_weight_is_refused_by_name() -> None:
    nothing = {"content": 0.0, "style": 0.0, "tv": 0.0}
    with pytest.raises(InputError, match=r"^pair image_image_2: nothing to optimise: every weight is 0$"):
        fit(StyleTransfer(**SHALLOW), changed(data(2), 1, weights=nothing))


class Names(Callback):
    """Keeps the names of the losses of every step, and the step's total."""

    def __init__(self) -> None:
        self.totals: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: object) -> None:
        assert isinstance(pl_module, ImageOptimization)
        self.totals.append({name: value.item() for name, value in pl_module.losses.items()})


def test_a_stage_has_its_own_weights_of_groups_and_losses() -> None:
    layers: dict[str, Any] = {"content_layers": "relu2_1", "style_layers": "relu1_1"}
    stages = [Stage(24, 2, {"nearest": 0, "content": 4}), Stage(24, 1, {"gram": 0.5}), Stage(24, 1)]
    seen = Names()
    fit(StyleTransfer(**layers, style_loss={"gram": 1, "nearest": 1}, style_weight=3), data(stages=stages), (seen,))
    gram, nearest = "style/gram/relu1_1", "style/nearest/relu1_1"
    assert [(gram in names, nearest in names) for names in seen.totals] == [(True, False)] * 2 + [(True, True)] * 2
    first, second, third = (seen.totals[index] for index in (1, 2, 3))
    # Gram's value is weighed against its target's size, which the last two stages share.
    size = (third["style"] / 3 - third[nearest]) / third[gram]
    assert second["style"] == pytest.approx(3 * (0.5 * size * second[gram] + second[nearest]), rel=1e-4)
    assert first["style"] == pytest.approx(3 * size * first[gram], rel=1e-4)
    assert first["content"] / first["content/relu2_1"] == pytest.approx(
        4 * third["content"] / third["content/relu2_1"], rel=1e-4
    )


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"nearest": 0}, r"^a stage weighs 'nearest'; this run has content, style, tv$"),
        ({"content": 0, "style": 0}, r"^pair image_image: nothing to optimise: every weight is 0$"),
    ],
)
def test_weights_of_a_stage_that_mean_nothing_are_refused(weights: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        fit(StyleTransfer(**SHALLOW), data(stages=[Stage(24, 2, weights)]))


def test_a_style_is_seen_in_four_rotations() -> None:
    pairs = data(stages=[Stage(24, 1)])
    module = StyleTransfer(**SHALLOW, style_rotations=True)
    fit(module, pairs)
    assert module.evaluation is not None
    ((style,),) = pairs.batches[0].styles(Stage(24, 1))
    whole = Whole(module.backbone, module.objective)
    turned = [style.image().rot90(turn, (2, 3)) for turn in range(4)]
    expected = whole.targets("style", turned, [1.0] * 4, 0)
    for name, target in expected.items():
        assert torch.equal(module.evaluation.targets[name][0], target[0])
    assert not torch.equal(
        expected["style/relu1_1"][0], whole.targets("style", turned[:1], [1.0], 0)["style/relu1_1"][0]
    )


def test_layers_of_no_weight_are_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, ...]] = []
    forward = Backbone.forward

    def noted(self: Backbone, image: Tensor, layers: tuple[str, ...], **others: bool) -> dict[str, Tensor]:
        asked.append(layers)
        return forward(self, image, layers, **others)

    monkeypatch.setattr(Backbone, "forward", noted)
    module = StyleTransfer(content_layers="relu1_1", style_layers="relu3_1", style_weight=0.0)
    fit(module, data(stages=[Stage(20, 2)]))
    assert set(asked) == {("relu1_1",)}


def images_looked_at(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Source, tuple[int, ...]]]:
    """Returns a list that grows with each image that targets are made of: the source, and the image's shape."""
    asked: list[tuple[Source, tuple[int, ...]]] = []
    of = Whole.kept

    def counted(self: Whole, source: Source, image: Tensor, *others: Any) -> Any:  # noqa: ANN401 - what is kept
        asked.append((source, tuple(image.shape)))
        return of(self, source, image, *others)

    monkeypatch.setattr(Whole, "kept", counted)
    return asked


def test_a_styles_targets_are_computed_once_for_all_its_contents(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = images_looked_at(monkeypatch)
    contents: Any = [picture(seed) for seed in range(3)]
    fit(StyleTransfer(**SHALLOW), PairDataModule(contents, cast(Any, picture(9)), stages=STAGES, batch_size=2))
    styles = [shape for source, shape in asked if source == "style"]
    assert sorted(styles) == [(1, 3, 15, 20), (1, 3, 24, 32)]
    assert len([shape for source, shape in asked if source == "content"]) == 6


@pytest.mark.parametrize(("room", "times"), [(evaluation.STYLES_ROOM, 2), (0, 3)])
def test_styles_targets_are_kept_in_so_many_bytes(room: int, times: int, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = images_looked_at(monkeypatch)
    monkeypatch.setattr(evaluation, "STYLES_ROOM", room)
    contents, first, second = [picture(seed) for seed in range(3)], picture(8), picture(9)
    fit(
        StyleTransfer(**SHALLOW),
        PairDataModule(cast(Any, contents), cast(Any, [first, second, first]), steps=1, stages=1),
    )
    assert [source for source, _ in asked].count("style") == times


@pytest.mark.parametrize(("given", "expected"), [(None, 2), ("3", 4)])
def test_no_more_threads_are_used_than_the_container_has_cores_for(
    given: str | None, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if given is None:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    else:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    monkeypatch.setattr(optimization, "cores", lambda: 2)
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        fit(StyleTransfer(**SHALLOW), data(stages=[Stage(20, 1)]))
        assert torch.get_num_threads() == expected
    finally:
        torch.set_num_threads(before)


# ---- GPUs, as far as a CPU can tell ----


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_a_gpu_computes_float32_in_float32_and_what_it_was_told_comes_back(device: str) -> None:
    def told() -> tuple[bool, str]:
        return torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()

    before = told()
    torch.set_float32_matmul_precision("high")
    try:
        with pytest.raises(KeyError), true_float32(torch.device(device)):
            assert told() == ((False, "highest") if device == "cuda" else (True, "high"))
            raise KeyError
        assert told() == (True, "high")
    finally:
        torch.set_float32_matmul_precision(before[1])


def test_targets_and_steps_are_computed_so(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    @contextmanager
    def noted(device: torch.device) -> Iterator[None]:
        asked.append(device.type)
        yield

    monkeypatch.setattr(optimization, "true_float32", noted)
    fit(StyleTransfer(**SHALLOW), data(stages=[Stage(20, 3)]), options={"precision": "bf16-mixed"})
    assert asked == ["cpu"] * 6  # as each begins, and as it is taken


# ---- tiles and memory ----


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_tiles_give_the_picture_of_the_whole(precision: str) -> None:
    make = partial(StyleTransfer, **SHALLOW, optimizer=Adam)
    options = {"precision": precision}
    whole = fit(make(), data(2, batch_size=2), options=options).images[0]
    tiled = fit(make(tile=8), data(2, batch_size=2), options=options).images[0]
    # Adam's first step is the sign of the gradient, which rounding may turn where it is all but 0.
    apart = (tiled - whole).abs()
    assert apart.mean() < (1e-4 if precision == "32-true" else 1e-2)
    assert not torch.equal(whole, fit(make(), data(2, batch_size=2)).images[0]) or precision == "32-true"


def test_the_largest_tile_that_fits_is_taken_and_none_where_all_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    module = StyleTransfer(**SHALLOW, tile="auto")
    chosen: list[int | None] = []

    def watch(room: int) -> None:
        # A process plans with eight tenths of it, see `data.Worker.memory`.
        monkeypatch.setattr(memory, "available", lambda device: room * 10 // 8 + 1)

        def see(module: Any) -> None:  # noqa: ANN401
            chosen.append(module.sizing.tile_for(Worker.of(module.trainer), 512 * 512, 1))

        chosen.clear()
        fit(module, data(), (Watch(see),))

    watch(2**40)
    assert set(chosen) == {None}
    worker = Worker.of(module.trainer)
    room = module.sizing.footprint(worker).of_step(512 * 512, 128 * 128)
    watch(room)
    (tile,) = set(chosen)
    assert tile is not None
    assert 100 < tile <= 128
    assert module.bytes_of_step(worker, 512 * 512) <= room


def test_out_of_memory_takes_fewer_images_at_a_time_and_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = fit(StyleTransfer(**SHALLOW), data(3, batch_size=3)).images[0]
    of, seen = Whole.values, []
    graphs: list[weakref.ref[Tensor]] = []

    def values(self: Whole, image: Tensor, targets: Targets, draw: int, where: Weights) -> dict[str, Tensor]:
        seen.append(len(image))
        assert all(graph() is None for graph in graphs)  # or it would not fit the next time either
        if len(image) > 2:
            graphs.append(weakref.ref(graph := image * 2))
            assert graph.requires_grad
            msg = "CUDA out of memory. Tried to allocate 2.00 GiB"
            raise torch.OutOfMemoryError(msg)
        return of(self, image, targets, draw, where)

    monkeypatch.setattr(Whole, "values", values)
    with pytest.warns(UserWarning, match=r"^out of memory with 3 images of 20x15 px: 2 at a time from here"):
        found = fit(StyleTransfer(**SHALLOW), data(3, batch_size=3)).images[0]
    assert max(seen[1:5]) == 2
    assert len(graphs) == 1
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-3)


def test_out_of_memory_with_one_image_says_what_would_help(monkeypatch: pytest.MonkeyPatch) -> None:
    def values(*_: Any) -> dict[str, Tensor]:
        raise MemoryError

    monkeypatch.setattr(Whole, "values", values)
    with pytest.raises(
        InputError, match=r"^out of memory at 20x15 px: take a smaller size, or --model.tile auto or a smaller one$"
    ):
        fit(StyleTransfer(**SHALLOW), data())


def test_the_number_that_fits_is_taken_for_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    module = StyleTransfer(**SHALLOW)
    pairs = data(5, batch_size="auto")
    each: list[int] = []
    bytes_of_step = StyleTransfer.bytes_of_step

    def noted(self: StyleTransfer, worker: Worker, pixels: int) -> int:
        each.append(bytes_of_step(self, worker, pixels))
        # Room for two and a half of the largest, of which a process plans with eight tenths.
        monkeypatch.setattr(memory, "available", lambda device: int(2.5 * max(each) * 10 / 8))
        return each[-1]

    monkeypatch.setattr(StyleTransfer, "bytes_of_step", noted)
    fit(module, pairs)
    assert [len(batch.pairs) for batch in pairs.batches] == [2, 2, 1]


# ---- precision ----


def test_scaled_gradients_and_an_l_bfgs_are_refused() -> None:
    plugin = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))
    with pytest.raises(InputError, match=r"^precision 16-mixed scales .* use bf16-mixed, or --optimizer adam$"):
        fit(StyleTransfer(**SHALLOW), data(), options={"plugins": [plugin]})


def test_adam_works_with_scaled_gradients() -> None:
    plugin = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=16.0))
    totals: list[float] = []
    see = Watch(lambda module: totals.append(module.losses["total"].item()))
    module = StyleTransfer(**SHALLOW, optimizer=Adam, style_weight=5.0)
    fit(module, data(stages=[Stage(32, 20)]), (see,), options={"plugins": [plugin]})
    assert totals[-1] < 0.5 * totals[0]  # some of the first steps only lower the scale


def test_pixels_that_are_not_finite_end_the_run_before_they_are_written() -> None:
    results = Results()
    module = StyleTransfer(**SHALLOW, optimizer=partial(Adam, lr=float("inf")))
    with pytest.raises(InputError, match=r"^pixels that are not finite after step 1: .* than 32-true$"):
        fit(module, data(), (results,))
    assert results.steps == []


@pytest.mark.parametrize(("slower", "told"), [(4.0, 1), (1.1, 0)])
def test_it_is_said_once_that_half_precision_is_slower(
    slower: float, told: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("nst_lightning.modules.trainer._seconds", {torch.bfloat16: slower, torch.float32: 1.0}.get)
    fit(StyleTransfer(**SHALLOW), data(), options={"precision": "bf16-mixed"})
    line = "nst: bf16-mixed is slower on this processor: convolutions take 4.0 times as long"
    assert capsys.readouterr().err.count(line) == told


@pytest.mark.parametrize("precision", ["16-true", "bf16-true"])
def test_an_image_of_less_than_float32_is_refused(precision: str) -> None:
    with pytest.raises(InputError, match=rf"trainer.precision must be one of 32-true, .*, got {precision}"):
        fit(StyleTransfer(**SHALLOW), data(), options={"precision": precision})


def test_a_module_can_be_fitted_again() -> None:
    module = StyleTransfer(**SHALLOW)
    first, second = fit(module, data()).images[0], fit(module, data()).images[0]
    assert torch.equal(first, second)


class Once(Adam):
    """Diverges once, at its 30th step, and remembers its learning rates."""

    rates: ClassVar[list[float]] = []

    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # noqa: ANN401 - torch's
        found = super().step(closure)
        self.rates.append(self.param_groups[0]["lr"])
        if len(self.rates) == 30:
            self.param_groups[0]["params"][0].data.fill_(float("nan"))
        return found


def test_an_image_that_diverges_goes_on_from_where_it_was_whole_with_shorter_steps(
    capfd: pytest.CaptureFixture[str],
) -> None:
    Once.rates.clear()
    module = StyleTransfer(**SHALLOW, optimizer=partial(Once, lr=0.02))
    fit(module, data(stages=[Stage(32, 60)]))
    assert bool(module.image.isfinite().all())
    assert (Once.rates[0], Once.rates[-1]) == (0.02, 0.01)
    line = "nst: image_image: pixels that are not finite after step 51: goes on from where it was whole with 0.5 of"
    assert line in capfd.readouterr().err


def test_a_graph_is_recorded_anew_of_an_image_that_diverged(tapes: list[Tape], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Problem, "check", lambda *_: None)

    def spoil(module: ImageOptimization) -> None:
        if module.trainer.global_step == 30:
            module.image.data.fill_(float("nan"))

    module = StyleTransfer(**SHALLOW, graph=True)
    fit(module, data(stages=[Stage(32, 60)]), (Watch(spoil),))
    assert bool(module.image.isfinite().all())
    assert [tape.replays for tape in tapes] == [50, 8]
