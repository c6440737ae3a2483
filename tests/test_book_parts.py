"""The parts of the book that need no Sphinx: its checks, its reference, its glossary."""

import re
from pathlib import Path

import nbformat
import pytest

from book import definitions, reference
from book.glossary import glossary
from book.links import LARGEST, Book, in_style
from book.opening import repository, ways_to_open
from book.sources import alternative, chapter, explorer_page, with_sections
from transformer.course.lessons import LESSONS

ROOT = Path(__file__).resolve().parent.parent


# --- the check of links ---------------------------------------------------------------------------


def written(folder: Path, body: str, **others: str) -> Book:
    """Return a book of one page with this body, and of other files."""
    (folder / "index.html").write_text(f"<html><body>{body}</body></html>", encoding="utf-8")
    for name, text in others.items():
        (folder / name.replace("_", ".")).write_text(text, encoding="utf-8")
    return Book(folder)


def test_a_sound_book_has_no_mistakes(tmp_path: Path) -> None:
    body = (
        '<h1 id="top">x</h1><a href="#top">a</a><a href="b.html#part">b</a><img src="c.png">'
        '<a href="https://example.org">elsewhere</a><img src="data:image/png;base64,x">'
    )
    book = written(tmp_path, body, b_html='<p id="part">b</p>', c_png="", d_css="a{}")
    assert book.mistakes() == []


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('<a href="none.html">a</a>', "none.html is not there"),
        ('<a href="#none">a</a>', "#none has no such anchor"),
        ('<a href="b.html#none">a</a>', "b.html#none has no such anchor"),
        ('<a href="../secret.html">a</a>', "is outside of the book"),
        ('<img src="none.png">', "none.png is not there"),
        ('<script src="https://cdn.example.org/x.js"></script>', "loads https://cdn"),
        ('<img src="//cdn.example.org/x.png">', "loads //cdn"),
        ('<link rel="stylesheet" href="http://fonts.example.org/x">', "loads http://fonts"),
        ("<style>@import 'https://fonts.example.org/x';</style>", "loads https://fonts"),
        ('<p style="background: url(https://example.org/x)">a</p>', "loads https://example"),
        ("<p>begins with <s></p>", "<s> is HTML"),
        ("x" * LARGEST, "bytes"),
    ],
)
def test_a_mistake_is_found(tmp_path: Path, body: str, said: str) -> None:
    found = written(tmp_path, body, b_html="").mistakes()
    assert len(found) == 1 and said in found[0]


@pytest.mark.parametrize(
    ("css", "said"),
    [
        ("a { src: url('none.woff2') }", "none.woff2 is not there"),
        ("@import url(https://fonts.example.org/x);", "loads https://fonts"),
    ],
)
def test_a_mistake_in_a_style_sheet_is_found(tmp_path: Path, css: str, said: str) -> None:
    (found,) = written(tmp_path, "", a_css=css).mistakes()
    assert said in found


def test_comments_of_style_sheets_load_nothing() -> None:
    assert in_style("/* url(a) */ b { src: url( 'c' ) } @import \"d\";") == ["c", "d"]


# --- the reference --------------------------------------------------------------------------------


def test_every_module_of_the_package_is_described() -> None:
    modules = {path.stem for path in (ROOT / "transformer").glob("*.py")}
    packages = {path.parent.name for path in (ROOT / "transformer").glob("*/__init__.py")}
    private = {"__init__", "__main__", "reader", "texts"}
    assert set(reference.described()) == (modules | packages) - private


def test_a_signature_is_shown_as_it_is_written() -> None:
    found = definitions.define("transformer.attention", "attention_weights")
    assert found is not None
    assert found.signature == (
        "(q: Float[Tensor, '... q d_head'], k: Float[Tensor, '... k d_head'], "
        "mask: Bool[Tensor, '... #q #k'] | None=None) -> Float[Tensor, '... q k']"
    )
    step = definitions.define("transformer.inference", "TokenDecoder")
    assert step is not None
    assert step.members[0].signature == "(ids: Int[Tensor, 'b']) -> Float[Tensor, 'b vocab']"


def test_records_constructors_and_methods_have_signatures() -> None:
    config = definitions.define("transformer.model", "Config")
    assert config is not None and config.signature.startswith("(vocab_size: int, d_model: int = 51")
    by_name = {member.name: member for member in config.members}
    assert by_name["base"].kind == "classmethod" and by_name["banned_ids"].kind == "property"
    assert by_name["base"].signature.endswith("-> Config")
    trainer = definitions.define("transformer.training", "Trainer")
    assert trainer is not None and trainer.signature.startswith("(model: Transformer")
    assert definitions.define("transformer.recipes", "fit") == definitions.define(
        "transformer.recipes.fit", "fit"
    )
    with pytest.raises(ValueError, match="no module transformer"):
        definitions.public_names("transformer.none")


def test_names_become_links_and_tokens_stay_text() -> None:
    found = reference.linked("`attention_weights` reads <s>, `<s>` and `nothing`.", "transformer")
    full = "transformer.attention.attention_weights"
    link = f"{{py:obj}}`attention_weights <{full}>`"
    assert found == f"{link} reads \\<s>, `<s>` and `nothing`."


def test_the_zoo_is_listed_as_a_whole() -> None:
    from transformer.zoo import names

    assert re.findall(r"^\| `(\w+\.\w+)`", reference.zoo(), re.MULTILINE) == names()


# --- pages that are made --------------------------------------------------------------------------


def test_the_glossary_has_every_term_of_chapter_0() -> None:
    page = glossary(ROOT / "notebooks" / "00_introduction.ipynb")
    entries = re.findall(r"^    .+\(chapters? .+\)\.$", page, re.MULTILINE)
    assert len(entries) > 40
    assert "\nquery\nkey\nvalue\n    What a position looks for" in page
    assert "(chapters [1](notebooks/01_embeddings.ipynb), [10](notebooks/10_data.ipynb))" in page


def test_a_notebook_without_a_glossary_is_refused(tmp_path: Path) -> None:
    nbformat.write(nbformat.v4.new_notebook(), tmp_path / "a.ipynb")
    with pytest.raises(ValueError, match="no cell that begins"):
        glossary(tmp_path / "a.ipynb")


def test_sections_of_the_readme_are_put_in() -> None:
    page = with_sections("a\n<!-- README: The chapters … Learn by doing -->\nb")
    assert page.startswith("a\n## The chapters\n") and page.endswith("\nb")
    assert "16_fast_decoding.ipynb" in page and "Learn by doing" not in page
    with pytest.raises(ValueError, match="has no heading ## Nothing"):
        with_sections("<!-- README: Nothing … Learn by doing -->")


def test_chapters_lose_the_cell_for_colab_and_describe_their_plots(tmp_path: Path) -> None:
    image = nbformat.v4.new_output("display_data", {"image/png": "x"})
    plot = nbformat.v4.new_code_cell('plot_lines(x, ylabel="share", title="A curve")')
    plot.outputs = [image]
    colab = nbformat.v4.new_code_cell("%pip install x", metadata={"tags": ["colab"]})
    nbformat.write(nbformat.v4.new_notebook(cells=[colab, plot]), tmp_path / "a.ipynb")
    (cell,) = chapter(tmp_path / "a.ipynb").cells
    assert cell.metadata["mystnb"] == {"image": {"alt": "Plot: A curve"}}
    assert alternative("plot_mask(x)") == "Plot, drawn by the code above"


def test_the_stored_page_of_the_explorer_is_found() -> None:
    page = explorer_page()
    assert page.startswith("<!doctype html>") and page.rstrip().endswith("</html>")


# --- where a chapter can be opened ----------------------------------------------------------------


def test_a_chapter_can_be_opened_where_its_address_leads() -> None:
    page = "notebooks/03_attention"
    assert [name for name, *_ in ways_to_open(page, "")] == ["JupyterLab"]
    assert ways_to_open("glossary", "https://github.com/o/r") == []
    addresses = [address for _, address, _ in ways_to_open(page, "https://github.com/o/r")]
    assert addresses == [
        "http://localhost:8888/lab/tree/notebooks/03_attention.ipynb",
        "https://colab.research.google.com/github/o/r/blob/main/notebooks/03_attention.ipynb",
        "https://mybinder.org/v2/gh/o/r/main?urlpath=lab/tree/notebooks/03_attention.ipynb",
    ]


def test_the_repository_is_named_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOOK_REPOSITORY", "https://github.com/o/r/")
    assert repository() == "https://github.com/o/r"
    monkeypatch.delenv("BOOK_REPOSITORY")
    assert repository() == "" or repository().startswith("https://")


def test_every_chapter_has_a_page_of_the_reference() -> None:
    pages = reference.pages()
    for lesson in LESSONS[1:]:
        assert f"../notebooks/{lesson.notebook}.ipynb" in pages[f"api/{lesson.module}"]
