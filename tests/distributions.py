"""What the built distributions hold: `python tests/distributions.py dist`, part of `make wheel`.

The wheel in the folder was built from the source distribution, as pip would. It must equal one
that is built from the checkout.
"""

import hashlib
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = (
    "LICENSE",
    "LICENSE-text",
    "CITATION.cff",
    "CHANGELOG.md",
    "CODE_OF_CONDUCT.md",
    "CONTRIBUTING.md",
    "INSTRUCTORS.md",
    "Makefile",
    "constraints.txt",
    "environment.yml",
    "paper/paper.md",
)
"""Files of the source distribution beside notebooks, tests and the package."""


def source_files(archive: Path) -> set[str]:
    """Return the names in a source distribution, without its first folder."""
    with tarfile.open(archive) as tar:
        return {name.partition("/")[2] for name in tar.getnames()}


def lacking(names: set[str], root: Path = ROOT) -> list[str]:
    """List what a source distribution should hold and does not."""
    folders = [("notebooks", "*.ipynb"), ("tests", "*.py"), ("transformer", "**/*.py")]
    wanted = {str(p.relative_to(root)) for name, what in folders for p in (root / name).glob(what)}
    return sorted({*wanted, *SOURCE} - names)


def contents(wheel: Path) -> dict[str, str]:
    """Return a fingerprint of each file in a wheel; RECORD has the same again."""
    with zipfile.ZipFile(wheel) as file:
        names = [name for name in file.namelist() if not name.endswith("/RECORD")]
        return {name: hashlib.sha256(file.read(name)).hexdigest() for name in names}


def differences(one: dict[str, str], other: dict[str, str]) -> list[str]:
    """List the files that only one wheel has, or that differ."""
    return sorted(name for name in {*one, *other} if one.get(name) != other.get(name))


def main(folder: Path) -> None:
    """Compare the distributions in a folder, and report or exit."""
    (archive,) = folder.glob("*.tar.gz")
    (wheel,) = folder.glob("*.whl")
    with tempfile.TemporaryDirectory() as place:
        command = [sys.executable, "-m", "build", "--wheel", "--outdir", place, str(ROOT)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        (direct,) = Path(place).glob("*.whl")
        unequal = differences(contents(wheel), contents(direct))
    missing = lacking(source_files(archive))
    licences = [name for name in contents(wheel) if "/licenses/LICENSE" in name]
    for what, found in (
        ("the source distribution lacks", missing),
        ("wheels from the checkout and from the source distribution differ in", unequal),
        ("the wheel lacks licences, it has only", licences if len(licences) < 2 else []),
    ):
        if found:
            raise SystemExit(f"{what}: {', '.join(found)}")
    print(f"Both wheels are equal; {archive.name} has notebooks, tests and licences.")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
