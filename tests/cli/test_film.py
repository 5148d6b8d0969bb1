"""`nst film`: end to end, killed and resumed, over processes, and what no film can be made of."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

from nst_lightning import images
from nst_lightning.__main__ import main
from nst_lightning.batches import Step
from nst_lightning.callbacks import ImageWriter
from nst_lightning.cli import configuration
from nst_lightning.film import Film
from nst_lightning.image_files import read_metadata
from nst_lightning.interruption import Interrupted
from nst_lightning.painters import PainterNetwork, Trained
from tests.benchmarks.film import clip, flicker, pictures_of
from tests.conftest import threads
from tests.processes import apart, run
from tests.test_clips import duration, sound_of

pytest.importorskip("cv2")
pytestmark = pytest.mark.usefixtures("one_thread")
FAST = (
    *("--size", "64", "--steps", "8", "--frame_steps", "6", "--style_loss", "gram", "--content_layers", "relu3_1"),
    *("--style_layers", "relu1_1,relu2_1,relu3_1", "--trainer.enable_progress_bar", "false"),
)


class Killing(ImageWriter):
    """Ends the process as nothing can prepare for."""

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: Step, batch_idx: int
    ) -> None:
        if batch.batch.names == ("frame_000003",) and batch.index == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)


def film_until_killed(folder: Path, *words: str) -> None:
    """What the killed process of a test runs."""
    os.chdir(folder)
    setattr(configuration, "ImageWriter", Killing)  # noqa: B010 - mypy has it a type
    with threads(1):
        film(*words)


def made() -> dict[str, bytes]:
    """The files of the film out.mp4 and of its frames, settings in the metadata included."""
    return {path.name: path.read_bytes() for path in [Path("out.mp4"), *Path("out/frames").glob("*.png")]}


@pytest.fixture
def source(workplace: Path) -> Path:
    return clip(workplace / "clip.mp4", 5, 64)


def film(*words: str) -> int:
    return main(["film", *words])


def test_half_the_flicker_the_same_sound_and_the_same_length(source: Path, capfd: pytest.CaptureFixture[str]) -> None:
    slow = [*FAST, "--steps", "24", "--frame_steps", "8"]
    assert film("clip.mp4", "painting.png", "-o", "out.mp4", *slow) == 0
    assert capfd.readouterr().out.endswith("out.mp4\n")
    assert film("clip.mp4", "painting.png", "-o", "alone.mp4", "--chunks", "5", "--overlap", "0", *slow) == 0
    together, alone = (flicker(*pictures_of(Film.read(Path(name)))) for name in ("out", "alone"))
    assert all(2 * one**0.5 < other**0.5 for one, other in zip(together, alone, strict=True))
    assert sound_of(Path("out.mp4")) == sound_of(source)
    assert duration(Path("out.mp4")) == pytest.approx(duration(source), abs=0.03)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no SIGKILL")
def test_killed_and_resumed_it_is_the_same_to_the_byte(source: Path) -> None:
    words = ["clip.mp4", "painting.png", "-o", "out.mp4", *FAST]

    assert film(*words) == 0
    whole = made()
    assert len(whole) == 6
    assert apart(film_until_killed, Path.cwd(), *words, "--overwrite") == -signal.SIGKILL
    assert sorted(path.stem for path in Path("out/frames").glob("*.png")) == ["frame_000001", "frame_000002"]
    Path("out.mp4").unlink()
    assert film("--resume", "out") == 0
    assert made() == whole
    assert film("--resume", "out") == 0  # once more: there is nothing left to do but the film
    assert made() == whole


def test_a_painters_film_is_held_to_the_frame_before_and_gone_on_with(
    source: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    Trained(PainterNetwork(2, 4), ("dawn", "dusk"), {}).write(Path("p.safetensors"))
    words = ["clip.mp4", "--painter", "p.safetensors", "--styles", "dusk=1", "--accelerator=cpu"]
    assert film(*words, "-o", "out.mp4", "--size", "48") == 0
    assert film(*words, "-o", "alone.mp4", "--size", "48", "--temporal_weight", "0") == 0
    together, alone = (flicker(*pictures_of(Film.read(Path(name)))) for name in ("out", "alone"))
    assert together[0] < alone[0] / 4
    assert sound_of(Path("out.mp4")) == sound_of(source)
    settings = json.loads(read_metadata("out/frames/frame_000003.png")["nst_lightning"])
    assert (settings["styles"], settings["temporal_weight"]) == ({"dawn": 0, "dusk": 1}, 4)
    whole, write = made(), images.write

    def broken(path: Path, *rest: Any, **options: Any) -> Path:
        if path.name == "frame_000003.png":
            raise Interrupted(signal.SIGTERM)
        return write(path, *rest, **options)

    with monkeypatch.context() as patched:
        patched.setattr(images, "write", broken)
        assert film(*words, "-o", "out.mp4", "--size", "48", "--overwrite") == 128 + signal.SIGTERM
    assert f"nst: interrupted; to go on: nst film --resume {Path('out').absolute()}\n" in capfd.readouterr().err
    assert len([*Path("out/frames").iterdir()]) == 2
    assert film("--resume", "out") == 0
    assert made() == whole
    Trained(PainterNetwork(2, 4), ("dawn", "dusk"), {}).write(Path("p.safetensors"), True)
    assert film("--resume", "out") == 2
    assert film("--resume", "out", "--steps", "2") == 2
    assert film(*words, "painting.png") == 2
    assert film(*words, "--walk", "4") == 2
    for line, told in zip(
        capfd.readouterr().err.splitlines(),
        [
            "is not the painter any more that the film was begun with",
            "unrecognized arguments: --steps",
            "is of one clip and no painting, got 2 names",
            "walk is not for a film by a painter",
        ],
        strict=True,
    ):
        assert told in line


def test_chunks_over_two_processes_are_those_of_one(source: Path) -> None:
    words = ["clip.mp4", "painting.png", "-o", "out.mp4", "--chunks", "2", "--overlap", "1", *FAST]
    assert film(*words, "--accelerator", "cpu") == 0
    whole = made()
    assert len(whole) == 1 + 5 + 1
    two = ["--accelerator", "cpu", "--devices", "2", "--strategy", "pair_parallel", "--overwrite"]
    run("film", *words, *two, environment={"OMP_NUM_THREADS": "1"}).check_returncode()
    assert made() == whole


def test_nothing_but_a_film_is_overwritten(source: Path, capfd: pytest.CaptureFixture[str]) -> None:
    Path("mine/frames").mkdir(parents=True)
    assert film("clip.mp4", "painting.png", "-o", "mine", "--overwrite", *FAST) == 2
    assert "mine: is not the folder of a film" in capfd.readouterr().err
    assert Path("mine/frames").is_dir()


@pytest.mark.usefixtures("workplace")
def test_a_walk_starts_and_ends_in_one_style() -> None:
    styles = ("--style", "painting.png", "photo.png")
    assert film("photo.png", *styles, "--walk", "4", "--fps", "8", "-o", "walk.mp4", *FAST) == 0
    assert duration(Path("walk.mp4")) == pytest.approx(0.5, abs=0.01)
    names = [path.name for path in sorted(Path("walk/frames").glob("*.png"))]
    assert names == [f"frame_00000{n}.png" for n in (1, 2, 3, 4)]
    assert main(["reproduce", "walk/frames/frame_000003.png", "-o", "again.png"]) == 0
    assert Path("again.png").read_bytes() == Path("walk/frames/frame_000003.png").read_bytes()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["nobody.mp4", "painting.png"], "content image nobody.mp4 is neither here nor in"),
        (["photo.png", "painting.png"], "photo.png: has 1 frames; expected a film, or --walk N beside a photograph"),
        (["text.mp4", "painting.png"], "text.mp4: cannot be decoded"),
        (["clip.mp4"], "no style image was given"),
        (["photo.png", "painting.png", "--walk", "4"], "a walk goes from one painting to the next: name two or more"),
        (
            ["photo.png", "--style", "photo.png", "painting.png", "--walk", "1"],
            "walk must be a number of frames",
        ),
        (["clip.mp4", "painting.png", "--frame_steps", "0"], "frame_steps must be at least 1, got 0"),
        (["clip.mp4", "painting.png", "--fps", "nan"], "fps must be from 1 to 120, got nan"),
        (["clip.mp4", "painting.png", "-o", "out.avi"], "output must end in one of .mp4, .mov, .mkv, got out.avi"),
        (["clip.mp4", "painting.png", "--chunks", "3"], "chunks must be longer than their overlap of 8, got 3 of 5"),
        (["clip.mp4", "painting.png", "--batch_size", "2"], "batch_size must be 1 for frames"),
        (["clip.mp4", "painting.png", "--pairs", "p.csv"], "pairs cannot be given for a film"),
        (
            ["clip.mp4", "painting.png", "--temporal_weight", "-1"],
            "temporal_weight must be a finite number",
        ),
        (["--resume", "nowhere"], "nowhere: is not the folder of a film"),
        (["--resume", "nowhere", "--walk", "3"], "walk cannot be given with --resume"),
        ([], "no content image was given"),
    ],
)
def test_what_no_film_can_be_made_of(
    source: Path, words: list[str], told: str, capfd: pytest.CaptureFixture[str]
) -> None:
    Path("text.mp4").write_text("no film")
    before = {*source.parent.iterdir()}
    assert film(*words) == 2
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1
    assert told in lines[0]
    assert {*source.parent.iterdir()} == before
