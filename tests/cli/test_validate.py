"""`nst validate`, and the options of `nst fit` that are about scores."""

from __future__ import annotations

import json
import re
import shutil
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from nst_lightning.__main__ import main
from nst_lightning.metrics.perceptual import TRUNKS
from tests.metrics import trunk

FAST = ["--size", "48", "--steps", "6", "--content_layers", "relu2_1", "--style_layers", "relu1_1,relu2_1"]
FAST += ["--style_loss", "gram"]
PAIR = ["--content", "photo", "--style", "painting"]
LEFT_OUT = re.compile(r"^nst: LPIPS is left out, for its network is not on this machine: [^\n]*$", re.MULTILINE)


@pytest.fixture(scope="module")
def broken_off(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with a photograph and a painting, and a run that was told to stop after four of six steps."""
    folder = tmp_path_factory.mktemp("broken_off")
    for kind, name, seed in (("content", "photo", 1), ("style", "painting", 2)):
        pixels = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        (folder / f"data/{kind}-images").mkdir(parents=True)
        Image.fromarray(pixels).resize((60, 45)).save(folder / f"data/{kind}-images/{name}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["fit", *PAIR, *FAST, "--trainer.max_steps", "4", "--output", "run"]) == 3
    return folder


@pytest.fixture
def run(broken_off: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory with the run, of this test's own; returns the run's folder."""
    workplace = tmp_path / "workplace"
    shutil.copytree(broken_off, workplace)
    config = workplace / "run/config.yaml"
    config.write_text(config.read_text().replace(str(broken_off), str(workplace)))
    monkeypatch.chdir(workplace)
    return Path("run")


@pytest.fixture
def workplace(broken_off: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working directory with the two pictures."""
    shutil.copytree(broken_off / "data", tmp_path / "data")
    monkeypatch.chdir(tmp_path)


def listing() -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in Path().rglob("*")}


def validate(*options: str, ckpt: str = "run/checkpoints/photo_painting.ckpt") -> int:
    return main(["validate", "--ckpt_path", ckpt, *options])


def error(capfd: pytest.CaptureFixture[str]) -> str:
    """The error, which has to be the only line that was printed."""
    told = capfd.readouterr()
    assert re.fullmatch(r"nst: error: [^\n]*\n", told.err), told.err
    assert told.out == ""
    return told.err.removeprefix("nst: error: ").rstrip()


def numbers(table: str) -> list[list[str]]:
    """The heads of a table and the cells of its only picture."""
    heads, row, *_ = table.splitlines()
    return [heads.split(), row.split()[1:]]


# ---- nst validate ----


@pytest.mark.parametrize("scores", [[], ["--scores", "outline,leak"]])
def test_prints_the_scores_of_the_picture_that_was_broken_off(
    scores: list[str], run: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = listing()
    assert validate(*scores) == 0
    assert listing() == before
    told = capfd.readouterr()
    assert len(LEFT_OUT.findall(told.err)) == (0 if scores else 1)
    assert told.err.count("\n") == (0 if scores else 1)
    assert told.out.splitlines()[1].startswith("photo_painting ")
    (picture,) = (run / "steps/photo_painting").iterdir()
    assert picture.name == "000004.png"
    assert main(["score", *PAIR, "--output", str(picture), *scores]) == 0
    assert numbers(told.out) == numbers(capfd.readouterr().out)


@pytest.mark.parametrize("where", ["absolute", "from its folder", "from another with --config"])
def test_the_checkpoints_run_is_found_from_anywhere(
    where: str, run: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    checkpoint, options = (run / "checkpoints/photo_painting.ckpt").resolve(), list[str]()
    if where == "from its folder":
        monkeypatch.chdir(checkpoint.parent)
        checkpoint = Path(checkpoint.name)
    elif where == "from another with --config":
        options = ["--config", str((run / "config.yaml").resolve())]
        Path("elsewhere").mkdir()
        checkpoint = Path(shutil.copy(checkpoint, "elsewhere")).resolve()
        monkeypatch.chdir("/")
    assert validate(*options, "--scores", "leak", ckpt=str(checkpoint)) == 0
    assert numbers(capfd.readouterr().out)[0] == ["leak-"]


@pytest.mark.parametrize("strategy", ["pair_parallel", "tile_parallel"])
def test_the_checkpoint_of_a_run_of_several_processes_is_scored_by_one(
    strategy: str, run: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["trainer"] |= {"accelerator": "cpu", "devices": 2, "strategy": strategy}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    assert validate("--scores", "leak") == 0
    assert numbers(capfd.readouterr().out)[0] == ["leak-"]


def test_every_picture_of_a_batch_is_scored(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    photo, painting = Path("data/content-images/photo.png"), Path("data/style-images/painting.png")
    Path("p.csv").write_text(f"content,style,name\n{photo},{painting},a\n{painting},{photo},b\n")
    options = [*FAST, "--batch_size", "2", "--trainer.max_steps", "2", "--output", "two"]
    assert main(["fit", "--pairs", "p.csv", *options]) == 3
    capfd.readouterr()
    assert validate("--scores", "palette", ckpt="two/checkpoints/a.ckpt") == 0
    heads, a, b, mean, _ = capfd.readouterr().out.splitlines()
    assert [line.split()[0] for line in (heads, a, b, mean)] == ["palette+", "a", "b", "mean"]


def test_the_pair_that_a_run_was_at_is_scored_and_not_one_before_it(
    run: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    photo, painting = Path("data/content-images/photo.png"), Path("data/style-images/painting.png")
    Path("p.csv").write_text(f"content,style,name\n{photo},{painting},a\n{painting},{photo},b\n")
    assert main(["fit", "--pairs", "p.csv", *FAST, "--trainer.max_steps", "8", "--output", "two"]) == 3
    capfd.readouterr()
    assert validate("--scores", "palette", ckpt="two/checkpoints/b.ckpt") == 0
    found = numbers(table := capfd.readouterr().out)
    assert table.splitlines()[1].startswith("b ")
    given = ["--content", str(painting), "--style", str(photo), "--style_scale", "2"]  # 48 px when half as large
    picture = "two/steps/b/000002.png"
    assert main(["score", *given[:4], "--output", picture, "--scores", "palette"]) == 0
    assert numbers(capfd.readouterr().out) == found


def none(path: Path) -> None:
    """Leaves the checkpoint as it is."""


def damaged(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:2000])


BAD: dict[str, tuple[Any, list[str], str]] = {
    "missing": (Path.unlink, [], r"run/checkpoints/photo_painting\.ckpt: no such checkpoint"),
    "empty": (lambda path: path.write_bytes(b""), [], r"photo_painting\.ckpt: is damaged or holds no picture"),
    "truncated": (damaged, [], r"photo_painting\.ckpt: is damaged or holds no picture"),
    "no checkpoint": (
        lambda path: path.write_bytes(b"nothing of the kind"),
        [],
        r"photo_painting\.ckpt: is damaged or holds no picture",
    ),
    "without picture": (
        lambda path: torch.save({"state_dict": {}}, path),
        [],
        r"photo_painting\.ckpt: is damaged or holds no picture; a finished one's scores are in its run's folder scores",
    ),
    "of another size": (none, ["--size", "32"], r"photo_painting\.ckpt: is of other pairs or stages than these"),
    "of other steps": (none, ["--steps", "8"], r"photo_painting\.ckpt: is of other pairs or stages than these"),
    "of another pair": (none, ["--content", "other"], r"photo_painting\.ckpt: is of other pairs or stages than these"),
    "of other proportions": (
        lambda path: Image.new("RGB", (60, 30), "red").save("data/content-images/photo.png"),
        [],
        r"the checkpoint holds 1 images of 48x36 px, this run asks for 1 of 48x24 px",
    ),
    "scores off": (none, ["--scores", "off"], r"scores is off: there is nothing to validate"),
    "unknown score": (none, ["--scores", "nonsense"], r"unknown score 'nonsense'"),
    "no configuration": (
        lambda path: (path.parents[1] / "config.yaml").unlink(),
        [],
        r"no content image was given; name a file with --content",
    ),
    "unknown option": (none, ["--sise", "3"], r"unknown option --sise: did you mean --size\?"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_checkpoint_that_cannot_be_scored_is_one_line_and_exit_code_2(
    case: str, run: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    prepare, options, message = BAD[case]
    Image.new("RGB", (60, 45), "red").save("data/content-images/other.png")
    prepare(run / "checkpoints/photo_painting.ckpt")
    before = listing()
    assert validate("--scores", "leak", *options) == 2
    assert re.search(message, error(capfd))
    assert listing() == before


@pytest.mark.parametrize("options", [[], ["--size", "32"], ["--ckpt_path"]])
def test_without_a_checkpoint_it_says_where_they_are(options: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", *options]) == 2
    assert re.search(r"--ckpt_path", error(capfd))


def test_code_in_a_checkpoint_is_not_run(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, tuple[Path]]:
            return Path.touch, (Path("sprung"),)

    torch.save({"state_dict": Trap()}, run / "checkpoints/photo_painting.ckpt")
    assert validate() == 2
    assert "damaged" in error(capfd)
    assert not Path("sprung").exists()


def test_its_help_names_its_options(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", "--help"]) == 0
    told = capfd.readouterr().out
    assert told.startswith("usage: nst validate FILE ")
    assert all(f"--{name} " in told for name in ("config", "scores"))


# ---- nst fit ----


@pytest.mark.usefixtures("workplace")
def test_scores_are_off_where_asked(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", *PAIR, *FAST, "--scores", "off", "--output", "run"]) == 0
    told = capfd.readouterr()
    assert "LPIPS" not in told.err
    assert "scoring took" not in told.err
    assert Path("run/photo_painting.png").is_file()
    assert not Path("run/scores").exists()
    assert yaml.safe_load(Path("run/config.yaml").read_text())["scores"] == "off"
    (events,) = Path("run/tensorboard/photo_painting").glob("events*")
    assert b"score/" not in events.read_bytes()


@pytest.mark.usefixtures("workplace")
def test_by_default_all_but_lpips_are_taken(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", *PAIR, *FAST, "--output", "run"]) == 0
    told = capfd.readouterr()
    assert "LPIPS" not in told.err
    assert told.out == "run/photo_painting.png\n"
    found = json.loads(Path("run/scores/photo_painting.json").read_text())
    assert {"pair", "outline", "palette", "texture", "leak", "overall", "loss/total"} <= found.keys()
    assert "lpips" not in found
    assert yaml.safe_load(Path("run/config.yaml").read_text())["scores"] == "auto"
    assert main(["score", *PAIR, "--output", "run/photo_painting.png", "--results", "r"]) == 0
    (row,) = json.loads(Path("r.json").read_text())
    assert {name: found[name] for name in row.keys() & found.keys()} == {
        name: row[name] for name in row.keys() - {"output", "content", "style"}
    }


@pytest.mark.usefixtures("workplace")
def test_lpips_is_taken_where_its_network_is_there(hub: Path, capfd: pytest.CaptureFixture[str]) -> None:
    trunk.put(hub)
    assert main(["fit", *PAIR, *FAST, "--output", "run"]) == 0
    assert "LPIPS" not in capfd.readouterr().err
    assert json.loads(Path("run/scores/photo_painting.json").read_text())["lpips"] > 0


@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--scores", "outline,nonsense"], r"unknown score 'nonsense'; known are outline, palette, .*, or auto"),
        (["--scores", "[leak, nonsense]"], r"unknown score 'nonsense'"),
        (["--score_every", "0"], r"score_every must be at least 1, got 0"),
        (["--score_every", "often"], r"score_every must be a whole number, got 'often'"),
    ],
)
def test_what_cannot_be_scored_is_one_line_exit_code_2_and_nothing_written(
    options: list[str], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    before = listing()
    assert main(["fit", *PAIR, *FAST, *options, "--output", "run"]) == 2
    assert re.search(message, error(capfd))
    assert listing() == before


@pytest.mark.usefixtures("workplace")
def test_what_is_left_out_is_not_said_of_a_run_that_cannot_begin(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", *PAIR, *FAST, "--representations", "relu3_1", "--output", "run"]) == 2
    assert error(capfd).startswith("layer 'relu3_1' cannot be shown")


@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize("command", ["fit", "score"])
def test_lpips_by_name_without_network_says_where_to_copy_its_file(
    command: str, hub: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refuse(*args: Any, **kwargs: Any) -> socket.socket:
        raise OSError("Network is unreachable")

    monkeypatch.setattr(socket, "create_connection", refuse)
    options = [*FAST, "--output", "run"] if command == "fit" else ["--output", "data/content-images/photo.png"]
    before = set(Path().rglob("*"))
    assert main([command, *PAIR, *options, "--scores", "lpips"]) == 2
    told = capfd.readouterr()
    announced, last = told.err.splitlines()
    assert announced.startswith('Downloading: "https://')  # torch.hub does, where it is not mixed with results
    name = Path(TRUNKS["alex"].weights.url).name
    assert last.startswith(f"nst: error: cannot download {name} from https://download.pytorch.org/models/{name} (")
    assert last.endswith(f"): copy the file to {hub}/checkpoints/{name}")
    assert told.out == ""
    assert {path for path in set(Path().rglob("*")) - before if path.is_file()} == set()


@pytest.mark.usefixtures("workplace")
def test_a_reconstruction_has_no_scores(capfd: pytest.CaptureFixture[str]) -> None:
    options = ["--layers", "relu1_1", "--size", "32", "--steps", "2", "--output", "r"]
    assert main(["reconstruct", "--image", "photo", *options]) == 0
    assert "LPIPS" not in capfd.readouterr().err
    assert not list(Path("r").rglob("scores"))
