"""How the processes of one run share the lines of a text, and put them together again in order."""

from collections.abc import Generator, Iterable
from contextlib import suppress

from transformer.engines import Search
from transformer.ranks import current
from transformer.reader import OnProblem
from transformer.translator import Translation, Translator


def n_best_by_all(
    translator: Translator,
    texts: list[str],
    search: Search,
    on_problem: OnProblem,
    progress: bool = False,
) -> list[list[Translation]]:
    """Return what `Translator.n_best` does; each process translates its share of the texts.

    All of them call this with the same texts, and get the same result.
    """
    ranks = current()
    if ranks.world == 1:
        return translator.n_best(texts, search, progress=progress, on_problem=on_problem)
    problems: list[tuple[int, str]] = []

    def remember(number: int, problem: str) -> None:
        problems.append(((number - 1) * ranks.world + ranks.rank + 1, problem))

    mine = texts[ranks.rank :: ranks.world]
    found = translator.n_best(mine, search, progress=progress, on_problem=remember)
    parts = ranks.from_all([found, problems])
    for number, problem in sorted(pair for _, theirs in parts for pair in theirs):
        on_problem(number, problem)
    merged: list[list[Translation]] = [[] for _ in texts]
    for rank, (part, _) in enumerate(parts):
        merged[rank :: ranks.world] = [[Translation(*each) for each in best] for best in part]
    return merged


def given_to_all(windows: Iterable[list[str]]) -> Generator[list[str], None, None]:
    """Yield in every process the lists of lines that rank 0 reads; the others read nothing.

    Close it after an error, so that the others end too.
    """
    ranks = current()
    if not ranks.is_first:
        while (window := ranks.from_first(None)) is not None:
            yield window
        return
    try:
        for window in windows:
            ranks.from_first(window)
            yield window
    finally:
        with suppress(RuntimeError):  # the others may have ended with the same error
            ranks.from_first(None)
