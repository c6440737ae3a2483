"""Multi30k: 29,000 captions of photographs in English, German, French and Czech.

Source: Elliott et al. 2016, "Multi30K: Multilingual English-German Image Descriptions".
"""

import os
from importlib import resources
from pathlib import Path

from transformer.corpora.corpus import Corpus
from transformer.corpora.text_files import read_pairs
from transformer.files import cache_dir, downloader

COMMIT = "a3d2e0d26b56f3846f66a952536ffed4e401d05a"
HOST = f"https://raw.githubusercontent.com/multi30k/dataset/{COMMIT}/"
FOLDER = "data/task1/"  # in the repository
TEST_SETS = ("test_2016_flickr", "test_2017_flickr", "test_2017_mscoco", "test_2018_flickr")
WITHOUT_CZECH = ("test_2017_flickr", "test_2017_mscoco")


def multi30k(
    src: str = "en",
    tgt: str = "de",
    folder: str | Path | None = None,
    tokenized: bool = False,
    test: str = "test_2016_flickr",
) -> Corpus:
    """Read Multi30k from `folder` or $MULTI30K, which holds raw/ and tok/, or download it.

    `tokenized` takes the lowercased Moses tokens that papers score, instead of the captions as they
    were written; `test` is one of TEST_SETS. Raises the errors of `multi30k_file` and `read_pairs`,
    and ValueError for another test set.
    """
    if test not in TEST_SETS:
        raise ValueError(f"Multi30k has the test sets {', '.join(TEST_SETS)}, not {test!r}")
    if "cs" in (src, tgt) and test in WITHOUT_CZECH:
        known = ", ".join(name for name in TEST_SETS if name not in WITHOUT_CZECH)
        raise ValueError(f"{test} of Multi30k is not in Czech, only {known}")
    folder = folder or os.environ.get("MULTI30K")
    pattern = "tok/{}.lc.norm.tok.{}" if tokenized else "raw/{}.{}.gz"

    def split(name: str) -> list[tuple[str, str]]:
        paths = [multi30k_file(pattern.format(name, language), folder) for language in (src, tgt)]
        return read_pairs(*paths)

    name = f"multi30k-{src}-{tgt}" + ("-tok" if tokenized else "")
    return Corpus(name, split("train"), split("val"), split(test))


def multi30k_file(name: str, folder: str | Path | None = None) -> Path:
    """Return the path of a file such as raw/train.de.gz, in `folder` or in the cache.

    Without `folder` the file is downloaded once; its checksum must be the known one.
    Raises FileNotFoundError if `folder` has no such file, OSError if the download fails, ValueError
    if Multi30k has no such file or its checksum is wrong.
    """
    if folder:
        return _local_file(name, Path(folder))
    checksums = _checksums()
    if name not in checksums:
        raise ValueError(f"Multi30k has no {name}; its files are {', '.join(sorted(checksums))}")
    address = f"{HOST}{FOLDER}{name}"
    target = cache_dir() / "multi30k" / name
    try:
        path = downloader().retrieve(
            address, checksums[name], target.name, target.parent, progressbar=True
        )
    except OSError as error:
        raise OSError(
            f"could not download {name} of Multi30k ({error}); copy its files into a folder and "
            "name it by --folder or the environment variable MULTI30K"
        ) from None
    return Path(path)


def _local_file(name: str, folder: Path) -> Path:
    """Return the file of that name, gzipped or not."""
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise FileNotFoundError(f"there is no {name} in {folder}, where Multi30k was to be")


def _checksums() -> dict[str, str]:
    """Return the SHA-256 of every file by its name; the table lists it with its size and path."""
    table = resources.files("transformer.corpora").joinpath("multi30k.sha256")
    rows = [line.split() for line in table.read_text(encoding="utf-8").splitlines()]
    return {path.removeprefix(FOLDER): sha256 for sha256, _, path in rows}
