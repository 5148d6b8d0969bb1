"""Votes between two pictures, and what they say of the methods that painted them."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, log_expit

from nst_lightning.errors import InputError

COLUMNS = ("voter", "pair", "left", "right", "choice")
CHOICES = ("left", "right", "equal")
_PRIOR = 0.5  # of a win and of a loss against a method of mean strength, so that one that always won is not infinite
_NORMAL_95 = 1.959964


@dataclass(frozen=True)
class Vote:
    """One voter's choice between two pictures of a pair, by the names of their methods."""

    voter: str
    pair: str
    left: str
    right: str
    choice: str  # one of CHOICES


@dataclass(frozen=True)
class Strength:
    """How good a method's pictures are: the part of votes that it would win against one of mean strength."""

    method: str
    share: float  # 0 to 1
    low: float  # the 95 % interval's ends
    high: float
    wins: float  # a tie is half a win
    votes: int


def read(files: Iterable[Path], key: Mapping[str, str]) -> list[Vote]:
    """Returns the votes of CSV files whose methods are named by `key`.

    Raises:
        InputError: If a file cannot be read, or holds what a page of `nst vote` does not write.
    """
    votes = []
    for file in files:
        try:
            rows = list(csv.DictReader(file.read_text(encoding="utf-8-sig").splitlines()))
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{file}: cannot be read: {error}") from error
        for number, row in enumerate(rows, start=2):
            if missing := [name for name in COLUMNS if row.get(name) is None]:
                raise InputError(f"{file}: line {number} has no {missing[0]}; the columns are {', '.join(COLUMNS)}")
            for side in ("left", "right"):
                if row[side] not in key:
                    raise InputError(f"{file}: line {number}: {side} {row[side]!r} is not in the key: of another page?")
            if row["choice"] not in CHOICES:
                raise InputError(f"{file}: line {number}: choice must be {', '.join(CHOICES)}, got {row['choice']!r}")
            votes.append(Vote(row["voter"], row["pair"], key[row["left"]], key[row["right"]], row["choice"]))
    if not votes:
        raise InputError("there are no votes in the files")
    return votes


def strengths(votes: Sequence[Vote]) -> list[Strength]:
    """Returns the methods' strengths, the best first, by the model of Bradley and Terry (1952), equation 2.

    *Rank Analysis of Incomplete Block Designs*. The intervals are those of a normal distribution with the curvature of
    the likelihood.
    """
    methods = sorted({name for vote in votes for name in (vote.left, vote.right)})
    wins = np.zeros((len(methods), len(methods)))
    for vote in votes:
        left, right = methods.index(vote.left), methods.index(vote.right)
        for_left = {"left": 1.0, "right": 0.0, "equal": 0.5}[vote.choice]
        wins[left, right] += for_left
        wins[right, left] += 1 - for_left
    played = wins + wins.T

    def against(logits: NDArray[np.float64]) -> NDArray[np.float64]:
        return logits[:, None] - logits[None, :]

    def loss(logits: NDArray[np.float64]) -> float:
        prior = _PRIOR * (log_expit(logits) + log_expit(-logits)).sum()
        return float(-(wins * log_expit(against(logits))).sum() - prior)

    def slope(logits: NDArray[np.float64]) -> NDArray[np.float64]:
        expected = played * expit(against(logits))
        found: NDArray[np.float64] = (expected - wins).sum(axis=1) - _PRIOR * (1 - 2 * expit(logits))
        return found

    logits = minimize(loss, np.zeros(len(methods)), jac=slope, method="BFGS").x
    spread = played * expit(against(logits)) * expit(-against(logits))
    curvature = np.diag(spread.sum(axis=1) + 2 * _PRIOR * expit(logits) * expit(-logits)) - spread
    half = _NORMAL_95 * np.sqrt(np.diag(np.linalg.inv(curvature)))
    found = [
        Strength(name, float(expit(at)), float(expit(at - off)), float(expit(at + off)), float(won), int(count))
        for name, at, off, won, count in zip(
            methods, logits, half, wins.sum(axis=1), played.sum(axis=1).round(), strict=True
        )
    ]
    return sorted(found, key=lambda each: -each.share)


def table(votes: Sequence[Vote]) -> str:
    """Returns strengths, and who won how often against whom, as text."""
    voters = len({vote.voter for vote in votes})
    found = strengths(votes)
    wide = max(len("method"), *(len(each.method) for each in found))
    lines = [f"{len(votes)} votes of {voters} voter{'s' * (voters != 1)}; wins against a method of mean strength"]
    lines.append(f"{'method':{wide}}  {'share':>6}  {'95 %':>12}  {'wins':>6} of votes")
    for each in found:
        interval = f"{each.low:.2f} to {each.high:.2f}"
        lines.append(f"{each.method:{wide}}  {each.share:6.2f}  {interval:>12}  {each.wins:6g} of {each.votes}")
    return "\n".join(lines)
