"""A real browser for the tests, and what is asked of every page that it opens.

Playwright drives the Chromium of the system (Debian: `apt-get install chromium`). Where it is
missing the tests are skipped and say so; with BROWSER_TESTS=required, as in CI, they fail.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

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


def npm_package(spec: str) -> Path:
    """Return the folder of an npm package in .cache/npm; install it there once, or skip."""
    name, _, version = spec.rpartition("@")
    home = ROOT / ".cache" / "npm" / f"{name}-{version}"
    folder = home / "node_modules" / name
    if not (folder / "package.json").is_file():
        if not shutil.which("npm"):
            missing(f"no npm, which installs {name}")
        home.mkdir(parents=True, exist_ok=True)
        command = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix"]
        done = subprocess.run([*command, str(home), spec], capture_output=True, text=True)
        if done.returncode:
            missing(f"npm could not install {spec}: {done.stderr.strip()[-200:]}")
    return folder


def serious_violations(page: Any) -> list[str]:
    """Return what axe-core finds on a page that is serious or critical."""
    page.evaluate((npm_package(AXE) / "axe.min.js").read_text(encoding="utf-8"))
    # Without preload, which asks for imported style sheets where they are not.
    found = page.evaluate("axe.run({preload: false})")["violations"]
    return [
        f"{each['id']}: {each['nodes'][0]['html'][:160]} {each['nodes'][0]['failureSummary']}"
        for each in found
        if each["impact"] in SERIOUS
    ]
