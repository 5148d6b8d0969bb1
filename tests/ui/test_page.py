"""The page in a real browser, served by `nst ui` and painted by `nst fit`: from start to end, stopped, gone on with."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from urllib.error import HTTPError

import pytest
from playwright import sync_api

pytestmark = pytest.mark.skipif(find_spec("gradio") is None, reason="the page needs gradio, the extra `ui`")
PATIENCE = 60_000  # ms; a run imports torch first, on a machine that others use


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> Path:
    """Where the page is served from: a working directory with samples in it."""
    place = tmp_path_factory.mktemp("place")
    for folder, name, sample in (
        ("content-images", "sea.jpg", "content.jpg"),
        ("style-images", "wave.jpg", "style.png"),
    ):
        (place / "data" / folder).mkdir(parents=True)
        shutil.copy(pictures / sample, place / "data" / folder / name)
    return place


@pytest.fixture(scope="module")
def address(place: Path) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as probe:  # tests beside these may serve a page as well
        port = str(probe.getsockname()[1])
    words = [sys.executable, "-m", "nst_lightning", "ui", "--folder", "ui", "--max_upload", "0.5", "--port", port]
    with subprocess.Popen(words, cwd=place, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        found = re.match(r"nst ui: (http://127\.0\.0\.1:\d+/) shows the page", server.stderr.readline())
        assert found is not None
        yield found[1]
        server.send_signal(signal.SIGINT)
        assert server.stderr.read() == "nst: interrupted\n"
    assert server.returncode == 130
    assert sorted(path.name for path in place.iterdir()) == ["data", "ui"]


class Opened:
    """The page in a window, and what it complained of or asked of others."""

    def __init__(self, browser: sync_api.Browser, address: str, width: int) -> None:
        self.errors: list[str] = []
        self.foreign: list[str] = []
        self.page = browser.new_page(viewport={"width": width, "height": 844})
        self.page.set_default_timeout(PATIENCE)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self._note(request.url, address))
        self.page.goto(address)
        self.page.locator("#photograph").wait_for()

    def _note(self, url: str, address: str) -> None:
        if not url.startswith((address, "data:", "blob:")):
            self.foreign.append(url)

    def status(self, said: str) -> None:
        sync_api.expect(self.page.locator("#status")).to_contain_text(re.compile(said), timeout=PATIENCE)

    def press(self, name: str) -> None:
        self.page.get_by_role("button", name=name, exact=True).click()

    def set(self, name: str, number: int) -> None:
        self.page.fill(f"#{name} input[type=number]", str(number))
        self.page.press(f"#{name} input[type=number]", "Tab")

    def number(self, name: str) -> str:
        return self.page.input_value(f"#{name} input[type=number]")

    def choose(self, name: str) -> None:
        self.page.locator(f"button img[src*='{name}']").first.click()
        where = "photograph" if name == "sea" else "painting"
        sync_api.expect(self.page.locator(f"#{where} img[src*='{name}']")).to_be_visible(timeout=PATIENCE)

    def source(self) -> str:
        return self.page.locator("#picture img").get_attribute("src") or ""


@contextmanager
def opened_at(browser: sync_api.Browser, address: str, width: int) -> Iterator[Opened]:
    opened = Opened(browser, address, width)
    yield opened
    wide = opened.page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    assert wide[0] <= wide[1]
    opened.page.close()
    assert (opened.errors, opened.foreign) == ([], [])


def test_painted_and_looked_at(browser: sync_api.Browser, address: str, place: Path, pictures: Path) -> None:
    with opened_at(browser, address, 390) as opened:
        is_painted_stopped_gone_on_with_and_reproduced(opened, place)
    with opened_at(browser, address, 1280) as opened:
        sets_the_controls_and_is_found_in_the_gallery(opened, place)
    with opened_at(browser, address, 1280) as opened:
        is_refused_in_a_line(opened, pictures)


def is_painted_stopped_gone_on_with_and_reproduced(opened: Opened, place: Path) -> None:
    opened.choose("sea")
    opened.choose("wave")
    opened.set("size", 48)
    opened.set("steps", 40)
    opened.press("Paint")
    opened.status("Painting: step [1-9]")
    opened.press("Stop")
    opened.status("Stopped at step [1-9]")
    opened.press("Go on")
    opened.status("Finished")
    sync_api.expect(opened.page.locator("#picture img")).to_have_attribute("src", re.compile("sea_wave.png"))
    sync_api.expect(opened.page.locator("#sides img").first).to_be_visible()
    last = opened.source()
    opened.page.locator("#at input[type=range]").fill("1")  # the time-lapse
    sync_api.expect(opened.page.locator("#picture img")).to_have_attribute("src", re.compile("000001.png"))
    assert opened.source() != last
    opened.press("Paint it again")
    opened.status("Finished. The same as sea_wave, bit for bit")
    first, again = (place / "ui" / "runs" / name / "sea_wave.png" for name in ("sea_wave", "sea_wave-2"))
    assert first.read_bytes() == again.read_bytes()


def sets_the_controls_and_is_found_in_the_gallery(opened: Opened, place: Path) -> None:
    opened.page.set_input_files("#dropped input[type=file]", place / "ui" / "runs" / "sea_wave-2" / "sea_wave.png")
    opened.status("Finished")
    sync_api.expect(opened.page.locator("#size input[type=number]")).to_have_value("48")
    assert (opened.number("steps"), opened.number("style_weight")) == ("40", "2.5")
    sync_api.expect(opened.page.locator("#painting img")).to_have_attribute("src", re.compile("wave"))
    opened.page.reload()
    opened.status("Finished")  # the run that was looked at is looked at again
    opened.page.get_by_role("tab", name="Gallery").click()
    sync_api.expect(opened.page.locator("#runs button")).to_have_count(2)
    opened.page.locator("#runs button").last.click()
    opened.page.get_by_role("button", name=re.compile("^Settings")).click()
    sync_api.expect(opened.page.get_by_text("--size=48").first).to_be_visible()


def is_refused_in_a_line(opened: Opened, pictures: Path) -> None:
    opened.page.set_input_files("#dropped input[type=file]", pictures / "content.jpg")
    opened.page.get_by_text("content.jpg: does not say how it was made").wait_for()
    opened.press("Paint")
    opened.page.get_by_text("choose a photograph first").wait_for()


def answer(address: str, path: str, data: bytes | None = None, **headers: str) -> int:
    request = urllib.request.Request(address + path, data, headers)
    try:
        return int(urllib.request.urlopen(request, timeout=10).status)
    except HTTPError as error:
        with error:
            return error.code


def test_it_answers_its_own_page_alone_and_gives_its_own_folder_alone(address: str, place: Path) -> None:
    assert answer(address, "") == 200
    assert answer(address, "", Host="elsewhere.example") == 400
    assert answer(address, "gradio_api/upload", b"", Origin="http://elsewhere.example") == 403
    for path in (
        "/etc/passwd",
        place / "data" / "content-images" / "sea.jpg",
        place / "ui" / "runs" / ".." / ".." / "data",
    ):
        assert answer(address, f"gradio_api/file={path}") == 403
    form = b'--x\r\nContent-Disposition: form-data; name="files"; filename="../../a.png"\r\n\r\n%s\r\n--x--\r\n'
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    assert answer(address, "gradio_api/upload", form % b"a", **kind) == 200
    assert answer(address, "gradio_api/upload", form % bytes(2**20), **kind) == 413
    assert not list(place.glob("**/../a.png"))
