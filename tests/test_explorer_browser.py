"""The explorer in a real browser: every view, the keyboard, both themes, a phone."""

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from browsers import DESKTOP, PHONE, browser, serious_violations
from test_explorer import large

from transformer.example import example_model, example_tokenizer
from transformer.explorer import Explorer, explore
from transformer.explorer.translation import dequantised
from transformer.translator import Translator

SENTENCE = "there is a cat on the mat"
KINDS = ("encoder", "decoder", "cross")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as started:
        yield started


@pytest.fixture(scope="module")
def explorer() -> Explorer:
    return explore(Translator(example_model(), example_tokenizer()), SENTENCE)


@pytest.fixture(scope="module")
def file(explorer: Explorer, tmp_path_factory) -> Path:
    return explorer.save(tmp_path_factory.mktemp("page") / "page.html")


@pytest.fixture(scope="module")
def large_file(tmp_path_factory) -> Path:
    return large().save(tmp_path_factory.mktemp("large") / "large.html")


@pytest.fixture
def opened(chromium) -> Iterator[Any]:
    """Open files as pages, and see that no page complains or asks for anything else."""
    complaints = []
    contexts = []

    def open_page(path: Path, size: dict = DESKTOP, scheme: str = "light", **options) -> Any:
        context = chromium.new_context(viewport=size, color_scheme=scheme, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda m: complaints.append(m.text) if m.type != "log" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "request",
            lambda r: (
                None
                if r.url.startswith(("data:", path.as_uri()))
                else complaints.append(f"asks for {r.url}")
            ),
        )
        page.goto(path.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def cells(page: Any) -> list[list[str]]:
    """Return the text of the table's cells."""
    return page.eval_on_selector_all(
        ".matrix tbody tr",
        "rows => rows.map(r => [...r.querySelectorAll('td')].map(c => c.textContent))",
    )


def pressed(page: Any, selector: str) -> list[str]:
    """Return the names of the buttons that are pressed."""
    return page.eval_on_selector_all(
        f"{selector}[aria-pressed=true]",
        "all => all.map(b => b.getAttribute('aria-label') ?? b.textContent)",
    )


def test_every_layer_and_head_shows_its_weights(opened, file: Path, explorer: Explorer) -> None:
    page = opened(file)
    for kind in KINDS:
        page.click(f'[data-kind="{kind}"]')
        weights = dequantised(explorer.translation["attention"][kind])
        for layer in range(2):
            for head in ("mean", 0, 1, 2, 3):
                page.click(f'.atlas [data-row="{layer}"][data-head="{head}"]')
                name = "mean of its heads" if head == "mean" else f"head {head + 1}"
                assert pressed(page, ".atlas button") == [f"layer {layer + 1}, {name}"]
                wanted = weights[layer].mean(0) if head == "mean" else weights[layer, head]
                for q, row in enumerate(cells(page)):
                    for k, text in enumerate(row):
                        if kind == "decoder" and k > q:
                            assert text == ""
                        else:
                            assert abs(int(text) - 100 * wanted[q, k].item()) < 0.51
        assert page.locator(".bands path").count() > 5


def test_every_step_shows_its_numbers(opened, file: Path, explorer: Explorer) -> None:
    page = opened(file)
    found = explorer.translation
    page.click('[data-go="first"]')
    for t, step in enumerate(found["steps"]):
        written = found["target"]["tokens"][t].replace("▁", "")
        assert page.inner_text(".film .caption").endswith(f"writes {written}")
        assert page.locator(".candidates li").count() == 8
        assert (
            page.locator(".candidates .chosen .token").inner_text() == found["target"]["tokens"][t]
        )
        shape = ", ".join(map(str, step["shapes"]["self"][1]))
        assert f"({shape})" in page.inner_text(".shapes")
        cache = step["cache"]
        assert page.inner_text(".cache-sum") == (
            f"reads {cache['source'] + cache['target']:,} numbers, adds {cache['added']:,}"
        )
        assert page.locator(".cache .added").count() == 1
        assert page.locator(".matrix tbody td.ahead").count() == 8 * (7 - t)
        assert page.locator(".node:visible").count() == 10 * (t + 1)
        page.click('[data-go="on"]')
    page.click('[data-go="last"]')
    assert page.locator(".node").count() == sum(map(len, found["beam"]["tree"]))


def test_the_film_plays_to_its_end(opened, file: Path) -> None:
    page = opened(file)
    page.clock.install(time=0)
    page.clock.pause_at(3_600_000)  # otherwise it goes on while a busy machine looks
    page.click('[data-go="play"]')
    assert page.get_attribute(".play", "aria-label") == "pause"
    assert "Step 1 of 8" in page.inner_text(".film .caption")
    page.clock.run_for(1200)
    assert "Step 2 of 8" in page.inner_text(".film .caption")
    page.clock.run_for(20_000)
    assert "Step 8 of 8" in page.inner_text(".film .caption")
    assert page.get_attribute(".play", "aria-label") == "play"


def test_a_token_is_pointed_at_and_held(opened, file: Path, explorer: Explorer) -> None:
    page = opened(file)
    weights = dequantised(explorer.translation["attention"]["cross"])[1].mean(0)
    page.hover(".queries li:nth-child(5) button")
    best = weights[4].argmax().item()
    share = page.inner_text(f".keys li:nth-child({best + 1}) .share")
    assert share == f"{round(100 * weights[4, best].item())} %"
    reading = page.inner_text(".attention .reading")
    assert reading.startswith("gatto attends to cat (") and share in reading
    page.mouse.move(0, 0)
    assert page.inner_text(".attention .reading").startswith("Point at a token")
    page.click(".keys li:nth-child(4) button")
    page.mouse.move(0, 0)
    assert page.inner_text(".attention .reading").startswith("cat is attended to by gatto")
    page.keyboard.press("Escape")
    page.click(".keys li:nth-child(4) button")
    assert pressed(page, ".keys button") != []
    page.click(".keys li:nth-child(4) button")
    assert pressed(page, ".keys button") == []


def test_the_beam_says_what_a_node_is(opened, file: Path) -> None:
    page = opened(file)
    assert page.inner_text(".beam-reading").startswith("“c'è un gatto sul tappeto </s>”")
    page.hover(".node.pruned >> nth=0")
    assert page.inner_text(".beam-reading").endswith("pruned")
    assert page.locator(".node.lit").count() == 1
    page.hover('.node[data-column="3"][data-row="0"]')
    assert page.locator(".node.lit").count() == 4


def focused(page: Any, attribute: str) -> str:
    return page.evaluate(f"document.activeElement.getAttribute('{attribute}')")


def test_everything_is_reached_by_the_keyboard(opened, file: Path) -> None:
    page = opened(file)
    seen = []
    for _ in range(22):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.closest('[class]')?.className ?? ''"))
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none" or page.evaluate("document.activeElement === document.body")
    reached = " ".join(seen)
    for part in ("theme", "play", "slider", "matrix", "tree", "node"):
        assert part in reached, part
    page.focus('.atlas [aria-pressed="true"]')
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    assert pressed(page, ".atlas button") == ["layer 1, head 1"]
    assert focused(page, "aria-label") == "layer 1, head 1"
    page.focus(".queries button")
    page.keyboard.press("ArrowDown")
    assert focused(page, "data-row") == "1"
    page.keyboard.press("Enter")
    assert pressed(page, ".queries button") != []
    page.keyboard.press("Escape")
    assert pressed(page, ".queries button") == []
    page.focus(".matrix tbody td")
    for key in ("ArrowDown", "ArrowRight", "End"):
        page.keyboard.press(key)
    assert (focused(page, "data-row"), focused(page, "data-column")) == ("1", "7")
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert "Step 6 of 8" in page.inner_text(".film .caption")
    page.keyboard.press("ArrowRight")
    assert "Step 7 of 8" in page.inner_text(".film .caption")
    page.keyboard.press(" ")
    assert page.get_attribute(".play", "aria-label") == "pause"


def background(page: Any) -> int:
    """Return how light the page is, from 0 to 765."""
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return sum(int(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(","))


def test_light_and_dark_follow_the_reader(opened, file: Path) -> None:
    light, dark = (opened(file, scheme=scheme) for scheme in ("light", "dark"))
    assert background(light) > 600 > 150 > background(dark)
    ink = "getComputedStyle(document.querySelector('.matrix tbody td')).backgroundColor"
    before = light.evaluate(ink)
    light.click(".theme")
    assert background(light) < 150 and light.evaluate(ink) != before
    assert light.get_attribute(".theme", "aria-pressed") == "true"
    dark.click(".theme")
    assert background(dark) > 600


def lightness(rgb: str) -> float:
    """Return L* of a colour such as "1, 2, 3", from 0 to 100."""
    parts = [((int(x) / 255 + 0.055) / 1.055) ** 2.4 for x in rgb.split(",")]
    return 116 * (0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]) ** (1 / 3) - 16


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_lightness_alone_tells_weights_apart(opened, file: Path, scheme: str) -> None:
    page = opened(file, scheme=scheme)
    image = page.evaluate("document.querySelector('.legend .ramp').style.backgroundImage")
    values = [lightness(colour) for colour in re.findall(r"rgb\(([^)]*)\)", image)]
    steps = [abs(b - a) for a, b in pairwise(values)]
    assert len(values) == 11 and sorted(values, reverse=scheme == "light") == values
    assert min(steps) > 4 and max(steps) < 2 * min(steps)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_accessibility(opened, file: Path, size: dict, scheme: str) -> None:
    page = opened(file, size, scheme)
    assert serious_violations(page) == []
    page.click('[data-kind="decoder"]')
    page.click('[data-go="back"]')
    page.click(".queries li:nth-child(3) button")
    page.wait_for_timeout(400)
    assert serious_violations(page) == []


def test_a_violation_would_be_seen(opened, file: Path) -> None:
    page = opened(file)
    page.evaluate("document.querySelector('.theme').removeAttribute('aria-label')")
    page.evaluate("document.querySelector('.theme').removeAttribute('title')")
    assert [v.split(":")[0] for v in serious_violations(page)] == ["button-name"]


@pytest.mark.parametrize("width", [320, 390])
def test_a_phone_needs_no_sideways_scrolling(opened, large_file: Path, width: int) -> None:
    page = opened(large_file, PHONE | {"width": width})
    for kind in KINDS:
        page.click(f'[data-kind="{kind}"]')
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_large_page_is_drawn_at_once(opened, large_file: Path) -> None:
    page = opened(large_file)
    assert page.locator(".atlas button").count() == 6 * 9
    assert page.locator(".matrix tbody td").count() == 400


def test_without_scripts_there_is_the_picture(opened, file: Path) -> None:
    page = opened(file, java_script_enabled=False)
    assert page.locator("svg[role=img] rect").count() > 64
    assert page.locator("main").is_hidden()


def test_the_frame_of_the_notebook_covers_the_picture(opened, explorer, tmp_path: Path) -> None:
    path = tmp_path / "cell.html"
    path.write_text(f"<!doctype html><title>cell</title>{explorer._repr_html_()}", encoding="utf-8")
    page = opened(path)
    frame = page.frame_locator("iframe")
    frame.locator('[data-kind="encoder"]').click()
    assert frame.locator(".matrix-title").inner_text().startswith("Encoder, layer 2")
    box = page.locator("iframe").bounding_box()
    assert box["height"] == 780
    top = page.evaluate("document.elementFromPoint(40, 40).tagName")
    assert top == "IFRAME"
