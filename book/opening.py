"""Where a chapter can be opened: in JupyterLab, on Colab, on Binder."""

import os

from book.definitions import ROOT

try:
    import tomllib
except ImportError:  # Python 3.10: pytest brings tomli
    import tomli as tomllib

LAB = "http://localhost:8888/lab/tree"
"""Where `make lab` serves the repository, unless the port was taken."""


def repository() -> str:
    """Return the repository's address: $BOOK_REPOSITORY, else the package's; empty without one."""
    named = os.environ.get("BOOK_REPOSITORY")
    if named is None:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        named = project.get("urls", {}).get("Source", "")
    return named.rstrip("/")


def ways_to_open(page: str, address: str) -> list[tuple[str, str, str]]:
    """Return name, address and explanation of each way to open a page, if it is a chapter.

    Colab and Binder fetch from GitHub, so they need the repository's address.
    """
    if not page.startswith("notebooks/"):
        return []
    path = f"{page}.ipynb"
    ways = [("JupyterLab", f"{LAB}/{path}", "on your machine, while make lab is running")]
    host, _, name = address.partition("github.com/")
    if host and name:
        colab = f"https://colab.research.google.com/github/{name}/blob/main/{path}"
        binder = f"https://mybinder.org/v2/gh/{name}/main?urlpath=lab/tree/{path}"
        ways += [("Colab", colab, "on Google's machines, with an account of yours")]
        ways += [("Binder", binder, "on a public machine, without an account; slow to start")]
    return ways
