"""The page as text: it holds its pictures, asks for nothing, and shows the numbers that are on disk."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from nst_lightning.study.page import UNDEFINED, number, render, words
from nst_lightning.study.report import Entry, Picture, Report, Section, Table, read
from nst_lightning.study.tables import interval
from tests.study.conftest import picture


class Parsed(HTMLParser):
    """All tags with their attributes, the cells of all tables, and all text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[tuple[str | None, str]]] = []
        self.text = ""
        self._in_cell = False
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag == "td":
            self.rows[-1].append((dict(attrs)["data-key"], ""))
        self._in_cell = tag == "td" or (self._in_cell and tag != "tr")

    def handle_endtag(self, tag: str) -> None:
        self._in_cell = self._in_cell and tag != "td"

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._in_cell:
            key, text = self.rows[-1].pop()
            self.rows[-1].append((key, text + data))

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(params=["sweep", "study", "run"])
def html(request: pytest.FixtureRequest) -> str:
    return render(read(request.getfixturevalue(request.param)), "me")


def test_every_picture_is_in_the_page_and_described(html: str) -> None:
    pictures = Parsed(html).of("img")
    assert len(pictures) > 4
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
    results = json.loads((sweep / "results.json").read_text())
    found = [[key for key, _ in row] for row in rows]
    for cell in results["cells"]:
        scores = [cell["scores"]["outline"], cell["scores"]["ms_ssim"]]
        numbers = [
            cell["values"]["style_weight"],
            cell["values"]["init"],
            cell["seed"],
            *scores,
            cell["losses"]["total"],
        ]
        title = cell["pair"].replace("_", " ")
        assert [title, *("" if each is None else str(each) for each in numbers)] in found
    style = [cell["scores"] for cell in results["cells"] if cell["values"] == {"style_weight": "1", "init": "style"}]
    mean = sum(each["outline"] for each in style) / 2
    (defined,) = [each["ms_ssim"] for each in style if each["ms_ssim"] is not None]
    assert ["1", "style", str(mean), str(defined)] in found


def test_shows_undefined_as_such_and_an_interval_below_its_mean(sweep: Path) -> None:
    rows = Parsed(render(read(sweep))).rows
    cells = json.loads((sweep / "results.json").read_text())["cells"]
    mean, low, high = interval([cell["scores"]["outline"] for cell in cells[2:4]])
    (row,) = [row for row in rows if [key for key, _ in row][:2] == ["1", "style"] and len(row) == 4]
    similarity = cells[2]["scores"]["ms_ssim"]
    assert [text for _, text in row] == ["1", "style", f"{mean:.3f}{low:.3f} – {high:.3f}", f"{similarity:.3f}n 1"]
    undefined = [text for row in rows for key, text in row if key == ""]
    assert undefined == [UNDEFINED] * 3


def test_text_is_escaped(study: Path, sweep: Path) -> None:
    html = render(read(study))
    assert "<b>more" not in html
    assert "More is <b>more</b>" in Parsed(html).text
    assert "<weight>" not in render(read(sweep))
    hostile = Picture('"><i>', "</script><script>alert(1)</script>", "p", file=sweep / "in/temple.png")
    page = render(Report("t", "run", (Section("s", pictures=(hostile,)),)))
    assert "<script>alert" not in page and "<i>" not in page


def test_a_study_has_findings_first_then_contents_then_sweeps(study: Path) -> None:
    html = render(read(study))
    order = ["Findings", 'href="#section-0"', 'href="#section-1"', 'id="section-0"', 'id="section-1"']
    places = [html.index(each) for each in order]
    assert places == sorted(places)
    assert html.index(">Title of 1-first</h2>") < html.index(">Title of 2-second</h2>")


def test_a_picture_has_the_size_that_is_asked_for_and_is_not_enlarged(tmp_path: Path) -> None:
    one = Picture("a", "a", "a", file=picture(tmp_path / "a.png", 1))
    report = Report("t", "sweep", (Section("s", pictures=(one,)),))
    sizes = [
        [(each["width"], each["height"]) for each in Parsed(render(report, side=side)).of("img")] for side in (18, 99)
    ]
    assert sizes == [[("18", "12")], [("36", "24")]]


@pytest.mark.parametrize(
    ("value", "digits", "expected"),
    [
        (0, None, "0"),
        (1234567, None, "1 234 567"),
        (1e5, None, "100 000"),
        (0.12345, None, "0.1235"),
        (2.35e10, None, "2.350×10¹⁰"),
        (-2.5e-5, None, "−2.500×10⁻⁵"),
        (-0.5, 3, "−0.500"),
        (float("nan"), None, UNDEFINED),
    ],
)
def test_numbers_are_readable(value: float, digits: int | None, expected: str) -> None:
    assert number(value, digits).replace("\N{THIN SPACE}", " ") == expected


def test_a_small_number_does_not_look_like_zero() -> None:
    rows = ((Entry(0.00001),), (Entry(0.5),), (Entry(0.0),))
    parsed = Parsed(render(Report("t", "study", (Section("s"),), (Table("x", ("p",), rows),))))
    assert [text for row in parsed.rows for _, text in row] == ["1.000×10⁻⁵", "0.500", "0.000"]
    assert words(None) == UNDEFINED
