"""A real browser for the tests, and what is asked of every page that it opens.

Playwright drives the Chromium of the system (Debian: `apt-get install chromium`). Where it is
missing the tests are skipped and say so; with BROWSER_TESTS=required, as in CI, they fail.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from transformer.explorer.npm import npm_package

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
AXE = "axe-core@4.12.1"
SERIOUS = {"serious", "critical"}
PHONE = {"width": 390, "height": 844}
DESKTOP = {"width": 1280, "height": 900}


def missing(reason: str) -> None:
    """Skip the test for this reason, or fail where a browser is required."""
    if os.environ.get("BROWSER_TESTS") == "required":
        pytest.fail(reason)
    pytest.skip(reason)


def program() -> str:
    """Return the path of a Chromium, or skip."""
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, PROGRAMS)), None)
    if not found:
        missing("no Chromium: apt-get install chromium, or name one in $CHROMIUM")
    return str(found)


@contextmanager
def browser() -> Iterator[Any]:
    """Start a browser; skip where there is none, or no Playwright."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("no Playwright: pip install playwright")
    path = program()
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield started
        started.close()


def package_of_npm(spec: str) -> Path:
    """Return the folder of an npm package in .cache/npm; skip where npm cannot install it."""
    try:
        return npm_package(spec, ROOT / ".cache" / "npm")
    except ValueError as error:
        missing(str(error))
        raise


def serious_violations(page: Any) -> list[str]:
    """Return what axe-core finds on a page that is serious or critical."""
    page.evaluate((package_of_npm(AXE) / "axe.min.js").read_text(encoding="utf-8"))
    # Without preload, which asks for imported style sheets where they are not.
    found = page.evaluate("axe.run({preload: false})")["violations"]
    return [
        f"{each['id']}: {each['nodes'][0]['html'][:160]} {each['nodes'][0]['failureSummary']}"
        for each in found
        if each["impact"] in SERIOUS
    ]
