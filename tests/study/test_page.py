"""The page as text: it holds its pictures, asks for nothing, and shows the numbers that are on disk."""

from __future__ import annotations

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from nst_lightning import runs
from nst_lightning.study.page import render
from nst_lightning.study.report import Report, read
from nst_lightning.study.results import Result, Results
from nst_lightning.study.tables import UNDEFINED, interval, number
from tests.study.conftest import picture, write_sweep


class Parsed(HTMLParser):
    """All tags with their attributes, the cells of all tables, and all text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.text = ""
        self._in_cell = False
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag == "td":
            self.rows[-1].append("")
        self._in_cell = tag == "td" or (self._in_cell and tag != "tr")

    def handle_endtag(self, tag: str) -> None:
        self._in_cell = self._in_cell and tag != "td"

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._in_cell:
            self.rows[-1][-1] += data

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(params=["sweep", "study", "run", "made"])
def html(request: pytest.FixtureRequest) -> str:
    return render(read(request.getfixturevalue(request.param)), "me")


def test_every_picture_is_in_the_page_and_described(html: str) -> None:
    pictures = Parsed(html).of("img")
    assert len(pictures) >= 3
    assert all((each["src"] or "").startswith("data:image/") for each in pictures)
    assert all(each["alt"] for each in pictures)


def test_asks_for_nothing_from_elsewhere(html: str) -> None:
    assert not re.search(r"https?://|@import|url\(", html)
    for _, attributes in Parsed(html).tags:
        for name in ("src", "href", "srcset", "action", "data"):
            value = attributes.get(name) or "#"
            assert value.startswith(("data:", "#"))


def test_is_for_phones_and_says_its_language(html: str) -> None:
    parsed = Parsed(html)
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in parsed.of("meta")
    assert parsed.of("html") == [{"lang": "en"}]
    ids = [attributes["id"] for _, attributes in parsed.tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_tables_hold_the_numbers_of_the_file(sweep: Path) -> None:
    rows = Parsed(render(read(sweep))).rows
    for cell in json.loads((sweep / "results.json").read_text())["cells"]:
        scores = [cell["scores"]["outline"], cell["scores"]["ms_ssim"]]
        texts = [UNDEFINED if score is None else f"{score:.3f}" for score in scores]
        values = [cell["values"]["style_weight"], cell["values"]["init"], "0"]
        assert [cell["pair"].replace("_", " "), *values, *texts, f"{cell['losses']['total']:.3e}"] in rows


def test_means_have_their_interval(sweep: Path) -> None:
    cells = json.loads((sweep / "results.json").read_text())["cells"]
    mean, low, high = interval([cell["scores"]["outline"] for cell in cells[2:4]])
    one = f"{cells[2]['scores']['ms_ssim']:.3f}"
    assert ["1", "style", f"{mean:.3f} [{low:.3f}, {high:.3f}]", one] in Parsed(render(read(sweep))).rows


def test_the_first_axis_is_the_columns_and_the_others_are_lines(sweep: Path) -> None:
    html = render(read(sweep))
    captions = re.findall(r"<figcaption>(style weight .*)</figcaption>", html)
    assert captions == ["style weight 1", "style weight 10"] * 4
    assert re.findall(r'<p class="label">(.*)</p>', html) == ["init content", "init style"] * 2
    cells = json.loads((sweep / "results.json").read_text())["cells"]
    cells[0]["seed"] = 3
    text = Parsed(render(read(write_sweep(sweep, cells=cells)))).text
    assert "init content, seed 3" in text and "init content, seed 0" in text
    for summary in ("7 pictures", "2 pairs", "2 seeds", "an abacus"):
        assert summary in text


def of_one(file: Path, pair: str) -> Report:
    cell = Result("a", pair, 0, {}, {}, picture=str(file))
    return Report("t", "run", (Results(cells=(cell,)),))


def test_a_run_has_pictures_on_the_way_a_film_and_a_plot_of_its_losses(made: Path) -> None:
    alts = [each["alt"] for each in Parsed(render(read(made))).of("img")]
    assert alts[3:] == [f"temple × church, {what}" for what in ("after 10 steps", "after 20 steps", "film", "losses")]
    (made / "temple_church.webp").rename(made / "temple_church.mp4")
    (film,) = Parsed(render(read(made))).of("video")
    assert (film["src"] or "").startswith("data:video/mp4;base64,")


def test_of_many_pictures_on_the_way_there_are_a_few(run: Path) -> None:
    for step in range(1, 21):
        picture(runs.Run(run).picture_at("temple_church", step), step)
    alts = [each["alt"] or "" for each in Parsed(render(read(run))).of("img")]
    assert [alt for alt in alts if "after" in alt] == [f"temple × church, after {n} steps" for n in range(1, 21, 3)]


def test_text_is_escaped(study: Path, sweep: Path) -> None:
    html = render(read(study))
    assert "<b>more" not in html
    assert "More is <b>more</b>" in Parsed(html).text
    assert "<weight>" not in render(read(sweep))
    page = render(of_one(sweep / "in/temple.png", '"><i></script><script>alert(1)</script>'))
    assert "<script>alert" not in page and "<i>" not in page


def test_a_study_has_contents_first_then_sweeps_then_findings(study: Path) -> None:
    html = render(read(study))
    order = ['href="#section-0"', 'href="#section-1"', 'id="section-0"', 'id="section-1"', 'id="findings"']
    places = [html.index(each) for each in order]
    assert places == sorted(places)
    assert html.index(">Title of 1-first</h2>") < html.index(">Title of 2-second</h2>")


def test_a_picture_has_the_size_that_is_asked_for_and_is_not_enlarged(tmp_path: Path) -> None:
    report = of_one(picture(tmp_path / "a.png", 1), "a")
    sizes = [
        [(each["width"], each["height"]) for each in Parsed(render(report, side=side)).of("img")] for side in (18, 99)
    ]
    assert sizes == [[("18", "12")], [("36", "24")]]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.0, "0.000"),
        (0.12345, "0.123"),
        (-0.5, "-0.500"),
        (2.35e10, "2.350e+10"),
        (1e-5, "1.000e-05"),
        (math.nan, "n/a"),
    ],
)
def test_numbers_are_readable_and_a_small_one_does_not_look_like_zero(value: float, expected: str) -> None:
    assert number(value) == expected
