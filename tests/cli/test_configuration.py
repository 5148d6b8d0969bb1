"""The run that a configuration makes: a Trainer's every setting has its effect or is refused in one line."""

from __future__ import annotations

import inspect
import logging
import re
from argparse import ArgumentError
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch.callbacks import Timer
from PIL import Image

from nst_lightning.api import quiet
from nst_lightning.callbacks import ProgressBar
from nst_lightning.cli.arguments import read
from nst_lightning.cli.configuration import Configuration, Job, parser_of
from nst_lightning.errors import InputError, explained
from nst_lightning.interruption import UNFINISHED
from nst_lightning.modules import StyleTransfer
from tests.test_lightning import OF_LIGHTNING

GIVEN = ["photo.png", "painting.png", "--size", "32", "--steps", "4", "--scores", "off", "--style_loss", "gram"]
GIVEN += ["--content_layers", "relu2_1", "--style_layers", "relu1_1,relu2_1", "--accelerator", "cpu"]
EPOCH, VALIDATION = "a run is one epoch", "nothing is validated"


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two small pictures, and torch as it was afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("nst_lightning.cli.configuration.parser_of", cache(parser_of))  # most of the time it takes
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    for name in ("photo", "painting"):
        Image.fromarray(np.random.default_rng(len(name)).integers(0, 256, (40, 48, 3), dtype=np.uint8)).save(
            f"{name}.png"
        )
    yield
    torch.use_deterministic_algorithms(False)


def job(*options: str) -> Job:
    with quiet():
        return Job(Configuration(read([*GIVEN, *options]), StyleTransfer))


def kinds(made: Job) -> list[str]:
    callbacks: Any = made.trainer.callbacks  # type: ignore[attr-defined] # set by a connector
    return [type(each).__name__ for each in callbacks]


# What a setting has for effect, or the words by which it is refused.
SETTINGS: dict[str, tuple[str, str | Callable[[Any], bool]]] = {
    "accelerator": ("cpu", lambda t: type(t.accelerator).__name__ == "CPUAccelerator"),
    "strategy": ("tile_parallel", lambda t: type(t.strategy).__name__ == "TileParallel"),
    "devices": ("2", "trainer.strategy must be pair_parallel or tile_parallel for 2 processes"),
    "num_nodes": ("2", "trainer.strategy must be pair_parallel or tile_parallel for 2 processes"),
    "precision": ("bf16-mixed", lambda t: t.precision == "bf16-mixed"),
    "logger": ("true", lambda t: type(t.logger).__name__ == "TensorBoardLogger"),
    "callbacks": ("LambdaCallback", lambda t: any(type(each).__name__ == "LambdaCallback" for each in t.callbacks)),
    "fast_dev_run": ("2", lambda t: t.max_steps == 2),
    "max_epochs": ("1000", f"trainer.max_epochs must be 1, got 1000: {EPOCH}"),
    "min_epochs": ("2", f"trainer.min_epochs cannot be 2: {EPOCH}"),
    "max_steps": ("3", lambda t: t.max_steps == 3),
    "min_steps": ("3", lambda t: t.min_steps == 3),
    "max_time": (
        "00:00:01:00",
        lambda t: [each.time_remaining() for each in t.callbacks if isinstance(each, Timer)] == [60],
    ),
    "limit_train_batches": ("2", lambda t: t.limit_train_batches == 2),
    "limit_val_batches": ("3", f"trainer.limit_val_batches cannot be 3: {VALIDATION}"),
    "limit_test_batches": ("3", f"trainer.limit_test_batches cannot be 3: {VALIDATION}"),
    "limit_predict_batches": ("3", f"trainer.limit_predict_batches cannot be 3: {VALIDATION}"),
    "overfit_batches": ("2", lambda t: t.overfit_batches == 2),
    "val_check_interval": ("2", f"trainer.val_check_interval cannot be 2: {VALIDATION}"),
    "check_val_every_n_epoch": ("2", f"trainer.check_val_every_n_epoch must be 1, got 2: {VALIDATION}"),
    "num_sanity_val_steps": ("2", f"trainer.num_sanity_val_steps cannot be 2: {VALIDATION}"),
    "log_every_n_steps": ("0", "trainer.log_every_n_steps must be at least 1, got 0"),
    "enable_checkpointing": ("false", lambda t: t.checkpoint_callback.minutes == float("inf")),
    "enable_progress_bar": ("false", lambda t: t.progress_bar_callback is None),
    "enable_model_summary": ("true", lambda t: any("ModelSummary" in type(each).__name__ for each in t.callbacks)),
    "accumulate_grad_batches": ("2", f"trainer.accumulate_grad_batches must be 1, got 2: {EPOCH}"),
    "gradient_clip_val": ("0.5", lambda t: t.gradient_clip_val == 0.5),
    "gradient_clip_algorithm": ("value", "trainer.gradient_clip_algorithm needs trainer.gradient_clip_val beside it"),
    "deterministic": ("warn", lambda t: torch.is_deterministic_algorithms_warn_only_enabled()),
    "benchmark": ("true", lambda t: torch.backends.cudnn.benchmark),
    "inference_mode": ("false", f"trainer.inference_mode must be True, got False: {VALIDATION}"),
    "use_distributed_sampler": ("false", lambda t: t.distributed_sampler_kwargs is None),
    "profiler": ("simple", lambda t: type(t.profiler).__name__ == "SimpleProfiler"),
    "detect_anomaly": ("true", lambda t: t._detect_anomaly is True),
    "barebones": ("true", "trainer.barebones must be False, got True: it leaves out the callbacks"),
    "plugins": ("lightning.pytorch.plugins.precision.DoublePrecision", lambda t: t.precision == "64-true"),
    "sync_batchnorm": ("true", "trainer.sync_batchnorm must be False, got True: the network is frozen"),
    "reload_dataloaders_every_n_epochs": ("2", f"trainer.reload_dataloaders_every_n_epochs must be 0, got 2: {EPOCH}"),
    "default_root_dir": ("there", "trainer.default_root_dir cannot be there: that is the run's folder, see --output"),
    "enable_autolog_hparams": ("false", lambda t: t.enable_autolog_hparams is False),
    "model_registry": ("name", "trainer.model_registry cannot be name: checkpoints stay in the run's folder"),
}


def test_there_is_no_other_setting_of_a_trainer() -> None:
    assert {"self", *SETTINGS} == set(inspect.signature(L.Trainer.__init__).parameters)


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_of_a_trainer_has_its_effect_or_is_refused(name: str) -> None:
    value, expected = SETTINGS[name]
    if isinstance(expected, str):
        with pytest.raises(InputError, match=f"^{re.escape(expected)}[^\n]*$"):
            job(f"--trainer.{name}", value)
    else:
        assert expected(job(f"--trainer.{name}", value).trainer)
    assert not Path("data").exists()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            ["ModelPruning", "--trainer.callbacks.pruning_fn", "l1_unstructured"],
            "ModelPruning .*network is frozen",
        ),
        (["BackboneFinetuning"], "BackboneFinetuning cannot be used: the network is frozen"),
        (["EMAWeightAveraging"], "EMAWeightAveraging cannot be used: the image is another parameter at every stage"),
        (["StochasticWeightAveraging", "--trainer.callbacks.swa_lrs", "1"], "Sto.*: the image is another parameter"),
        (["LearningRateFinder"], "LearningRateFinder cannot be used: .*; --model.optimizer.lr sets the rate"),
        (["BatchSizeFinder"], "BatchSizeFinder cannot be used: --batch_size auto does what it does"),
        (["SpikeDetection"], "SpikeDetection cannot be used: the loss leaps"),
    ],
)
def test_a_callback_that_could_do_nothing_is_refused_with_the_reason(options: list[str], expected: str) -> None:
    with pytest.raises(InputError, match=f"^{expected}"):
        job("--trainer.callbacks", *options)


def test_a_bar_of_lightnings_takes_the_place_of_the_own() -> None:
    made = kinds(job("--trainer.callbacks", "TQDMProgressBar"))
    assert "TQDMProgressBar" in made
    assert ProgressBar.__name__ not in made


@OF_LIGHTNING
def test_a_timer_can_be_named_and_stands_in_the_configuration_of_the_run() -> None:
    made = job("--trainer.callbacks", "Timer", "--trainer.callbacks.duration", "00:00:00:00")
    with pytest.raises(SystemExit, match=f"^{UNFINISHED}$"), quiet():
        made.fit()
    (timer,) = yaml.safe_load(made.run.config.read_text())["trainer"]["callbacks"]
    assert timer["init_args"]["interval"] == "step"


@OF_LIGHTNING
def test_early_stopping_looks_at_the_logged_steps_of_the_last_stage() -> None:
    stop = ["--trainer.callbacks", "EarlyStopping", "--trainer.callbacks.monitor"]
    often = ["--trainer.log_every_n_steps", "1", "--trainer.callbacks.patience", "2", "--steps", "12"]
    made = job(*stop, "loss/total", *often, "--trainer.callbacks.min_delta", "10")
    with pytest.raises(SystemExit, match=f"^{UNFINISHED}$"), quiet():
        made.fit()
    assert made.trainer.global_step == made.data.batches[0].stages[0].steps + 3
    made = job(*stop, "loss/none", *often)
    with pytest.raises(InputError, match=r"conditioned on metric `loss/none` .*`loss/total`"), quiet():
        made.fit()


def test_early_stopping_of_several_pairs_is_refused() -> None:
    made = job("--content", "painting.png", "photo.png", "--trainer.callbacks", "EarlyStopping",
               "--trainer.callbacks.monitor", "loss/total")  # fmt: skip
    with pytest.raises(InputError, match=r"^EarlyStopping would end the run, not its pair"), quiet():
        made.fit()


@OF_LIGHTNING
@pytest.mark.parametrize("options", [["profiler", "simple"], ["callbacks", "ModelSummary"]], ids=" ".join)
def test_what_lightning_is_asked_to_tell_is_told(options: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(logging.Handler, "handle", lambda handler, record: told.append(record.getMessage()))
    with quiet():
        job(f"--trainer.{options[0]}", options[1]).fit()
    (text,) = set(told)
    assert ("optimizer_step" if options[1] == "simple" else "backbone") in text


@OF_LIGHTNING
def test_without_checkpoints_an_unfinished_pair_begins_anew() -> None:
    made = job("--trainer.enable_checkpointing", "false", "--trainer.max_steps", "2")
    with pytest.raises(SystemExit, match=f"^{UNFINISHED}$"), quiet():
        made.fit()
    assert made.run.saved() == []


def test_a_plugin_that_writes_checkpoints_is_refused() -> None:
    made = job("--trainer.plugins", "lightning.pytorch.plugins.io.AsyncCheckpointIO")
    with pytest.raises(InputError, match=r"^trainer\.plugins: AsyncCheckpointIO cannot be used"), quiet():
        made.fit()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--trainer.callbacks", "nonsense"], "nonsense is no class or function that can be imported"),
        (["--trainer.callbacks", "torch.nn.Linear"], ".*does not correspond to a subclass of Callback.*"),
        (["--trainer.callbacks", "EarlyStopping"], ".*EarlyStopping': the following arguments are required: monitor"),
        (["--trainer.logger", "lightning.pytorch.loggers.CSVLogger"], ".*arguments are required: save_dir"),
        (["--trainer.plugins", "nonsense"], "nonsense is no class or function that can be imported"),
    ],
)
def test_a_class_that_cannot_be_made_is_refused_with_the_reason_alone(options: list[str], reason: str) -> None:
    with pytest.raises(ArgumentError) as refused:
        job(*options)
    assert re.fullmatch(f"{options[0]}: {reason}", explained(refused.value)[0])
