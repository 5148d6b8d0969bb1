"""What a run would take: arithmetic on made-up measurements, words, and steps that are really taken."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import pytest
from PIL import Image
from torch import Tensor

from nst_lightning import planning
from nst_lightning.api import quiet
from nst_lightning.batches import Batch, Gallery
from nst_lightning.data import PairDataModule, Worker
from nst_lightning.errors import InputError
from nst_lightning.modules import StyleTransfer
from nst_lightning.optim import LBFGS
from nst_lightning.pairs import Pair
from nst_lightning.planning import Cost, Estimate, Kind, Size
from nst_lightning.progress import Saved
from nst_lightning.schedule import Stage
from nst_lightning.tiling import Plan, Share

pytestmark = pytest.mark.usefixtures("workplace")


# ---- arithmetic ----

SIDE = 64


def batch(*names: str, steps: int = 10, size: int = SIDE, saved: Saved | None = None) -> Batch:
    pairs = [Pair(f"{name}.png", ("style.png",), name) for name in names]
    return Batch(pairs, (1000, 1000), (Stage(size, steps),), 1.0, False, Gallery(), saved)


def kind(side: int, count: int = 1, tiles: Plan | None = None) -> Kind:
    return Kind((side, side, count), tiles)


def estimated(*batches: Batch, deals_tiles: bool = False) -> Estimate:
    """An estimate in which a step on one image of `SIDE` takes a second, and on others by the pixels."""
    kinds = [kind(stage.size, len(each.pairs)) for each in batches for stage in each.stages]
    costs = {each.size: Cost(each, each.work / SIDE**2, each.size) for each in kinds}
    return Estimate(batches, costs, lambda size: 10**6, deals_tiles)


def test_stages_that_are_alike_make_one_row() -> None:
    of = estimated(batch("a"), batch("b"), batch("c", "d"), batch("e", size=128, steps=3))
    assert of.rows == {(1, (64, 64, 1), 10): 2, (1, (64, 64, 2), 10): 1, (1, (128, 128, 1), 3): 1}
    assert of.total == 2 * 10 + 20 + 12
    assert {unit.names: seconds for unit, seconds in of.units.items()} == {
        ("a",): 10, ("b",): 10, ("c",): 10, ("d",): 10, ("e",): 12
    }  # fmt: skip


def test_only_the_steps_that_are_left_of_a_batch_count() -> None:
    stages = (Stage(SIDE, 10),)
    of = estimated(batch("a", "b", saved=Saved(Path("x.ckpt"), ("a", "b"), stages, 7)))
    assert of.rows == {(1, (64, 64, 2), 3): 1}
    assert of.total == 6
    assert [unit.names for unit in of.units] == [("a", "b")]


def test_several_processes_take_as_long_as_the_one_that_has_most() -> None:
    of = estimated(*(batch(name, steps=steps) for name, steps in (("a", 10), ("b", 7), ("c", 6), ("d", 5))))
    assert [of.on(ranks) for ranks in (1, 2, 3, 4, 9)] == [28, 15, 11, 10, 10]


def test_a_batch_is_dealt_out_pair_by_pair() -> None:
    assert estimated(batch("a", "b", "c", "d")).on(2) == 20


def test_processes_that_share_tiles_share_the_longest_pair_too() -> None:
    of = estimated(batch("a", steps=12), deals_tiles=True)
    assert of.on(4) == 3
    assert of.ranks_within(3.5) == 4


def test_the_fewest_processes_that_keep_to_a_wish() -> None:
    of = estimated(*(batch(name, steps=steps) for name, steps in (("a", 10), ("b", 7), ("c", 6), ("d", 5))))
    for wish, ranks in ((28, 1), (27.9, 2), (15, 2), (14.9, 3), (10.5, 4), (10, 4)):
        assert of.ranks_within(wish) == ranks
        assert of.on(ranks) <= wish
        assert ranks == 1 or of.on(ranks - 1) > wish


def test_a_wish_that_one_pair_alone_exceeds_cannot_be_met() -> None:
    of = estimated(batch("a"), batch("b", steps=20))
    assert of.ranks_within(19.9) is None
    assert of.ranks_within(20) == 2


def test_what_was_not_measured_goes_by_the_work_of_the_nearest_that_was() -> None:
    plan = Plan(tile=64, alignment=16, before=16, after=16, least=16)
    small, middle, large, tiled = kind(32), kind(64), kind(128, 2), kind(128, tiles=plan)
    costs = planning.completed([small, middle, large, tiled], {small: 9.0, middle: 1.0})
    assert costs[32, 32, 1] == Cost(small, 9.0, small.size)
    assert costs[128, 128, 2] == Cost(large, 8.0, middle.size)
    overhead = plan.overhead(128, 128)
    assert overhead == (80 + 80) ** 2 / 128**2
    assert costs[128, 128, 1].step == pytest.approx(4 * overhead * 1.5)
    between = kind(48)  # as a GPU's host takes as long for a small image
    assert planning.completed([between], {small: 1.0, middle: 1.6})[48, 48, 1].step == pytest.approx(1.25)


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


# ---- steps that are really taken ----

SMALL: dict[str, Any] = {"content_layers": "relu2_1", "style_layers": "relu1_1,relu2_1", "style_loss": "gram"}


def trainer() -> L.Trainer:
    with quiet():
        return L.Trainer(
            accelerator="cpu", devices=1, max_epochs=1, logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip


def worker(ranks: int = 1, deals_tiles: bool = False) -> Worker:
    """One of several processes, of which no other is there."""

    def ask_nobody(found: object) -> object:
        raise AssertionError

    alone = replace(Worker.of(trainer()), sharing=ranks, deals_tiles=deals_tiles, agree=ask_nobody)
    return replace(alone, share=Share(0, ranks)) if deals_tiles else alone


def job(**options: Any) -> PairDataModule:
    given = {"content": "photo.png", "style": "painting.png", "size": 32, "steps": 4, **options}
    return PairDataModule(**given)


def told(
    data: PairDataModule, ranks: int = 1, deals_tiles: bool = False, within: float | None = None, **of: Any
) -> str:
    process = worker(ranks, deals_tiles)
    estimate = planning.estimate(StyleTransfer(**SMALL, **of), data, process)
    return planning.text(estimate, process, ranks, "in x", within)


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


def test_tells_what_a_run_would_take_and_writes_nothing(workplace: Path) -> None:
    before = sorted(workplace.rglob("*"))
    data = job()
    words = told(data, within=3600.0)
    for line in (
        r"pairs +1 \(photo_painting\)",
        r"batches +1: 1 of 1 pair \(32x27 px\)",
        r"steps +4",
        r"processes +1, on cpu",
        r"memory +[\d.]+ GB free; a process plans with [\d.]+ GB",
        r"pictures +in x",
        r"time on 1 process +\d.*",
        r"within 1 h +1 device \(.*\)",
    ):
        assert re.search(rf"^{line}$", words, re.MULTILINE), (line, words)
    (coarse, fine) = cells(words)
    assert coarse[:4] == ["1", "16x13", "1 x 1", "2"]  # nothing is tiled
    assert fine[:4] == ["2", "32x27", "1 x 1", "2"]
    assert float(fine[-2]) > 0
    assert sorted(workplace.rglob("*")) == before
    assert (data.batches, data.dealt, data.trainer) == ((), (), None)


def test_leaves_a_module_and_data_that_are_in_use_as_they_were() -> None:
    module, data = StyleTransfer(**SMALL), job()
    data.setup("fit")
    batches, image, tile = data.batches, module.image, module.problem.tile
    planning.estimate(module, data, worker())
    assert data.batches is batches
    assert module.image is image
    assert module.problem.tile == tile
    assert module.evaluation is None


def test_the_table_has_a_row_for_each_stage_and_size_of_unequal_pairs() -> None:
    Image.new("RGB", (64, 32), "red").save("wide.png")
    Path("pairs.csv").write_text(
        "content,style,size,steps\n"
        "photo.png,painting.png,48,6\nphoto.png,painting.png,48,6\nphoto.png,painting.png,,\nwide.png,painting.png,,8\n"
    )
    words = told(PairDataModule(pairs="pairs.csv", size=32, steps=4, batch_size=2), ranks=2)
    assert [row[:4] for row in cells(words)] == [
        ["1", "16x8", "1 x 1", "4"],
        ["1", "16x13", "1 x 1", "2"],
        ["1", "24x20", "1 x 2", "3"],
        ["2", "32x16", "1 x 1", "4"],
        ["2", "32x27", "1 x 1", "2"],
        ["2", "48x40", "1 x 2", "3"],
    ]
    assert re.search(r"^pairs +4\nbatches +3: .*1 of 2 pairs \(48x40 px\).*\nsteps +18\n", words, re.MULTILINE)
    assert re.search(r"^processes +2, pair_parallel, on cpu$", words, re.MULTILINE)
    assert re.search(r"^time on 2 processes +[\d.]+ s$", words, re.MULTILINE)


def test_a_wish_that_cannot_be_met_names_the_longest_pair() -> None:
    assert re.search(
        r"^within 1.0 s +not .*photo_painting alone takes .* tile_parallel .* would help$",
        told(job(steps=5000), within=1.0),
        re.MULTILINE,
    )


@pytest.mark.parametrize("shared", [False, True])
def test_tiles_are_told_with_their_halo_and_what_they_cost(shared: bool) -> None:
    words = told(job(stages=1), 4 if shared else 1, shared, 3600.0, tile="auto" if shared else 16)
    ((_, _, _, _, tile_side, halo, overhead, *_),) = cells(words)
    # A quarter of 32x27 px is 14x14, in multiples of relu2_1's stride.
    assert (tile_side, halo) == ("14 px" if shared else "16 px", "4+4 px")
    assert float(overhead) > 1.5
    assert ("time on 4 processes" in words) == shared
    assert bool(re.search(r"^within 1 h +1 device at best \(.*\)$", words, re.MULTILINE)) == shared


def test_a_step_that_takes_more_than_the_memory_is_marked_and_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Worker, "memory", 1000)
    words = told(job())
    assert all(row[-3].endswith("%!") for row in cells(words))
    assert "! takes more memory than a process plans with" in words
    assert "* not measured, but by the number of pixels from 1 image of 16x13 px" in words


def test_as_many_pairs_as_fit_the_memory_are_planned_together(monkeypatch: pytest.MonkeyPatch) -> None:
    module = StyleTransfer(**SMALL)
    data = job(content=["photo.png"] * 3, stages=1, batch_size="auto")
    monkeypatch.setattr(Worker, "memory", 2 * module.bytes_of_step(worker(), 32 * 27))
    assert [len(each.pairs) for each in planning.estimate(module, data, worker()).batches] == [2, 1]


def test_what_the_budget_leaves_out_goes_by_pixels() -> None:
    data = job(size=512, upscale=True)
    module = StyleTransfer(content_layers="relu1_1", style_layers="relu1_1")
    of = planning.estimate(module, data, worker(), budget=0.0)
    assert {cost.measured_at for cost in of.costs.values()} == {(213, 256, 1)}
    words = planning.text(of, worker(), 1, "in x")
    assert re.search(r"^\* not measured, but by the number of pixels from 1 image of 256x213 px$", words, re.MULTILINE)
    assert cells(words)[1][-2].endswith("*")


def test_three_sizes_at_most_are_measured_and_none_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    timed: list[Size] = []

    def pretend(module: StyleTransfer, worker: Worker, kind: Kind) -> float:
        timed.append(kind.size)
        return 1e-3

    monkeypatch.setattr(planning, "_seconds_a_step", pretend)
    data = job(stages=[Stage(side, 2) for side in (32, 40, 48, 56, 64)], size=None, steps=None)
    known: planning.Measured = {}
    for module in (StyleTransfer(**SMALL), StyleTransfer(**SMALL, init="style", content_weight=1.0)):
        planning.estimate(module, data, worker(), measured=known)
        assert timed == [(27, 32, 1), (40, 48, 1), (53, 64, 1)]
    planning.estimate(StyleTransfer(**SMALL, pooling="avg"), data, worker(), measured=known)
    assert len(timed) == 6


def test_steps_are_timed_of_an_optimiser_that_remembers_as_much_as_late_in_a_run() -> None:
    taken: list[int] = []

    class Remembering(LBFGS):
        steps = 0

        def step(self, closure: Callable[[], Tensor | float] | None = None) -> Tensor:  # type: ignore[override]
            taken.append(self.steps)
            self.steps += 1
            return super().step(closure)

    module = StyleTransfer(**SMALL, optimizer=partial(Remembering, history_size=7))
    planning.estimate(module, job(stages=1), worker())
    assert sorted(taken)[-4:] == [7, 8, 9, 10]


def test_nothing_is_left_of_a_run_whose_pairs_are_finished(monkeypatch: pytest.MonkeyPatch) -> None:
    data = job()
    data.progress = replace(data.progress, finished=frozenset(["photo_painting"]))
    assert told(data) == "nothing left to do"


def test_the_plan_of_a_broken_off_run_is_what_is_left_of_it() -> None:
    data = job()
    saved = Saved(Path("x.ckpt"), ("photo_painting",), data.stages, 3)
    data.progress = replace(data.progress, saved=(saved,))
    assert [row[:4] for row in cells(told(data))] == [["2", "32x27", "1 x 1", "1"]]


def test_what_the_run_would_refuse_is_refused() -> None:
    weights = "content_weight,style_weight,tv_weight"
    Path("pairs.csv").write_text(f"content,style,{weights}\nphoto.png,painting.png,0,0,0\n")
    with pytest.raises(InputError, match=r"tile_parallel deals out tiles: set model\.tile"):
        told(job(), 2, deals_tiles=True)
    with pytest.raises(InputError, match="pair photo_painting: nothing to optimise: every weight is 0"):
        told(PairDataModule(pairs="pairs.csv", size=32, steps=4))


def test_the_estimate_is_near_the_time_of_the_run() -> None:
    ratios = []
    for _ in range(5):  # other work on the machine can double either time
        module, data = StyleTransfer(**SMALL), job(size=96, steps=60)
        expected = planning.estimate(module, data, worker()).total
        with quiet():
            run = trainer()
            began = time.monotonic()
            run.fit(module, datamodule=data)
        ratios.append(expected / (time.monotonic() - began))
        if 1 / 2 < ratios[-1] < 2:
            return
    pytest.fail(f"the estimates were {ratios} times the run's time")
