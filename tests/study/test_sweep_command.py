"""`nst sweep`, whole: its files, what it does when it is run again, and what it refuses."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image

from nst_lightning import image_files, images
from nst_lightning.__main__ import main
from nst_lightning.errors import InputError
from nst_lightning.interruption import Interrupted
from nst_lightning.study import report, runner, sweep, tables
from tests.conftest import threads
from tests.processes import Program
from tests.study.conftest import called_here

Written = Callable[[str], Path]

ROOT = Path(__file__).parents[2]
CELLS = [
    f"{pair}__init-{init}" for init in ("content", "style") for pair in ("chelsea_night_cafe", "temple_pere_tanguy")
]
TEXT = """\
title: Two starts
about: What it begins with.
base: {content: [chelsea, temple], style: [night_cafe, pere_tanguy], size: 64, steps: 4, batch_size: 1,
  style_loss: gram}
axes: {init: [content, style]}
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished sweep of `TEXT`; not to be changed."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "sweep.yaml").write_text(TEXT)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)  # the samples' names are looked up there
        patch.setenv("TORCH_HOME", str(folder / "none"))
        patch.setattr(torch.hub, "_hub_dir", None)
        patch.setattr(runner, "_call", called_here)
        assert main(["sweep", str(folder / "sweep.yaml"), "--output", str(folder / "out")]) == 0
    return folder / "out"


@pytest.fixture
def finished(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, beside its file sweep.yaml."""
    monkeypatch.chdir(ROOT)
    (tmp_path / "sweep.yaml").write_text(TEXT)
    return Path(shutil.copytree(made, tmp_path / "out"))


def nst_sweep(folder: Path, *options: str) -> int:
    return main(["sweep", str(folder.parent / "sweep.yaml"), "--output", str(folder), *options])


def kept(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(*arguments: str, capfd: pytest.CaptureFixture[str]) -> str:
    """What a command says on stderr that is refused, in one line."""
    assert main(["sweep", *arguments]) == 2
    said = capfd.readouterr()
    assert said.out == ""
    (line,) = said.err.splitlines()
    return line.removeprefix("nst: error: ")


@pytest.fixture
def no_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    def call(command: Sequence[str]) -> None:
        raise AssertionError(command)

    monkeypatch.setattr(runner, "_call", call)


# ---- what it makes ----


def test_leaves_a_figure_tables_plots_and_runs(made: Path) -> None:
    assert sorted(path.name for path in made.iterdir()) == [
        *("cells.csv", "grid.png", "plots", "results.json", "runs", "sheet.json", "sweep.json", "table.md"),
    ]
    assert [path.name for path in (made / "plots").iterdir()] == ["scores.png"]
    assert sorted(path.name for path in (made / "runs").iterdir()) == ["all", "all.csv"]
    with Image.open(made / "grid.png") as grid:
        assert grid.width == 150 + 4 * 260
    for cell in CELLS:
        assert images.read(made / f"runs/all/{cell}.png").rgb.shape[-1] == 64
        assert (made / f"runs/all/tensorboard/{cell}").is_dir()
    table = (made / "table.md").read_text()
    assert table.startswith("# Two starts\n\nWhat it begins with.\n\n| init | overall | outline |")
    assert re.search(r"\n\| style \| -?\d\.\d{3} \[.*\n", table)
    with (made / "cells.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["pair"], row["init"], row["seed"]) for row in rows] == [
        (*cell.split("__init-"), "0") for cell in CELLS
    ]
    assert all(float(row["loss_total"]) > 0 and 0 <= float(row["leak"]) <= 1 for row in rows)


def test_leaves_results_that_a_report_shows(made: Path) -> None:
    (found,) = report.read(made).sections
    assert (found.title, found.about, found.axes) == (
        "Two starts",
        "What it begins with.",
        {"init": ("content", "style")},
    )
    assert sorted(cell.name for cell in found.cells) == sorted(CELLS)
    assert all(Path(cell.picture).is_file() for cell in found.cells)
    assert found.plots == (str(made / "plots/scores.png"),)
    assert json.loads((made / "results.json").read_text())["base"] == {
        **{"size": 64, "steps": 4, "batch_size": 1},
        "style_loss": "gram",
    }


def test_a_picture_is_that_of_a_run_by_hand(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    pair = ("--content", "temple", "--style", "pere_tanguy", "--init", "style")
    options = ("--size", "64", "--steps", "4", "--style_loss", "gram", "--output", str(tmp_path / "one.png"))
    assert main(["fit", *pair, *options]) == 0
    of_sweep = images.read(made / f"runs/all/{CELLS[3]}.png").rgb
    assert torch.equal(images.read(tmp_path / "one.png").rgb, of_sweep)


def test_prints_its_files(finished: Path, no_runs: None, capfd: pytest.CaptureFixture[str]) -> None:
    assert nst_sweep(finished) == 0
    said = capfd.readouterr()
    names = ("grid.png", "sheet.json", "table.md", "cells.csv", "results.json")
    assert said.out.splitlines() == [str(finished / name) for name in names]
    assert re.fullmatch(r"4 cells, \d+ s\n", said.err)


# ---- running again ----


def test_what_is_finished_is_not_run_again_and_the_tables_are_the_same(finished: Path, no_runs: None) -> None:
    before = kept(finished)
    assert nst_sweep(finished) == 0
    assert kept(finished) == before


def test_a_picture_that_is_gone_is_made_again_as_it_was(finished: Path, commands: list[list[str]]) -> None:
    before = kept(finished)
    times = {cell: (finished / f"runs/all/{cell}.png").stat().st_mtime_ns for cell in CELLS}
    (finished / f"runs/all/{CELLS[1]}.png").unlink()
    (finished / f"runs/all/checkpoints/finished/{CELLS[1]}").unlink()
    assert nst_sweep(finished) == 0
    assert [command[3:5] for command in commands] == [["fit", "--resume"]]
    changed = {cell for cell in CELLS if (finished / f"runs/all/{cell}.png").stat().st_mtime_ns != times[cell]}
    assert changed == {CELLS[1]}
    after = kept(finished)
    for name in ("cells.csv", "table.md", "grid.png", "results.json", f"runs/all/{CELLS[1]}.png"):
        assert after[name] == before[name]


def test_a_value_more_runs_only_its_cells(finished: Path, commands: list[list[str]]) -> None:
    (finished.parent / "sweep.yaml").write_text(TEXT.replace("[content, style]", "[content, style, uniform]"))
    before = {cell: (finished / f"runs/all/{cell}.png").stat().st_mtime_ns for cell in CELLS}
    assert nst_sweep(finished) == 0
    assert len(commands) == 1
    assert {cell: (finished / f"runs/all/{cell}.png").stat().st_mtime_ns for cell in CELLS} == before
    assert len((finished / "cells.csv").read_text().splitlines()) == 1 + 6


@pytest.fixture
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """So that numbers are the same to the last digit here and in another process."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with threads(1):
        yield


def test_a_sweep_that_was_killed_goes_on_with_what_is_missing(
    tmp_path: Path, one_thread: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is killed are processes, as they are started for the user."""
    monkeypatch.chdir(ROOT)
    for name in ("killed", "whole"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "sweep.yaml").write_text(TEXT)
    folder, whole = tmp_path / "killed/out", tmp_path / "whole/out"
    with Program("sweep", str(folder.parent / "sweep.yaml"), "--output", str(folder)) as process:
        process.until(lambda: any(folder.glob("runs/all/checkpoints/finished/*")))
        os.killpg(process.pid, signal.SIGKILL)
    done = {path.name for path in folder.glob("runs/all/checkpoints/finished/*")}
    assert 1 <= len(done) < 4
    times = {name: (folder / f"runs/all/{name}.png").stat().st_mtime_ns for name in done}
    assert not (folder / "grid.png").exists()

    monkeypatch.setattr(runner, "_call", called_here)
    assert nst_sweep(folder) == 0
    assert {name: (folder / f"runs/all/{name}.png").stat().st_mtime_ns for name in done} == times
    assert nst_sweep(whole) == 0
    for name in ("cells.csv", "table.md"):
        assert (folder / name).read_text() == (whole / name).read_text()


# ---- other settings in the same folder ----


def test_another_base_is_refused_and_nothing_is_lost(
    finished: Path, no_runs: None, capfd: pytest.CaptureFixture[str]
) -> None:
    before = kept(finished)
    line = refused(str(finished.parent / "sweep.yaml"), "--output", str(finished), "--size", "48", capfd=capfd)
    assert line == f"{finished}: holds a sweep with another size of base; name another --output, or --overwrite true"
    assert kept(finished) == before


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("axes: {init: [content, style]}", "axes: {init: [{label: style, init: uniform}]}", f"init of {CELLS[2]}"),
        ("axes:", "seeds: [1]\naxes:", f"seed of {CELLS[0]}"),
        ("axes: {init: [content, style]}", "axes: {layers: [relu1_1]}\ncommand: reconstruct", "command of base"),
    ],
)
def test_a_cell_of_the_same_name_but_other_settings_is_refused(
    old: str, new: str, what: str, finished: Path, no_runs: None, capfd: pytest.CaptureFixture[str]
) -> None:
    before = kept(finished)
    (finished.parent / "sweep.yaml").write_text(TEXT.replace(old, new))
    line = refused(str(finished.parent / "sweep.yaml"), "--output", str(finished), capfd=capfd)
    assert f"holds a sweep with another {what}; name another --output" in line
    assert kept(finished) == before


def test_overwrite_replaces_a_sweep_of_another_base(finished: Path, commands: list[list[str]]) -> None:
    (finished / "plots/losses.png").touch()
    assert (
        nst_sweep(finished, "--size", "48", "--content", "chelsea", "--style", "night_cafe", "--overwrite", "true") == 0
    )
    assert len(commands) == 1
    assert sorted(path.stem for path in (finished / "runs/all").glob("*.png")) == [CELLS[0], CELLS[2]]
    assert images.read(finished / f"runs/all/{CELLS[0]}.png").rgb.shape[-1] == 48
    assert json.loads((finished / "results.json").read_text())["plots"] == ["plots/scores.png"]
    assert nst_sweep(finished, "--size", "48", "--content", "chelsea", "--style", "night_cafe") == 0
    assert len(commands) == 1


@pytest.mark.parametrize("overwrite", ["true", "false"])
def test_a_folder_of_other_files_is_refused(
    overwrite: str, tmp_path: Path, workplace: Path, no_runs: None, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "sweep.yaml").write_text(TEXT)
    (tmp_path / "mine/runs").mkdir(parents=True)
    (tmp_path / "mine/runs/grid.png").touch()
    line = refused("sweep.yaml", "--output", "mine", "--overwrite", overwrite, capfd=capfd)
    assert line == "mine: holds files that are no sweep's; name another --output"
    assert list(kept(tmp_path / "mine")) == ["runs/grid.png"]


def test_a_damaged_note_is_named(finished: Path, no_runs: None, capfd: pytest.CaptureFixture[str]) -> None:
    (finished / "sweep.json").write_text('{"command"')
    line = refused(str(finished.parent / "sweep.yaml"), "--output", str(finished), capfd=capfd)
    assert re.fullmatch(r".*/sweep\.json: is no JSON \(.*\)", line)
    (finished / "sweep.json").write_text('{"base": []}')
    line = refused(str(finished.parent / "sweep.yaml"), "--output", str(finished), capfd=capfd)
    assert line == f"{finished}/sweep.json: base must be an object, got []"


def test_devices_may_change(finished: Path, no_runs: None) -> None:
    assert nst_sweep(finished, "--devices", "2", "--strategy=pair_parallel", "--trainer.accelerator", "cpu") == 0


# ---- a dry run, help, and what cannot be used ----


def test_a_dry_run_lists_cells_with_a_time_and_writes_nothing(
    workplace: Path, commands: list[list[str]], capfd: pytest.CaptureFixture[str]
) -> None:
    (workplace / "sweep.yaml").write_text(TEXT)
    before = kept(workplace)
    assert main(["sweep", "sweep.yaml", "--dry-run"]) == 0
    first, *cells, last = capfd.readouterr().out.splitlines()
    assert re.fullmatch(r"all: 4 of 4 cells to do, about .*\d.* s", first)
    assert cells == [f"  {cell}" for cell in CELLS]
    assert re.fullmatch(r"together about .*\d.* s on one process", last)
    assert commands == []
    assert kept(workplace) == before


def test_a_dry_run_says_what_is_finished(finished: Path, no_runs: None, capfd: pytest.CaptureFixture[str]) -> None:
    before = kept(finished)
    assert nst_sweep(finished, "--dry-run") == 0
    first, *cells, _ = capfd.readouterr().out.splitlines()
    assert first.startswith("all: 0 of 4 cells to do, about ")
    assert cells == [f"  {cell} (finished)" for cell in CELLS]
    assert kept(finished) == before


def test_a_dry_run_names_what_cannot_be_run(
    workplace: Path, written: Written, capfd: pytest.CaptureFixture[str]
) -> None:
    path = written("base: {content: chelsea, style: night_cafe, size: 64}\naxes: {weights: [none.pth]}")
    assert main(["sweep", str(path), "--dry-run"]) == 0
    first, _, last = capfd.readouterr().out.splitlines()
    assert first.startswith("weights-none_pth: 1 of 1 cells to do, cannot be run: none.pth: no such weights file")
    assert last == "together time unknown on one process"


def test_help_names_the_options(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", "--help"]) == 0
    said = capfd.readouterr().out
    for word in ("usage: nst sweep FILE", "--output", "--dry-run", "--overwrite", "grid.png", "results.json"):
        assert word in said


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ([], "no file was given; name one, e.g. one of configs/figures"),
        (["none.yaml"], r"none\.yaml: cannot be read \(FileNotFoundError\); expected a sweep's YAML file"),
        (["sweep.yaml", "--size"], "--size needs a value"),
        (["sweep.yaml", "other.yaml"], r"unexpected 'other\.yaml'; options are given as --name value"),
        (["sweep.yaml", "--overwrite", "maybe"], "argument --overwrite: must be true or false, got 'maybe'"),
        (["sweep.yaml", "--init", "style"], r"sweep\.yaml: base\.init: every value of axes\.init replaces it.*"),
        (["sweep.yaml", "--resume", "out"], r"sweep\.yaml: base: a sweep sets resume itself; say --output"),
        (["sweep.yaml", "--content", "nobody"], "content image nobody is neither here nor in data/content-images.*"),
        (["sweep.yaml", "--pairs", "none.csv"], r"none\.csv: cannot be opened .*"),
    ],
)
def test_what_cannot_be_used_is_said_in_a_line(
    arguments: list[str], error: str, workplace: Path, no_runs: None, capfd: pytest.CaptureFixture[str]
) -> None:
    (workplace / "sweep.yaml").write_text(TEXT)
    before = kept(workplace)
    assert re.fullmatch(error, refused(*arguments, capfd=capfd))
    assert kept(workplace) == before


def test_an_option_that_nst_fit_does_not_know_is_named(
    workplace: Path, commands: list[list[str]], capfd: pytest.CaptureFixture[str]
) -> None:
    (workplace / "sweep.yaml").write_text(TEXT)
    assert main(["sweep", "sweep.yaml", "--sizes", "32"]) == 2
    line = capfd.readouterr().err.splitlines()[-1]
    assert line.startswith("nst: error: sweep.yaml: none of the runs succeeded: ")
    assert "--sizes" in line


# ---- other axes and commands ----


def test_two_axes_one_of_labelled_mappings(workplace: Path, written: Written, commands: list[list[str]]) -> None:
    path = written(
        """\
        base: {content: chelsea, style: night_cafe, size: 64, steps: 2}
        axes:
          beta: [{label: "10000:10", style_weight: 100}, {label: "10000:1", style_weight: 10}]
          style_layers: [1, 2]
        """
    )
    assert main(["sweep", str(path)]) == 0
    folder = Path("data/output-images/sweep")
    assert [command[-1] for command in commands] == ["--style_layers=1", "--style_layers=2"]
    cells = json.loads((folder / "results.json").read_text())["cells"]
    assert {cell["name"]: cell["picture"] for cell in cells} == {
        f"chelsea_night_cafe__beta-10000-{weight}__style_layers-{layers}": (
            f"runs/style_layers-{layers}/chelsea_night_cafe__beta-10000-{weight}__style_layers-{layers}.png"
        )
        for weight in (10, 1)
        for layers in (1, 2)
    }
    for cell in cells:
        weights = json.loads(image_files.read_metadata(folder / cell["picture"])["nst_lightning"])
        assert weights["style_weight"] == {"10000:10": 100, "10000:1": 10}[cell["values"]["beta"]]
    lines = (folder / "table.md").read_text().splitlines()
    assert [line.split(" | ")[:2] for line in lines if line.startswith("| 10000")] == [
        ["| 10000:10", "1"],
        ["| 10000:10", "2"],
        ["| 10000:1", "1"],
        ["| 10000:1", "2"],
    ]


def test_images_rebuilt_from_layers_have_a_psnr(workplace: Path, written: Written, commands: list[list[str]]) -> None:
    path = written(
        """\
        command: reconstruct
        base: {content: chelsea, style: night_cafe, size: 48, steps: 12}
        axes: {layers: [relu1_1, relu3_1], from: [content, style]}
        """
    )
    assert main(["sweep", str(path), "--output", "out"]) == 0
    assert [command[3] for command in commands] == ["reconstruct", "reconstruct"]
    told = json.loads(Path("out/results.json").read_text())
    psnr = {tuple(cell["values"].values()): cell["scores"]["psnr"] for cell in told["cells"]}
    assert psnr["relu1_1", "content"] > psnr["relu3_1", "content"] > 5
    assert psnr["relu1_1", "style"] is None
    assert psnr["relu3_1", "style"] is None
    expected = psnr_of(Path("out") / told["cells"][0]["picture"])
    assert psnr["relu1_1", "content"] == pytest.approx(expected, abs=1e-3)
    assert main(["sweep", str(path), "--output", "out"]) == 0
    assert len(commands) == 2


def psnr_of(picture: Path) -> float:
    """Peak signal-to-noise ratio to the content, from its definition."""
    rebuilt = images.read(picture).rgb
    original = images.resize(images.read("data/content-images/chelsea.png").rgb, (36, 48)).clamp(0, 1)
    return float(-10 * torch.log10((rebuilt - original).square().mean()))


def test_from_python_overrides_are_keywords(workplace: Path, written: Written, commands: list[list[str]]) -> None:
    path = written("base: {content: chelsea, style: night_cafe, size: 64}\naxes: {init: [style]}")
    done = sweep(path, Path("out"), size=48, steps=2, seed=3)
    assert [(cell.seed, cell.picture) for cell in done.cells] == [
        (3, str(Path("out/runs/all/chelsea_night_cafe__init-style.png")))
    ]
    assert set(tables.means(done)["n"]) <= {0, 1}
    assert done.failed == {}
    assert images.read(done.cells[0].picture).rgb.shape[-1] == 48
    with pytest.raises(InputError, match=r"none of the runs succeeded: none\.pth: no such weights file"):
        sweep(path, Path("other"), weights="none.pth")


def test_a_run_that_fails_is_named_and_the_rest_is_there(
    workplace: Path, written: Written, commands: list[list[str]], capfd: pytest.CaptureFixture[str]
) -> None:
    path = written(
        "base: {content: chelsea, style: night_cafe, size: 64, steps: 2}\naxes: {weights: [none.pth, oxford]}"
    )
    assert main(["sweep", str(path), "--output", "out"]) == 1
    line = capfd.readouterr().err.splitlines()[-1]
    assert line.startswith("nst: error: weights-none_pth was not run: none.pth: no such weights file")
    told = json.loads(Path("out/results.json").read_text())
    assert list(told["failed"]) == ["weights-none_pth"]
    assert [cell["values"] for cell in told["cells"]] == [{"weights": "oxford"}]


def test_ctrl_c_ends_with_a_line(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def interrupted(command: Sequence[str]) -> None:
        raise Interrupted(signal.SIGINT)

    monkeypatch.setattr(runner, "_call", interrupted)
    (workplace / "sweep.yaml").write_text(TEXT)
    assert main(["sweep", "sweep.yaml"]) == 130
    assert capfd.readouterr().err.endswith("nst: interrupted\n")


# ---- going on with a cell ----


def test_a_cell_is_gone_on_with_as_its_picture_as_configuration_and_start(finished: Path, tmp_path: Path) -> None:
    cells = json.loads((finished / "sheet.json").read_text())
    assert cells == {
        f"{'AB'[column]}{row + 1}": f"runs/all/{CELLS[2 * column + row]}.png" for column in (0, 1) for row in (0, 1)
    }
    picture = str(finished / cells["B2"])
    larger = ("--size", "96", "--steps", "2")
    assert main(["fit", "--from", f"{finished}:B2", *larger, "-o", str(tmp_path / "a.png")]) == 0
    assert main(["fit", "--config", picture, "--init", picture, *larger, "-o", str(tmp_path / "b.png")]) == 0
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    told = json.loads(image_files.read_metadata(tmp_path / "a.png")["nst_lightning"])
    assert (told["init"], told["stages"]) == (picture, "48 px x 1, 96 px x 1")
    start, end = (images.read(file).rgb for file in (picture, tmp_path / "a.png"))
    begun = images.resize(start, (end.shape[-2], end.shape[-1]))
    assert (end - begun).abs().mean() < 0.1  # what it began with is still to be seen


def test_what_is_given_beside_a_cell_goes_before_what_it_has_of_its_own(finished: Path, tmp_path: Path) -> None:
    given = ("--init", "grey", "--seed", "5", "--style_weight", "7", "--steps", "2")
    assert main(["fit", "--from", f"{finished}:A1", *given, "-o", str(tmp_path / "a.png")]) == 0
    told = json.loads(image_files.read_metadata(tmp_path / "a.png")["nst_lightning"])
    assert (told["init"], told["seed"], told["style_weight"], told["stages"]) == (
        "grey",
        5,
        7.0,
        "32 px x 1, 64 px x 1",
    )


@pytest.mark.parametrize(
    ("cell", "told"),
    [
        ("{}:C7", "has no cell 'C7'; it has A1, B1, A2, B2"),
        ("{}/runs:A1", "sheet.json is no list of a sweep's cells; expected the folder of a finished sweep and a cell"),
        ("A1", "sheet.json is no list of a sweep's cells"),
    ],
)
def test_a_cell_that_is_not_there(cell: str, told: str, made: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--from", cell.format(made)]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert told in line
