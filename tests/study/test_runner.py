"""Which cells share a run, what is run, and what is said where a run fails."""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from nst_lightning.pairs import COLUMNS
from nst_lightning.study import experiment, runner
from nst_lightning.study.runner import Job

Written = Callable[[str], Path]

pytestmark = pytest.mark.usefixtures("workplace")

BASE = "base: {content: [chelsea, temple], style: [night_cafe, pere_tanguy], size: 64, steps: 4}\n"
ONE = "base: {content: chelsea, style: night_cafe, size: 64, steps: 4, style_loss: gram, scores: 'off'}\n"


def jobs_of(path: Path, folder: str = "out", **overrides: str) -> tuple[Job, ...]:
    return runner.jobs(experiment.read(path, overrides), Path(folder))


def noting(called: list[list[str]]) -> Callable[[Sequence[str]], str]:
    """Returns what notes a command, and says that it failed."""

    def call(command: Sequence[str]) -> str:
        called.append(list(command))
        return "reason"

    return call


def missing(job: Job) -> list[int]:
    return [place for place, cell in enumerate(job.cells) if cell in job.missing]


def finish(job: Job, *places: int) -> None:
    """Makes the files that say that cells are finished."""
    for place in places:
        marker = job.run.marker(job.cells[place].name)
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.touch()
        job.pictures[place].touch()


# ---- which cells share a run ----


@pytest.mark.parametrize(
    "axes",
    ["{init: [content, style]}", "{style_weight: [1, 10], content_weight: [5]}", "{size: [48, 64]}", "{steps: [2, 3]}"],
)
def test_cells_that_differ_in_what_a_pair_can_have_of_its_own_share_a_run(axes: str, written: Written) -> None:
    text = f"base: {{content: [chelsea, temple], style: night_cafe}}\naxes: {axes}\nseeds: [0, 1]"
    (job,) = jobs_of(written(text))
    assert len(job.cells) == len(job.pictures) == 8
    assert job.run.folder == Path("out/runs/all")
    assert job.list == Path("out/runs/all.csv")


@pytest.mark.parametrize(
    ("axis", "values", "folders"),
    [
        ("style_layers", "[1, 2]", ["style_layers-1", "style_layers-2"]),
        ("backbone", "[vgg16, vgg19]", ["backbone-vgg16", "backbone-vgg19"]),
        ("optimizer", "[lbfgs, adam]", ["optimizer-lbfgs", "optimizer-adam"]),
        ("model.pooling", "[max, avg]", ["model_pooling-max", "model_pooling-avg"]),
        ("weights", "[a.pth, b.pth]", ["weights-a_pth", "weights-b_pth"]),
    ],
)
def test_cells_that_differ_in_anything_else_do_not(
    axis: str, values: str, folders: list[str], written: Written
) -> None:
    jobs = jobs_of(written(BASE + f"axes: {{init: [content, style], {axis}: {values}}}"))
    assert [job.run.folder.name for job in jobs] == folders
    assert [len(job.cells) for job in jobs] == [4, 4]
    for job in jobs:
        assert len({cell.values[axis] for cell in job.cells}) == 1


def test_a_reconstruction_has_a_run_an_image_source_and_seed(written: Written) -> None:
    path = written(
        "command: reconstruct\nbase: {content: chelsea, style: night_cafe, size: 64}\n"
        "axes: {layers: [relu1_1, relu2_1], from: [content, style]}\nseeds: [0, 1]"
    )
    jobs = jobs_of(path)
    assert [job.run.folder.name for job in jobs] == [
        f"chelsea_night_cafe__from-{source}__seed-{seed}" for source in ("content", "style") for seed in (0, 1)
    ]
    for job, image in zip(jobs, ["chelsea"] * 2 + ["night_cafe"] * 2, strict=True):
        assert job.list is None
        assert [picture.name for picture in job.pictures] == ["relu1_1.png", "relu2_1.png"]
        assert Path(job.command[job.command.index("--image") + 1]).stem == image


def test_the_folder_of_a_reconstruction_has_no_dot(written: Written, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("content,style,name\nchelsea,night_cafe,v1.5\n")
    (job,) = jobs_of(written("command: reconstruct\nbase: {pairs: list.csv}\naxes: {layers: [relu1_1]}"))
    assert job.run.folder.name == "v1_5__seed-0"


# ---- what is missing ----


def test_what_is_missing_follows_picture_and_marker(written: Written) -> None:
    (job,) = jobs_of(written(BASE + "axes: {init: [content, style]}"))
    assert missing(job) == [0, 1, 2, 3]
    finish(job, 0, 2)
    assert missing(job) == [1, 3]
    job.pictures[0].unlink()  # marked, but gone
    job.pictures[1].touch()  # there as it was when the run was broken off
    assert missing(job) == [0, 1, 3]
    finish(job, 0, 1, 3)
    assert missing(job) == []


def test_a_reconstruction_is_finished_when_its_picture_is_there(written: Written) -> None:
    (job,) = jobs_of(
        written("command: reconstruct\nbase: {content: chelsea, style: night_cafe}\naxes: {layers: [relu1_1, relu2_1]}")
    )
    job.run.folder.mkdir(parents=True)
    job.pictures[1].touch()
    assert missing(job) == [0]


def test_finished_runs_are_not_run(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    done, other = jobs_of(written(BASE + "axes: {style_layers: [1, 2]}"))
    finish(done, 0, 1)
    called: list[list[str]] = []
    monkeypatch.setattr(runner, "_call", noting(called))
    assert runner.execute([done, other]) == {"style_layers-2": "reason"}
    assert [command[-1] for command in called] == ["--style_layers=2"]


# ---- commands ----


def test_a_run_is_one_that_could_be_typed(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    (job,) = jobs_of(written(BASE + "axes: {backbone: [vgg16], init: [style]}"), devices="2", strategy="pair_parallel")
    called: list[list[str]] = []
    monkeypatch.setattr(runner, "_call", noting(called))
    runner.execute([job])
    assert called == [
        [
            *(sys.executable, "-m", "nst_lightning", "fit"),
            *("--pairs", "out/runs/backbone-vgg16.csv", "--output", "out/runs/backbone-vgg16", "--overwrite", "true"),
            *("--batch_size=4", "--size=64", "--steps=4", "--devices=2", "--strategy=pair_parallel"),
            "--backbone=vgg16",
        ]
    ]
    with Path("out/runs/backbone-vgg16.csv").open(newline="") as lines:
        first = next(csv.DictReader(lines))
    assert first.keys() == {*COLUMNS}
    told = {name: cell for name, cell in first.items() if cell != ""}
    assert told.keys() == {"name", "content", "style", "init", "seed"}
    assert (told["name"], told["init"], told["seed"]) == (
        "chelsea_night_cafe__backbone-vgg16__init-style",
        "style",
        "0",
    )
    assert told["content"].endswith("chelsea.png") and told["style"].endswith("cafe.png")


def test_a_run_that_was_begun_is_resumed_with_its_devices(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    overrides = {"devices": "2", "strategy": "pair_parallel", "trainer.accelerator": "cpu", "size": "32"}
    (job,) = jobs_of(written(BASE + "axes: {init: [style]}"), **overrides)
    job.run.folder.mkdir(parents=True)
    job.run.config.touch()
    called: list[list[str]] = []
    monkeypatch.setattr(runner, "_call", noting(called))
    runner.execute([job])
    processes = ["--devices=2", "--strategy=pair_parallel", "--trainer.accelerator=cpu"]
    resumed = ["--resume", "out/runs/all", "--pairs", "out/runs/all.csv", *processes]
    assert called == [[sys.executable, "-m", "nst_lightning", "fit", *resumed]]


def test_a_reconstruction_is_run_with_all_its_layers(written: Written) -> None:
    (job,) = jobs_of(
        written(
            "command: reconstruct\nbase: {content: chelsea, style: night_cafe, size: 64, steps: 2}\n"
            "axes: {layers: [relu1_1, relu2_1], from: [style]}"
        )
    )
    folder = "out/runs/chelsea_night_cafe__from-style__seed-0"
    assert job.command == (
        *("reconstruct", "--image", str(Path("data/style-images/night_cafe.png"))),
        *("--output", folder, "--overwrite", "true"),
        *("--size=64", "--steps=2", "--layers=relu1_1,relu2_1", "--from=style", "--seed=0"),
    )


# ---- running ----


def test_the_reason_of_a_run_that_fails_is_returned_and_the_others_go_on(
    written: Written, commands: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(url: str, **_: object) -> None:
        raise OSError("no route")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", no_network)
    jobs = jobs_of(written(ONE + "axes: {backbone: [resnet50, vgg16]}"))
    failed = runner.execute(jobs)
    assert list(failed) == ["backbone-resnet50"]
    assert re.match(
        r"cannot download resnet50-\w+\.pth from https://.* \(no route\): copy the file to", failed["backbone-resnet50"]
    )
    assert len(commands) == 2
    assert [len(job.missing) for job in jobs] == [1, 0]


def test_a_run_that_ends_without_all_its_pictures_has_failed(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "_call", lambda command: None)  # as where trainer.max_time stops it
    jobs = jobs_of(written(BASE + "axes: {init: [style]}"))
    finish(jobs[0], 1)
    assert runner.execute(jobs) == {"all": "it ended without 1 of its pictures"}


def call(script: str) -> str | None:
    return runner._call([sys.executable, "-c", script])


def test_a_commands_last_line_is_returned_and_all_are_passed_on(capsys: pytest.CaptureFixture[str]) -> None:
    said = r"one\n  1%| |\r 50%| |\rnst: error: a.pth: no such file\n\n"
    assert call(f"import sys; print('out'); sys.stderr.write({said!r}.encode().decode('unicode_escape')); sys.exit(2)")
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == "one\n  1%| |\r 50%| |\rnst: error: a.pth: no such file\n\n"


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("print('fine')", None),
        ("import sys; print('fine, too', file=sys.stderr)", None),
        ("import sys; sys.exit('nst: error: a.pth: no such file')", "a.pth: no such file"),
        ("import sys; sys.exit('50%|nst: error: disk full')", "disk full"),
        ("raise ValueError('x')", "ValueError: x"),
        ("import sys; sys.exit(3)", "exit code 3"),
        ("import os; os.kill(os.getpid(), 9)", "exit code -9"),
    ],
)
def test_nothing_is_the_reason_of_success(script: str, reason: str | None) -> None:
    assert call(script) == reason


def test_what_is_no_text_does_not_stop_a_run() -> None:
    assert call(r"import sys; sys.stderr.buffer.write(b'\xff\xfe\n'); sys.exit(1)") == "\ufffd\ufffd"


def test_ctrl_c_waits_for_what_the_command_still_does(capsys: pytest.CaptureFixture[str]) -> None:
    """The command says more than a pipe holds after it was interrupted, and must come to its end."""
    script = (
        "import os, signal, sys, time\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"  # it is told too, and takes its time
        "signal.alarm(60)\n"  # should nobody read what it says
        "print('begun', file=sys.stderr, flush=True)\n"
        "time.sleep(0.3)\n"
        "os.kill(os.getppid(), signal.SIGINT)\n"
        "sys.stderr.write('x' * 200_000)\n"
        "sys.stderr.flush()\n"
        "open('saved', 'w').close()\n"
    )
    with pytest.raises(KeyboardInterrupt):
        call(script)
    assert Path("saved").exists()
    said = capsys.readouterr().err  # without what was being read just then
    assert said.startswith("begun\n")
    assert said.count("x") > 150_000
