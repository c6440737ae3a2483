"""The pairs of a corpus as ids; those that nothing can be learned from are skipped and counted."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from tokenizers import Tokenizer
from tqdm import tqdm

from transformer.corpora import Corpus
from transformer.corpora.large_files import LargePairs
from transformer.corpora.tokenised import TokenisedPairs, is_written, write_tokenised
from transformer.data import BOS, EOS, Pair, problem_of
from transformer.files import cache_dir
from transformer.ranks import current, local_rank
from transformer.texts import most_characters

REVISION = 1  # raise it when other ids come from the same files


@dataclass
class Skipped:
    """How many pairs were left out, the index of the first, and what is wrong with it."""

    count: int = 0
    first: int = 0
    problem: str = ""

    def add(self, i: int, problem: str) -> None:
        """Leave out a pair."""
        if not self.count:
            self.first = i
            self.problem = problem
        self.count += 1


def usable_pairs(
    tokenizer: Tokenizer, corpus: Corpus, split: str, longest: int
) -> tuple[Sequence[Pair], str]:
    """Return the pairs of a split as ids, and a sentence on those that are left out, or "".

    A pair is left out if a side is blank, has no known character or more than `longest` tokens.
    Sources end with </s>, targets begin with <s> and end with </s>. Pairs of large files are
    written to the cache, once. Raises ValueError if no pair is left.
    """
    pairs = {"train": corpus.train, "val": corpus.val}[split]
    if isinstance(pairs, LargePairs):
        return tokenised_pairs(tokenizer, corpus, pairs, longest)
    skipped = Skipped()
    found = list(encoded(tokenizer, pairs, longest, skipped))
    sentence = report(corpus, split, skipped)
    if not found:
        raise ValueError(f"no pair of {corpus.name}'s {split} split is left: {sentence}")
    return found, sentence


def tokenised_pairs(
    tokenizer: Tokenizer, corpus: Corpus, pairs: LargePairs, longest: int
) -> tuple[TokenisedPairs, str]:
    """Return the training pairs of large files, and a sentence on those that are left out.

    They are tokenised by one process of each machine, unless they are in the cache.
    """
    about = [REVISION, pairs.fingerprint, len(pairs), longest, tokenizer.to_str()]
    name = hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16]
    folder = cache_dir() / "tokenised" / name
    if local_rank() == 0 and not is_written(folder):
        skipped = Skipped()
        notes: dict[str, str] = {}

        def rows() -> Iterator[Pair]:
            progress = tqdm(pairs, "tokenising", unit="pair", mininterval=0.5)
            yield from encoded(tokenizer, progress, longest, skipped)
            notes["skipped"] = report(corpus, "train", skipped)

        write_tokenised(folder, rows(), tokenizer.get_vocab_size(), notes)
    current().wait()
    found = TokenisedPairs(folder)
    return found, found.notes["skipped"]


def encoded(
    tokenizer: Tokenizer, pairs: Iterable[tuple[str, str]], longest: int, skipped: Skipped
) -> Iterator[Pair]:
    """Yield the ids of the pairs that something can be learned from, and count the others."""
    limit = most_characters(tokenizer.get_vocab(), longest)
    numbered = iter(enumerate(pairs))
    while part := list(islice(numbered, 10_000)):  # so that encodings do not fill the memory
        texts = zip(*(pair for _, pair in part))
        sides = [[text if len(text) <= limit else "" for text in side] for side in texts]
        rows = [[e.ids for e in tokenizer.encode_batch(side)] for side in sides]
        for (i, pair), src, tgt in zip(part, *rows, strict=True):
            problem = first_problem(tokenizer, pair, (src, tgt), limit, longest)
            if problem:
                skipped.add(i, problem)
            else:
                yield [*src, EOS], [BOS, *tgt, EOS]


def first_problem(
    tokenizer: Tokenizer, pair: tuple[str, str], ids: Pair, most_characters: int, longest: int
) -> str:
    """Return what is wrong with a pair, or ""."""
    for side, text, row, extra in zip(("source", "target"), pair, ids, (1, 2), strict=True):
        if len(text) > most_characters:
            return f"its {side} has {len(text):,} characters, max_len is {longest} tokens"
        if problem := problem_of(tokenizer, text, row):
            return f"its {side} {problem}"
        if len(row) + extra > longest:
            return f"its {side} has {len(row) + extra} tokens, max_len is {longest}"
    return ""


def report(corpus: Corpus, split: str, skipped: Skipped) -> str:
    """Return how many pairs are skipped, where the first one is and why; "" if there are none."""
    if not skipped.count:
        return ""
    total = len({"train": corpus.train, "val": corpus.val}[split])
    count = f"{skipped.count:,} of {total:,} pairs of {split} are skipped"
    where = corpus.where(split, skipped.first)
    return f"{count}; the first is {where}: {skipped.problem}"
