"""`nst` as a person types it: results, outputs, resume, and one clear line for whatever cannot be used."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from nst_lightning import image_files
from nst_lightning.__main__ import main
from nst_lightning.api import quiet
from nst_lightning.cli.arguments import read
from nst_lightning.cli.configuration import Configuration, Job
from nst_lightning.cli.registry import COMMANDS
from nst_lightning.modules import StyleTransfer
from nst_lightning.progress import Progress
from tests.processes import Program

ROOT = Path(__file__).parents[2]
FAST = ["--size", "32", "--steps", "4", "--content_layers", "relu2_1", "--style_layers", "relu1_1,relu2_1"]
FAST += ["--style_loss", "gram"]


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with two small pictures where names are looked up."""
    monkeypatch.chdir(tmp_path)
    for kind, name, seed in (("content", "photo", 1), ("style", "painting", 2)):
        pixels = np.random.default_rng(seed).integers(0, 256, (40, 48, 3), dtype=np.uint8)
        folder = tmp_path / f"data/{kind}-images"
        folder.mkdir(parents=True)
        Image.fromarray(pixels).save(folder / f"{name}.png")
    return tmp_path


def fit(*options: str) -> int:
    return main(["fit", "--content", "photo.png", "--style", "painting.png", *FAST, *options])


def test_writes_the_picture_its_configuration_and_its_curves(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit("--save_every", "2") == 0
    run = Path("data/output-images/photo_painting")
    assert capsys.readouterr().out == f"{run}/photo_painting.png\n"
    with Image.open(run / "photo_painting.png") as picture:
        assert picture.size == (32, 27)
    settings = json.loads(image_files.read_metadata(run / "photo_painting.png")["nst_lightning"])
    assert settings["seed"] == 0
    assert settings["step"] == 4
    assert settings["style_layers"] == "relu1_1,relu2_1"
    assert settings["optimizer"] == "LBFGS(lr=1.0, history_size=10, safeguard=True)"
    assert [path.name for path in sorted((run / "steps/photo_painting").iterdir())] == ["000002.png"]
    assert len(list((run / "tensorboard/photo_painting").glob("events*"))) == 1
    assert (run / "config.yaml").is_file()


def test_the_saved_configuration_runs_again_from_anywhere_and_gives_the_same_picture(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert fit("--init", "gaussian") == 0
    first = workplace / "data/output-images/photo_painting"
    elsewhere = workplace / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert main(["fit", "--config", str(first / "config.yaml")]) == 0
    files = first / "photo_painting.png", elsewhere / "data/output-images/photo_painting/photo_painting.png"
    one, other = (Image.open(file) for file in files)
    assert one.tobytes() == other.tobytes()
    # But for where the images lie, which is told from the working folder on.
    assert one.info["nst_lightning"] == other.info["nst_lightning"]


def test_the_end_says_where_to_look_compare_and_how_to_make_it_again(capfd: pytest.CaptureFixture[str]) -> None:
    assert fit("--output", "run") == 0
    told = capfd.readouterr()
    assert told.out == "run/photo_painting.png\n"
    assert told.err.endswith(
        "\ncurves: tensorboard --logdir run\npage: nst report run\nagain: nst fit -c run/config.yaml\n"
    )


def test_one_seed_gives_identical_files_and_another_does_not() -> None:
    for name, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        assert fit("--init", "gaussian", "--seed", seed, "--output", f"{name}.png") == 0
    assert Path("a.png").read_bytes() == Path("b.png").read_bytes()
    assert Path("a.png").read_bytes() != Path("c.png").read_bytes()


def test_nothing_is_overwritten_without_being_asked(capsys: pytest.CaptureFixture[str]) -> None:
    assert fit("--output", "out.png") == 0
    first = Path("out.png").read_bytes()
    assert fit("--output", "out.png", "--init", "style") == 0
    assert capsys.readouterr().out.splitlines() == ["out.png", "out-2.png"]
    assert Path("out.png").read_bytes() == first
    assert fit("--output", "out.png", "--init", "style", "--overwrite", "true") == 0
    assert Path("out.png").read_bytes() == Path("out-2.png").read_bytes() != first


def test_a_killed_run_goes_on_to_the_same_file() -> None:
    """SIGKILL, so that nothing can be tidied: only what stands on disk counts."""
    Path("out.png").write_text("an earlier result")  # so the run is out-2, and must be that when it goes on
    slow = [*FAST[:2], "--steps", "60", *FAST[4:], "--checkpoint_minutes", "0.0001", "--init", "gaussian"]
    command = ["fit", "--content", "photo", "--style", "painting", *slow]
    with Program(*command, "--output", "out.png") as run:
        run.until(lambda: any(Path("out-2").glob("checkpoints/*.ckpt")))
    assert not Path("out-2.png").exists()
    assert main(["fit", "--resume", "out-2"]) == 0
    assert main([*command, "--output", "whole.png"]) == 0
    assert Path("out-2.png").read_bytes() == Path("whole.png").read_bytes()
    assert Path("out.png").read_text() == "an earlier result"


def test_a_finished_run_has_nothing_left_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert fit("--checkpoint_minutes", "1e-9", "--output", "run") == 0
    capsys.readouterr()
    assert main(["fit", "--resume", "run", "--safe"]) == 0  # which admits all that a run saves
    assert capsys.readouterr().out == "run: nothing left to do\n"


@pytest.mark.parametrize("output", ["run", "run.png"])
def test_a_finished_picture_that_is_gone_is_painted_again(output: str, capsys: pytest.CaptureFixture[str]) -> None:
    picture = Path("run/photo_painting.png" if output == "run" else output)
    assert fit("--output", output) == 0
    whole = picture.read_bytes()
    assert main(["fit", "--resume", "run"]) == 0
    picture.unlink()
    with pytest.warns(UserWarning, match=r"^run: no picture is there of photo_painting; will begin anew$"):
        assert main(["fit", "--resume", "run"]) == 0
    assert picture.read_bytes() == whole
    assert capsys.readouterr().out.splitlines() == [str(picture), "run: nothing left to do", str(picture)]


def test_a_run_that_is_told_to_stop_early_leaves_its_picture_and_says_so(capfd: pytest.CaptureFixture[str]) -> None:
    assert fit("--trainer.max_steps", "3", "--output", "run") == 3
    told = "nst: not finished: photo_painting; to go on: nst fit --resume run\n"
    assert capfd.readouterr().err.endswith(told)
    assert [path.name for path in Path("run/steps/photo_painting").iterdir()] == ["000003.png"]
    assert not Path("run/photo_painting.png").exists()


@contextlib.contextmanager
def started(*options: str, ignored: Sequence[int] = ()) -> Iterator[Program]:
    """A long run in a process of its own, once it is past its first steps; its folder is `run`."""
    given = [*FAST[:2], "--steps", "5000", *FAST[4:], "--scores", "off", "--save_every", "5", "--output", "run"]
    with Program("fit", "--content", "photo", "--style", "painting", *given, *options, ignored=ignored) as run:
        run.until(lambda: any(Path("run").glob("steps/*/*.png")))
        yield run


def test_ctrl_c_keeps_the_picture_and_says_how_to_go_on() -> None:
    with started("--scores", "auto") as run:
        run.send_signal(signal.SIGINT)
        ended = run.ended(20)
    told = ended.stderr
    assert ended.returncode == 130
    assert "interrupted; to go on: nst fit --resume run" in told
    assert "Traceback" not in told
    assert len(list(Path("run/checkpoints").glob("*.ckpt"))) == 1
    last = max(Path("run/steps/photo_painting").iterdir())
    assert f"nst: the picture as it is: {last}\n" in told
    settings = json.loads(image_files.read_metadata(last)["nst_lightning"])
    assert int(last.stem) == settings["step"]


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGHUP", 129), ("SIGUSR1", 138)])
def test_a_signal_ends_a_run_when_all_is_saved(name: str, code: int) -> None:
    with started() as run:
        run.send_signal(signal.Signals[name])
        before = time.monotonic()
        ended = run.ended(20)
    assert time.monotonic() - before < 10
    assert ended.returncode == code
    assert ended.stderr.endswith("nst: interrupted; to go on: nst fit --resume run\n")
    assert "Traceback" not in ended.stderr
    assert len(Progress.of(Path("run")).saved) == 1
    assert not Path("run/.lock").exists()


def test_ctrl_c_twice_while_curves_are_written_at_every_step_ends_a_run_at_once() -> None:
    with started("--trainer.log_every_n_steps", "1", "--save_every", "1") as run:
        for _ in range(2):
            run.send_signal(signal.SIGINT)
            time.sleep(0.05)
        before = time.monotonic()
        ended = run.ended(20)
    assert time.monotonic() - before < 5
    assert ended.returncode == 130
    assert "Traceback" not in ended.stderr
    assert len(Progress.of(Path("run")).saved) == 1


def test_a_signal_that_nohup_has_ignored_does_not_end_a_run() -> None:
    with started("--steps", "60", ignored=[signal.SIGHUP]) as run:
        run.send_signal(signal.SIGHUP)
        assert run.ended().returncode == 0


def test_curves_whose_folder_is_deleted_are_one_line_and_the_run_goes_on() -> None:
    with started("--steps", "60", "--trainer.log_every_n_steps", "1") as run:
        shutil.rmtree("run/tensorboard")
        ended = run.ended()
    assert ended.returncode == 0
    line = r"nst: the curves in TensorBoard: [^\n]*No such file[^\n]*; the run goes on without\n"
    assert len(re.findall(line, ended.stderr)) == 1
    assert Path("run/photo_painting.png").is_file()


@pytest.mark.parametrize(
    "streams", ["2>&1 | head -c 100; exit ${PIPESTATUS[0]}", "2>&-", ">&- 2>&-", ">/dev/full 2>&1"]
)
def test_a_run_is_finished_whoever_listens(streams: str) -> None:
    command = [sys.executable, "-m", "nst_lightning", "fit", "--content", "photo", "--style", "painting", *FAST]
    done = subprocess.run(["bash", "-c", f"{' '.join(command)} --output run {streams}"], check=False)
    assert done.returncode == 0
    assert Path("run/photo_painting.png").is_file()
    assert len(list(Path("run/tensorboard/photo_painting").glob("events*"))) == 1


def test_the_checkpoint_is_saved_whatever_else_fails_as_a_run_ends(capfd: pytest.CaptureFixture[str]) -> None:
    Path("run").mkdir()
    Path("run/steps").write_text("where the pictures on the way should be")
    assert fit("--trainer.max_steps", "3", "--output", "run", "--overwrite", "true") in (1, 2)
    assert [each.taken for each in Progress.of(Path("run")).saved] == [3]
    assert re.search(r"nst: error: run/steps[^\n]*\n$", capfd.readouterr().err)


@pytest.mark.parametrize("option", ["--trainer.limit_train_batches=2", "--trainer.max_time=00:00:00:00"])
def test_what_stops_a_run_early_is_told_and_has_a_code(option: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert fit(option, "--output", "run") == 3
    assert capfd.readouterr().err.endswith("nst: not finished: photo_painting; to go on: nst fit --resume run\n")


@pytest.mark.parametrize("batch_size", ["1", "3"])
def test_a_pair_that_cannot_be_finished_is_named_and_keeps_no_other_from_it(
    batch_size: str, capfd: pytest.CaptureFixture[str]
) -> None:
    rows = ["a,", "wild,1e39", "b,"]
    row = "data/content-images/photo.png,data/style-images/painting.png,"
    Path("p.csv").write_text("content,style,name,style_weight\n" + "".join(f"{row}{each}\n" for each in rows))
    assert main(["fit", "--pairs", "p.csv", *FAST, "--data.batch_size", batch_size, "--output", "run"]) == 2
    told = capfd.readouterr()
    named = "nst: error: wild: the loss is not finite when a stage begins [^\n]*\n"
    assert re.search(rf"\n{named}$", told.err)
    assert told.out == "run/a.png\nrun/b.png\n"
    assert Progress.of(Path("run")).failed == {"wild"}
    assert main(["fit", "--resume", "run"]) == 2  # which tries it again
    again = capfd.readouterr()
    assert re.search(rf"\n{named}$", again.err)
    assert again.out == ""
    assert fit("--output", "single") == 0
    pixels = [np.asarray(Image.open(name)) for name in ("run/a.png", "run/b.png", "single/photo_painting.png")]
    assert np.array_equal(pixels[0], pixels[2])
    assert np.array_equal(pixels[1], pixels[2])


def test_a_pair_that_could_not_be_finished_goes_last_when_the_run_goes_on(capfd: pytest.CaptureFixture[str]) -> None:
    row = "data/content-images/photo.png,data/style-images/painting.png,"
    Path("p.csv").write_text(f"content,style,name,style_weight\n{row}wild,1e39\n{row}b,\n")
    assert main(["fit", "--pairs", "p.csv", *FAST, "--output", "run", "--trainer.max_steps", "2"]) == 2
    assert capfd.readouterr().err.endswith("nst: not finished: b; to go on: nst fit --resume run\n")
    assert main(["fit", "--resume", "run", "--trainer.max_steps", "2"]) == 3  # b has two steps to go
    assert Progress.of(Path("run")).finished == {"b"}


def test_output_that_no_one_reads_to_its_end_is_no_error() -> None:
    run = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m nst_lightning completion bash | head -c 1; echo ${{PIPESTATUS[0]}}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stderr == ""
    assert run.stdout.endswith("141\n") or run.stdout.endswith("0\n")  # where all of it fits the pipe


def test_a_folder_or_a_pattern_stands_for_all_its_images() -> None:
    Path("photos").mkdir()
    for name, colour in (("b", "red"), ("a", "blue")):
        Image.new("RGB", (32, 24), colour).save(f"photos/{name}.png")
    given = ["--style", "painting", *FAST, "--output", "run"]
    assert main(["fit", "--content", "photos", *given]) == 0
    assert [path.name for path in sorted(Path("run").glob("*.png"))] == ["a_painting.png", "b_painting.png"]
    assert main(["fit", "--content", "photos/[a]*.png", *given]) == 0
    assert [path.name for path in Path("run-2").glob("*.png")] == ["a_painting.png"]


def test_the_settings_of_a_picture_are_the_pairs_own() -> None:
    photo, painting = "data/content-images/photo.png", "data/style-images/painting.png"
    Path("p.csv").write_text(
        f"content,style,name,size,steps,seed\n{photo},{painting},a,40,6,3\n{photo},{painting},b,,,\n"
    )
    assert main(["fit", "--pairs", "p.csv", *FAST, "--output", "run"]) == 0
    a, b = (json.loads(image_files.read_metadata(f"run/{name}.png")["nst_lightning"]) for name in "ab")
    assert (a["stages"], a["seed"], a["step"]) == ("20 px x 3, 40 px x 3", 3, 6)
    assert (b["stages"], b["seed"], b["step"]) == ("16 px x 2, 32 px x 2", 0, 4)


def test_a_run_that_was_told_to_stop_early_goes_on() -> None:
    assert fit("--output", "whole.png") == 0
    assert fit("--trainer.max_steps", "3", "--output", "run") == 3
    assert main(["fit", "--resume", "run", "--trainer.max_steps", "-1"]) == 0
    assert np.array_equal(np.asarray(Image.open("run/photo_painting.png")), np.asarray(Image.open("whole.png")))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--style_weight", "1000"], r"style_weight was 2\.5, now 1000\.0"),
        (["--pooling", "avg"], r"pooling was max, now avg"),
        (["--optimizer", "adam"], r"optimizer was LBFGS\(.*\), now Adam\(.*\)"),
        (["--trainer.precision", "bf16-mixed"], r"precision was 32-true, now bf16-mixed"),
        (["--size", "24"], r"size was 32, now 24"),
    ],
)
def test_a_run_does_not_go_on_with_other_settings(
    options: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit("--trainer.max_steps", "3", "--output", "run") == 3
    before = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}
    assert main(["fit", "--resume", "run", "--trainer.max_steps", "-1", *options]) == 2
    assert re.search(rf"nst: error: run: was begun otherwise \({told}.*\): give the same", capsys.readouterr().err)
    assert {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()} == before


def test_a_run_does_not_go_on_with_another_photograph_of_the_same_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert fit("--trainer.max_steps", "3", "--output", "run") == 3
    Image.open("data/content-images/photo.png").rotate(180).save("data/content-images/photo.png")
    assert main(["fit", "--resume", "run", "--trainer.max_steps", "-1"]) == 2
    assert re.search(r"photo_painting: content image was sha256 \w{12}, now sha256 \w{12}", capsys.readouterr().err)
    assert main(["fit", "--resume", "run", "--trainer.max_steps", "-1", "--tile", "16", "--steps", "5"]) == 2


@pytest.mark.parametrize("text", ["", "null", "[1]", '{"seed": 0', "[" * 100_000, "\0"], ids=range(6))
def test_damaged_notes_of_how_a_run_was_begun_are_named(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert fit("--trainer.max_steps", "3", "--output", "run") == 3
    Path("run/checkpoints/begun.json").write_text(text)
    capsys.readouterr()
    assert main(["fit", "--resume", "run", "--trainer.max_steps", "-1"]) == 2
    assert capsys.readouterr().err.startswith("nst: error: run/checkpoints/begun.json: is damaged: without it the run")


def test_a_run_that_was_stopped_before_its_first_step_goes_on() -> None:
    assert fit("--trainer.max_time", "00:00:00:00", "--output", "run") == 3
    assert main(["fit", "--resume", "run", "--trainer.max_time", "null"]) == 0
    assert Path("run/photo_painting.png").is_file()


@pytest.mark.parametrize("name", ["#x", "&a", "!x", "😀"])
def test_names_that_yaml_reads_otherwise_are_names(name: str) -> None:
    assert fit(f"--output={name}") == 0
    assert main(["fit", f"--config={name}/config.yaml", "--output=again"]) == 0
    assert Path("again/photo_painting.png").read_bytes() == Path(name, "photo_painting.png").read_bytes()


def test_a_damaged_checkpoint_is_begun_anew(capfd: pytest.CaptureFixture[str]) -> None:
    assert fit("--output", "run") == 0
    whole = Path("run/photo_painting.png").read_bytes()
    Path("run/checkpoints/finished/photo_painting").unlink()
    Path("run/checkpoints/photo_painting.ckpt").write_bytes(b"PK" + bytes(200))
    with pytest.warns(UserWarning, match=r"photo_painting\.ckpt: the checkpoint is damaged .* will begin anew"):
        assert main(["fit", "--resume", "run"]) == 0
    assert Path("run/photo_painting.png").read_bytes() == whole


def png(name: str, width: int, height: int) -> None:
    Image.new("RGB", (width, height), "red").save(name)


def truncated_jpeg() -> None:
    Image.effect_noise((64, 64), 80).convert("RGB").save("whole.jpg")
    Path("bad.jpg").write_bytes(Path("whole.jpg").read_bytes()[:900])


def piped() -> None:
    Path("pipes").mkdir()
    os.mkfifo("pipes/pipe.png")


BAD_INPUTS = {
    "missing file": (lambda: None, ["--content", "nope.jpg"], r"content image nope\.jpg is neither here nor in data/"),
    "directory": (
        lambda: Path("bad.png").mkdir(),
        ["--content", "bad.png"],
        r"content folder bad\.png has no image in it",
    ),
    "zero bytes": (Path("bad.png").touch, ["--content", "bad.png"], r"bad\.png: is empty \(0 bytes\)"),
    "truncated JPEG": (truncated_jpeg, ["--content", "bad.jpg"], r"bad\.jpg: .*truncated"),
    "text named .png": (
        lambda: Path("bad.png").write_text("hello"),
        ["--style", "bad.png"],
        r"bad\.png: is not an image",
    ),
    "1x1 image": (lambda: png("bad.png", 1, 1), ["--content", "bad.png"], r"bad\.png: is 1 px wide .*16 to 16384 px"),
    "30,000 px wide image": (lambda: png("bad.png", 30_000, 20), ["--content", "bad.png"], r"bad\.png: .*30000.*16384"),
    "unknown layer": (
        lambda: None,
        ["--style_layers", "relu9_1"],
        r"unknown layer 'relu9_1' of vgg16; known are conv1_1",
    ),
    "negative size": (lambda: None, ["--size", "-64"], r"size must be at least 1, got -64"),
    "style weight NaN": (lambda: None, ["--style_weight", ".nan"], r"style_weight must be a finite number.* got nan"),
    "style weight not a number": (
        lambda: None,
        ["--style_weight", "much"],
        r"--style_weight must be a number, got 'much'",
    ),
    "no write permission": (lambda: None, ["--output", "/proc/nowhere/x.png"], r"/proc/nowhere/x: cannot create files"),
    "output in a file": (
        lambda: Path("f").touch(),
        ["--output", "f/x.png"],
        r"f/x: cannot create files there \(Not a directory\)",
    ),
    "unknown format": (lambda: None, ["--output", "x.gif"], r"x\.gif: has suffix '\.gif'; allowed are \.png"),
    "content null": (
        lambda: None,
        ["--data.content", "null"],
        r"no content image was given; name a file with --content",
    ),
    "unknown option": (lambda: None, ["--sise", "3"], r"unknown option --sise: did you mean --size\?"),
    "configuration of bytes": (
        lambda: Path("b.yaml").write_bytes(b"\xff\xfe\x00"),
        ["--config", "b.yaml"],
        r"b\.yaml: is not a configuration: not text in UTF-8 \(invalid start byte at byte 0\)",
    ),
    "configuration of PowerShell's >": (
        lambda: Path("b.yaml").write_text("data: {size: 32}", encoding="utf-16"),
        ["--config", "b.yaml"],
        r"b\.yaml: is not a configuration: not text in UTF-8",
    ),
    "configuration that is no YAML": (
        lambda: Path("b.yaml").write_text("a: [b"),
        ["--config", "b.yaml"],
        r"while parsing .* in \"b\.yaml\", line 1",
    ),
    "configuration is a folder": (lambda: Path("b.yaml").mkdir(), ["--config", "b.yaml"], r"b\.yaml: Is a directory"),
    "configuration is a pipe": (
        lambda: os.mkfifo("b.yaml"),
        ["--config", "b.yaml"],
        r"b\.yaml: a device or a pipe, not a file",
    ),
    "configuration without settings": (
        lambda: Path("b.yaml").write_text("hello"),
        ["--config", "b.yaml"],
        r"b\.yaml: is not a configuration: expected settings by name",
    ),
    "group left empty": (
        lambda: Path("b.yaml").write_text("data:\nmodel: {seed: 3}"),
        ["--config=b.yaml"],
        r"b\.yaml: data must be settings by name, got None",
    ),
    "group that is a number": (
        lambda: Path("b.yaml").write_text("model: 3"),
        ["--config=b.yaml"],
        r"b\.yaml: model must be settings by name, got 3",
    ),
    "content is a pipe": (
        piped,
        ["--content", "pipes/pipe.png"],
        r"pipe\.png: cannot be opened \(a device or a pipe, not a file\)",
    ),
    "output is no name": (lambda: None, ["--output", "."], r"output must name a folder or a picture's file, got '\.'"),
    "output of nothing": (lambda: None, ["--output="], r"output must name a folder or a picture's file, got ''"),
    "output with a null": (lambda: None, ["--output", "a\0b"], r"output must name .*, got 'a\\x00b'"),
    "output is too long": (lambda: None, ["--output", "a" * 5000], r"a{80}\.\.\.a+: File name too long"),
    "above the largest size": (
        lambda: None,
        ["--size", "20000", "--upscale", "true"],
        r"pair photo_painting: images of 20000 px were asked for, 16384 are allowed",
    ),
    "too small at a stage": (
        lambda: None,
        ["--content_layers", "relu5_1", "--stages", "3"],
        r"pair photo_painting: its image is of 8x7 px at the stage of 8 px, too small for these layers: 16 px",
    ),
    "style too small at a stage": (
        lambda: None,
        ["--style_layers", "relu5_1", "--style_scale", "0.4", "--stages", "1"],
        r"pair photo_painting: its style is of 13x11 px at the stage of 32 px, too small for these layers: 16 px",
    ),
    "no accelerator of that name": (
        lambda: None,
        ["--trainer.accelerator", "abacus"],
        r"these settings make no trainer: .*'abacus'",
    ),
    "no such accelerator here": (
        lambda: None,
        ["--trainer.accelerator", "tpu"],
        r"these settings make no trainer: .*xla",
    ),
    "precision that needs another package": (
        lambda: None,
        ["--precision", "transformer-engine"],
        r"these settings make no trainer: .*transformer_engine",
    ),
    "devices below one": (lambda: None, ["--devices", "-1"], r"these settings make no trainer: `devices` .* int > 0"),
    "devices by number": (lambda: None, ["--devices", "[0]"], r"these settings make no trainer: `devices` .* int > 0"),
    "optimizer of sparse gradients": (
        lambda: None,
        ["--optimizer", "SparseAdam"],
        r"the optimizer cannot be used for images: SparseAdam does not support dense gradients",
    ),
    "optimizer of matrices": (
        lambda: None,
        ["--optimizer", "Muon"],  # which old versions of torch have not
        "cannot be used for images: Muon only supports 2D" if hasattr(torch.optim, "Muon") else "Muon",
    ),
    "no such config": (lambda: None, ["--config", "nope.yaml"], r"nope\.yaml: No such file"),
    "unknown init": (
        lambda: None,
        ["--init", "random"],
        r"unknown init 'random'; known are content, style, gaussian, uniform, mean, grey, painter:FILE, or a pict",
    ),
    "unknown backbone": (lambda: None, ["--backbone", "vgg11"], r"unknown backbone 'vgg11'; known are vgg16, "),
    "unknown optimizer": (lambda: None, ["--optimizer", "sgdd"], r"unknown optimizer 'sgdd'; known are lbfgs, adam"),
    "checkpoint of too long a name": (lambda: None, ["--ckpt_path", "a" * 300], r"no such checkpoint; a run's are in"),
    "weights not there": (lambda: None, ["--weights", "w.pth"], r"w\.pth: no such weights file"),
    "weights of another network": (
        lambda: None,
        ["--backbone", "resnet50", "--weights", "oxford", "--content_layers", "relu", "--style_layers", "relu"],
        r"no oxford weights for resnet50",
    ),
    "nothing to do": (lambda: None, ["--steps", "0"], r"steps must be at least the number of stages \(\d\), got 0"),
    "bad stage": (lambda: None, ["--stages", "[{size: 32, steps: -1}]"], r"a stage's steps must be at least 1, got -1"),
    "several processes": (
        lambda: None,
        ["--trainer.devices", "2"],
        r"trainer\.strategy must be pair_parallel or .* 2 processes",
    ),
    "several machines": (
        lambda: None,
        ["--trainer.num_nodes", "2", "--strategy", "pair_parallel", "--trainer.accelerator", "cpu"],
        r"trainer\.num_nodes is 2: .* torchrun or SLURM",
    ),
    "precision": (lambda: None, ["--precision", "16-true"], r"trainer\.precision must be one of 32-true, .* 16-true"),
    "tile": (lambda: None, ["--tile", "0"], r"tile must be off, auto or a number of pixels from 1, got 0"),
    "both pairs and content": (lambda: None, ["--pairs", "p.csv"], r"pairs .*p\.csv names the images already"),
    "no such accelerator": (lambda: None, ["--trainer.accelerator", "mps"], r"MPS.*not available"),
    "no run to resume": (
        lambda: None,
        ["--resume", "nowhere"],
        r"nowhere: is not the folder of a run, for it has no config\.yaml",
    ),
    "resume of nothing": (lambda: None, ["--resume"], r"--resume needs the folder of a run"),
}


@pytest.mark.parametrize("case", BAD_INPUTS)
def test_bad_input_ends_in_one_line_and_exit_code_2(case: str, capfd: pytest.CaptureFixture[str]) -> None:
    prepare, options, message = BAD_INPUTS[case]
    prepare()  # type: ignore[no-untyped-call]
    before = sorted(Path().rglob("*"))
    assert fit(*options) == 2
    told = capfd.readouterr()
    assert re.fullmatch(rf"nst: error: [^\n]*{message}[^\n]*\n", told.err), told.err
    assert told.out == ""
    assert sorted(Path().rglob("*")) == before


@pytest.mark.parametrize(
    "key",
    [
        *("data.stages", "data.style_scale", "data.batch_size", "data.upscale", "data.pairing", "model.tv_weight"),
        *("model.seed", "model.init", "model.pooling", "model.style_loss", "checkpoint_minutes", "overwrite"),
        *("trainer.devices", "trainer.accelerator", "trainer.log_every_n_steps"),
    ],
)
def test_a_key_with_nothing_behind_it_is_refused_by_its_name(key: str, capfd: pytest.CaptureFixture[str]) -> None:
    group, _, name = key.rpartition(".")
    Path("b.yaml").write_text("save_every: 2\n" + (f"{group}:\n  {name}:\n" if group else f"{name}:\n"))
    assert main(["fit", "--config", "b.yaml", "--content", "photo.png", "--style", "painting.png"]) == 2
    assert re.fullmatch(rf"nst: error: [^\n]*\b{name}\b[^\n]* None\n", capfd.readouterr().err)
    assert not Path("data/output-images").exists()


def test_a_list_of_no_images_is_refused(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--content", "photo.png", "--data.style", "[]", *FAST]) == 2
    assert capfd.readouterr().err == "nst: error: style is an empty list; name an image, or several\n"


def test_a_refused_run_leaves_its_name_to_the_next() -> None:
    assert fit("--output", "new/out.png", "--content_layers", "relu5_1") == 2
    assert not Path("new").exists()
    assert fit("--output", "new/out.png") == 0
    assert Path("new/out.png").is_file()


@pytest.mark.parametrize("output", [None, "out.png", "made"])
def test_two_runs_at_once_have_a_folder_each(output: str | None) -> None:
    Path("made").mkdir()  # an empty folder may be taken, but once
    options = [] if output is None else ["--output", output]
    given = ["--content", "photo.png", "--style", "painting.png", *FAST, "--scores", "off", *options]
    with quiet(), ExitStack() as first, ExitStack() as second:
        jobs = [Job(Configuration(read(given), StyleTransfer), claims) for claims in (first, second)]
        for job in jobs:
            job.fit()
    first_folder, second_folder = (job.run.folder for job in jobs)
    assert second_folder == first_folder.with_name(f"{first_folder.name}-2")
    one, other = (job.writer.written[0].read_bytes() for job in jobs)
    assert one == other
    assert not [*Path().rglob(".lock")]


def test_a_callback_of_lightnings_can_be_named() -> None:
    assert fit("--trainer.callbacks", "ModelSummary", "--output", "x.png") == 0


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--help"], 0, r"commands:\n  fit "),
        (["--version"], 0, r"^nst \d+\.\d+"),
        (["fti"], 2, r"nst: error: unknown command 'fti'; did you mean fit\?"),
        ([], 2, r"usage: nst COMMAND"),
    ],
)
def test_answers_without_torch_what_does_not_need_it(arguments: list[str], code: int, text: str) -> None:
    program = (
        "import sys; from nst_lightning.__main__ import main; code = main(sys.argv[1:]);"
        "assert not {'torch', 'lightning', 'numpy', 'PIL'} & set(sys.modules); sys.exit(code)"
    )
    run = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)
    assert run.returncode == code, run.stderr
    assert re.search(text, run.stdout + run.stderr)


def test_help_begins_with_the_options_that_matter(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--help", "all"]) == 0
    told = capsys.readouterr().out
    matter, _, everything = told.partition("All options")
    for name in "content style output size steps init content_weight style_weight optimizer seed".split():
        assert f"--{name} " in matter
    assert "--model.style_weight" in everything
    assert "--data.content" in everything


def test_adam_and_any_optimiser_of_torch_can_be_named() -> None:
    for name in ("adam", "torch.optim.RMSprop", "Adagrad"):
        rate = [] if name == "adam" else ["--model.optimizer.lr", "0.001"]
        assert fit("--optimizer", name, *rate, "--output", f"{name}.png") == 0
        written = image_files.read_metadata(Path(f"{name}.png"))["nst_lightning"]
        assert name.split(".")[-1].lower() in json.loads(written)["optimizer"].lower()


def test_stages_can_be_listed() -> None:
    assert fit("--stages", "[{size: 24, steps: 2}, {size: 40, steps: 1}]", "--size", "40", "--output", "x.png") == 0
    with Image.open("x.png") as picture:
        assert picture.size == (40, 33)


def test_transparency_of_the_content_is_kept() -> None:
    picture = Image.new("RGBA", (40, 32), (200, 30, 30, 255))
    picture.putalpha(Image.linear_gradient("L").resize((40, 32)))
    picture.save("clear.png")
    assert main(["fit", "--content", "clear.png", "--style", "painting", *FAST, "--output", "x.png"]) == 0
    with Image.open("x.png") as out, Image.open("clear.png") as given:
        alpha = np.asarray(out.getchannel("A"), dtype=float)
        expected = np.asarray(given.getchannel("A").resize(out.size, Image.Resampling.BICUBIC), dtype=float)
    assert np.abs(alpha - expected).max() <= 2


def test_the_configuration_is_what_was_asked_for() -> None:
    assert fit("--style_weight", "7", "--output", "run") == 0
    config = yaml.safe_load(Path("run/config.yaml").read_text())
    assert config["model"]["style_weight"] == 7
    assert config["data"]["size"] == 32
    assert Path(config["data"]["content"]) == Path("data/content-images/photo.png").resolve()
    assert os.fspath(torch.hub.get_dir()) not in Path("run/config.yaml").read_text()


def test_the_studys_numbers_choose_layers() -> None:
    assert main(["fit", "--content", "photo", "--style", "painting", *FAST[:4], "--content_layers", "1",
                 "--style_layers", "2", "--output", "x.png"]) == 0  # fmt: skip
    settings = json.loads(image_files.read_metadata(Path("x.png"))["nst_lightning"])
    assert (settings["content_layers"], settings["style_layers"]) == ("relu2_1", "relu1_1,relu2_1")


def test_representations_are_shown_in_tensorboard_where_asked() -> None:
    assert fit("--representations", "relu1_1", "--output", "run") == 0
    (events,) = Path("run/tensorboard/photo_painting").glob("events*")
    assert b"features/relu1_1" in events.read_bytes()
    assert b"gram/relu1_1" in events.read_bytes()


def test_backbones_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["backbones"]) == 0
    told = capsys.readouterr().out
    assert re.search(r"vgg16: weights oxford \(bundled\), torchvision \(download\)\n", told)
    assert "inception_v3: weights torchvision (download)\n" in told


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_its_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    assert f"usage: nst {command}" in capsys.readouterr().out


def test_lightnings_other_precisions_run() -> None:
    assert fit("--trainer.precision", "64-true", "--output", "x.png") == 0


@pytest.mark.parametrize("form", ["mp4", "webp"])
def test_a_film_of_the_optimisation_is_written_where_asked(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert fit("--video", form, "--output", "run") == 0
    assert capsys.readouterr().out.splitlines() == ["run/photo_painting.png", f"run/photo_painting.{form}"]
    assert Path(f"run/photo_painting.{form}").stat().st_size > 500


def test_an_unknown_film_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert fit("--video=avi") == 2
    assert re.fullmatch(r"nst: error: --video: [^\n]*mp4[^\n]*avi[^\n]*\n", capsys.readouterr().err)


class Trap:
    """What a pickle can do when it is loaded."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("sprung"),)  # type: ignore[return-value]


def test_a_checkpoint_with_code_in_it_is_not_run(capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"state_dict": Trap()}, "bad.ckpt")
    assert fit("--ckpt_path", "bad.ckpt") == 2
    assert re.fullmatch(r"nst: error: bad\.ckpt: the checkpoint is damaged or not [^\n]*\n", capsys.readouterr().err)
    assert not Path("sprung").exists()
    Path("bad.ckpt").write_bytes(b"nothing of the kind")
    assert fit("--ckpt_path", "bad.ckpt") == 2
    assert re.fullmatch(r"nst: error: bad\.ckpt: the checkpoint is damaged or not [^\n]*\n", capsys.readouterr().err)
    assert fit("--ckpt_path", "none.ckpt") == 2
    assert re.fullmatch(r"nst: error: [^\n]*none\.ckpt[^\n]*\n", capsys.readouterr().err)


def test_a_tilde_is_the_home_folder_in_every_path(monkeypatch: pytest.MonkeyPatch, workplace: Path) -> None:
    home = workplace / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    Path("data/content-images/photo.png").rename(home / "a.png")
    (home / "p.csv").write_text("content,style,init,name\n~/a.png,painting.png,~/a.png,b\n")
    (home / "f.yaml").write_text(
        "data: {content: [~/a.png], style: painting}\nmodel: {init: ~/a.png}\noutput: ~/of_file"
    )
    assert main(["fit", "--config=~/f.yaml", *FAST]) == 0
    assert main(["fit", "--pairs=~/p.csv", *FAST, "--output=~/of_list"]) == 0
    assert main(["fit", "--content", "~/a.png", "--style=painting", *FAST, "--output=~/pic.png"]) == 0
    assert main(["fit", "--resume=~/of_list"]) == 0
    assert main(["inspect", "--image=~/a.png", "--layers", "relu1_1", "--output=~/seen"]) == 0
    assert {"of_file", "of_list", "pic", "pic.png", "seen"} <= {path.name for path in home.iterdir()}
    assert [path.name for path in (home / "of_list").glob("*.png")] == ["b.png"]
    assert not [path for path in workplace.rglob("*") if path.name.startswith("~")]


def test_a_name_that_the_terminal_cannot_show_is_written_and_told() -> None:
    Path("data/content-images/photo.png").rename("caf\u00e9.png")
    command = [sys.executable, "-m", "nst_lightning", "fit", "--content", "caf\u00e9.png", "--style", "painting", *FAST]
    told = subprocess.run(command, capture_output=True, env={**os.environ, "PYTHONIOENCODING": "ascii"}, check=False)
    assert told.returncode == 0, told.stderr
    assert b"caf\\xe9_painting.png" in told.stdout
    assert len([*Path("data/output-images").glob("*/*.png")]) == 1


@pytest.mark.parametrize("option", ["content", "style", "output", "init"])
def test_a_name_that_is_not_utf_8_is_refused(option: str, capfd: pytest.CaptureFixture[str]) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    Path(name).write_bytes(Path("data/content-images/photo.png").read_bytes())
    given = {"content": "photo", "style": "painting", option: name}
    assert main(["fit", *FAST, *(f"--{key}={value}" for key, value in given.items())]) == 2
    message = rf"nst: error: (data\.|model\.)?{option} has a name that is not UTF-8, [^\n]*caf.udce9\.png[^\n]*\n"
    assert re.fullmatch(message, capfd.readouterr().err)
    assert not Path("data/output-images").exists()
