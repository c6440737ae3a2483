"""Packages of npm, which are fetched once and kept."""

import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

OPTIONS = ("--ignore-scripts", "--no-audit", "--no-fund", "--prefix")


def npm_package(
    spec: str, cache: Path, files: Iterable[str] = ("package.json",), instead: str = ""
) -> Path:
    """Return the folder of a package, such as mathjax@3.2.2, in `cache`.

    npm installs it there if one of its `files` is missing. Raises ValueError if there is no npm,
    with what one can do `instead`, or if npm fails.
    """
    name, _, version = spec.rpartition("@")
    home = cache / f"{name}-{version}"
    folder = home / "node_modules" / name
    if all((folder / file).is_file() for file in files):
        return folder
    npm = shutil.which("npm")
    if not npm:
        raise ValueError(f"{spec} comes from npm, which is missing: install npm{instead}")
    home.mkdir(parents=True, exist_ok=True)
    done = subprocess.run([npm, "install", *OPTIONS, home, spec], capture_output=True, text=True)
    if done.returncode:
        raise ValueError(f"npm could not install {spec}: {done.stderr.strip()[-300:]}")
    return folder
