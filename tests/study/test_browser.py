"""The page in a real browser: nothing is asked for, tables sort and pictures are enlarged."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from playwright import sync_api

from nst_lightning import images
from nst_lightning.study import vote_command, votes
from nst_lightning.study.report_command import write


class Opened:
    """A page in a window, and what it complained of or asked for."""

    def __init__(self, browser: sync_api.Browser, path: Path, width: int) -> None:
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.page = browser.new_page(viewport={"width": width, "height": 800})
        self.page.set_default_timeout(10_000)
        self.page.on("console", lambda message: self.errors.append(message.text))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.route("**/*", self._route)
        self.page.goto(path.as_uri())

    def _route(self, route: sync_api.Route) -> None:
        if route.request.url.startswith(("data:", "file:")):
            route.continue_()
        else:
            self.requests.append(route.request.url)
            route.abort()


@pytest.fixture
def opened(browser: sync_api.Browser, request: pytest.FixtureRequest) -> Iterator[Opened]:
    """The page about what the test asks for, in a window of the width that it asks for."""
    kind, width = request.param
    opened = Opened(browser, write(request.getfixturevalue(kind), width=16), width)
    yield opened
    opened.page.close()
    assert opened.errors == []
    assert opened.requests == []


@pytest.mark.parametrize(
    "opened", [(kind, width) for kind in ("sweep", "study", "made") for width in (390, 1280)], indirect=True
)
def test_fits_the_window(opened: Opened) -> None:
    wide = opened.page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    assert wide[0] <= wide[1]
    assert opened.page.evaluate("[...document.images].every((image) => image.complete && image.naturalWidth > 0)")


@pytest.mark.parametrize("opened", [("sweep", 1280)], indirect=True)
def test_a_heading_sorts_both_ways_with_undefined_last(opened: Opened) -> None:
    table = opened.page.locator("table").last

    def column(place: int) -> list[str]:
        return [cell.inner_text() for cell in table.locator(f"tbody td:nth-child({place})").all()]

    for place in (5, 6, 7):  # outline, ms_ssim, which is undefined for some, and a loss
        heading = table.locator(f"th:nth-child({place})")
        numbers = sorted((each for each in column(place) if each != "n/a"), key=float)
        rest = ["n/a"] * (8 - len(numbers))
        assert bool(rest) == (place == 6)
        for order in ("ascending", "descending"):
            heading.locator("button").click()
            assert heading.get_attribute("aria-sort") == order
            expected = numbers if order == "ascending" else numbers[::-1]
            assert column(place) == [*expected, *rest]
    table.locator("th:nth-child(2) button").click()
    assert column(2) == ["1"] * 4 + ["10"] * 4
    table.locator("th:nth-child(3) button").click()
    assert column(3) == ["content"] * 4 + ["style"] * 4
    assert table.locator("[aria-sort]").count() == 1


@pytest.mark.parametrize("opened", [("sweep", 1280), ("sweep", 390)], indirect=True)
def test_a_picture_is_enlarged_and_the_keyboard_moves_on_and_closes(opened: Opened) -> None:
    page, dialog = opened.page, opened.page.locator("dialog")
    assert not dialog.is_visible()
    picture = page.locator(".open", has=page.get_by_alt_text("other, style weight 1, init content", exact=True))
    picture.click()
    assert dialog.is_visible()
    assert dialog.locator("h2").inner_text() == "other, style weight 1, init content"
    small, large = picture.locator("img").bounding_box(), dialog.locator(".room > img").bounding_box()
    assert small is not None and large is not None
    assert large["width"] > 2 * small["width"]
    beside = dialog.locator(".beside img")
    assert [each.get_attribute("alt") for each in beside.all()] == ["content: temple", "style: church", "style: church"]
    assert all(each.evaluate("(image) => image.naturalWidth") == 16 for each in beside.all())
    assert "vgg16" in dialog.inner_text()
    first = dialog.locator(".count").inner_text()
    page.keyboard.press("ArrowRight")
    assert dialog.locator("h2").inner_text() != "other, style weight 1, init content"
    page.keyboard.press("ArrowLeft")
    assert dialog.locator(".count").inner_text() == first
    page.keyboard.press("Escape")
    assert not dialog.is_visible()
    assert picture.evaluate("(button) => button === document.activeElement")
    page.locator("table .link").first.click()
    assert dialog.is_visible()
    assert dialog.locator("h2").inner_text() == "temple church, style weight 1, init content"
    dialog.get_by_label("Close").click()
    assert not dialog.is_visible()


def test_votes_are_cast_by_keys_and_saved(browser: sync_api.Browser, tmp_path: Path) -> None:
    for number, method in enumerate(("ours", "theirs")):
        for pair in ("cat", "sea"):
            images.write(tmp_path / method / f"{pair}.png", torch.full((1, 3, 24, 32), 0.2 + 0.5 * number))
    page, key = vote_command.write([tmp_path / "ours", tmp_path / "theirs"], [], tmp_path / "vote.html", 32)
    opened = Opened(browser, page, 800)
    for pressed in ("ArrowLeft", "ArrowDown"):
        opened.page.keyboard.press(pressed)
    with opened.page.expect_download() as download:
        opened.page.click("#save")
    download.value.save_as(tmp_path / "votes.csv")
    found = votes.read([tmp_path / "votes.csv"], json.loads(key.read_text()))
    assert sorted((vote.pair, vote.choice) for vote in found) in (
        [("cat", "left"), ("sea", "equal")],
        [("cat", "equal"), ("sea", "left")],
    )
    assert {*(vote.left for vote in found), *(vote.right for vote in found)} == {"ours", "theirs"}
    assert (opened.errors, opened.requests) == ([], [])
