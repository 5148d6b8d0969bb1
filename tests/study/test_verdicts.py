"""Verdicts on data made for them, and the results that are refused."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nst_lightning.errors import InputError
from nst_lightning.study import schema
from nst_lightning.study.predictions import Prediction
from nst_lightning.study.tables import interval
from nst_lightning.study.verdicts import Findings, as_markdown, check, equivalence, page
from tests.study.builders import (
    BEST,
    FALL,
    FLAT,
    NOISE,
    RISE,
    STEP,
    around,
    cell,
    greater,
    only,
    sweep,
    written,
)


@pytest.mark.parametrize(
    ("prediction", "means", "verdict"),
    [
        (BEST, (0.5, 0.3, 0.1), "agrees"),
        (BEST, (0.3, 0.5, 0.1), "disagrees"),  # one rival is enough
        (BEST, (0.3, 0.3, 0.1), "undecided"),
        (replace(BEST, effect=0.3), (0.5, 0.3, 0.1), "undecided"),
        (replace(BEST, effect=0.1), (0.5, 0.3, 0.1), "agrees"),
        (replace(BEST, values=("a", "c")), (0.3, 0.5, 0.1), "agrees"),
        (RISE, (0.1, 0.3, 0.5), "agrees"),
        (RISE, (0.5, 0.3, 0.1), "disagrees"),
        (RISE, (0.3, 0.3, 0.3), "undecided"),
        (replace(RISE, values=("c", "b", "a")), (0.5, 0.3, 0.1), "agrees"),
        (replace(RISE, effect=0.99), (0.1, 0.3, 0.5), "agrees"),
        (replace(RISE, effect=0.99), (0.1, 0.3, 0.305), "undecided"),
        (replace(RISE, effect=0.1), (0.1, 0.3, 0.305), "agrees"),
        (FALL, (0.5, 0.3, 0.1), "agrees"),
        (FALL, (0.1, 0.3, 0.5), "disagrees"),
        (FALL, (0.3, 0.3, 0.3), "undecided"),
        (FLAT, (0.3, 0.31, 0.32), "agrees"),
        (FLAT, (0.3, 0.31, 0.5), "disagrees"),
        (FLAT, (0.5, 0.31, 0.3), "disagrees"),
        (FLAT, (0.3, 0.31, 0.4), "undecided"),
        (STEP, (0.1, 0.2, 0.5), "agrees"),
        (STEP, (0.5, 0.4, 0.1), "disagrees"),
        (STEP, (0.3, 0.3, 0.3), "undecided"),
    ],
)
def test_verdicts(prediction: Prediction, means: Sequence[float], verdict: str, tmp_path: Path) -> None:
    finding = only(prediction, sweep(tmp_path, around(*means)))
    assert finding.verdict == verdict, finding
    assert finding.n == 12
    assert finding.p == finding.corrected  # of a single one


def test_no_verdict_without_results(tmp_path: Path) -> None:
    finding = only(BEST, tmp_path)
    assert (finding.verdict, finding.n, finding.why) == ("not run here", 0, "there is no sweep/results.json")
    assert math.isnan(finding.effect) and math.isnan(finding.p) and math.isnan(finding.corrected)
    assert finding.prediction == "overall is higher for init a than for any other value"
    sweep(tmp_path, [])
    assert only(BEST, tmp_path).why == "there are no cells in sweep/results.json"
    sweep(tmp_path, [[0.1, 0.2]])
    assert only(RISE, tmp_path).why == "there is no init c among a, b"
    assert only(STEP, tmp_path).why == "there is no init c among a, b"
    assert only(replace(BEST, value="d"), tmp_path).why == "there is no init d among a, b"
    assert only(replace(BEST, score="lpips"), tmp_path).why == "lpips was not scored"
    sweep(tmp_path, [[0.1]])
    assert only(FLAT, tmp_path).why == "init has only a"


def test_highest_is_against_each_other_value(tmp_path: Path) -> None:
    rows = np.array([[0.5, 0.4, 0.1], [0.6, 0.3, 0.2], [0.4, 0.5, 0.3], [0.7, 0.5, 0.1], [0.5, 0.2, 0.1]])
    finding = only(BEST, sweep(tmp_path, rows))
    assert (finding.effect, finding.low, finding.high) == pytest.approx(interval(rows[:, 0] - rows[:, 1]))
    assert finding.p == pytest.approx(greater(rows[:, 0] - rows[:, 1]))
    assert finding.p > greater(rows[:, 0] - rows[:, 2])
    assert finding.prediction == "overall is higher for init a than for b, c"
    assert finding.why.startswith("4 of 5 pairs higher than b; mean 0.540 against 0.380")


def test_the_strongest_rival_need_not_have_the_largest_p(tmp_path: Path) -> None:
    rows = np.array([[0.5, 0.4, 0.6], [0.5, 0.4, 0.1], [0.5, 0.4, 0.05], [0.5, 0.4, 0.2]])
    finding = only(BEST, sweep(tmp_path, rows))
    assert finding.effect == pytest.approx(0.1)
    assert finding.p == pytest.approx(greater(rows[:, 0] - rows[:, 2]))


def test_trends_are_mean_taus(tmp_path: Path) -> None:
    rows = [[0.1, 0.2, 0.3], [0.1, 0.3, 0.2], [0.1, 0.2, 0.4]]
    finding = only(RISE, sweep(tmp_path, rows))
    effect, low, _ = interval([1, 1 / 3, 1])
    assert (finding.effect, finding.low, finding.high) == pytest.approx((effect, low, 1))  # no tau is above 1
    assert finding.p == pytest.approx(page(np.array(rows)))
    assert finding.why.startswith("3 of 3 pairs rise; means 0.100, 0.233, 0.300")
    assert only(FALL, tmp_path).effect == finding.effect
    assert only(FALL, tmp_path).p > 0.9


def test_numbers_are_in_rising_order_however_they_are_written(tmp_path: Path) -> None:
    sweep(tmp_path, [[0.3, 0.1, 0.2], [0.3, 0.1, 0.2]], values=("100", 1.0, "1e1"))
    finding = only(replace(RISE, values=()), tmp_path)
    assert finding.effect == 1
    assert finding.prediction == "overall rises along init 1.0, 1e1, 100"
    assert only(replace(BEST, value=100), tmp_path).effect == pytest.approx(0.1)


def test_flat_is_about_every_two_values(tmp_path: Path) -> None:
    rows = around(0.34, 0.3, 0.31)
    finding = only(FLAT, sweep(tmp_path, rows))
    differences = [rows[:, j] - rows[:, i] for i, j in itertools.combinations(range(3), 2)]
    assert finding.p == pytest.approx(max(equivalence(each, 0.1) for each in differences))
    assert (finding.effect, finding.low, finding.high) == pytest.approx(interval(-differences[0], 0.9))
    assert finding.effect > 0
    assert finding.prediction == "overall differs by less than 0.1 between the values of init a, b, c"
    assert finding.why.startswith("3 of 3 differences inside ±0.1 with their intervals; largest mean difference 0.0")


def test_step_compares_means(tmp_path: Path) -> None:
    rows = around(0.1, 0.2, 0.4)
    finding = only(STEP, sweep(tmp_path, rows))
    assert finding.effect == pytest.approx((rows[:, 2] - rows[:, :2].mean(axis=1)).mean())
    assert finding.p == pytest.approx(greater(rows[:, 2] - rows[:, :2].mean(axis=1)), abs=1e-15)
    assert finding.prediction == "overall is higher for init c than for a, b"


def test_the_mean_over_seeds_and_other_axes_comes_first(tmp_path: Path) -> None:
    cells = [
        cell("one", "a", score, seed, size=size) for score, seed, size in ((0.2, 0, 64), (0.4, 1, 64), (0.9, 0, 96))
    ]
    cells += [cell("one", "b", score, 0, size=size) for score, size in ((0.1, 64), (0.3, 96))]
    finding = only(BEST, written(tmp_path, cells))
    assert finding.n == 1
    assert finding.effect == pytest.approx(0.6 - 0.2)
    assert math.isnan(finding.low) and finding.verdict == "undecided"


def test_pairs_with_something_undefined_are_left_out_and_counted(tmp_path: Path) -> None:
    rows: list[list[float | None]] = [[0.5, 0.4, 0.3], [0.5, None, 0.3], [0.5, 0.3, math.nan], [0.6, 0.4, 0.3], [0.7]]
    finding = only(BEST, sweep(tmp_path, rows))
    assert finding.n == 2
    assert finding.effect == pytest.approx(0.15)
    assert "; 3 pairs left out, overall not being defined in every cell" in finding.why
    assert only(replace(BEST, values=("a", "b")), tmp_path).n == 3  # what is not needed may be undefined
    sweep(tmp_path, [[0.5, None, 0.3]])
    nothing = only(BEST, tmp_path)
    assert (nothing.n, nothing.verdict) == (0, "undecided")
    assert nothing.why == "no pair has overall defined in every cell"


def test_one_seed_undefined_leaves_the_pair_out(tmp_path: Path) -> None:
    cells = [cell("one", value, score, seed) for value, score, seed in (("a", 1, 0), ("a", None, 1), ("b", 0, 0))]
    assert only(BEST, written(tmp_path, cells)).n == 0


def test_holm_is_over_what_was_run(tmp_path: Path) -> None:
    sweep(tmp_path, around(0.5, 0.3, 0.1)[:6])
    absent = replace(BEST, id="absent", figure="absent")
    findings = check([BEST, absent, STEP, FALL], tmp_path)
    assert [each.id for each in findings] == ["best", "absent", "step", "fall"]
    best, _, step, fall = findings
    assert step.p > 0.99
    assert best.p < fall.p < step.p
    assert best.corrected == pytest.approx(3 * best.p)
    assert fall.corrected == pytest.approx(2 * fall.p)
    assert step.corrected == step.p
    assert best.verdict == fall.verdict == "agrees"


# ---- what is refused ----


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"results.json: is no JSON \(.*\)"),
        ("[]", r"results.json: must be an object, got \[\]"),
        ('{"cells": [{"name": "x", "pair": "x"}]}', r"cells\[0\].seed is missing; expected a whole number"),
        (json.dumps({"cells": [cell("x", "a", "much")]}), r'cells\[0\].scores.overall must be a number, got "much"'),
        (
            json.dumps({"cells": [cell("x", "a", 1), cell("x", "a", 1, size=2)]}),
            r"cells\[1\].values must be of the axes of the others, got init, size",
        ),
    ],
)
def test_results_that_are_none(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep/results.json").write_text(content)
    with pytest.raises(InputError, match=message):
        check([BEST], tmp_path)


def test_a_sweep_without_the_axis(tmp_path: Path) -> None:
    sweep(tmp_path, NOISE)
    with pytest.raises(InputError, match="has no axis 'size', which 'best' is about; there is init"):
        check([replace(BEST, axis="size")], tmp_path)
    with pytest.raises(InputError, match="prediction 'rise' needs values that say in which order: init is a, b, c"):
        check([replace(RISE, values=())], tmp_path)


# ---- the table and the file ----


def test_the_table_and_the_file_hold_all_of_a_finding(tmp_path: Path) -> None:
    sweep(tmp_path, around(0.5, 0.3, 0.1))
    findings = check([BEST, replace(BEST, id="none", claim="this|that", figure="none")], tmp_path)
    lines = as_markdown(findings).splitlines()
    assert lines[0].startswith(
        "| finding | the study's claim | prediction | pairs | effect | p | corrected | verdict |"
    )
    one = findings[0]
    shown = f"| 12 | {one.effect:.3f} [{one.low:.3f}, {one.high:.3f}] | {one.p:.3g} | {one.p:.3g} | **agrees** |"
    assert lines[2].startswith("| `best` | A is best. | overall is higher for init a than for b, c " + shown)
    assert lines[3].startswith(r"| `none` | this\|that | ")
    assert "| 0 | n/a | n/a | n/a | **not run here** | there is no none/results.json |" in lines[3]
    read = json.loads(schema.as_json(Findings(findings)))["findings"]
    assert read[0] == vars(one)
    assert read[1]["effect"] is None and read[1]["verdict"] == "not run here"
    only_one = as_markdown(check([BEST], sweep(tmp_path, [[0.2, 0.1, 0.1]])))
    assert "| 1 | 0.100 | n/a | n/a | **undecided** |" in only_one  # no interval of one pair
