"""`nst train`: what it brings down, its steps in one or two processes, how it goes on, and what it refuses."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from nst_lightning import images
from nst_lightning.__main__ import main
from nst_lightning.crops import Crops
from nst_lightning.data import Worker
from nst_lightning.errors import InputError
from nst_lightning.modules import Painter, StyleTransfer
from nst_lightning.painters import load
from nst_lightning.tiling import ALONE
from tests.presets.test_presets import fast_neural_style
from tests.processes import run

LOSSES = [
    "--style_layers",
    "relu1_1,relu2_1",
    "--content_layers",
    "relu2_2",
    "--style_size=48",
    "--width=4",
    "--crop=32",
]

FIXED = ["--photographs=photos", "--workers=0", "--decay=false", "--accelerator=cpu"]


@pytest.fixture
def photographs(tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(pictures, tmp_path / "photos")
    shutil.copy(pictures / "style.png", tmp_path / "other.png")
    return tmp_path / "photos"


def train(*options: str) -> int:
    return main(["train", *FIXED, *LOSSES, *options])


def weights(folder: str) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(f"{folder}/checkpoints/painter.ckpt", weights_only=True)["state_dict"]
    return state


def test_the_loss_is_fast_neural_styles(style_png: Path) -> None:
    of_style = {"relu1_2": 2441406.25, "relu2_2": 610351.5625, "relu3_3": 152587.890625, "relu4_3": 38146.97265625}
    options: dict[str, Any] = {"content_layers": ["relu2_2"], "style_loss": {"gram": of_style}, "style_weight": 1.0}
    problem = StyleTransfer(**options, convention="absolute", content_weight=1e5).problem
    painter = Painter(problem, str(style_png), style_size=80, width=4)
    cpu = torch.device("cpu")
    painter.look_at_styles(Worker(cpu, "32-true", torch.no_grad, ALONE, False, 1, lambda value: value))
    crops, painted = torch.rand(2, 3, 64, 64), torch.rand(2, 3, 64, 64)
    found = painter.losses(painted, crops, torch.tensor([0, 0]))["total"].mean()
    style = images.read(style_png).rgb.expand(2, -1, -1, -1)
    output, content, painting = (problem.backbone(each) for each in (painted, crops, style))
    alone = [
        [{layer: each[row : row + 1] for layer, each in of.items()} for of in (output, content, painting)]
        for row in (0, 1)
    ]
    expected = torch.stack([fast_neural_style(*each) for each in alone]).mean()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)


def test_a_crop_follows_from_its_number(pictures: Path) -> None:
    files = [pictures / "content.png", pictures / "style.png"]
    first, again, other = (Crops([*files], 32, seed) for seed in (0, 0, 1))
    crops = [first[number][0] for number in range(6)]
    assert all(crop.shape == (3, 32, 32) and 0 <= crop.min() and crop.max() <= 1 for crop in crops)
    assert torch.equal(again[5][0], crops[5])
    assert not torch.equal(other[5][0], crops[5])
    assert len({crop.numpy().tobytes() for crop in crops}) == 6


def test_two_processes_share_a_batch_and_a_run_goes_on_to_the_bit(photographs: Path) -> None:
    both = [
        "--styles",
        "other.png",
        "photos/content.jpg",
        "--held_out=photos/content.png",
        "--trainer.val_check_interval=2",
    ]
    assert train(*both, "--steps=4", "--batch_size=2", "-o", "whole") == 0
    assert train(*both, "--steps=2", "--batch_size=2", "-o", "part") == 0
    assert train("--ckpt_path=part/checkpoints/painter.ckpt", "--steps=4") == 0
    (name,) = [file.name for file in Path("whole").glob("*.safetensors")]
    for key, each in weights("whole").items():
        assert torch.equal(weights("part")[key], each)
    assert Path("part", name).read_bytes() == Path("whole", name).read_bytes()
    double = [*both, "--steps=3", "--precision=64-true"]
    assert train(*double, "--batch_size=2", "-o", "one") == 0
    words = ["train", *FIXED, *LOSSES, *double]
    two = ["--batch_size=1", "--devices=2", "--strategy=ddp", "-o", "two"]
    done = run(*words, *two, environment={"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    for key, each in weights("one").items():
        assert each.dtype == torch.float64
        torch.testing.assert_close(weights("two")[key], each, rtol=1e-6, atol=1e-9)


def test_a_painter_is_trained_on_from_another(photographs: Path) -> None:
    assert train("--styles=other.png", "--steps=2", "-o", "one.safetensors") == 0
    words = ["--styles", "other.png", "photos/content.jpg", "--init=one.safetensors"]
    assert train(*words, "--steps=1", "--lr=1e-9", "-o", "two.safetensors") == 0
    one, two = load("one.safetensors"), load("two.safetensors")
    assert (one.settings["init"], two.settings["init"]) == (None, "one.safetensors")
    before = one.network.state_dict()
    for name, each in two.network.state_dict().items():
        torch.testing.assert_close(each, before[name].expand_as(each), rtol=0, atol=1e-3)
        assert each.shape[0] == (2 if name.endswith((".scale", ".shift")) else before[name].shape[0])


@pytest.mark.parametrize(("given", "layers"), [([], "relu2_2"), (["--content_layers=null"], "relu4_2")])
def test_a_run_goes_on_with_the_layers_that_it_had(photographs: Path, given: list[str], layers: str) -> None:
    small = ["--styles=other.png", "--style_layers=relu1_1", "--crop=32", "--width=4", "--batch_size=1", "-o", "run"]
    assert main(["train", *FIXED, *small, *given, "--steps=1"]) == 0
    assert main(["train", "--ckpt_path=run/checkpoints/painter.ckpt", "--steps=2"]) == 0
    (file,) = Path("run").glob("*.safetensors")
    assert load(file).settings["content_layers"] == layers


def test_photographs_that_cannot_be_read_are_counted(photographs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (photographs / "text.png").write_text("no picture")
    whole = (photographs / "content.jpg").read_bytes()
    (photographs / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    assert train("--styles=other.png", "--steps=3", "-o", "run/p.safetensors") == 0
    told = capsys.readouterr()
    assert told.out == "run/p.safetensors\n"
    assert "nst: 1 of 5 photographs cannot be read and are skipped\n" in told.err
    assert told.err.count("nst: skipped: photos/cut.jpg: ") <= 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--photographs=nothing"], "nothing has no image in it; expected files"),
        (["--photographs=texts"], "none of the 1 photographs can be read"),
        (["--ckpt_path=none.ckpt"], "none.ckpt: no such checkpoint"),
        (
            ["--ckpt_path=old/checkpoints/painter.ckpt"],
            "checkpoint is no painter's of 4 channels and 1 styles: resume with",
        ),
        (["--stiles=other.png"], "unknown option --stiles: did you mean --styles? nst train --help lists the options"),
        (["--init=bundled"], "width must be that of the painter in init, 16, got 4"),
        (["--init=none.safetensors"], "none.safetensors: is no painter (No such file or directory)"),
        (["--lr=0"], "lr must be a finite number above 0, got 0.0"),
    ],
)
def test_what_cannot_be_used_is_one_line(
    photographs: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("nothing").mkdir()
    Path("texts").mkdir()
    Path("texts/a.png").write_text("no picture")
    Path("old/checkpoints").mkdir(parents=True)
    Path("old/config.yaml").write_text("output: null\n")
    torch.save({"state_dict": {}, "pytorch-lightning_version": "2.6.0"}, "old/checkpoints/painter.ckpt")
    fixed = FIXED[1:] if options[0].startswith("--photographs") else FIXED  # named twice, both are taken
    assert main(["train", *fixed, *LOSSES, "--styles=other.png", "--steps=1", *options]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") <= 2


def test_a_checkpoint_of_another_architecture_is_refused(photographs: Path) -> None:
    painter = Painter(StyleTransfer().problem, "other.png", width=4)
    with pytest.raises(InputError, match=r"^the checkpoint is no painter's of 4 channels and 1 styles: resume with"):
        painter.on_load_checkpoint({"state_dict": {}})
