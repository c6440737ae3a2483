"""The book in a real browser: every page on a desktop and on a phone, light and dark, offline.

`make book-tests` runs this. Requests to any other host are refused, and counted.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from books import built, served
from browsers import DESKTOP, PHONE, browser, serious_violations

from book.links import Book

pytestmark = [pytest.mark.slow, pytest.mark.translator]

WITHOUT_BOOK = {"explorer/index.html", "live/index.html"}
"""Pages of the explorer's own, which have tests of their own."""
KINDS = [
    "index.html",
    "notebooks/03_attention.html",
    "api/attention.html",
    "api/index.html",
    "cli.html",
    "results.html",
    "glossary.html",
    "INSTRUCTORS.html",
    "explorer.html",
    "live.html",
    "search.html?q=mask",
]
"""A page of each kind, for checks that take seconds a page."""
LONGEST = "notebooks/12_inference.html"
RAW = r"""() => {
  const walker = document.createTreeWalker(document.querySelector("main"), NodeFilter.SHOW_TEXT);
  const found = [];
  while (walker.nextNode()) {
    const { parentElement: parent, data } = walker.currentNode;
    if (parent.closest("pre, code, script, style, mjx-container, .sig")) continue;
    if (/\\[(\[a-z]|\$[^$]+\$/.test(data)) found.push(data.trim().slice(0, 80));
  }
  for (const math of document.querySelectorAll(".math")) {
    if (!math.querySelector("mjx-container")) found.push(`not drawn: ${math.textContent}`);
  }
  for (const error of document.querySelectorAll("[data-mml-node=merror], mjx-merror")) {
    found.push(`an error: ${error.textContent}`);
  }
  return found;
}"""
UNLOADED = (
    """() => [...document.images].filter(i => !i.complete || !i.naturalWidth).map(i => i.src)"""
)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as started:
        yield started


@pytest.fixture(scope="module")
def book() -> Book:
    return built()[0]


@pytest.fixture(scope="module")
def address(book: Book) -> Iterator[str]:
    with served(book.folder) as found:
        yield found


@pytest.fixture
def opened(chromium) -> Iterator[Callable[..., Any]]:
    """Open addresses in one tab for each size and scheme, and note what a page complains of."""
    tabs: dict[tuple, Any] = {}
    complaints: list[str] = []

    def tab(size: dict, scheme: str, host: str) -> Any:
        context = chromium.new_context(viewport=size, color_scheme=scheme, reduced_motion="reduce")
        context.set_default_timeout(120_000)  # milliseconds, on a machine that is busy
        page = context.new_page()

        def decide(route: Any) -> None:
            if route.request.url.startswith((host, "data:", "blob:")):
                route.continue_()
            else:
                complaints.append(f"{page.url} asks for {route.request.url}")
                route.abort()

        context.route("**/*", decide)
        loud = {"error", "warning"}
        page.on("console", lambda m: complaints.append(m.text) if m.type in loud else None)
        page.on("pageerror", lambda error: complaints.append(f"{page.url}: {error}"))
        page.on(
            "response",
            lambda r: complaints.append(f"{r.url}: {r.status}") if r.status >= 400 else None,
        )
        return page

    def open_page(url: str, size: dict = DESKTOP, scheme: str = "light") -> Any:
        host = "file:" if url.startswith("file:") else "/".join(url.split("/")[:3])
        key = (size["width"], scheme, host)
        if key not in tabs:
            tabs[key] = tab(size, scheme, host)
        page = tabs[key]
        page.goto(url)
        page.evaluate("window.MathJax?.startup?.promise")
        return page

    open_page.complaints = complaints
    yield open_page
    for page in tabs.values():
        page.context.close()
    assert complaints == []


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_every_page_is_drawn_whole(opened, book: Book, address: str, size: dict) -> None:
    wrong = []
    for path in book.pages:
        name = path.relative_to(book.folder).as_posix()
        if name in WITHOUT_BOOK:
            continue
        page = opened(address + name, size)
        wrong += [f"{name}: raw formula {text}" for text in page.evaluate(RAW)]
        wrong += [f"{name}: no image {source}" for source in page.evaluate(UNLOADED)]
        width = page.evaluate("document.documentElement.scrollWidth")
        if width > size["width"]:
            wrong.append(f"{name}: {width} pixels wide")
    assert wrong == []


def test_a_raw_formula_would_be_seen(opened, address: str) -> None:
    page = opened(address + "notebooks/03_attention.html")
    assert page.locator("mjx-container").count() > 10
    assert page.evaluate(RAW) == []
    page.evaluate(
        "document.querySelector('main p').textContent = 'with $x_i$, or \\\\(x\\\\), \\\\frac'"
    )
    assert len(page.evaluate(RAW)) == 1


@pytest.mark.parametrize(
    ("size", "scheme", "names"),
    [(DESKTOP, "light", KINDS), (PHONE, "dark", KINDS), (DESKTOP, "dark", [LONGEST])],
    ids=["desktop-light", "phone-dark", "longest-dark"],
)
def test_accessibility(opened, address: str, size: dict, scheme: str, names: list[str]) -> None:
    found = {}
    for name in names:
        page = opened(address + name, size, scheme)
        page.wait_for_timeout(300)
        found[name] = serious_violations(page)
    assert {name: wrong for name, wrong in found.items() if wrong} == {}


def test_a_violation_would_be_seen(opened, address: str) -> None:
    page = opened(address + "explorer.html")
    page.evaluate("document.querySelector('.explorer-frame').removeAttribute('title')")
    assert [wrong.split(":")[0] for wrong in serious_violations(page)] == ["frame-title"]


def lightness(page: Any, selector: str = "body") -> int:
    """Return how light an element's background is, from 0 to 765."""
    colour = page.evaluate(
        "s => getComputedStyle(document.querySelector(s)).backgroundColor", selector
    )
    numbers = colour.partition("(")[2].rstrip(")").split(",")
    return sum(int(float(part)) for part in numbers[:3])


def test_light_and_dark_follow_the_reader_and_the_button(opened, address: str) -> None:
    name = address + "notebooks/03_attention.html"
    light, dark = opened(name, scheme="light"), opened(name, scheme="dark")
    assert lightness(light) > 700 and lightness(dark) < 150
    assert lightness(dark, "div.cell_input") < 150 < 700 < lightness(light, "div.cell_input")
    light.click(".theme-switch-container button >> visible=true")
    light.click("text=Dark >> visible=true")
    assert lightness(light) < 150
    light.goto(address + "results.html")
    assert lightness(light) < 150


def test_the_explorer_takes_the_books_theme(opened, address: str) -> None:
    for name in ("explorer.html", "live.html"):
        for scheme in ("light", "dark"):
            frame = opened(address + name, scheme=scheme).frame_locator(".explorer-frame")
            colour = frame.locator("body").evaluate("b => getComputedStyle(b).backgroundColor")
            numbers = [int(part) for part in colour[4:-1].split(",")]
            assert (sum(numbers) > 600) == (scheme == "light"), colour


def test_previous_and_next_go_from_chapter_to_chapter(opened, address: str) -> None:
    page = opened(address + "notebooks/03_attention.html")
    page.click(".right-next")
    assert page.inner_text("h1").startswith("4 · Multi-head")
    page.click(".left-prev")
    assert page.inner_text("h1").startswith("3 · Attention")


def found_pages(page: Any) -> list[str]:
    """Return the titles that a search has found."""
    page.wait_for_selector("#search-results ul.search li")
    page.wait_for_function("!document.querySelector('#search-progress .dots')")
    return page.eval_on_selector_all("ul.search li > a", "all => all.map(a => a.textContent)")


def test_the_search_finds_chapters_and_functions(opened, address: str) -> None:
    page = opened(address + "index.html")
    page.keyboard.press("Control+k")
    page.keyboard.type("label smoothing")
    page.keyboard.press("Enter")
    assert any(title.startswith("11 · Training") for title in found_pages(page))
    page.goto(address + "search.html?q=attention_weights")
    assert any("attention_weights" in title for title in found_pages(page))


def test_from_a_folder_the_book_works_and_says_what_cannot(opened, book: Book) -> None:
    folder = book.folder.as_uri()
    page = opened(f"{folder}/notebooks/03_attention.html")
    assert page.evaluate(RAW) == [] and page.evaluate(UNLOADED) == []
    page.click(".right-next")
    assert page.inner_text("h1").startswith("4 · Multi-head")
    page.goto(f"{folder}/search.html?q=label+smoothing")
    assert any(title.startswith("11 · Training") for title in found_pages(page))
    page.goto(f"{folder}/live.html")
    assert "python -m http.server" in page.inner_text(".from-folder")
    frame = page.frame_locator(".explorer-frame")
    assert "python -m http.server" in frame.locator(".status").inner_text()
    page.goto(f"{folder}/explorer.html")
    frame = page.frame_locator(".explorer-frame")
    frame.locator('[data-kind="encoder"]').click()
    assert frame.locator(".matrix-title").inner_text().startswith("Encoder")


def test_the_model_translates_inside_the_book(opened, address: str) -> None:
    page = opened(address + "live.html")
    assert page.locator(".from-folder").is_hidden()
    frame = page.frame_locator(".explorer-frame")
    frame.locator("button:text('Translate'):enabled").wait_for(timeout=60_000)
    frame.locator("#sentence").fill("there is a cat on the mat")
    frame.locator("text=Translate").first.click()
    frame.locator(".status:has-text('Nothing has')").wait_for(timeout=60_000)
    assert frame.locator(".target").inner_text() == "c'è un gatto sul tappeto"


def test_a_request_elsewhere_would_be_seen(opened, address: str) -> None:
    page = opened(address + "index.html")
    page.evaluate("fetch('https://example.org/x').catch(() => 0)")
    assert any("asks for https://example.org/x" in each for each in opened.complaints)
    opened.complaints.clear()
    page.wait_for_timeout(200)
    opened.complaints.clear()  # the console speaks of it too, a little later
