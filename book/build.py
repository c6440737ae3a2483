"""Build the book: collect the pages, run Sphinx, add explorer and live page, check the links."""

import argparse
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence

from book.definitions import ROOT
from book.links import Book
from book.sources import collect, explorer_page
from transformer.explorer.npm import npm_package

BUILD = ROOT / "book" / "_build"
HTML = BUILD / "html"
MATHJAX = "mathjax@3.2.2"
MATHJAX_FILES = {"es5/tex-svg-full.js": "tex-svg-full.js", "LICENSE": "LICENSE"}
NOT_BUILT = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>No model here</title>
<link rel="icon" href="data:,">
<style>:root { color-scheme: light dark; font-family: system-ui, sans-serif; }</style></head>
<body><main><h1>No model here</h1><p>This copy of the book was built without a translator. Build it
with <code>make book</code>.</p></main></body></html>
"""


def place_mathjax() -> None:
    """Put MathJax where Sphinx takes static files from."""
    folder = BUILD / "static" / "mathjax"
    folder.mkdir(parents=True, exist_ok=True)
    package = npm_package(MATHJAX, ROOT / ".cache" / "npm")
    for source, name in MATHJAX_FILES.items():
        shutil.copyfile(package / source, folder / name)


def run_sphinx(fresh: bool) -> None:
    """Make HTML of the pages; warnings are errors. Raises ValueError if there are any."""
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "-j", "2"]
    command += ["-E", "-a"] if fresh else []
    command += ["-c", str(ROOT / "book"), "-d", str(BUILD / "doctrees")]
    done = subprocess.run([*command, str(BUILD / "source"), str(HTML)], cwd=ROOT)
    if done.returncode:
        raise ValueError("Sphinx found mistakes, which it names above")


def add_explorer() -> None:
    """Add the page of the explorer that a chapter stores."""
    folder = HTML / "explorer"
    folder.mkdir(exist_ok=True)
    (folder / "index.html").write_text(explorer_page(), encoding="utf-8")


def add_live(wanted: bool) -> None:
    """Add the page in which the course's translator runs, trained first if it is not there."""
    folder = HTML / "live"
    if not wanted:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        (folder / "index.html").write_text(NOT_BUILT, encoding="utf-8")
        return
    from transformer.explorer import write_live
    from transformer.recipes import trained_translator
    from transformer.translator import Translator

    if folder.is_dir() and not (folder / "config.json").exists():
        shutil.rmtree(folder)
    write_live(Translator.load(trained_translator()), folder)


def build(live: bool = True, fresh: bool = False) -> Book:
    """Build the book and return it, to be checked. Raises ValueError if it cannot be built."""
    if fresh:
        shutil.rmtree(BUILD, ignore_errors=True)
    collect(BUILD / "source")
    place_mathjax()
    run_sphinx(fresh)
    add_explorer()
    add_live(live)
    return Book(HTML)


def main(arguments: Sequence[str] | None = None) -> int:
    """Build and check the book, and say where it is; status 1 if something is wrong with it."""
    parser = argparse.ArgumentParser(prog="python -m book", description=__doc__)
    parser.add_argument(
        "--without-live",
        action="store_true",
        help="leave out the page in which the course's translator runs, and do not train it",
    )
    parser.add_argument("--fresh", action="store_true", help="build everything again")
    options = parser.parse_args(arguments)
    start = time.monotonic()
    try:
        book = build(not options.without_live, options.fresh)
    except ValueError as error:
        print(f"book: {error}", file=sys.stderr)
        return 1
    found = book.mistakes()
    for mistake in found:
        print(f"book: {mistake}", file=sys.stderr)
    size, largest = book.largest_page()
    print(
        f"{len(book.pages)} pages in {time.monotonic() - start:.0f} s, {book.links} links, "
        f"{len(found)} mistakes; the largest page is {largest}, {size / 1e6:.2f} MB"
    )
    print((HTML / "index.html").relative_to(ROOT))
    return 1 if found else 0
