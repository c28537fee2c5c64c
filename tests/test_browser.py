"""Reports in a real browser: no complaint, no request, no overflow; pointer, keys, live pages."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from browser import Browser, Page, chromium, find_chromium
from ssl_core import api
from ssl_core.report.compare import write_comparison
from ssl_core.report.watch import server
from ssl_core.runs.folder import Run
from ssl_core.testing.vectors import VECTORS

EXECUTABLE = find_chromium()
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(EXECUTABLE is None, reason="no Chromium or Chrome found ($CHROMIUM)"),
]
HOSTILE = "</script><img src=x onerror=alert(1)><b>words</b>"
WIDTHS = (1280, 390)
HEADING = "document.querySelector('#map-card h3')?.textContent ?? ''"


class Drawn(type(VECTORS)):  # type: ignore[misc]
    """Vectors that have a look and hostile words."""

    def draw(self, data: Any, spec: Any) -> list[np.ndarray]:
        rows = (data.sigmoid() * 255).byte().numpy()
        return [np.repeat(np.repeat(row[None, :], 12, 0), 4, 1) for row in rows]

    def words(self, data: Any, reader: Any) -> list[str]:
        return [HOSTILE] * len(data)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CACHE", str(tmp_path_factory.mktemp("cache")))
        for name, method in (("one", "simclr"), ("two", "byol")):
            settings = {"train.steps": 12, "train.log_every": 2, "description": HOSTILE}
            api.pretrain(
                Drawn(), method=method, out=folder / name, settings=settings, progress=False
            )
    return folder


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    assert EXECUTABLE is not None
    with chromium(EXECUTABLE, tmp_path_factory.mktemp("profile")) as running:
        yield running


@pytest.fixture
def page(browser: Browser, root: Path) -> Iterator[Page]:
    opened = browser.open((root / "one" / "report.html").as_uri())
    yield opened
    assert opened.errors() == []
    opened.close()


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("what", ["report", "comparison"])
def test_pages_fit_load_nothing_and_complain_of_nothing(
    browser: Browser, root: Path, tmp_path: Path, what: str, width: int, dark: bool
) -> None:
    file = root / "one" / "report.html"
    if what == "comparison":
        file = write_comparison([Run(root / "one"), Run(root / "two")], tmp_path / "c.html")
    page = browser.open(file.as_uri(), width=width, dark=dark)
    assert page.errors() == []
    assert page.requests() == [file.as_uri()]
    assert page.overflow() == 0
    ground = page.value("getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(20, 23, 26)" if dark else "rgb(251, 251, 250)")
    smallest = page.value(
        "Math.min(...[...document.querySelectorAll('p, td, th, button, pre')]"
        ".map(part => parseFloat(getComputedStyle(part).fontSize)))"
    )
    assert smallest >= 12
    page.close()


def test_the_keyboard_reaches_the_map_and_walks_through_it(page: Page) -> None:
    for _ in range(40):
        page.press("Tab")
        if page.value("document.activeElement.id") == "map-plane":
            break
    assert page.value("document.activeElement.id") == "map-plane"
    first = page.value(HEADING)
    assert first.startswith("row-")
    here = "document.querySelector('#map-plane .here').cx.baseVal.value"
    before = page.value(here)
    key = "ArrowRight" if before < 320 else "ArrowLeft"
    page.press(key)
    assert page.value(HEADING) != first
    assert (page.value(here) > before) == (key == "ArrowRight")
    page.press("End")
    last = page.value(HEADING)
    page.press("Enter")
    page.press("Home")
    assert page.value(HEADING) != last
    page.press("Tab")
    assert page.value("document.activeElement.parentElement.id") == "map-legend"


def test_the_pointer_shows_what_it_is_near_and_text_stays_text(page: Page) -> None:
    page.value("document.querySelector('#map-plane').scrollIntoView({block: 'center'})")
    place = page.value(
        "(() => { const b = document.querySelectorAll('#map-plane circle')[5]"
        ".getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2] })()"
    )
    page.point(*place)
    shown = page.value(HEADING)
    assert shown.startswith("row-")
    card = page.value("document.querySelector('#map-card').textContent")
    assert HOSTILE in card
    assert page.value("document.querySelectorAll('img').length") == 2 + 1  # two views, the sheet
    assert page.value("document.querySelector('#map-card canvas').width") > 0
    drawn = page.value(
        "(() => { const c = document.querySelector('#map-card canvas'); const d = c.getContext"
        "('2d').getImageData(0, 0, c.width, c.height).data; return new Set(d).size })()"
    )
    assert drawn > 2  # the record's picture, not an empty canvas
    page.point(*place, click=True)
    page.value("document.querySelectorAll('#map-card .thumb')[0].click()")
    assert page.value(HEADING) != shown


def test_switches_move_colour_and_fade_the_points(page: Page) -> None:
    def switch(name: str, value: str) -> None:
        page.value(
            f"(() => {{ const s = document.querySelector('#{name}'); s.value = '{value}';"
            "s.dispatchEvent(new Event('change')) })()"
        )

    where = "[...document.querySelectorAll('#map-plane circle')].map(c => +c.getAttribute('cx'))"
    colours = "[...document.querySelectorAll('#map-plane circle')].map(c => c.classList[0])"
    names = "document.querySelector('#map-legend').textContent"
    before = page.value(where), page.value(colours)
    switch("map-place", "untrained, PCA")
    assert page.value(where) != before[0]
    switch("map-place", "trained, PCA")
    assert page.value(where) == before[0]
    switch("map-colour", "cluster")
    assert page.value(colours) != before[1]
    assert "cluster 1" in page.value(names)
    faint = "document.querySelectorAll('#map-plane .faint').length"
    page.value("document.querySelector('#map-legend button').click()")
    assert 0 < page.value(faint) < len(before[0])
    page.value("document.querySelector('#map-legend button').click()")
    assert page.value(faint) == 0
    assert page.value("document.querySelectorAll('#neighbours .row').length") == 8


def test_a_watched_page_follows_and_keeps_its_place(browser: Browser, root: Path) -> None:
    with server(root, port=0) as serving:
        thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            address = f"http://127.0.0.1:{serving.server_port}"
            index = browser.open(f"{address}/", width=390, dark=True)
            assert index.value(
                "[...document.querySelectorAll('td a')].map(a => a.textContent)"
            ) == [
                "one",
                "two",
            ]
            assert index.overflow() == 0
            page = browser.open(f"{address}/run/two/")
            page.value("document.querySelector('details').open = true")
            page.value("document.querySelector('#map-colour').value = 'cluster'")
            page.value("document.querySelector('#map-plane').focus()")
            page.press("End")
            page.value("scrollTo(0, 1500)")
            chosen, scrolled = page.value(HEADING), page.value("scrollY")
            assert scrolled > 0
            metrics = root / "two" / "metrics.jsonl"
            log = metrics.read_text()
            metrics.write_text(log + log.splitlines()[-1].replace('"step":12', '"step":13') + "\n")
            lines = "document.querySelector('#training polyline').getAttribute('points').split(' ')"
            page.wait(f"{lines}.length === 7")
            assert page.value(HEADING) == chosen
            assert page.value("scrollY") == scrolled
            assert page.value("document.querySelector('#map-colour').value") == "cluster"
            assert page.value("document.querySelector('details').open")
            assert page.errors() == index.errors() == []
            assert all(url.startswith(address) for url in page.requests())
        finally:
            serving.shutdown()
            thread.join()
    page.wait("document.querySelector('#live-state').textContent.includes('no answer')")
    page.close()
    index.close()
