"""The book, built once for the tests that need it."""

import importlib.util
import os
import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from browsers import missing

from book.links import Book
from transformer.files import folder_lock

NEEDS = ("sphinx", "myst_nb", "pydata_sphinx_theme", "sphinx_copybutton", "onnx")


class Quiet(SimpleHTTPRequestHandler):
    """Serves files, and does not write about it."""

    extensions_map = SimpleHTTPRequestHandler.extensions_map | {".mjs": "text/javascript"}

    def log_message(self, *arguments: object) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder, and yield its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


@cache
def built() -> tuple[Book, float]:
    """Build the whole book anew and return it, with the processor seconds of Sphinx; or skip.

    With BOOK=built, the book that `make book` has built is taken as it is.
    """
    from book.build import BUILD, HTML, build

    if os.environ.get("BOOK") == "built":
        return Book(HTML), 0.0
    lacking = [name for name in NEEDS if importlib.util.find_spec(name) is None]
    if lacking:
        missing(f"no {', '.join(lacking)}: pip install -r book/requirements.txt")
    BUILD.mkdir(exist_ok=True)
    with folder_lock(BUILD):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        book = build(fresh=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return book, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
