"""Checks of chapter 10: padding, batches and the tokenizer."""

from collections.abc import Callable, Sequence

import torch
from tokenizers import Tokenizer
from torch import Tensor

from transformer.checks.harness import call, check, expect, size

ROWS = [[4, 5, 6, 7, 8], [9], [3, 3, 2]]
Pair = tuple[list[int], list[int]]


@check("a rectangle of ids, padding at the end, any padding id, the rows left as they were")
def check_pad(fn: Callable, *, device: torch.device | str = "cpu") -> None:
    """Check a function of (rows of ids, pad_id) that gives the tensor b t."""
    rows = [list(row) for row in ROWS]
    out = call(fn, rows, 1)
    where = "on rows of 5, 1 and 3 ids with pad_id 1"
    want = torch.tensor([[4, 5, 6, 7, 8], [9, 1, 1, 1, 1], [3, 3, 2, 1, 1]])
    left = torch.tensor([[4, 5, 6, 7, 8], [1, 1, 1, 1, 9], [1, 1, 3, 3, 2]])
    expect(rows == ROWS, f"{where}: the caller's rows were changed; copy them")
    integers = isinstance(out, Tensor) and out.dtype == torch.int64
    expect(integers, f"{where}: wanted a tensor of int64 ids")
    expect(out.shape == (3, 5), f"{where}: the result is {size(out)}, wanted 3×5, the longest row")
    cause = "padding stands on the left, so every position is shifted; put it at the end"
    expect(not out.equal(left), f"{where}: {cause}")
    zeros = want.masked_fill(want == 1, 0)
    expect(not out.equal(zeros), f"{where}: filled with 0; use the pad_id that was given")
    expect(out.equal(want), f"{where}: it is {out.tolist()}, wanted {want.tolist()}")
    alone = call(fn, [[7, 2]])
    expect(alone.tolist() == [[7, 2]], "on one row alone: nothing is to be padded")


def draw_pairs(count: int, seed: int) -> list[Pair]:
    """Return pairs of rows of 1 … 20 ids, each pair different."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 21, (count, 2), generator=generator).tolist()
    return [([i + 4] * a, [i + 4] * b) for i, (a, b) in enumerate(lengths)]


def padded_tokens(group: Sequence[Pair]) -> int:
    """Return how many tokens a batch has on its larger side, padding included."""
    return len(group) * max(len(row) for pair in group for row in pair)


def longer_sides(pairs: Sequence[Pair]) -> int:
    """Return how many tokens the longer sides of all pairs have."""
    return sum(max(len(src), len(tgt)) for src, tgt in pairs)


@check("every pair once, within the budget, lengths alike, batches full")
def check_batches(fn: Callable, *, device: torch.device | str = "cpu") -> None:
    """Check a function of (pairs, max_tokens) that gives lists of pairs.

    A batch has at most max_tokens tokens on each side, padding included.
    """
    pairs = draw_pairs(200, 0)
    budget = 100
    groups = call(fn, list(pairs), budget)
    where = "on 200 pairs of 1 to 20 ids with max_tokens=100"
    every_pair_once(groups, pairs, where)
    expect(all(groups), f"{where}: there is an empty batch")
    largest = max(map(padded_tokens, groups))
    cause = "Count tokens, padding included: sentences × longest, on the larger side"
    expect(largest <= budget, f"{where}: a batch has {largest} tokens. {cause}")
    real = longer_sides(pairs)
    share = 1 - real / sum(map(padded_tokens, groups))
    cause = "put pairs of similar length together"
    expect(share < 0.2, f"{where}: {share:.0%} of the tokens are padding: {cause}")
    few = len(groups) <= 1.4 * real / budget + 2
    expect(few, f"{where}: {len(groups)} batches, many of them nearly empty")
    long = [([4] * 3, [4] * 30), ([5] * 2, [5] * 2), ([6] * 2, [6] * 3)]
    sizes = sorted(len(group) for group in call(fn, long, 10))
    found = f"batches of {sizes} pairs, wanted it alone in one"
    expect(sizes == [1, 2], f"a pair of 30 ids with max_tokens=10: {found}")


def every_pair_once(groups: Sequence[Sequence[Pair]], pairs: Sequence[Pair], where: str) -> None:
    """Expect the batches to hold the pairs, each once, and every source with its own target."""
    flat = sorted((tuple(src), tuple(tgt)) for group in groups for src, tgt in group)
    want = sorted((tuple(src), tuple(tgt)) for src, tgt in pairs)
    mixed = sum(src[0] != tgt[0] for src, tgt in flat)
    cause = "sort pairs, not sides"
    expect(not mixed, f"{where}: {mixed} sources came with another's target: {cause}")
    lost = len(set(want)) - len(set(flat))
    cause = "the last group belongs to the batches too"
    expect(lost == 0, f"{where}: {lost} pairs are lost; {cause}")
    expect(flat == want, f"{where}: {len(flat)} pairs came out: some twice")


@check("special ids, round trip, spaces, one spelling for composed letters, unknown characters")
def check_tokenizer(
    tokenizer: Tokenizer, train: Sequence[str] = (), *, device: torch.device | str = "cpu"
) -> None:
    """Check a trained tokenizer; with `train`, also that it learned from these texts alone."""
    special = [tokenizer.id_to_token(i) for i in range(4)]
    wanted = "wanted <pad> <s> </s> <unk>"
    expect(special == ["<pad>", "<s>", "</s>", "<unk>"], f"ids 0 to 3 are {special}, {wanted}")
    vocabulary = {token.strip("▁") for token, i in tokenizer.get_vocab().items() if i > 3}
    words = sorted(word for word in vocabulary if word.isalpha())
    expect(len(words) > 5, "it has learned hardly any subwords: was it trained?")
    comes_back(tokenizer, f"{words[0]} {words[-1]} {words[len(words) // 2]}")
    texts = (f"caff{letter} {words[0]}" for letter in ("\u00e8", "e\u0300"))
    composed, apart = (tokenizer.encode(text).ids for text in texts)
    cause = "The two look alike on paper: normalise to NFC"
    found = "è as one character and as e + accent gets different ids"
    expect(composed == apart, f"{found}. {cause}")
    cause = "A dropped character changes the meaning silently: it must become <unk>"
    found = "the unknown character 𓀀 leaves no trace"
    expect(3 in tokenizer.encode(f"{words[0]} 𓀀").ids, f"{found}. {cause}")
    if train:
        learned_from(tokenizer, train)


def comes_back(tokenizer: Tokenizer, text: str) -> None:
    """Expect a text of three words to survive encoding and decoding, without <s> and </s>."""
    ids = tokenizer.encode(text).ids
    added = [tokenizer.id_to_token(i) for i in ids if i < 3]
    cause = "<s> and </s> are put where they are needed, not by the tokenizer"
    expect(not added, f"encoding {text!r} adds {added}: {cause}")
    again = tokenizer.decode(ids)
    found = f"{text!r} comes back as {again!r}"
    expect(again.count(" ") == 2, f"{found}: the spaces are lost, words must be marked with ▁")
    expect(again == text, found)


def learned_from(tokenizer: Tokenizer, texts: Sequence[str]) -> None:
    """Expect every subword to occur in the texts."""
    used = {i for encoding in tokenizer.encode_batch(list(texts)) for i in encoding.ids}
    spelled = [tokenizer.normalizer.normalize_str(text).split() for text in texts]
    seen = "▁" + "▁".join("▁".join(words) for words in spelled)
    learned = {token: i for token, i in tokenizer.get_vocab().items() if i > 3}
    strange = sorted(token for token, i in learned.items() if i not in used and token not in seen)
    cause = "Validation and test must stay unseen: learn the vocabulary from the training split"
    found = f"the subwords {strange[:3]} do not occur in the training texts"
    expect(not strange, f"{found}. {cause}")
