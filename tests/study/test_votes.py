"""Bradley-Terry strengths against closed forms and another solution, and the page with its count."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import expit, logit

from nst_lightning import images
from nst_lightning.__main__ import main
from nst_lightning.errors import InputError
from nst_lightning.study import votes
from nst_lightning.study.votes import Vote


def games(first: str, second: str, wins: int, losses: int, ties: int = 0) -> list[Vote]:
    choices = ["left"] * wins + ["right"] * losses + ["equal"] * ties
    return [Vote("v", "pair", first, second, choice) for choice in choices]


def test_two_methods_have_the_odds_of_their_wins() -> None:
    # By symmetry the logits are x and -x; the slope of the likelihood with half a win and half a loss against 0 is 0.
    first, second = votes.strengths(games("a", "b", 30, 10, 4))
    x = logit(first.share)
    assert (first.method, first.wins, first.votes) == ("a", 32, 44)
    assert second.share == pytest.approx(1 - first.share, abs=1e-6)
    assert 32 - 44 * expit(2 * x) + 0.5 - expit(x) == pytest.approx(0, abs=1e-4)


def test_equals_the_iteration_of_hunter() -> None:
    # Hunter (2004), MM algorithms for generalized Bradley-Terry models, equation 3, with an opponent of strength 1.
    given = [*games("a", "b", 7, 3), *games("b", "c", 6, 5), *games("a", "c", 9, 1), *games("c", "a", 2, 2)]
    names = ["a", "b", "c"]
    wins = np.zeros((4, 4))
    for vote in given:
        left, right = names.index(vote.left), names.index(vote.right)
        wins[(left, right) if vote.choice == "left" else (right, left)] += 1
    wins[:3, 3] = wins[3, :3] = 0.5
    strength = np.ones(4)
    for _ in range(5000):
        played = wins + wins.T
        new = wins.sum(axis=1) / (played / (strength[:, None] + strength[None, :])).sum(axis=1)
        strength = new / new[3]
    found = {each.method: each.share for each in votes.strengths(given)}
    expected = dict(zip(names, strength[:3] / (1 + strength[:3]), strict=True))
    assert found == pytest.approx(expected, abs=1e-5)


def test_who_always_wins_is_not_infinite_and_intervals_shrink() -> None:
    few, many = (votes.strengths(games("a", "b", count, 0))[0] for count in (2, 50))
    assert 0.5 < few.share < many.share < 1
    few, many = (votes.strengths(games("a", "b", 2 * count, count))[0] for count in (2, 50))
    assert few.high - few.low > many.high - many.low


def test_intervals_hold_the_truth() -> None:
    generator = np.random.default_rng(0)
    truth = {"a": 0.6, "b": 0.1, "c": -0.7}
    held = 0
    for _ in range(60):
        given = []
        for first, second in (("a", "b"), ("b", "c"), ("a", "c")):
            wins = generator.binomial(40, expit(truth[first] - truth[second]))
            given += games(first, second, int(wins), 40 - int(wins))
        found = {each.method: each for each in votes.strengths(given)}
        held += sum(found[name].low <= expit(at) <= found[name].high for name, at in truth.items())
    assert 0.9 < held / 180 <= 1


@pytest.fixture
def folders(tmp_path: Path) -> list[str]:
    for number, method in enumerate(("ours", "theirs", "photographs")):
        for pair in ("cat", "sea"):
            picture = torch.full((1, 3, 24, 32), 0.2 + 0.3 * number)
            images.write(tmp_path / method / f"{pair}.png", picture)
    return [str(tmp_path / name) for name in ("ours", "theirs", "photographs")]


def test_a_page_and_its_count(folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "ask.html"
    assert main(["vote", *folders[:2], "--content", folders[2], "--output", str(page)]) == 0
    text = page.read_text()
    assert "ours" not in text and "theirs" not in text
    assert not re.search(r"(src|href)=.https?:", text)
    key = json.loads((tmp_path / "ask_key.json").read_text())
    assert sorted(key.values()) == ["ours", "theirs"]
    shown = json.loads(re.search(r"const pictures = (.*), sources", text)[1])  # type: ignore[index]
    assert {pair: sorted(made) for pair, made in shown.items()} == {"cat": sorted(key), "sea": sorted(key)}
    (ours,) = [one for one, name in key.items() if name == "ours"]
    (theirs,) = [one for one, name in key.items() if name == "theirs"]
    answers = tmp_path / "votes.csv"
    answers.write_text(f'"voter","pair","left","right","choice"\n"x","cat","{ours}","{theirs}","left"\n')
    capsys.readouterr()
    assert main(["vote", "--count", str(answers), "--key", str(tmp_path / "ask_key.json")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("1 votes of 1 voter;")
    assert [line.split()[0] for line in lines[2:]] == ["ours", "theirs"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["{0}"], "name two folders or more, each with the pictures of a method, got 1"),
        (["{0}", "nowhere"], "nowhere: there is no such folder"),
        (["{0}", "{0}"], "a folder was given twice"),
        (["{0}", "{1}", "--output", "page.txt"], "output must end with .html or .htm, got page.txt"),
        (["{0}", "{1}", "--width", "3"], "width must be 16 to 16384 pixels, got 3"),
        (["--count", "a.csv"], "count needs key, the file that nst vote wrote beside its page"),
        (["--count", "a.csv", "--key", "nothing.json"], "nothing.json: the key cannot be read"),
    ],
)
def test_refuses_in_one_line(
    given: list[str], message: str, folders: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["vote", *(word.format(*folders) for word in given)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_keeps_an_earlier_page(folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "ask.html"
    page.write_text("earlier")
    assert main(["vote", *folders[:2], "--output", str(page)]) == 2
    assert "is there already" in capsys.readouterr().err
    assert page.read_text() == "earlier"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "voter,pair,left,right\nx,cat,m0,m1\n",
            "line 2 has no choice; the columns are voter, pair, left, right, choice",
        ),
        ("voter,pair,left,right,choice\nx,cat,m0,m9,left\n", "line 2: right 'm9' is not in the key"),
        ("voter,pair,left,right,choice\nx,cat,m0,m1,up\n", "line 2: choice must be left, right, equal, got 'up'"),
        ("voter,pair,left,right,choice\n", "there are no votes in the files"),
    ],
)
def test_refuses_votes_of_another_page(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "votes.csv"
    file.write_text(text)
    with pytest.raises(InputError, match=re.escape(message)):
        votes.read([file], {"m0": "a", "m1": "b"})
