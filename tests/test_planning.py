"""What a run would take: arithmetic on made-up measurements, and `nst plan` as a person types it."""

from __future__ import annotations

import re
import time
from pathlib import Path

import lightning as L
import numpy as np
import pytest
from PIL import Image

from nst_lightning import planning
from nst_lightning.__main__ import main
from nst_lightning.api import quiet
from nst_lightning.batches import Batch, Gallery, Saved
from nst_lightning.data import PairDataModule
from nst_lightning.errors import InputError
from nst_lightning.modules import StyleTransfer
from nst_lightning.pairs import Pair
from nst_lightning.planning import Cost, Estimate, Kind, Needs
from nst_lightning.schedule import Stage
from nst_lightning.tiling import Plan

FAST = ["--content_layers", "relu2_1", "--style_layers", "relu1_1,relu2_1"]
JOB = ["--content", "photo.png", "--style", "painting.png", "--size", "32", "--steps", "4", *FAST]


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with two small pictures."""
    monkeypatch.chdir(tmp_path)
    for name, seed in (("photo", 1), ("painting", 2)):
        pixels = np.random.default_rng(seed).integers(0, 256, (80, 96, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(f"{name}.png")
    return tmp_path


# ---- arithmetic ----

SIDE = 64


def batch(*names: str, steps: int = 10, size: int = SIDE, saved: Saved | None = None) -> Batch:
    pairs = [Pair(f"{name}.png", ("style.png",), name) for name in names]
    return Batch(pairs, (1000, 1000), [Stage(size, steps)], 1.0, False, Gallery(), saved)


def needs(tiles: Plan | None = None) -> Needs:
    return Needs(tiles, 10**6, 10**5)


def estimated(*batches: Batch, begin: float = 0.0) -> Estimate:
    """An estimate in which a step on one image of `SIDE` takes a second, and on others by the pixels."""
    kinds = {Kind.of(each, stage) for each in batches for stage in each.stages}
    costs = {kind: Cost(begin, kind.height * kind.width * kind.count / SIDE**2, kind) for kind in kinds}
    return planning.plan(batches, dict.fromkeys(kinds, needs()), costs)


def test_stages_that_are_alike_make_one_row() -> None:
    of = estimated(batch("a"), batch("b"), batch("c", "d"), batch("e", size=128, steps=3), begin=0.5)
    assert [(row.kind, row.batches, row.steps, row.seconds) for row in of.rows] == [
        (Kind(64, 64, 1), 2, 10, 21.0),
        (Kind(64, 64, 2), 1, 10, 20.5),
        (Kind(128, 128, 1), 1, 3, 12.5),
    ]
    assert of.total == 21 + 20.5 + 12.5
    assert dict(of.seconds) == {"a": 10.5, "b": 10.5, "c": 10.25, "d": 10.25, "e": 12.5}


def test_only_the_steps_that_are_left_of_a_batch_count() -> None:
    stages = (Stage(SIDE, 10),)
    of = estimated(batch("a", "b", saved=Saved(Path("x.ckpt"), ("a", "b"), stages, 0, 7)))
    assert [(row.steps, row.seconds) for row in of.rows] == [(3, 6.0)]
    assert [unit.names for unit in of.units] == [("a", "b")]


def test_several_processes_take_as_long_as_the_one_that_has_most() -> None:
    of = estimated(*(batch(name, steps=steps) for name, steps in (("a", 10), ("b", 7), ("c", 6), ("d", 5))))
    assert [of.on(ranks) for ranks in (1, 2, 3, 4, 9)] == [28, 15, 11, 10, 10]


def test_a_batch_is_dealt_out_pair_by_pair() -> None:
    assert estimated(batch("a", "b", "c", "d")).on(2) == 20


def test_the_fewest_processes_that_keep_to_a_wish() -> None:
    of = estimated(*(batch(name, steps=steps) for name, steps in (("a", 10), ("b", 7), ("c", 6), ("d", 5))))
    for wish, ranks in ((28, 1), (27.9, 2), (15, 2), (14.9, 3), (10.5, 4), (10, 4)):
        assert of.ranks_within(wish) == ranks
        assert of.on(ranks) <= wish
        assert ranks == 1 or of.on(ranks - 1) > wish


def test_a_wish_that_one_pair_alone_exceeds_cannot_be_met() -> None:
    of = estimated(batch("a"), batch("b", steps=20))
    assert of.ranks_within(19.9) is None
    assert of.longest is not None
    assert of.longest.names == ("b",)


def test_what_was_not_measured_goes_by_the_work_of_the_largest_that_was() -> None:
    plan = Plan(tile=64, alignment=16, before=16, after=16, least=16)
    small, middle, large, tiled = Kind(32, 32, 1), Kind(64, 64, 1), Kind(128, 128, 2), Kind(128, 128, 1)
    of = {small: needs(), middle: needs(), large: needs(), tiled: needs(plan)}
    costs = planning.completed(of, {small: Cost(9.0, 9.0, small), middle: Cost(0.5, 1.0, middle)})
    assert costs[small].step == 9
    assert costs[large] == Cost(4.0, 8.0, middle)
    overhead = plan.overhead(128, 128)
    assert overhead == (80 + 80) ** 2 / 128**2
    assert costs[tiled].step == pytest.approx(4 * overhead * 1.5)


# ---- words ----


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("30m", 1800), ("1h", 3600), ("1h30m", 5400), ("1h 0m 5s", 3605), ("2h15", 7215)],
)
def test_a_duration_is_read(text: str, seconds: float) -> None:
    assert planning.duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "0h", "soon", "-5m", "1.5h", "30m1h", "h", "1d"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=re.escape(f"as 90s, 30m or 1h30m, got {text!r}")):
        planning.duration(text)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.04, "0.0 s"), (3.44, "3.4 s"), (9.96, "10 s"), (59.4, "59 s"), (59.6, "1 min"), (725, "12 min 05 s"),
     (3599.7, "1 h"), (3600, "1 h"), (7790, "2 h 10 min")],
)  # fmt: skip
def test_a_time_is_said_in_words(seconds: float, words: str) -> None:
    assert planning.span(seconds) == words


# ---- the command ----


def cells(told: str) -> list[list[str]]:
    """The rows of the table that was printed, cell by cell."""
    lines = told.splitlines()
    head = next(index for index, line in enumerate(lines) if line.split()[:2] == ["stage", "size"])
    rows = []
    for line in lines[head + 1 :]:
        if not line.strip()[:1].isdigit():
            break
        rows.append(re.split(r" {2,}", line.strip()))
    return rows


def test_tells_what_a_run_would_take_and_writes_nothing(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(workplace.rglob("*"))
    assert main(["plan", *JOB, "--within", "1h"]) == 0
    told = capsys.readouterr()
    assert told.err == ""
    for line in (
        r"pairs +1 \(photo_painting\)",
        r"batches +1: 1 of 1 pair \(32x27 px\)",
        r"steps +4",
        r"processes +1, on \w+",
        r"memory +[\d.]+ GB free; a process plans with [\d.]+ GB",
        r"pictures +in data/output-images/photo_painting",
        r"time on 1 process +\d.*",
        r"within 1 h +1 device \(.*\)",
    ):
        assert re.search(rf"^{line}$", told.out, re.MULTILINE), (line, told.out)
    (coarse, fine) = cells(told.out)
    assert coarse[:7] == ["1", "16x13", "1 x 1", "2", "off", "-", "-"]
    assert fine[:7] == ["2", "32x27", "1 x 1", "2", "off", "-", "-"]
    assert float(fine[-2]) > 0
    assert sorted(workplace.rglob("*")) == before


def test_the_table_has_a_row_for_each_stage_and_size_of_unequal_pairs(capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (64, 32), "red").save("wide.png")
    Path("pairs.csv").write_text(
        "content,style,size,steps\n"
        "photo.png,painting.png,48,6\nphoto.png,painting.png,48,6\nphoto.png,painting.png,,\nwide.png,painting.png,,8\n"
    )
    run = ["--pairs", "pairs.csv", "--size", "32", "--steps", "4", "--batch_size", "2", *FAST]
    assert main(["plan", *run, "--devices", "2", "--strategy", "pair_parallel", "--trainer.accelerator", "cpu"]) == 0
    told = capsys.readouterr().out
    assert [row[:4] for row in cells(told)] == [
        ["1", "16x8", "1 x 1", "4"],
        ["1", "16x13", "1 x 1", "2"],
        ["1", "24x20", "1 x 2", "3"],
        ["2", "32x16", "1 x 1", "4"],
        ["2", "32x27", "1 x 1", "2"],
        ["2", "48x40", "1 x 2", "3"],
    ]
    assert re.search(r"^pairs +4\nbatches +3: .*1 of 2 pairs \(48x40 px\).*\nsteps +18\n", told, re.MULTILINE)
    assert re.search(r"^processes +2, pair_parallel, on cpu$", told, re.MULTILINE)
    assert re.search(r"^time on 2 processes +[\d.]+ s$", told, re.MULTILINE)


def test_a_wish_that_cannot_be_met_names_the_longest_pair(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *JOB[:-8], "--size", "32", "--steps", "5000", *FAST, "--within", "1"]) == 0
    told = capsys.readouterr().out
    assert re.search(
        r"^within 1.0 s +not .*photo_painting alone takes .* tile_parallel .* would help$", told, re.MULTILINE
    )


@pytest.mark.parametrize("shared", [False, True])
def test_tiles_are_told_with_their_halo_and_what_they_cost(shared: bool, capsys: pytest.CaptureFixture[str]) -> None:
    several = ["--devices", "4", "--strategy", "tile_parallel", "--trainer.accelerator", "cpu", "--within", "1h"]
    tile = ["--tile", "auto", *several] if shared else ["--tile", "16"]
    assert main(["plan", *JOB, "--stages", "1", *tile]) == 0
    told = capsys.readouterr().out
    ((_, _, _, _, tile_side, halo, overhead, *_),) = cells(told)
    # A quarter of 32x27 px is 14x14, in multiples of relu2_1's stride.
    assert (tile_side, halo) == ("14 px" if shared else "16 px", "4+4 px")
    assert float(overhead) > 1.5
    assert ("time on 4 processes" in told) == shared


def test_what_the_budget_leaves_out_goes_by_pixels(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = PairDataModule("photo.png", "painting.png", size=512, steps=4, upscale=True)
    module = StyleTransfer(content_layers="relu1_1", style_layers="relu1_1")
    asked = L.Trainer(accelerator="cpu", devices=1, logger=False, enable_checkpointing=False)
    with quiet():
        of = planning.measure(module, data, asked, {"accelerator": "cpu"}, budget=0.0)
    measured = {row.cost.measured_on for row in of.rows}
    assert measured == {Kind(213, 256, 1)}
    capsys.readouterr()
    told = planning.text(of, asked, "in x")
    assert re.search(r"^\* not measured, but by the number of pixels from 1 image of 256x213 px$", told, re.MULTILINE)
    assert cells(told)[1][-2].endswith("*")


def test_the_plan_of_a_broken_off_run_is_what_is_left_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", *JOB, "--output", "run", "--trainer.max_steps", "3", "--checkpoint_minutes", "1e-9"]) == 0
    files = sorted(Path().rglob("*"))
    capsys.readouterr()
    assert main(["plan", "--resume", "run"]) == 0
    assert [row[:4] for row in cells(capsys.readouterr().out)] == [["2", "32x27", "1 x 1", "1"]]
    assert sorted(Path().rglob("*")) == files
    assert main(["fit", "--resume", "run", "--trainer.max_steps", "-1"]) == 0
    capsys.readouterr()
    assert main(["plan", "--resume", "run"]) == 0
    assert capsys.readouterr().out == "nothing left to do\n"


def test_the_estimate_is_near_the_time_of_the_run() -> None:
    def made() -> tuple[StyleTransfer, PairDataModule, L.Trainer]:
        module = StyleTransfer(content_layers="relu2_1", style_layers="relu1_1,relu2_1")
        trainer = L.Trainer(
            accelerator="cpu", devices=1, max_epochs=1, logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        return module, PairDataModule("photo.png", "painting.png", size=96, steps=60), trainer

    ratios = []
    for _ in range(5):  # other work on the machine can double either time
        with quiet():
            module, data, trainer = made()
            expected = planning.measure(module, data, trainer, {"accelerator": "cpu"}).total
            module, data, trainer = made()
            began = time.monotonic()
            trainer.fit(module, datamodule=data)
        ratios.append(expected / (time.monotonic() - began))
        if 1 / 2 < ratios[-1] < 2:
            return
    pytest.fail(f"the estimates were {ratios} times the run's time")


BAD_INPUTS = {
    "no duration": (["--within", "soon"], r"within must be a time above 0, as 90s, 30m or 1h30m, got 'soon'"),
    "missing file": (["--content", "nope.jpg"], r"content image nope\.jpg is neither here nor in data/"),
    "unknown format": (["--output", "x.gif"], r"x\.gif: has suffix '\.gif'; allowed are \.png"),
    "unknown option": (["--sise", "3"], r"unrecognized arguments: --sise 3"),
    "several processes": (
        ["--trainer.accelerator", "cpu", "--devices", "2"],
        r"must be pair_parallel or tile_parallel",
    ),
    "whole images shared": (
        ["--trainer.accelerator", "cpu", "--devices", "2", "--strategy", "tile_parallel"],
        r"tile_parallel deals out tiles: set model\.tile",
    ),
    "no run to resume": (["--resume", "nowhere"], r"nowhere: is not the folder of a run"),
}


@pytest.mark.parametrize("case", BAD_INPUTS)
def test_bad_input_ends_in_one_line_and_exit_code_2(case: str, capfd: pytest.CaptureFixture[str]) -> None:
    options, message = BAD_INPUTS[case]
    before = sorted(Path().rglob("*"))
    assert main(["plan", *JOB, *options]) == 2
    told = capfd.readouterr()
    assert re.fullmatch(rf"nst: error: [^\n]*{message}[^\n]*\n", told.err), told.err
    assert told.out == ""
    assert sorted(Path().rglob("*")) == before


def test_has_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--help"]) == 0
    assert "usage: nst plan" in capsys.readouterr().out
