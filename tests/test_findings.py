"""Findings: each statistic against one computed otherwise, verdicts on data made for them, and what is refused."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from scipy import stats

from nst_lightning.errors import InputError
from nst_lightning.findings import (
    Finding,
    Prediction,
    _equivalence,
    _holm,
    _page,
    _paired,
    _tau,
    as_json,
    as_markdown,
    check,
    interval,
    read_predictions,
)

SHIPPED = Path(__file__).parents[1] / "configs/figures/predictions.yaml"
BEST = Prediction("best", "A is best.", "sweep", "overall", "highest", "init", value="a")
RISE = Prediction("rise", "It rises.", "sweep", "overall", "rise", "init", values=("a", "b", "c"))
FALL = replace(RISE, id="fall", test="fall")
FLAT = Prediction("flat", "It is flat.", "sweep", "overall", "flat", "init", margin=0.1)
STEP = Prediction("step", "It steps.", "sweep", "overall", "step", "init", before=("a", "b"), after=("c",))
NOISE = np.random.default_rng(0).normal(0, 0.01, (12, 3))


def sweep(folder: Path, rows: Any, values: Sequence[object] = ("a", "b", "c"), figure: str = "sweep") -> Path:  # noqa: ANN401
    """Writes results of one seed: a row a pair, a column a value."""
    cells = [cell(f"pair{i}", value, score) for i, row in enumerate(rows) for value, score in zip(values, row)]  # noqa: B905
    return written(folder, cells, figure)


def around(*means: float) -> Any:  # noqa: ANN401
    """Scores of twelve pairs that vary a little around these means."""
    return NOISE + np.array(means)


def cell(pair: str, value: object, score: object, seed: int = 0, **others: object) -> dict[str, object]:
    return {"pair": pair, "seed": seed, "values": {"init": value, **others}, "scores": {"overall": score}}


def written(folder: Path, cells: object, figure: str = "sweep") -> Path:
    (folder / figure).mkdir(parents=True, exist_ok=True)
    (folder / figure / "results.json").write_text(json.dumps({"cells": cells}))
    return folder


def only(prediction: Prediction, folder: Path) -> Finding:
    (finding,) = check([prediction], folder)
    return finding


# ---- statistics ----


def greater(differences: Any) -> float:  # noqa: ANN401
    return float(stats.ttest_1samp(differences, 0, alternative="greater").pvalue)


@pytest.mark.parametrize("n", [2, 6, 12])
def test_a_difference_is_tested_by_scipys_t_test(n: int) -> None:
    differences = np.random.default_rng(n).normal(0.3, 1, n)
    assert _paired(differences) == pytest.approx(greater(differences), abs=1e-6)  # differences are rounded


@pytest.mark.parametrize(("differences", "p"), [([0.1, 0.1], 0), ([0, 0], 1), ([-0.1, -0.1], 1)])
def test_equal_differences_leave_no_doubt(differences: list[float], p: float) -> None:
    assert _paired(np.array(differences)) == p


def test_a_single_difference_has_no_p() -> None:
    assert math.isnan(_paired(np.array([1.0])))


def test_page_counts_all_orders() -> None:
    scores = np.array([[0.1, 0.3, 0.2], [0.1, 0.5, 0.9], [0.2, 0.1, 0.4]])
    weights = np.array([1, 2, 3])
    ranks = scores.argsort(axis=1).argsort(axis=1) + 1
    rows = [weights @ np.array(order) for order in itertools.permutations(weights)]
    totals = np.array([sum(each) for each in itertools.product(rows, repeat=3)])
    assert _page(scores) == pytest.approx(np.mean(totals >= (ranks @ weights).sum()), abs=1e-12)


def test_page_needs_two_pairs() -> None:
    assert math.isnan(_page(np.array([[1.0, 2.0, 3.0]])))


@pytest.mark.parametrize("scores", [[1, 2, 3, 4], [4, 1, 3, 2], [1, 1, 2, 0], [3, 3, 1, 1, 2], [2, 2, 2]])
def test_tau_counts_pairs_in_order(scores: list[float]) -> None:
    two = list(itertools.combinations(scores, 2))
    signs = [(b > a) - (b < a) for a, b in two]
    untied = sum(sign != 0 for sign in signs)
    expected = sum(signs) / math.sqrt(untied * len(two)) if untied else 0.0
    assert _tau(np.array(scores, dtype=float)) == pytest.approx(expected)


def test_interval_is_students() -> None:
    values = [0.1, 0.4, 0.35, 0.8]
    mean = sum(values) / 4
    deviation = math.sqrt(sum((each - mean) ** 2 for each in values) / 3)
    half = 3.182446305 * deviation / 2  # the 97.5 % quantile of t with three degrees of freedom
    assert interval(values) == pytest.approx((mean, mean - half, mean + half))
    narrower = 2.353363435 * deviation / 2
    assert interval(values, 0.9) == pytest.approx((mean, mean - narrower, mean + narrower))


def test_interval_of_few() -> None:
    assert interval([0.5]) == pytest.approx((0.5, math.nan, math.nan), nan_ok=True)
    assert interval([]) == pytest.approx((math.nan,) * 3, nan_ok=True)
    assert interval([0.5, 0.5]) == (0.5, 0.5, 0.5)


@pytest.mark.parametrize("shift", [0.0, 0.05, -0.05, 0.2])
def test_equivalence_is_two_one_sided_t_tests(shift: float) -> None:
    differences = np.random.default_rng(1).normal(shift, 0.05, 8)
    below = stats.ttest_1samp(differences, 0.1, alternative="less").pvalue
    above = stats.ttest_1samp(differences, -0.1, alternative="greater").pvalue
    p = _equivalence(differences, 0.1)
    assert p == pytest.approx(max(below, above))
    _, low, high = interval(differences, 0.9)
    assert (p < 0.05) == (low > -0.1 and high < 0.1)


def test_equivalence_of_what_does_not_vary() -> None:
    assert _equivalence(np.array([0.0, 0.0]), 0.1) == 0
    assert _equivalence(np.array([0.5, 0.5]), 0.1) == 1
    assert math.isnan(_equivalence(np.array([0.0]), 0.1))


def test_holm_by_hand() -> None:
    assert _holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert _holm([0.6, 0.7]) == [1, 1]
    assert _holm([0.02, math.nan]) == pytest.approx([0.04, math.nan], nan_ok=True)  # what has no p is counted
    assert _holm([]) == []


# ---- verdicts ----


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
    assert finding.p == pytest.approx(_page(np.array(rows)))
    assert finding.why.startswith("3 of 3 pairs rise; means 0.100, 0.233, 0.300")
    assert only(FALL, tmp_path).effect == finding.effect
    assert only(FALL, tmp_path).p > 0.9


def test_numbers_are_in_rising_order_however_they_are_written(tmp_path: Path) -> None:
    sweep(tmp_path, [[0.3, 0.1, 0.2], [0.3, 0.1, 0.2]], values=("100", 1.0, "1e1"))
    finding = only(replace(RISE, values=None), tmp_path)
    assert finding.effect == 1
    assert finding.prediction == "overall rises along init 1.0, 1e1, 100"
    assert only(replace(BEST, value=100), tmp_path).effect == pytest.approx(0.1)


def test_flat_is_about_every_two_values(tmp_path: Path) -> None:
    rows = around(0.34, 0.3, 0.31)
    finding = only(FLAT, sweep(tmp_path, rows))
    differences = [rows[:, j] - rows[:, i] for i, j in itertools.combinations(range(3), 2)]
    assert finding.p == pytest.approx(max(_equivalence(each, 0.1) for each in differences))
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


def test_says_when_agreement_was_out_of_reach(tmp_path: Path) -> None:
    sweep(tmp_path, around(0.5, 0.3, 0.1)[:6])
    assert not any("out of reach" in finding.why for finding in check([BEST, FALL, FLAT], tmp_path))
    sweep(tmp_path, [[0.3, 0.2, 0.1], [0.4, 0.3, 0.2]])
    said = "out of reach of 'agrees': with 2 pairs the test has p of at least 0.0278, corrected 0.0556"
    two = check([FALL, replace(FALL, id="again")], tmp_path)
    assert all(said in finding.why for finding in two)  # one order of 36
    sweep(tmp_path, NOISE[:1])
    assert "out of reach of 'agrees': with 1 pair the test has no p" in only(FLAT, tmp_path).why


# ---- what is refused ----


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"results.json: cannot be read \(JSONDecodeError\); expected a sweep's results"),
        ("[]", r"results.json: must have a list of cells, got \[\]"),
        ('{"cells": [{"pair": "x"}]}', "cell 1 must have a pair, a seed, values and scores, got {'pair': 'x'}"),
        (json.dumps({"cells": [cell("x", "a", "much")]}), "cell 1 must have a pair, a seed, values and scores"),
        (json.dumps({"cells": [cell("x", "a", 1), cell("x", "a", 2)]}), "cell 2 is there twice: x, seed 0"),
        (
            json.dumps({"cells": [cell("x", "a", 1), cell("x", "a", 1, size=2)]}),
            "the axes of the others, got init, size",
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
        check([replace(RISE, values=None)], tmp_path)


GOOD = {"id": "x", "claim": "c", "figure": "f", "score": "s", "test": "rise", "axis": "a"}
OF = "id, claim, figure, score, test, axis"


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({}, r"must be a list of predictions, at least one, got {}"),
        ([], r"must be a list of predictions, at least one, got \[\]"),
        (["x"], f"entry 1 must be a mapping with the keys {OF}, got 'x'"),
        ([{"claim": "c"}], "entry 1: id must be a text, and there is none"),
        ([GOOD, GOOD], "entry 2: id 'x' is taken; give each an id of its own"),
        ([{**GOOD, "figure": 3}], "entry 'x': figure must be the name of a sweep, got 3"),
        ([{**GOOD, "score": ""}], "entry 'x': score must be the name of a score, got ''"),
        ([{**GOOD, "test": "best"}], "entry 'x': test must be one of highest, rise, fall, flat, step, got 'best'"),
        ([{**GOOD, "margin": 1}], f"entry 'x': unknown key 'margin'; a rise has {OF}, values, effect"),
        ([{**GOOD, "values": [1, 2]}], r"values must be a list of words or numbers, at least 3, got \[1, 2\]"),
        ([{**GOOD, "values": [1, 2, [3]]}], r"values must be a list of words or numbers, at least 3"),
        ([{**GOOD, "values": "abc"}], "values must be a list of words or numbers, at least 3, got 'abc'"),
        ([{**GOOD, "values": [1, 2, 3, "3.0"]}], "values must have each value once, got"),
        ([{**GOOD, "effect": -1}], "effect must be a finite number, 0 or above, got -1"),
        ([{**GOOD, "effect": True}], "effect must be a finite number, 0 or above, got True"),
        ([{**GOOD, "test": "flat"}], "margin must be a finite number, above 0, and there is none"),
        ([{**GOOD, "test": "flat", "margin": 0}], "margin must be a finite number, above 0, got 0"),
        ([{**GOOD, "test": "highest"}], "entry 'x': value must be a word or a number, and there is none"),
        (
            [{**GOOD, "test": "highest", "value": 1, "values": [2, 3]}],
            "value must be among values, got 1; those are 2, 3",
        ),
        (
            [{**GOOD, "test": "step", "before": [1]}],
            "after must be a list of words or numbers, at least 1, and there is",
        ),
        ([{**GOOD, "test": "step", "before": [1, 2], "after": [2]}], "after must have other values than before, got 2"),
    ],
)
def test_predictions_that_are_none(entries: object, message: str, tmp_path: Path) -> None:
    path = tmp_path / "predictions.yaml"
    path.write_text(yaml.safe_dump(entries))
    with pytest.raises(InputError, match=f"^{path}: .*{message}"):
        read_predictions(path)


def test_predictions_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot be read \(FileNotFoundError\)"):
        read_predictions(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("- {")
    with pytest.raises(InputError, match=r"bad\.yaml: is no YAML \("):
        read_predictions(tmp_path / "bad.yaml")


def test_the_shipped_predictions_are_read() -> None:
    predictions = {each.id: each for each in read_predictions(SHIPPED)}
    assert len(predictions) == 19
    assert predictions["init-content-best"] == Prediction(
        "init-content-best",
        "Content initialisation alone satisfies the heuristics.",
        "initialization",
        "overall",
        "highest",
        "init",
        "content",
        ("content", "style", "gaussian", "uniform"),
    )
    assert predictions["style-layers-texture"].before == (1, 2, 3)
    assert predictions["content-layer-palette"].margin == 0.1


# ---- tables ----


def test_tables(tmp_path: Path) -> None:
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
    read = json.loads(as_json(findings))["findings"]
    assert read[0] == vars(one)
    assert read[1]["effect"] is None and read[1]["verdict"] == "not run here"
    only_one = as_markdown(check([BEST], sweep(tmp_path, [[0.2, 0.1, 0.1]])))
    assert "| 1 | 0.100 | n/a | n/a | **undecided** |" in only_one  # no interval of one pair
