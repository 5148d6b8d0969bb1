"""Each statistic against one computed otherwise."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from nst_lightning.study.tables import interval, tau
from nst_lightning.study.verdicts import equivalence, holm, page, paired
from tests.study.builders import greater


@pytest.mark.parametrize("n", [2, 6, 12])
def test_a_difference_is_tested_by_scipys_t_test(n: int) -> None:
    differences = np.random.default_rng(n).normal(0.3, 1, n)
    assert paired(differences) == pytest.approx(greater(differences), abs=1e-6)  # differences are rounded


@pytest.mark.parametrize(("differences", "p"), [([0.1, 0.1], 0), ([0, 0], 1), ([-0.1, -0.1], 1)])
def test_equal_differences_leave_no_doubt(differences: list[float], p: float) -> None:
    assert paired(np.array(differences)) == p


def test_a_single_difference_has_no_p() -> None:
    assert math.isnan(paired(np.array([1.0])))


def test_page_counts_all_orders() -> None:
    scores = np.array([[0.1, 0.3, 0.2], [0.1, 0.5, 0.9], [0.2, 0.1, 0.4]])
    weights = np.array([1, 2, 3])
    ranks = scores.argsort(axis=1).argsort(axis=1) + 1
    rows = [weights @ np.array(order) for order in itertools.permutations(weights)]
    totals = np.array([sum(each) for each in itertools.product(rows, repeat=3)])
    assert page(scores) == pytest.approx(np.mean(totals >= (ranks @ weights).sum()), abs=1e-12)


def test_page_needs_two_pairs() -> None:
    assert math.isnan(page(np.array([[1.0, 2.0, 3.0]])))


@pytest.mark.parametrize("scores", [[1, 2, 3, 4], [4, 1, 3, 2], [1, 1, 2, 0], [3, 3, 1, 1, 2], [2, 2, 2]])
def test_tau_counts_pairs_in_order(scores: list[float]) -> None:
    two = list(itertools.combinations(scores, 2))
    signs = [(b > a) - (b < a) for a, b in two]
    untied = sum(sign != 0 for sign in signs)
    expected = sum(signs) / math.sqrt(untied * len(two)) if untied else 0.0
    assert tau(np.array(scores, dtype=float)) == pytest.approx(expected)


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
    p = equivalence(differences, 0.1)
    assert p == pytest.approx(max(below, above))
    _, low, high = interval(differences, 0.9)
    assert (p < 0.05) == (low > -0.1 and high < 0.1)


def test_equivalence_of_what_does_not_vary() -> None:
    assert equivalence(np.array([0.0, 0.0]), 0.1) == 0
    assert equivalence(np.array([0.5, 0.5]), 0.1) == 1
    assert math.isnan(equivalence(np.array([0.0]), 0.1))


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1, 1]
    assert holm([0.02, math.nan]) == pytest.approx([0.04, math.nan], nan_ok=True)  # what has no p is counted
    assert holm([]) == []
