"""The built book: nothing is missing, broken, too large or elsewhere; it shows what the source has.

`make book-tests` runs this; it needs the packages of book/requirements.txt and npm.
"""

import re
from html import unescape
from pathlib import Path

import nbformat
import pytest
from books import built

from book import definitions, reference
from book.links import LARGEST, Book
from transformer.course.lessons import LESSONS

pytestmark = [pytest.mark.slow, pytest.mark.translator]
ROOT = Path(__file__).resolve().parent.parent
BUILD_SECONDS = 60


@pytest.fixture(scope="module")
def book() -> Book:
    return built()[0]


def text(book: Book, page: str) -> str:
    """Return the HTML of a page."""
    return (book.folder / page).read_text(encoding="utf-8")


def test_sphinx_takes_less_than_a_minute(book: Book) -> None:
    assert built()[1] < BUILD_SECONDS


def test_no_link_image_or_anchor_is_broken_and_nothing_is_elsewhere(book: Book) -> None:
    assert book.links > 5000
    assert book.mistakes() == []


def test_no_page_is_large(book: Book) -> None:
    assert 200_000 < book.largest_page()[0] < LARGEST


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.notebook)
def test_a_chapter_is_whole(book: Book, lesson) -> None:
    page = text(book, f"notebooks/{lesson.notebook}.html")
    notebook = nbformat.read(ROOT / "notebooks" / f"{lesson.notebook}.ipynb", as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
    shown = [cell for cell in code if "colab" not in cell.metadata.get("tags", [])]
    assert page.count("cell_input docutils") == len(shown)
    outputs = [output for cell in shown for output in cell.outputs]
    images = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(re.findall(r'<img alt="Plot[^"]*"', page)) == len(images)
    assert f"<h1>{lesson.number} · " in page
    for name in ("JupyterLab", "Download"):
        assert f">{name}</a>" in page
    assert (book.folder / "_sources" / "notebooks" / f"{lesson.notebook}.ipynb").is_file()


def test_next_leads_through_every_page(book: Book) -> None:
    seen = []
    page = book.folder / "index.html"
    while page not in seen:
        seen.append(page)
        found = re.search(r'<link rel="next" [^>]*href="([^"]*)"', page.read_text(encoding="utf-8"))
        if found is None:
            break
        page = (page.parent / found[1]).resolve()
    names = [page.relative_to(book.folder).as_posix() for page in seen]
    chapters = [name for name in names if name.startswith("notebooks/")]
    assert chapters == [f"notebooks/{lesson.notebook}.html" for lesson in LESSONS]
    alone = {"genindex.html", "search.html", "py-modindex.html", "explorer/index.html"}
    alone |= {"live/index.html"}
    assert {p.relative_to(book.folder).as_posix() for p in book.pages} - set(names) == alone


@pytest.mark.parametrize("short", reference.described())
def test_every_public_name_has_an_anchor(book: Book, short: str) -> None:
    if short in reference.HIDDEN:
        return
    module = f"transformer.{short}"
    anchors = book.pages[book.folder / "api" / f"{short}.html"].anchors
    for name in definitions.public_names(module):
        found = definitions.define(module, name)
        if found and (found.doc or found.kind != "data"):
            assert f"{module}.{name}" in anchors
            for member in found.members:
                assert f"{module}.{name}.{member.name}" in anchors


def test_shapes_are_shown(book: Book) -> None:
    page = unescape(re.sub(r"<[^>]*>", "", text(book, "api/attention.html")))
    assert "Float[Tensor, '... q d_head']" in page
    assert "Bool[Tensor, '... #q #k'] | None" in page


def test_every_term_has_an_anchor(book: Book) -> None:
    anchors = book.pages[book.folder / "glossary.html"].anchors
    assert {"term-attention", "term-KV-cache", "term-query", "term-key", "term-value"} <= anchors
    assert len([anchor for anchor in anchors if anchor.startswith("term-")]) > 45


def test_links_of_pages_lead_into_the_book(book: Book) -> None:
    links = book.pages[book.folder / "index.html"].links
    assert "INSTRUCTORS.html#time" in links
    links = book.pages[book.folder / "notebooks" / "03_attention.html"].links
    assert "01_embeddings.html" in links
    for page in book.pages.values():
        inside = [link for link in page.links if "://" not in link and "_sources/" not in link]
        assert [link for link in inside if link.endswith((".ipynb", ".md"))] == []


def test_the_live_page_has_its_model(book: Book) -> None:
    from transformer.explorer.live import LIVE_FILES

    assert {path.name for path in (book.folder / "live").iterdir()} == set(LIVE_FILES)
    assert "srcdoc" in text(book, "notebooks/12_inference.html")
