"""A corpus of the reader's own: two text files for each split, aligned line by line."""

import gzip
from collections.abc import Sequence
from pathlib import Path

from transformer.corpora.corpus import Corpus


def text_files(
    train: Sequence[str | Path],
    val: Sequence[str | Path] | None = None,
    test: Sequence[str | Path] | None = None,
) -> Corpus:
    """Read a corpus from text files: for each split the path of the source and of the target.

    Pairs that occur twice are kept once in training. Without `val`, one training pair in twenty, at
    most 1,000 and spread evenly, is set aside for validation.
    Raises the errors of `read_pairs`, and ValueError if nothing can be set aside for validation.
    """
    pairs = list(dict.fromkeys(read_pairs(*train)))
    test_pairs = read_pairs(*test) if test else []
    if val:
        return Corpus("text", pairs, read_pairs(*val), test_pairs)
    stride = max(20, len(pairs) // 1_000)
    kept = [pair for i, pair in enumerate(pairs) if i % stride]
    if not kept:
        raise ValueError(f"{train[0]} has {len(pairs)} pairs: too few to keep one for validation")
    return Corpus("text", kept, pairs[::stride], test_pairs)


def read_pairs(src: str | Path, tgt: str | Path) -> list[tuple[str, str]]:
    """Read two aligned text files, line by line; pairs with an empty side are left out.

    Raises the errors of `read_lines`, and ValueError if the files differ in their number of lines
    or hold no pair.
    """
    sources = read_lines(src)
    targets = read_lines(tgt)
    if len(sources) != len(targets):
        counts = f"{src} has {len(sources)} lines and {tgt} has {len(targets)}"
        raise ValueError(f"{counts}: they must be aligned")
    pairs = [pair for pair in zip(sources, targets, strict=True) if all(pair)]
    if not pairs:
        raise ValueError(f"{src} and {tgt} hold no pair of sentences")
    return pairs


def read_lines(path: str | Path) -> list[str]:
    """Return the lines of a text file, without surrounding spaces.

    The file is UTF-8, gzipped if its name ends in .gz. A line ends only at a line feed, because the
    lines of two files must stay aligned.
    Raises FileNotFoundError if there is none, ValueError if it is damaged or not UTF-8.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    content = path.read_bytes()
    try:
        if path.suffix == ".gz":
            content = gzip.decompress(content)
        text = content.decode("utf-8")
    except (EOFError, gzip.BadGzipFile, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is damaged or not UTF-8 text ({error!s:.200})") from None
    return [line.strip() for line in text.removesuffix("\n").split("\n")]
